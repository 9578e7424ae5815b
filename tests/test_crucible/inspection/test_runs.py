"""Sets of runs: opened as a tree, asked as one, compared, and told in a table."""

import csv
import io
import json
import os
import re
import shutil

import lab_files as lab
import numpy as np
import pytest
import xarray as xr

import analysis
import crucible
from crucible.cli.main import main
from crucible.inspection.runs import said_of_several, table
from store.errors import NotATrajectoryError

LENGTHS = {"seed-2": 12, "seed-10": 20, "seed-1": 16}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    (folder / "files").mkdir()
    for number, (name, steps) in enumerate(LENGTHS.items()):
        words = {"learning_rate": 10.0**-number, "random_seed": number, "batch_size": 8}
        arrays = {"W": lab.weights(steps, 6, 4, seed=number, strange=False), "dead_mask": np.arange(6) < 6}
        crucible.import_run(lab.write(folder / "files/old", arrays, words=words), folder / "runs" / name)
    (folder / "runs/notes.txt").touch()
    (folder / "runs/empty").mkdir()
    return folder / "runs"


@pytest.mark.parametrize("how", ["pattern", "folder", "paths"])
def test_a_set_is_a_tree_with_a_child_a_run(runs, how):
    asked = {"pattern": f"{runs}/*", "folder": runs, "paths": [runs / "seed-1", runs / "seed-2", runs / "seed-10"]}
    tree = crucible.open_runs(asked[how])
    assert list(tree.children) == ["seed-1", "seed-2", "seed-10"]
    assert tree["seed-2"].attrs["learning_rate"] == 1.0
    assert tree["seed-10"].attrs["random_seed"] == 1
    assert tree["seed-10"].W.chunks
    expected = crucible.open_trajectory(runs / "seed-10")
    assert tree["seed-10"].to_dataset().drop_attrs().identical(expected.drop_attrs())


def test_a_question_of_all_of_them_is_one_dataset(runs):
    tree = crucible.open_runs(f"{runs}/*")
    answers = analysis.over(tree, analysis.freeze_times)
    assert answers.run.values.tolist() == ["seed-1", "seed-2", "seed-10"]
    assert answers.step.values.tolist() == list(range(13))  # those that all of them have
    assert answers.attrs["only_shared"] == ["step"]
    assert answers.learning_rate.values.tolist() == [0.01, 1.0, 0.1]
    assert "batch_size" not in answers.coords  # the same in all
    for name in LENGTHS:
        alone = analysis.freeze_times(crucible.open_trajectory(runs / name)).load()
        assert int(answers.latest.sel(run=name)) == int(alone.latest)
        assert (answers.survival.sel(run=name).values == alone.survival.values[:13]).all()


