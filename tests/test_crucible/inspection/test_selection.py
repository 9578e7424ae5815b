"""Populations, tokens and steps: the same words for every command, and mixed populations told apart."""

import json
import os
import shutil

import lab_files as lab
import numpy as np
import pytest
from safetensors.torch import load_file

import analysis
import crucible
from analysis import simulate
from crucible.cli.main import main
from crucible.inspection.analyze import ask
from crucible.inspection.selection import Selection
from crucible.inspection.summary import of_several, populations_together

DEAD = [1, 4, 5]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


@pytest.fixture
def run(tmp_path):
    """Dead tokens that come to rest at step 6, live ones that move on."""
    random = np.random.default_rng(0)
    W = np.full((31, 8, 4), 0x3C00, np.uint16)
    for t in range(1, 31):
        W[t] = W[t - 1]
        moving = np.isin(np.arange(8), DEAD) if t <= 6 else np.zeros(8, bool)
        moving |= ~np.isin(np.arange(8), DEAD)
        W[t][moving] += random.integers(1, 3, (moving.sum(), 4)).astype(np.uint16)
    mask = np.isin(np.arange(8), DEAD)
    crucible.import_run(lab.write(tmp_path / "old", {"W": W, "dead_mask": mask}), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_analyze_asks_of_a_population(run, capsys):
    dead = crucible.analyze(run, population="dead")
    assert (dead["tokens"], dead["global_last_motion"], dead["populations"]) == (3, 6, None)
    live = crucible.analyze(run, population="live")
    assert (live["tokens"], live["global_last_motion"]) == (5, 30)
    assert main(["analyze", str(run), "--population", "dead", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["global_last_motion"] == 6


def test_analyze_asks_of_tokens_and_steps(run):
    some = crucible.analyze(run, tokens=[5, 1], steps=(2, 5))
    assert (some["tokens"], some["steps"], some["first_step"], some["last_step"]) == (2, 2, 2, 4)
    both = crucible.analyze(run, population="dead", tokens=[0, 5])
    assert (both["tokens"], both["global_last_motion"]) == (1, 6)
    assert crucible.analyze(run, population="live", steps=(20, None))["first_step"] == 20


@pytest.mark.slow
def test_analyze_names_the_part_that_it_was_asked_of(run, capsys):
    """It said how many steps and tokens there are, and not which."""
    words = ["--population", "dead", "--steps", "2:5"]
    part = "population dead, steps 2:5"
    assert main(["analyze", str(run), *words]) == 0
    assert f"{run}: 2 steps, 3 tokens; of {part} alone" in capsys.readouterr().out.splitlines()
    assert main(["analyze", str(run), f"{run}/trajectory.zarr/..", *words, "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f'{run},,"{part}",')
    assert main(["analyze", str(run), str(shutil.copytree(run, run.parent / "copy")), *words]) == 0
    assert f"All of this is of {part} alone." in capsys.readouterr().out.splitlines()
    assert crucible.analyze(run)["part"] is None


@pytest.mark.slow
def test_mixed_populations_are_said_and_told_apart(run, capsys):
    whole = crucible.analyze(run)
    assert whole["global_last_motion"] == 30
    assert {name: part["global_last_motion"] for name, part in whole["populations"].items()} == {"dead": 6, "live": 30}
    for name, part in whole["populations"].items():
        alone = crucible.analyze(run, population=name)
        del alone["populations"], alone["part"]
        assert part == alone
    assert main(["analyze", str(run)]) == 0
    told = capsys.readouterr().out
    assert "These are 3 dead tokens and 5 live tokens together" in told
    assert "dead, 3 tokens: last motion 6." in told
    assert "live, 5 tokens: last motion 30." in told


@pytest.mark.parametrize(
    ("names", "said", "of_runs"),
    [
        (["dead", "", ""], "1 dead token and 2 tokens of no population", "dead and other"),
        (["dead", "live", ""], "1 dead token and 1 live token and 1 token of no population", "dead and live and other"),
        (["dead", "live", "live"], "1 dead token and 2 live tokens", "dead and live"),
        (["dead", "dead", "dead"], "", ""),
        (["", "", ""], "", ""),
    ],
)
def test_tokens_of_no_population_are_others_than_those_of_one(names, said, of_runs):
    """Tokens of one population and of none were asked together, and nothing told that the others decide."""
    told = ask(simulate.with_last_motion([2, 9, 5], total_steps=12).assign_coords(population=("token", names)))
    assert populations_together(told).partition(" together, ")[0] == (f"These are {said}" if said else "")
    mixed = [each for each in of_several({"run": told}) if " tokens together" in each]
    assert "".join(mixed).partition(" tokens together")[0] == (of_runs and f"run: {of_runs}")
    if said:
        assert told["populations"]["dead"]["global_last_motion"] == 2
        assert told["global_last_motion"] == 9


def test_a_token_that_is_chosen_twice_is_one():
    assert [str(Selection(tokens=ids)) for ids in ([4, 4], [4, 1, 4], np.array([4, 4]))] == [
        "1 chosen token", "2 chosen tokens", "1 chosen token"
    ]  # fmt: skip


def test_one_population_is_not_mixed(run, tmp_path, capsys):
    crucible.export_run(run, tmp_path / "dead", population="dead")
    crucible.import_run(tmp_path / "dead", tmp_path / "alone")
    assert crucible.analyze(tmp_path / "alone")["populations"] is None
    assert main(["analyze", str(tmp_path / "alone")]) == 0
    assert "together" not in capsys.readouterr().out


def test_export_takes_the_same_words(run, tmp_path):
    words = ["--population", "dead", "--tokens", "0,1,5", "--steps", "3:9", "--only", "W,token,step"]
    assert main(["export", str(run), str(tmp_path / "out"), *words]) == 0
    out = load_file(tmp_path / "out")
    assert out["token"].tolist() == [1, 5]
    assert out["step"].tolist() == list(range(3, 9))
    expected = crucible.open_trajectory(run).W.sel(token=[1, 5], step=slice(3, 8)).values
    assert (out["W"].numpy() == expected).all()


@pytest.mark.slow
def test_report_and_watch_and_view_take_the_same_words(run, tmp_path, capsys):
    assert main(["watch", str(run), "--population", "dead"]) == 0
    assert "last motion 6" in capsys.readouterr().out
    assert main(["report", str(run), "--population", "dead", "--out", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert "3 tokens · population dead" in page
    assert "last motion of any token: step 6" in page
    assert main(["view", str(run), "--export", str(tmp_path / "page"), "--population", "dead"]) == 0
    view = json.loads((tmp_path / "page/view.json").read_text())
    assert view["answers"]["last_motion"] == 6
    assert len(view["answers"]["freeze"]) == 8
    assert view["answers"]["verdict"].startswith("Of population dead: ")


WRONG = {
    "--population=undead": "there is no population 'undead'; known are dead, live",
    "--tokens=5,99": "the run records no tokens [99]; its 8 ids go from 0 to 7",
    "--steps=40:50": "no recorded step in 40:50; the steps go from 0 to 30",
    "--steps=5": "'5' is no range of steps; write for example 100:200",
    "--tokens=x": "'x' is no list of token ids",
}


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("word", WRONG)
@pytest.mark.parametrize("command", ["analyze", "watch", "report", "view"])
def test_what_is_not_there_is_said_in_one_line(run, tmp_path, capsys, command, word):
    more = {"report": ["--out", str(tmp_path / "r.html")], "view": ["--no-browser"]}.get(command, [])
    assert main([command, str(run), word, *more]) == 2
    error = capsys.readouterr().err
    assert WRONG[word] in error
    assert error.count("\n") == 1


def test_a_run_without_populations_says_so(tmp_path):
    crucible.import_run(lab.write(tmp_path / "old", {"W": lab.weights(5, 3, 2)}), tmp_path / "run")
    with pytest.raises(ValueError, match="known are none: it has neither populations nor a dead mask"):
        crucible.analyze(tmp_path / "run", population="dead")


def test_answers_of_a_part_do_not_depend_on_how_it_was_asked(run):
    ds = crucible.open_trajectory(run)
    by_hand = analysis.end_state(ds.isel(token=np.flatnonzero(ds.population.values == "dead"))).load()
    assert crucible.analyze(run, population="dead")["end_state"]["p"] == analysis.plain(by_hand["p"])


@pytest.mark.slow
def test_mixed_populations_are_said_of_several_runs_too(run, tmp_path, capsys):
    expected = "run: dead and live tokens together, so that whatever moves longest decides. --population dead asks of "
    crucible.import_run(lab.write(tmp_path / "other", {"W": lab.weights(31, 3, 4)}), tmp_path / "plain")
    runs = [str(run), str(tmp_path / "plain")]
    assert main(["analyze", *runs]) == 0
    assert any(line.startswith(expected) for line in capsys.readouterr().out.splitlines())
    page = crucible.report(runs, tmp_path / "both.html").read_text()
    assert expected in page
    assert " without a verdict" in page
    assert main(["analyze", *runs[:1], *runs[:1], "--population", "dead"]) == 0
    assert "together" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"steps": slice(5, 10)}, r"steps=\(100, 200\), either may be None; not slice\(5, 10, None\)"),
        ({"steps": 5}, "not 5"),
        ({"steps": (5,)}, r"not \(5,\)"),
        ({"population": ["dead"]}, r"population='dead', not \['dead'\]"),
        ({"tokens": 7}, r"tokens=\[3, 17\], not 7"),
        ({"tokens": ["a"]}, r"not \['a'\]"),
        ({"tokens": np.array([True, False])}, r"not array\(\[ True, False\]\)"),
    ],
)
def test_a_part_that_is_no_such_thing_is_refused_in_words(run, part, words):
    with pytest.raises(ValueError, match=words):
        crucible.analyze(run, **part)


def test_an_export_in_another_dtype_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"as 'uint16' or 'bfloat16', not 'float32'; .*analysis.weights\(ds\)"):
        crucible.export_run(run, tmp_path / "a", dtype="float32")
    with pytest.raises(ValueError, match=r"steps=\(10, 21\), not slice"):
        crucible.export_run(run, tmp_path / "a", steps=slice(1, 2))
