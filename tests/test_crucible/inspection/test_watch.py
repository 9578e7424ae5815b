"""`crucible watch` and `crucible analyze` on a run that is still being written."""

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch
import viewer_runs
from rich.console import Console
from torch import nn
from waiting import PATIENCE_S

import crucible
from crucible.cli.main import main
from crucible.console import strict
from crucible.inspection import writer_state
from crucible.inspection.analyze import analyze
from crucible.inspection.info import info
from crucible.inspection.report import writing
from crucible.inspection.selection import Selection
from crucible.inspection.watch import looks, screen, watch
from crucible.inspection.watch.lines import lines
from store.errors import DamageError


@pytest.fixture
def rows():
    return viewer_runs.states(60)


def drawn(look, width=80):
    """The screen as lines of plain text."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    screen.once(look, console)
    return console.file.getvalue().splitlines()


@pytest.mark.slow
def test_a_line_for_each_commit_until_it_is_completed(tmp_path):
    embedding = nn.Embedding(6, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with crucible.attach(embedding, optimizer, tmp_path / "run") as recorder:
        lines = watch(tmp_path / "run", 0.01, threshold=None, norm="l2")
        recorder.writer.commit()
        assert next(lines).startswith("step 0, last motion never")
        for moved in (True, True, False):
            embedding.weight.grad = torch.full((6, 4), float(moved))
            optimizer.step()
        recorder.writer.commit()
        line = next(lines)
        assert line.startswith("step 3, last motion 2, median freeze 2, silences 1, p none")
        assert analyze(tmp_path / "run")["stillness"]["longest"] == [1]
    assert next(lines) == line
    assert list(lines) == []
    assert analyze(tmp_path / "run")["steps"] == 3
    assert np.isfinite(analyze(tmp_path / "run")["drift"]["path"])


@pytest.mark.parametrize("moment", ["read_commit", "_is_locked"])
def test_a_run_that_ends_while_it_is_looked_at_is_told_as_it_ended(moment, tmp_path, monkeypatch):
    """It was called complete with the answers of the commit before, or stopped."""
    embedding = nn.Embedding(6, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    recorder = crucible.attach(embedding, optimizer, tmp_path / "run", commit_interval_s=1e6, say=lambda _: None)
    recorder.writer.commit()
    found = looks(tmp_path / "run", 0)
    assert next(found).answers["last_step"] == 0
    embedding.weight.grad = torch.ones(6, 4)
    optimizer.step()
    usual, ends = getattr(writer_state, moment), [recorder.complete]

    def first_the_run_ends(path):
        for end in ends:
            ends.clear()
            end()
        return usual(path)

    monkeypatch.setattr(writer_state, moment, first_the_run_ends)
    shown = [(look.state, look.answers["last_step"], look.command) for look in itertools.islice(found, 5)]
    assert shown[-1] == ("complete", 1, None)
    assert all(state == "recording" for state, *_ in shown[:-1])
    assert info(tmp_path / "run")["state"] == "complete"


def test_a_report_of_a_run_that_goes_on_is_of_one_commit(tmp_path, rows, monkeypatch):
    """What was recorded was told as of a later one than the answers."""
    usual, drawn, times = writing.open_trajectory, [], itertools.count()
    monkeypatch.setattr(writing, "of_story", lambda _: [])
    monkeypatch.setattr(writing, "body_of", lambda *given: drawn.append(given) or ("title", []))
    with viewer_runs.create(tmp_path / "run", rows) as writer:
        viewer_runs.append(writer, rows, 0, 11)
        writer.commit()

        def first_it_goes_on(run):
            if next(times) == 1:  # at first it is looked whether there is a run
                viewer_runs.append(writer, rows, 11, 21)
                writer.commit()
            return usual(run)

        monkeypatch.setattr(writing, "open_trajectory", first_it_goes_on)
        crucible.report(tmp_path / "run")
    (_, known, story, *_) = drawn[0]
    states = {array["name"]: array["dims"].get("step") for array in known["arrays"]}["W"]
    assert known["committed_steps"] == states - 1 == story.last == 20


def test_it_waits_for_the_run_to_begin_and_follows_its_commits(tmp_path, rows):
    run = tmp_path / "run"
    found = looks(run, 0)
    assert next(found).state == next(found).state == "waiting"
    with viewer_runs.create(run, rows, attributes={"config": {"total_steps": 100}}) as writer:
        viewer_runs.append(writer, rows, 0, 21)
        writer.commit()
        first = next(found)
        assert (first.state, first.is_new, first.planned, first.steps_per_s) == ("recording", True, 100, None)
        assert not next(found).is_new
        os.utime(run / "trajectory.zarr" / "zarr.json", (1000, 1000))
        watched = looks(run, 0)
        next(watched)
        viewer_runs.append(writer, rows, 21, 41)
        writer.commit()
        os.utime(run / "trajectory.zarr" / "zarr.json", (1010, 1010))
        second = next(watched)
        assert (second.answers["last_step"], second.steps_per_s, second.left_s) == (40, 2.0, 30.0)
        assert second.losses[-1] == pytest.approx(3 + 5 / 40)
    assert next(watched).state == "stopped"


def test_of_some_of_the_steps_it_is_told_where_the_run_stands(tmp_path, rows):
    """The end of the selection was taken for the run's: the time left was that from there on."""
    run, part = tmp_path / "run", Selection(steps=(5, 16))
    with viewer_runs.create(run, rows, attributes={"config": {"total_steps": 100}}) as writer:
        viewer_runs.append(writer, rows, 0, 21)
        writer.commit()
        os.utime(run / "trajectory.zarr" / "zarr.json", (1000, 1000))
        found = looks(run, 0, part=part)
        next(found)
        viewer_runs.append(writer, rows, 21, 41)
        writer.commit()
        os.utime(run / "trajectory.zarr" / "zarr.json", (1010, 1010))
        look = next(found)
    assert (look.answers["last_step"], look.committed, look.to_json()["step"], look.left_s) == (15, 40, 40, 30.0)
    text = "\n".join(drawn(look))
    assert "of 100 (40%)" in text
    assert "steps 5 to 15 alone" in text
    assert next(lines(iter([look]))).startswith("steps 5 to 15, last motion")


