"""`crucible view` with a selection: the page shows the selected tokens and steps, and says so."""

import numpy as np
import pytest
import viewer_runs

import analysis
import store
from crucible.viewer.show import view

TOKENS = [13, 17, 25, 41]
FIRST, LAST = 100, 199


@pytest.fixture(scope="module")
def part(run):
    with view(run, tokens=TOKENS, steps=(FIRST, LAST + 1)) as page:
        yield page.url


@pytest.fixture(scope="module")
def ds(run):
    return store.open_trajectory(run)


@pytest.fixture(params=[1280, 390])
def window(browser, request):
    browser.screen(request.param, 900, ratio=1)
    return browser


def test_the_page_counts_and_names_the_selected_tokens_and_steps(window, part, ds):
    window.open(part)
    assert window.text("facts") == f"steps {FIRST} to {LAST} of 300 · 4 of 40 tokens · 8 dimensions"
    assert "each of 4 tokens" in window.text("raster-text")
    assert "faint: not selected" in window.text("legend")
    assert window.text("verdict-short").startswith("Of 4 chosen tokens, steps 100:200")
    moving = analysis.moved(ds.sel(token=TOKENS)).sum("token").values
    every = analysis.moved(ds).sum("token").values
    steps = [FIRST, 127, 128, LAST]
    assert (moving[steps] != every[steps]).any()
    for step in steps:
        window.go(step)
        assert window.text("now-moving") == f"{moving[step]} moving"
    shown = window.js("[...document.querySelectorAll('#legend b')].reduce((n, b) => n + Number(b.textContent), 0)")
    assert shown == len(TOKENS)


def test_the_page_begins_ends_and_stays_within_the_selected_steps(window, part):
    from selenium.webdriver import Keys

    window.open(part)
    assert window.js("[Number(step.min), Number(step.max)]") == [FIRST, LAST]
    assert FIRST <= int(window.data("cloud")["step"]) <= LAST
    for key, step in ((Keys.HOME, FIRST), (Keys.ARROW_LEFT, FIRST), (Keys.END, LAST), (Keys.ARROW_RIGHT, LAST)):
        window.press(key)
        window.wait(f"document.getElementById('cloud').dataset.step === '{step}'")
    window.open(f"{part}#step=5&token=13")
    window.wait(f"document.getElementById('cloud').dataset.step === '{FIRST}'")


def test_only_selected_tokens_can_be_found_and_have_a_colour(window, part, served):
    window.open(f"{part}#step=150&token=15")  # one that is not selected
    chosen = window.data("bits")["token"]
    assert int(chosen) in TOKENS
    window.js("(t => { t.value = '15'; t.dispatchEvent(new Event('change')); })(document.getElementById('token'))")
    assert window.js("document.getElementById('token').getAttribute('aria-invalid')") == "true"
    coloured = _coloured(window)
    window.open(f"{served}#step=150&token={chosen}")
    assert 0 < coloured < 0.5 * _coloured(window)


def test_each_selected_token_has_an_equal_part_of_the_raster(window, part, ds):
    """A click into the last quarter chooses the token that froze last of the four."""
    window.open(part)
    order = sorted(TOKENS, key=lambda token: (int(analysis.last_motion(ds).last_motion.sel(token=token)), token))
    for quarter, token in enumerate(order):
        window.js(
            "(share => { const c = document.getElementById('raster'), b = c.getBoundingClientRect();"
            " const at = {clientX: b.left + b.width / 2, clientY: b.top + b.height * share};"
            " c.dispatchEvent(new MouseEvent('click', at)); })(arguments[0])",
            (quarter + 0.5) / 4,
        )
        window.wait(f"document.getElementById('bits').dataset.token === '{token}'")


def test_a_live_run_without_an_end_of_the_selection_is_followed(browser, tmp_path, rows):
    with viewer_runs.create(tmp_path / "run", rows) as writer:
        viewer_runs.append(writer, rows, 0, 120)
        writer.commit()
        with view(tmp_path / "run", tokens=TOKENS, steps=(50, None)) as page:
            browser.open(page.url)
            browser.wait("document.getElementById('cloud').dataset.step === '119'")
            viewer_runs.append(writer, rows, 120, 160)
            writer.commit()
            browser.wait("document.getElementById('cloud').dataset.step === '159'")
            assert browser.js("[Number(step.min), Number(step.max)]") == [50, 159]


def _coloured(browser):
    """Pixels of the cloud that are neither grey nor the accent of the chosen token's ring."""
    pixels = browser.pixels("cloud")[..., :3].astype(int)
    return int((np.ptp(pixels, axis=-1) > 40).sum())
