"""A run that goes on while the page is open: commits, the end, a cut, a writer that is gone."""

import shutil
import threading

import numpy as np
import viewer_runs
from waiting import PATIENCE_S

import analysis
import store
from crucible.viewer.show import view
from crucible.viewer.views import Views

STEPS, TOKENS, HIDDEN = 400, 24, 8
REFUSED = "404 (Not Found)"
"""What the browser says of the chunks of a run that was cut, compacted or replaced: the page asks anew."""


def bits_of(browser, step, token):
    browser.wait(f"document.getElementById('bits').dataset.step === '{step}'")
    browser.wait(f"document.getElementById('bits').dataset.token === '{token}'")
    return [int(word, 16) for word in browser.data("bits")["bits"].split()]


def follow(browser, run, step):
    """The page has come to this step by itself, and shows its bits."""
    browser.wait(f"document.getElementById('now-step').textContent === 'step {step}'")
    browser.wait(f"document.getElementById('cloud').dataset.step === '{step}'")
    assert bits_of(browser, step, 13) == store.open_trajectory(run).W.sel(step=step, token=13).values.tolist()


def to_be_cut(browser, folder):
    """A run of 250 steps, its rows, and those with which it goes on behind step 150 once it is cut there."""
    rows, run = viewer_runs.states(STEPS, TOKENS, HIDDEN), folder / "run"
    other = rows.copy()
    other[151:] ^= 1
    browser.forgive(REFUSED)
    with viewer_runs.create(run, rows) as writer:
        viewer_runs.append(writer, rows, 0, 251)
    return run, rows, other


def test_a_run_is_followed_over_commits_to_its_end(browser, tmp_path):
    rows, run = viewer_runs.states(STEPS, TOKENS, HIDDEN), tmp_path / "run"
    with viewer_runs.create(run, rows) as writer:
        viewer_runs.append(writer, rows, 0, 41)
        writer.commit()
        with view(run) as page:
            browser.open(f"{page.url}#token=13")
            follow(browser, run, 40)
            assert browser.text("state-word") == "recording"
            browser.wait("document.getElementById('token-life').textContent.includes('so far')")
            done = 41
            for end in (100, 128, 129, 300):  # within a block, at its end, a row into the next, far beyond
                viewer_runs.append(writer, rows, done, end + 1)
                writer.commit()
                done = end + 1
                follow(browser, run, end)
            viewer_runs.append(writer, rows, done, STEPS + 1)
            writer.complete()
            follow(browser, run, STEPS)
            browser.wait("!document.getElementById('refit').hidden")  # the axes are still those of step 40
            before = browser.pixels("cloud")
            browser.js("document.getElementById('refit').click()")
            browser.wait("document.getElementById('refit').hidden")
            browser.wait("!document.getElementById('cloud').classList.contains('waiting')")
            assert (browser.pixels("cloud") != before).any()
            browser.wait("document.getElementById('state-word').textContent === 'complete'")
            browser.wait("!document.getElementById('token-life').textContent.includes('so far')")
            browser.go(130)
            assert bits_of(browser, 130, 13) == rows[130, 5].tolist()


def test_who_looks_at_an_earlier_step_is_not_taken_away(browser, tmp_path):
    rows, run = viewer_runs.states(STEPS, TOKENS, HIDDEN), tmp_path / "run"
    with viewer_runs.create(run, rows) as writer:
        viewer_runs.append(writer, rows, 0, 41)
        writer.commit()
        with view(run) as page:
            browser.open(f"{page.url}#step=20&token=13")
            viewer_runs.append(writer, rows, 41, 81)
            writer.commit()
            browser.wait("document.getElementById('step').max === '80'")
            assert browser.text("now-step") == "step 20"
            browser.press("f")
            follow(browser, run, 80)


def test_a_cut_shows_the_new_rows_and_none_of_the_old(browser, tmp_path):
    run, rows, other = to_be_cut(browser, tmp_path)
    with view(run) as page:
        browser.open(f"{page.url}#step=200&token=13")
        assert bits_of(browser, 200, 13) == rows[200, 5].tolist()
        with viewer_runs.resume(run, from_step=150) as writer:
            viewer_runs.append(writer, other, 151, 231)
            writer.commit()
            browser.wait("document.getElementById('step').max === '230'")
            browser.wait(f"document.getElementById('bits').dataset.bits === '{hexed(other[200, 5])}'")
            browser.go(150)
            assert bits_of(browser, 150, 13) == rows[150, 5].tolist()
            browser.go(151)
            assert bits_of(browser, 151, 13) == other[151, 5].tolist()


def test_a_step_that_was_cut_away_is_waited_for_until_the_view_of_the_cut_is_there(browser, tmp_path, monkeypatch):
    run, _, other = to_be_cut(browser, tmp_path)
    may_be_sent, newest = threading.Event(), Views.newest
    may_be_sent.set()
    monkeypatch.setattr(Views, "newest", lambda views: may_be_sent.wait(PATIENCE_S) and newest(views))
    with view(run) as page:
        browser.open(f"{page.url}#step=200&token=13")
        may_be_sent.clear()
        with viewer_runs.resume(run, from_step=150) as writer:
            viewer_runs.append(writer, other, 151, 161)
            writer.commit()
            browser.wait("document.getElementById('bits').classList.contains('waiting')")
            browser.asynchronous("setTimeout(arguments[0], 1000)")  # the page reads on, and draws
            may_be_sent.set()
            assert bits_of(browser, 160, 13) == other[160, 5].tolist()