def test_a_writer_that_is_gone_is_told_with_the_command_that_goes_on(tmp_path, rows):
    run = tmp_path / "run"
    viewer_runs.record(run, rows, complete=False)
    look = next(looks(run, 0))
    assert look.state == "stopped"
    assert any("The writer is gone." in line for line in drawn(look))
    trained = replace(look, command=["resume", "a run"])
    assert any("crucible resume 'a run'" in line for line in drawn(trained))


@pytest.mark.slow
def test_a_run_that_is_replaced_is_another_one(tmp_path, rows):
    run = tmp_path / "run"
    viewer_runs.record(run, rows, complete=False)
    viewer_runs.record(tmp_path / "other", rows[:20], complete=False)
    found = looks(run, 0)
    next(found)
    shutil.rmtree(run)
    assert next(found).state == "waiting"
    (tmp_path / "other").rename(run)
    assert next(found).answers["last_step"] == 19
    viewer_runs.record(tmp_path / "third", rows[:30], complete=False)
    run.rename(tmp_path / "away")
    (tmp_path / "third").rename(run)
    look = next(found)
    assert (look.was_replaced, look.answers["last_step"], look.steps_per_s) == (True, 29, None)
    assert any("Another run stands there now." in line for line in drawn(look))


@pytest.mark.slow
def test_damage_is_told_only_if_it_stays(tmp_path, rows):
    run = tmp_path / "run"
    viewer_runs.record(run, rows, complete=False)
    found = looks(run, 0)
    whole = next(found)
    document = run / "trajectory.zarr" / "zarr.json"
    data = document.read_bytes()
    document.write_bytes(data[:-20])
    assert [next(found).answers for _ in range(2)] == [whole.answers] * 2
    with pytest.raises(DamageError):
        next(found)