@pytest.mark.default_cases(3)
@pytest.mark.parametrize(
    "question",
    [analysis.last_motion, analysis.fimbulwinter, analysis.stillness, analysis.end_state, analysis.lifecycle,
     analysis.drift, analysis.cloud, analysis.census, analysis.cooling, analysis.divergence, analysis.moved,
     analysis.weights],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_every_question_can_be_asked_of_a_set(runs, question):
    tree = crucible.open_runs(runs)
    answers = analysis.over(tree, question)
    assert answers.sizes["run"] == 3
    name = str(next(iter(answers.data_vars)))
    alone = question(crucible.open_trajectory(runs / "seed-2"))
    alone = alone if isinstance(alone, xr.Dataset) else alone.to_dataset(name=name)
    one = answers[name].sel(run="seed-2")
    same = alone[name].sel(step=answers.step) if "step" in alone[name].dims else alone[name]
    np.testing.assert_array_equal(one.transpose(*same.dims).values, same.values)


def test_answers_that_are_no_datasets_and_refusals_name_the_run(runs):
    tree = crucible.open_runs(runs)
    with pytest.raises(TypeError, match="seed-1: the function answered int"):
        analysis.over(tree, lambda ds: ds.sizes["step"])
    with pytest.raises(ValueError, match="seed-1: norm"):
        analysis.over(tree, analysis.last_motion, norm="l7")
    with pytest.raises(ValueError, match="no run in this tree"):
        analysis.over(xr.DataTree(), analysis.last_motion)
    with pytest.raises(TypeError, match="a DataTree with a child a run"):
        analysis.over(tree["seed-1"].to_dataset(), analysis.last_motion)


def test_runs_of_other_tokens_are_asked_at_those_they_share(runs, tmp_path):
    W = lab.weights(12, 4, 4, strange=False)
    crucible.import_run(lab.write(tmp_path / "old", {"W": W, "token": np.array([1, 3, 5, 8])}), tmp_path / "other")
    tree = crucible.open_runs([runs / "seed-2", tmp_path / "other"])
    answers = analysis.over(tree, analysis.last_motion)
    assert answers.token.values.tolist() == [1, 3, 5]
    assert answers.attrs["only_shared"] == ["token"]


def test_only_runs_with_more_tokens_are_said_to_have_more():
    one = analysis.simulate.with_last_motion([3, 5], total_steps=9, tokens=[1, 2])
    other = analysis.simulate.with_last_motion([3, 7, 8], total_steps=9, tokens=[1, 2, 4])
    turned = {"one": one, "other": other.isel(token=[1, 0])}
    told = analysis.over(turned, analysis.last_motion)
    assert told.token.values.tolist() == [1, 2]
    assert told.last_motion.values.tolist() == [[3, 5], [3, 7]]
    assert "only_shared" not in told.attrs
    assert analysis.over({"one": one, "other": other}, analysis.last_motion).attrs["only_shared"] == ["token"]
    with pytest.raises(ValueError, match="other: token 1 stands there more than once"):
        analysis.over({"one": one, "other": other.isel(token=[0, 1, 0])}, analysis.last_motion)


def test_names_that_are_the_same_are_told_apart(runs, tmp_path):
    for name in ("a", "b"):
        crucible.import_run(lab.write(tmp_path / "old", {"W": lab.weights(3, 2, 2)}), tmp_path / name / "run")
    assert list(crucible.open_runs([tmp_path / "a/run", tmp_path / "b/run"]).children) == ["a-run", "b-run"]
    with pytest.raises(NotATrajectoryError, match="no run there"):
        crucible.open_runs(f"{tmp_path}/nothing*")
    with pytest.raises(NotATrajectoryError):
        crucible.open_runs([runs / "seed-1", tmp_path / "nobody"])


def test_a_part_of_every_run(runs):
    tree = crucible.open_runs(runs, tokens=[1, 2], steps=(3, 9))
    assert {name: dict(child.sizes)["token"] for name, child in tree.children.items()} == dict.fromkeys(
        tree.children, 2
    )
    assert analysis.over(tree, analysis.fimbulwinter).sizes["run"] == 3


@pytest.mark.slow
def test_analyze_of_several_is_a_table_with_a_row_a_run(runs, capsys):
    paths = [str(runs / name) for name in LENGTHS]
    assert main(["analyze", *paths]) == 0
    header, *rows, motion = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["run", "steps", "tokens"]
    assert motion == "Motion is L2 >= 0.1 cells."
    assert [row.split()[0] for row in rows] == list(LENGTHS)
    assert main(["analyze", *paths, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for each, row in zip(told, rows, strict=True):
        assert ("no verdict" in row) == bool(each["end_state"]["no_verdict"])  # which is another thing than "no"
    assert any("no verdict" in row for row in rows)
    assert [each["steps"] for each in told] == list(LENGTHS.values())
    assert told[0] == json.loads(json.dumps(crucible.analyze(paths[0])))
    assert main(["analyze", *paths, "--csv", "--tokens", "1,2"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [int(row["steps"]) for row in table] == list(LENGTHS.values())
    assert {row["tokens"] for row in table} == {"2"}
    assert table[0]["freeze.latest"] == str(crucible.analyze(paths[0], tokens=[1, 2])["freeze"]["latest"])


def test_where_steps_are_missing_there_is_no_verdict_in_the_table():
    header, (row,) = table([told_of("run", apart=5)])
    assert row[header.index("frozen")] == "no verdict"


@pytest.mark.parametrize(("names", "next_one"), [(["seed-1", "seed-1"], "report"), (["seed-1", "seed-2"], "compare")])
def test_the_command_that_comes_next_can_be_run(names, next_one, runs, capsys):
    assert main(["analyze", *(str(runs / name) for name in names), "--threshold", "0.5"]) == 0
    assert capsys.readouterr().err.startswith(f"next: crucible {next_one} ")


def told_of(run, *, parts=None, tokens=4, completed=True, threshold=0.1, apart=1):
    """Of the answers about a run what is said of several runs."""
    populations = parts and {name: {"tokens": count} for name, count in parts.items()}
    return {
        "run": run, "tokens": tokens, "populations": populations, "diverged": None, "completed": completed,
        "norm": "l2", "threshold": threshold, "resolution_steps": apart, "end_state": None,
    }  # fmt: skip


def test_below_a_table_every_line_names_the_runs_that_it_is_true_of():
    both, some = {"dead": 2, "live": 2}, {"dead": 2, "live": 1}
    together = "together, so that whatever moves longest decides."
    said = said_of_several([
        told_of("/a/run", parts=both), told_of("/b/run", completed=False, threshold=0.3, apart=5),
        told_of("/c/run", parts=some), told_of("/d/run", parts=both), told_of("/e/run", parts={"rare": 1}),
    ])  # fmt: skip
    assert said == [
        f"a-run, d-run: dead and live tokens {together} --population dead asks of one alone.",
        f"c-run: dead and live and other tokens {together} --population dead asks of one alone.",
        f"e-run: rare and other tokens {together} --population rare asks of one alone.",
        "Not completed, so that all of this is as of the last commit: b-run.",
        "Steps are missing, so that a motion came before the step that is named: up to 4 steps in b-run.",
        "Motion is not the same in all: L2 >= 0.1 cells in a-run, c-run, d-run, e-run; L2 >= 0.3 cells in b-run.",
    ]


def test_a_prefix_is_no_difference_and_is_said_to_be_one(runs, tmp_path, capsys):
    crucible.export_run(runs / "seed-10", tmp_path / "part", steps=(0, 9))
    crucible.import_run(tmp_path / "part", tmp_path / "run")
    assert main(["compare", str(runs / "seed-10"), str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "the second is a prefix of the first: equal as far as both go; they end at steps 20 and 8" in out
    found = crucible.compare(runs / "seed-10", tmp_path / "run")
    assert (found["equal"], found["differs"]) == (False, False)
    assert found["reason"].startswith("the second is a prefix of the first")


def test_compare_takes_any_number_and_a_selection(runs, tmp_path, capsys):
    crucible.export_run(runs / "seed-10", tmp_path / "part", steps=(0, 9))
    crucible.import_run(tmp_path / "part", tmp_path / "run")
    three = [str(runs / "seed-10"), str(tmp_path / "run"), str(runs / "seed-1")]
    assert main(["compare", *three]) == 1
    out = capsys.readouterr().out
    assert "is a prefix of" in out
    assert "first difference: W at step 0" in out
    assert out.splitlines()[-1] == f"1 of 2 differ from the first: {runs / 'seed-1'}"
    assert main(["compare", *three, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["differs"] for each in told["comparisons"]] == [False, True]
    words = ["--tokens", "2,3", "--steps", "2:5"]
    assert main(["compare", *three[:2], *words]) == 0
    assert "compared: 3 states of W" in capsys.readouterr().out
    assert main(["compare", *three[:2], "--population", "undead"]) == 2
    assert "there is no population 'undead'" in capsys.readouterr().err


def test_two_runs_over_time(runs):
    one, other = (crucible.open_trajectory(runs / name) for name in ("seed-1", "seed-2"))
    told = analysis.apart(one, other)
    assert told.step.values.tolist() == list(range(13))
    assert float(told.share.min()) > 0


@pytest.fixture
def copied(runs, tmp_path):
    """Two runs; one of them also as a copy that a program for syncing made, and by a link."""
    for name in ("seed-1", "seed-2"):
        shutil.copytree(runs / name, tmp_path / "set" / name)
    shutil.copytree(runs / "seed-1", tmp_path / "set" / "seed-1 (conflicted copy)")
    (tmp_path / "set" / "latest").symlink_to("seed-1")
    return tmp_path / "set"


TOLD = "One run is there 3 times, as a copy (which may have gone on by itself) or by a link: latest, seed-1, seed"


def test_a_run_that_is_there_more_than_once_is_told(copied, capsys):
    with pytest.warns(UserWarning, match=re.escape(TOLD)):
        crucible.open_runs(copied)
    crucible.open_runs([copied / "seed-1", copied / "seed-2"])
    paths = [str(path) for path in sorted(copied.iterdir())]
    assert main(["analyze", *paths]) == 0
    assert TOLD in capsys.readouterr().out
    for how in ("--json", "--csv"):
        assert main(["analyze", *paths, how]) == 0
        out, err = capsys.readouterr()
        assert TOLD in err
        assert TOLD not in out
    assert main(["analyze", *(str(copied / name) for name in ("seed-1", "seed-2"))]) == 0
    assert "One run" not in "".join(capsys.readouterr())


@pytest.mark.slow
def test_a_report_of_a_run_that_is_there_more_than_once_tells(copied, tmp_path):
    crucible.report([copied / "latest", copied / "seed-1", copied / "seed-2"], tmp_path / "report.html")
    assert "by a link: latest, seed-1. What is counted" in (tmp_path / "report.html").read_text()
