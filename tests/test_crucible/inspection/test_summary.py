"""What is said of a run: that it diverged or goes on comes first, and nothing is claimed that was not asked."""

import json
import math
import signal

import numpy as np
import pytest
import torch
from torch import nn

import analysis
import crucible
import store
from analysis import simulate
from crucible.cli.main import main
from crucible.experiment.outcome import Outcome, tell_end
from crucible.inspection.analyze import analyze, ask
from crucible.inspection.report import pictures
from crucible.inspection.selection import Selection, select
from crucible.inspection.summary import numbers, tell_answers

SMALL = ["--batch-size=4", "--seq-len=16", "--vocab-size=600", "--hidden-dim=8", "--num-layers=1"]


@pytest.fixture
def few_pictures(monkeypatch):
    """A report with one picture: the others take seconds and have tests of their own."""
    monkeypatch.setattr("crucible.inspection.report.pictures.PICTURES", pictures.PICTURES[1:2])


def spoil(steps, rows, value):
    """A change of some weights at some steps."""

    def change(step, weight):
        if step in steps:
            weight.data[rows] = value

    return change


def record_run(path, moves, *, change=lambda _step, _weight: None, loss=lambda step: 1 / step, **options):
    """Six tokens that move at steps 1 to 3; the recorder, still open."""
    embedding = nn.Embedding(6, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    recorder = crucible.attach(embedding, optimizer, path, say=lambda _: None, **options)
    for step in range(1, moves + 1):
        embedding.weight.grad = torch.full((6, 4), float(step <= 3))
        change(step, embedding.weight)
        recorder.log(loss=loss(step))
        optimizer.step()
    return recorder


def said(words, capsys):
    """Lines of stdout."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out.splitlines()


DIVERGED = {
    "every weight": ({"change": spoil([2], slice(None), math.nan)}, "Diverged at step 2: at step 50, 24 of 24 weights"),
    "one token": ({"change": spoil([30], 1, math.nan)}, "Diverged at step 30: at step 50, 4 of 24 weights are NaN or"),
    "infinities": ({"change": spoil([30], [0, 5], math.inf)}, "Diverged at step 30: at step 50, 8 of 24 weights are"),
    "the loss": ({"loss": lambda step: 1.0 if step < 40 else math.nan}, "Diverged at step 40, by the loss alone"),
}


@pytest.mark.default_cases(1)
@pytest.mark.usefixtures("few_pictures")
@pytest.mark.parametrize(("how", "first"), DIVERGED.values(), ids=DIVERGED)
def test_that_a_run_diverged_is_said_before_anything_else(how, first, tmp_path, capsys):
    run = tmp_path / "run"
    record_run(run, 50, **how).complete()
    told = said(["analyze", run], capsys)
    assert told[0].startswith(first)
    assert "Fimbulwinter check, of a run that diverged" in told
    assert not any(line.startswith("  Fimbulwinter:") for line in told)
    assert said(["watch", run], capsys)[0].startswith(first)
    said(["report", run], capsys)
    page = (run / "report.html").read_text()
    step = first.split(" ")[3].strip(":,")
    assert f"<h1>The run diverged at step {step}: " in page
    assert f'<p class="notice">{first}' in page
    assert f"<pre>{first}" in page
    answers = json.loads("\n".join(said(["analyze", run, "--json"], capsys)))
    assert list(answers)[:2] == ["run", "diverged"]
    assert answers["diverged"]["sentence"] == told[0]
    assert answers["end_state"]["frozen"] is False


@pytest.mark.slow
def test_a_training_that_diverged_says_so_first_and_in_its_metadata(files, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["train", *files.flags(), *SMALL, "--total-steps=9", "--learning-rate=1e30", f"--out={run}"]
    told = said(words, capsys)
    end = next(place for place, line in enumerate(told) if line.startswith("training complete"))
    assert told[end - 1].startswith("Diverged at step ")
    metadata = json.loads((run / "metadata.json").read_text())
    assert next(iter(metadata)) == "diverged"
    assert metadata["diverged"] == analyze(run)["diverged"]
    assert metadata["diverged"]["sentence"] == told[end - 1] == said(["analyze", run], capsys)[0]
    assert metadata["diverged"]["tokens"] == metadata["n_dead_tokens"]
    bare = said([*words[:-1], "--no-record"], capsys)
    assert bare[-2] == "Diverged: the loss of step 9 is nan."


@pytest.mark.slow
def test_a_healthy_training_says_nothing_of_divergence(files, tmp_path, capsys):
    run = tmp_path / "run"
    assert not any("iverged" in line for line in said(["train", *files.flags(), *SMALL, "--total-steps=3",
                                                       f"--out={run}"], capsys))  # fmt: skip
    assert "diverged" not in json.loads((run / "metadata.json").read_text())
    assert analyze(run)["diverged"] is None


@pytest.mark.parametrize("signum", [None, signal.SIGINT])
def test_a_loss_that_is_no_number_is_said_though_nothing_was_recorded(signum):
    lines = []
    tell_end(Outcome(7, math.nan, 1, 1.0, signum), None, lines.append)
    assert lines[0] == "Diverged: the loss of step 7 is nan."
    assert len(lines) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("few_pictures")
def test_a_run_that_may_go_on_is_not_told_as_ended(tmp_path, capsys):
    recorder = record_run(tmp_path / "run", 30)
    recorder.writer.commit()
    told = said(["analyze", tmp_path / "run"], capsys)
    assert told[0] == "This run is not completed: all of this is as of its last commit, step 30."
    assert "  Fimbulwinter: 27 steps, 90.0% of the run so far" in told
    assert any(line.startswith("  median last steps so far: ") for line in told)
    said(["report", tmp_path / "run"], capsys)
    assert "This run is not completed: " in (tmp_path / "run" / "report.html").read_text()
    assert analyze(tmp_path / "run")["completed"] is False
    recorder.complete()
    assert "so far" not in "".join(said(["analyze", tmp_path / "run"], capsys)).replace("motion so far", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no token moved")
@pytest.mark.parametrize("moves", [0, 1])
def test_a_run_of_next_to_nothing(moves, tmp_path, capsys):
    record_run(tmp_path / "run", moves).complete()
    told = "\n".join(said(["analyze", tmp_path / "run"], capsys))
    assert ("no update is recorded" in told) == (moves == 0)
    assert ("something moved at every step" in told) == (moves == 1)
    assert "No verdict" in told
    assert "no verdict" in said(["watch", tmp_path / "run"], capsys)[0]
    said(["report", tmp_path / "run"], capsys)


@pytest.mark.filterwarnings("ignore:no token moved")
def test_of_one_state_of_a_run_it_is_not_said_that_no_update_is_recorded():
    ds = simulate.with_moving_steps([2, 5], total_steps=9)
    told = "\n".join(numbers(ask(select(ds, Selection(steps=(3, 4))))))
    assert "no update is recorded" not in told
    assert "  a single state is asked about, and no move, so there is nothing to say of motion" in told


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_no_verdict_by_a_threshold_that_misses_moves(norm, tmp_path, capsys):
    """Whether it is asked for or the run's own."""
    for own, flags in ((0.75, []), (0.1, ["--threshold", "0.75"])):
        run = tmp_path / str(own)
        record_run(run, 30, motion_threshold=own).complete()
        words = [run, *flags, "--norm", norm]
        answers = json.loads("\n".join(said(["analyze", *words, "--json"], capsys)))
        end = answers["end_state"]
        assert (end["frozen"], end["p"], end["confidence"], answers["sees_every_change"]) == (False, None, None, False)
        told = said(["analyze", *words], capsys)
        assert f"  last motion of any token: step 3 of 30, by {norm.capitalize()} >= 0.75 cells" in told
        assert not any(line.startswith("  Fimbulwinter:") for line in told)
        assert any("No verdict at step 30: by a threshold of 0.75 cells" in line for line in told)
        assert "no verdict: a threshold of 0.75 cells misses moves" in said(["watch", *words], capsys)[0]


@pytest.fixture(scope="module")
def by_size(tmp_path_factory):
    """A run whose answers differ by norm and by threshold: ever smaller moves of one and of all four dimensions."""
    run = tmp_path_factory.mktemp("sizes") / "run"
    states = np.full((41, 3, 4), 0x3FC0, np.uint16)
    for step in range(1, 41):
        far = max(1, 12 - step // 3)
        states[step:, :, : 1 if step % 2 else 4] += np.uint16(far if states[step, 0, 0] < 0x3FC0 + 30 else -far + 65536)
        if step > 36:
            states[step:] = states[step - 1]
    embedding = nn.Embedding(3, 4, dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    embedding.weight.data = torch.from_numpy(states[0]).view(torch.bfloat16)
    embedding.weight.grad = torch.zeros(3, 4, dtype=torch.bfloat16)
    with crucible.attach(embedding, optimizer, run, say=lambda _: None) as recorder:
        for state in states[1:]:
            embedding.weight.data = torch.from_numpy(state).view(torch.bfloat16)
            recorder.log(loss=1.0)
            optimizer.step()
    return run


QUESTIONS = [(norm, threshold) for norm in ("l1", "l2", "linf") for threshold in (None, 3.0, 6.5)]


@pytest.mark.default_cases(3)
@pytest.mark.parametrize(("norm", "threshold"), QUESTIONS)
def test_the_answers_are_by_the_norm_and_the_threshold_that_were_asked_for(norm, threshold, by_size, capsys):
    ds, how = store.open_trajectory(by_size), {"norm": norm, "threshold": threshold}
    flags = ["--norm", norm, *([] if threshold is None else ["--threshold", str(threshold)])]
    answers = json.loads("\n".join(said(["analyze", by_size, "--json", *flags], capsys)))
    winter, freeze, still, end = (
        analysis.plain(question(ds, **how))
        for question in (analysis.fimbulwinter, analysis.freeze_times, analysis.stillness, analysis.end_state)
    )
    assert (answers["norm"], answers["threshold"]) == (norm, threshold or 0.1)
    for name in ("global_last_motion", "fimbulwinter_duration", "never_moved"):
        assert answers[name] == winter[name]
    assert answers["freeze"] == {
        "earliest": freeze["earliest"], "median": freeze["median_freeze"], "latest": freeze["latest"],
    }  # fmt: skip
    assert answers["stillness"]["count"] == still["run_count"]
    assert answers["stillness"]["longest"] == [length for length in still["longest"] if length]
    assert {name: answers["end_state"][name] for name in ("gap", "episodes", "p")} == {
        name: end[name] for name in ("gap", "episodes", "p")
    }
    line = said(["watch", by_size, *flags], capsys)[0]
    assert f"last motion {winter['global_last_motion']}, median freeze {freeze['median_freeze']}, " in line
    assert f"silences {still['run_count']}, " in line


@pytest.mark.slow
def test_those_answers_are_all_different(by_size):
    answers = [analyze(by_size, norm=norm, threshold=threshold) for norm, threshold in QUESTIONS if threshold]
    assert len({(each["freeze"]["median"], each["stillness"]["count"]) for each in answers}) == len(answers)
    assert len({each["end_state"]["gap"] for each in answers}) > 3


@pytest.mark.slow
@pytest.mark.usefixtures("few_pictures")
def test_the_threshold_of_a_report_is_the_runs_own(tmp_path, capsys):
    record_run(tmp_path / "run", 30, motion_threshold=0.3).complete()
    said(["report", tmp_path / "run"], capsys)
    assert "by L2 &gt;= 0.3 cells" in (tmp_path / "run" / "report.html").read_text()


def test_a_winter_that_is_not_the_whole_run_is_not_told_as_the_whole():
    lines = []
    tell_answers(ask(analysis.simulate.with_last_motion([1, 1], total_steps=4000, hidden=1)), lines.append)
    assert "  Fimbulwinter: 3,999 steps, 99.9% of the run" in lines


@pytest.mark.filterwarnings("ignore:no token moved")
def test_the_answers_of_a_slice_are_those_of_its_own_steps():
    """What came before a slice is not known: it is no silence."""
    ds = analysis.simulate.with_moving_steps([120, 140, 160, 180, 200, 220], total_steps=900).sel(step=slice(110, 800))
    answers, known = ask(ds), analysis.plain(analysis.end_state(ds))
    for name in ("gap", "longest_earlier", "episodes", "looks", "p"):
        assert answers["end_state"][name] == known[name]
    assert (answers["steps"], answers["first_step"], answers["last_step"]) == (690, 110, 800)
    lines = []
    tell_answers(answers, lines.append)
    assert "  Fimbulwinter: 580 steps, 84.1% of the run" in lines
    still = ask(ds.sel(step=slice(300, 400)))
    assert (still["steps"], still["end_state"]["gap"]) == (100, 100)


def test_a_part_of_the_steps_is_not_told_as_the_run(tmp_path, capsys):
    recorder = record_run(tmp_path / "run", 30)
    recorder.writer.commit()
    told = said(["analyze", tmp_path / "run", "--steps", "0:11"], capsys)
    assert told[0] == "This run is not completed; these are its steps 0 to 10 alone."
    assert "  Fimbulwinter: 7 steps, 70.0% of these steps so far" in told
    recorder.complete()
    assert "  Fimbulwinter: 7 steps, 70.0% of these steps" in said(["analyze", tmp_path / "run", "--steps=:11"], capsys)
    assert "  Fimbulwinter: 27 steps, 90.0% of the run" in said(["analyze", tmp_path / "run", "--steps=:31"], capsys)
    assert analyze(tmp_path / "run", steps=(0, 11))["all_steps"] is False