def test_another_run_in_the_same_folder_is_never_shown_under_the_name_of_the_first(browser, tmp_path):
    """Of the same shape, complete, and with files of the same names: nothing but its identity tells them apart."""
    rows, others = (viewer_runs.states(300, TOKENS, HIDDEN, seed=seed) for seed in (0, 9))
    run = viewer_runs.record(tmp_path / "run", rows)
    before = int(analysis.moved(store.open_trajectory(run)).sel(step=20).sum())
    browser.forgive(REFUSED)
    with view(run) as page:
        browser.open(f"{page.url}#step=20&token=13")
        assert bits_of(browser, 20, 13) == rows[20, 5].tolist()
        assert browser.text("now-moving") == f"{before} moving"
        shutil.rmtree(run)
        viewer_runs.record(run, others)
        browser.go(299)  # a block that was not read yet
        browser.wait(f"document.getElementById('bits').dataset.bits === '{hexed(others[299, 5])}'")
        browser.go(20)
        browser.wait(f"document.getElementById('bits').dataset.bits === '{hexed(others[20, 5])}'")
        moving = int(analysis.moved(store.open_trajectory(run)).sel(step=20).sum())
        browser.wait(f"document.getElementById('now-moving').textContent === '{moving} moving'")
        assert moving != before


def hexed(row):
    return " ".join(f"{word:04x}" for word in row)


def test_a_writer_that_is_gone_is_said_with_the_command_that_goes_on(browser, tmp_path):
    rows, run = viewer_runs.states(30, TOKENS, HIDDEN), tmp_path / "run"
    with viewer_runs.create(run, rows, attributes=viewer_runs.TRAINED) as writer:
        viewer_runs.append(writer, rows, 0, 21)
        writer.commit()
        with view(run) as page:
            browser.open(page.url)
            browser.wait("document.getElementById('state-word').textContent === 'recording'")
            writer.close()
            browser.wait("document.getElementById('state-word').textContent === 'stopped'")
            assert "crucible resume run" in browser.text("state-more")


def test_a_damaged_chunk_is_named_and_the_rest_stays(browser, tmp_path):
    rows = viewer_runs.states(300, TOKENS, HIDDEN)
    run = viewer_runs.record(tmp_path / "run", rows)
    chunk = run / "trajectory.zarr" / "W" / "c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    with view(run) as page:
        browser.open(f"{page.url}#step=20&token=13")
        assert bits_of(browser, 20, 13) == rows[20, 5].tolist()
        browser.js("(s => { s.value = 200; s.dispatchEvent(new Event('input')); })(document.getElementById('step'))")
        browser.wait("!document.getElementById('problem').hidden")
        assert "W/c.1.0.0" in browser.text("problem")
        assert "checksum" in browser.text("problem")
        assert browser.data("cloud")["step"] == "20"


def test_many_small_commits_never_show_a_wrong_row(browser, tmp_path):
    rows, run = viewer_runs.states(STEPS, TOKENS, HIDDEN, seed=3), tmp_path / "run"
    with viewer_runs.create(run, rows) as writer:
        viewer_runs.append(writer, rows, 0, 11)
        writer.commit()
        with view(run) as page:
            browser.open(f"{page.url}#token=13")
            for end in range(12, 200, 7):
                viewer_runs.append(writer, rows, writer.steps + 1, end)
                writer.commit()
                data = browser.data("bits")
                row = [int(word, 16) for word in data["bits"].split()]
                np.testing.assert_array_equal(row, rows[int(data["step"]), 5])


def test_a_compaction_under_the_page_is_noticed(browser, tmp_path):
    from store.upkeep.compact import compact

    browser.forgive(REFUSED)
    rows = viewer_runs.states(300, TOKENS, HIDDEN)
    run = viewer_runs.record(tmp_path / "run", rows)
    with view(run) as page:
        browser.open(f"{page.url}#step=20&token=13")
        assert bits_of(browser, 20, 13) == rows[20, 5].tolist()
        compact(run)
        browser.go(299)
        assert bits_of(browser, 299, 13) == rows[299, 5].tolist()


def test_a_fork_that_takes_the_place_of_a_run_that_is_shown_is_shown_from_its_beginning(browser, tmp_path):
    run, fork = viewer_runs.forks(tmp_path, viewer_runs.states(STEPS, TOKENS, HIDDEN), complete=False)
    browser.forgive(REFUSED)
    with view(run) as page:
        browser.open(f"{page.url}#step=250&token=13")
        told = bits_of(browser, 250, 13)
        run.rename(tmp_path / "away")
        fork.rename(run)
        wanted = store.open_trajectory(run).W.sel(step=250, token=13).values.tolist()
        browser.wait(f"document.getElementById('bits').dataset.bits === '{' '.join(f'{word:04x}' for word in wanted)}'")
    assert wanted != told