@pytest.mark.parametrize("how", [[], ["--once"], ["--once", "--json"]])
def test_a_damaged_run_is_not_said_to_be_waited_for(how, tmp_path, rows, capsys):
    run = viewer_runs.record(tmp_path / "run", rows, complete=False)
    chunk = max((run / "trajectory.zarr" / "displacement_l2").glob("c.*"))
    chunk.write_bytes(b"")
    assert main(["watch", str(run), "--interval", "0.01", *how]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert str(chunk) in err


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("width", [80, 60, 40])
@pytest.mark.parametrize("state", ["waiting", "recording", "diverged", "long"])
def test_the_screen_fits_the_terminal(state, width, tmp_path, rows):
    run = tmp_path.joinpath(*["a-rather-long-name"] * 8) if state == "long" else tmp_path / "run"
    if state == "diverged":
        rows[12:, 3] = 0x7FC0
    if state != "waiting":
        run.parent.mkdir(parents=True, exist_ok=True)
        viewer_runs.record(run, rows, complete=False, attributes={"config": {"total_steps": 100_000}})
    lines = drawn(next(looks(run, 0)), width)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width


def test_the_screen_tells_what_one_asks_first(tmp_path, rows):
    viewer_runs.record(tmp_path / "run", rows, complete=False, attributes={"config": {"total_steps": 120}})
    look = next(looks(tmp_path / "run", 0))
    text = "\n".join(drawn(look))
    for words in ("stopped", "of 120 (50%)", "loss", "moving", "of 40 tokens", "last motion", "silence", "disk"):
        assert words in text


def test_the_commit_of_another_day_is_told_with_its_day(tmp_path, rows):
    viewer_runs.record(tmp_path / "run", rows, complete=False)
    look = next(looks(tmp_path / "run", 0))
    now = datetime.now()
    for days, expected in (
        (0, f"commit of {now:%H:%M:%S}"),
        (3, f"commit of {now - timedelta(days=3):%Y-%m-%d %H:%M}"),
    ):
        bottom = drawn(replace(look, committed_at=(now - timedelta(days=days)).timestamp()))[-1]
        assert f" {expected} " in bottom


@pytest.mark.parametrize("width", [40, 47])
def test_what_a_narrow_screen_cuts_off_is_marked(width, tmp_path, rows):
    """A number of which the last digits are missing is another number."""
    config = {"total_steps": 9_876_543_210}
    viewer_runs.record(tmp_path / "run", rows, complete=False, attributes={"config": config})
    lines = drawn(next(looks(tmp_path / "run", 0)), width)
    for name, whole in (("step", "of 9,876,543,210 (0%)"), ("last motion", "the last step at which any token moved")):
        (line,) = (each for each in lines if each.startswith(f"│ {name} "))
        shown = line.strip("│ ").split("  ")[-1]
        assert shown.endswith("…")
        assert whole.startswith(shown[:-1])


def test_a_terminal_too_narrow_for_numbers_is_told_in_lines(tmp_path, rows, capsys, monkeypatch):
    run = viewer_runs.record(tmp_path / "run", rows, complete=False)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    assert main(["watch", str(run), "--once"]) == 0
    assert capsys.readouterr().out.startswith("stopped: the writer is gone\nstep 60, last motion ")


def test_a_curve_is_as_wide_as_it_is_told_and_ends_with_the_last_values():
    assert screen.sparkline([0.0] * 499 + [1.0] * 51, 10) == "▁" * 9 + "█"
    assert len(screen.sparkline(list(range(1000)), 40)) == 40


def test_once_is_one_look_and_json_is_a_document(tmp_path, rows, capsys):
    run = viewer_runs.record(tmp_path / "run", rows, complete=False)
    assert main(["watch", str(run), "--once"]) == 0
    assert capsys.readouterr().out.startswith("stopped: the writer is gone\nstep 60, last motion ")
    assert main(["watch", str(run), "--once", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["step"], told["tokens"]) == ("stopped", 60, 40)
    assert told["answers"]["end_state"]["p"] == analyze(run)["end_state"]["p"]


def test_a_run_in_which_nothing_moved_is_watched_without_a_warning(tmp_path, rows, capsys):
    run = viewer_runs.record(tmp_path / "run", np.repeat(rows[:1], 20, axis=0))
    assert main(["watch", str(run)]) == 0
    told = capsys.readouterr()
    assert "last motion never" in told.out
    assert "no token moved" not in told.err


def test_json_is_a_line_for_each_commit(tmp_path, rows, capsys):
    run = viewer_runs.record(tmp_path / "run", rows)
    assert main(["watch", str(run), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["complete"]


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "crucible", "watch", str(tmp_path / "not-yet"), "--interval", "30"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "waiting for" in child.stdout.readline()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130
    assert "Traceback" not in out + err


def test_a_terminal_is_redrawn_in_place(tmp_path, rows):
    run = viewer_runs.record(tmp_path / "run", rows)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=24)
    last = screen.show(itertools.islice(looks(run, 0), 3), console)
    assert last.state == "complete"
    assert "\x1b[?25h" in console.file.getvalue()  # the cursor is back


def test_populations_that_are_mixed_are_said_once(tmp_path, rows):
    look = next(looks(viewer_runs.record(tmp_path / "run", rows), 0))
    part = {**look.answers, "tokens": 3}
    look = replace(look, answers={**look.answers, "tokens": 6, "populations": {"dead": part, "live": part}})
    said = "These are 3 dead tokens and 3 live tokens together, so that whatever moves longest decides."
    assert said in " ".join(" ".join(drawn(look)).replace("│", " ").split())
    told = list(lines(iter([look, look])))
    assert [words for words in told if words.startswith("These are")] == [
        f"{said} --population dead asks of one alone."
    ]


def test_a_loss_that_is_lost_is_not_the_last_one_that_was_finite(tmp_path, rows):
    with viewer_runs.create(tmp_path / "run", rows) as writer:
        viewer_runs.append(writer, rows, 0, 20)
        writer.append(W=rows[20], loss=np.float32("nan"), centroid=viewer_runs.as_float(rows[20]).mean(axis=0))
        writer.complete()
    look = next(looks(tmp_path / "run", 0))
    assert np.isnan(look.loss)
    assert any(words.split()[1:3] == ["loss", "unknown"] for words in drawn(look))
    assert "loss" not in {name for name, value in strict(look.to_json()).items() if value is not None}


@pytest.mark.parametrize(
    ("config", "quiet_s"), [({}, 120), ({"commit_interval": 600.0}, 2400), ({"commit_interval": 5}, 120)]
)
def test_a_writer_on_another_machine_is_given_the_time_that_its_run_takes_between_commits(
    config, quiet_s, tmp_path, rows
):
    run = viewer_runs.record(tmp_path / "run", rows, complete=False, attributes={"config": config})
    (run / "LOCK").write_text("pid 1 on a-machine-far-away\n")
    committed = run / "trajectory.zarr" / "zarr.json"
    for age_s, state in ((quiet_s - 30, "recording"), (quiet_s + 30, "stopped")):
        os.utime(committed, (time.time() - age_s,) * 2)
        assert writer_state.writer_state(run) == state


def test_a_run_that_is_written_in_another_container_is_not_said_to_be_stopped(tmp_path, rows, monkeypatch):
    """A container that shares the machine's name sees neither the writer nor the lock that it holds."""
    with viewer_runs.create(tmp_path / "run", rows) as writer:
        viewer_runs.append(writer, rows, 0, 20)
        writer.commit()
        monkeypatch.setattr(writer_state, "_is_locked", lambda _: False)
        assert writer_state.writer_state(tmp_path / "run") == "stopped"
        monkeypatch.setattr(os, "readlink", lambda _: "pid:[4026532281]")
        assert writer_state.writer_state(tmp_path / "run") == "recording"
