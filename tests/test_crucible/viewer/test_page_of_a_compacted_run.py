"""The page of a compacted run: chunks of many steps, which it shows by slices, are the cloud of the run as recorded."""

import shutil

import numpy as np
import pytest
import viewer_runs

import store
from crucible.viewer.show import view
from store.upkeep.compact import compact

STEPS, TOKENS, HIDDEN = 300, 4096, 2
"""So many tokens that a block of 256 steps is two slices."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compacted")
    run = viewer_runs.record(folder / "recorded", viewer_runs.states(STEPS, TOKENS, HIDDEN))
    shutil.copytree(run, folder / "compacted")
    compact(folder / "compacted")
    return run, folder / "compacted"


def test_it_is_the_cloud_of_the_run_as_recorded_at_the_borders_of_slices_too(browser, runs):
    steps = (200, 0, 127, 128, 255, 256, STEPS)
    seen = []
    for run in runs:
        with view(run) as page:
            browser.open(f"{page.url}#step=20&token=13")
            pictures = []
            for step in steps:
                browser.go(step)  # behind the last, the page holds all slices: a token's trail may lie in two of them
            for step in steps:
                browser.go(step)
                browser.wait("!document.getElementById('cloud').classList.contains('waiting')")
                browser.wait(f"document.getElementById('now-step').textContent === 'step {step}'")
                browser.asynchronous("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
                pictures.append(browser.pixels("cloud").astype(int))
            seen.append(pictures)
    for step, one, other in zip(steps, *seen, strict=True):
        assert np.abs(one - other).mean() < 0.05, step
    assert np.abs(seen[0][0] - seen[0][1]).mean() > 0.5  # and the steps differ


def test_playing_goes_on_from_one_slice_of_a_chunk_to_the_next(browser, runs):
    assert store.open_trajectory(runs[1]).W.data.chunksize[0] > 128
    with view(runs[1]) as page:
        browser.open(f"{page.url}#step=250&token=13")
        browser.js("document.getElementById('play').click()")
        browser.wait(f"Number(document.getElementById('cloud').dataset.step) === {STEPS}")
