"""Files that name their steps, and files with gaps between them: in, through the tools, and out again."""

import json
import os

import h5py
import lab_files as lab
import numpy as np
import pytest
from safetensors.torch import load_file
from torch import nn, optim

import crucible
from crucible.cli.main import main
from crucible.inspection.check import check
from crucible.inspection.compare import compare
from crucible.interchange.exporter import export_run
from crucible.interchange.importing import copying, importer
from crucible.interchange.importing.importer import import_run
from store.errors import RunExistsError, TensorFileError
from store.reading.reader import open_trajectory
from store.run.commit import read_commit
from store.upkeep.compact import compact

LABELS = {
    "every 500th": list(range(0, 10001, 500)),
    "not from 0": list(range(143000, 143021)),
    "growing": [2**i - 1 for i in range(21)],
    "a gap": [*range(10), *range(20, 31)],
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


@pytest.fixture(scope="module")
def arrays():
    return lab.notebook()


def by_labels(arrays, labels):
    """The arrays of a file of these steps: the same states, under other labels."""
    last = arrays["last_motion_step"]
    told = np.where(last < 0, -1, np.asarray(labels)[np.maximum(last, 0)])
    return {**arrays, "last_motion_step": told.astype(np.int32), "step": np.asarray(labels)}


def as_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


WRITE = {"safetensors": lab.write, "hdf5": as_hdf5}


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize("labels", LABELS)
def test_steps_come_in_and_go_out_again(arrays, tmp_path, labels, kind):
    """Every freeze time was wrong by the distance of the steps."""
    named = by_labels(arrays, LABELS[labels])
    report = import_run(WRITE[kind](tmp_path / "a", named), tmp_path / "run")
    apart = max(np.diff(LABELS[labels]))
    assert report.differences == ()
    assert report.left_out == {}
    assert "step" in report.kept
    assert (report.first_step, report.last_step) == (LABELS[labels][0], LABELS[labels][-1])
    assert (report.states, report.resolution_steps) == (21, apart)
    ds = open_trajectory(tmp_path / "run")
    assert ds.step.values.tolist() == LABELS[labels]
    assert ds.last_motion_step.values.tolist() == named["last_motion_step"].tolist()
    assert ds.last_motion_step.attrs.get("resolution_steps", 1) == apart
    assert check(tmp_path / "run").is_whole
    export_run(tmp_path / "run", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == lab.bytes_of(named)
    import_run(tmp_path / "b", tmp_path / "again")
    assert open_trajectory(tmp_path / "again").step.values.tolist() == LABELS[labels]


@pytest.mark.default_cases(4)
@pytest.mark.parametrize("name", ["step", "steps"])
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint16", "uint64", ">i4"])
def test_both_names_and_every_integer(arrays, tmp_path, name, dtype):
    labels = np.array(LABELS["every 500th"], dtype)
    import_run(as_hdf5(tmp_path / "a", {"W": arrays["W"], name: labels}), tmp_path / "run")
    assert open_trajectory(tmp_path / "run").step.values.tolist() == LABELS["every 500th"]


def test_steps_without_gaps_change_nothing(arrays, tmp_path):
    both = {**arrays, "step": np.arange(21), "steps": np.arange(21, dtype=np.int32)}
    report = import_run(lab.write(tmp_path / "a", both), tmp_path / "run")
    assert (report.last_step, report.resolution_steps) == (20, 1)
    export_run(tmp_path / "run", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == lab.bytes_of(arrays)


BAD = {
    "one for each move": (np.arange(1, 21) * 10, r"step has shape \(20,\); expected 21 along its step"),
    "one too many": (np.arange(22), "expected 21 along its step"),
    "how many there are": (np.array(21), r"expected 1 dimensions, step; mend it, or leave it out with --skip step"),
    "a column": (np.arange(21)[:, None], "expected 1 dimensions"),
    "descending": (np.arange(21)[::-1].copy(), "labels ascend, but 19 follows 20 at position 1"),
    "twice": (np.minimum(np.arange(21), 19), "labels ascend, but 19 follows 19 at position 20"),
    "below 0": (np.arange(21) - 1, "labels go from 0"),
    "numbers with a point": (np.arange(21.0), "step is F64; expected I8 or"),
    "too large": (np.arange(21) + 2**31, "steps up to 2,147,483,647 can be kept"),
    "far too large": (np.arange(21, dtype=np.uint64) + 2**63, "labels go from 0 to at most"),
}


@pytest.mark.parametrize("name", BAD)
def test_steps_that_cannot_be_are_refused_and_can_be_left_out(arrays, tmp_path, name):
    values, message = BAD[name]
    as_hdf5(tmp_path / "a", {"W": arrays["W"], "step": values})
    with pytest.raises(TensorFileError, match=message) as raised:
        import_run(tmp_path / "a", tmp_path / "run")
    assert str(tmp_path / "a") in str(raised.value)
    assert not (tmp_path / "run").exists()
    assert import_run(tmp_path / "a", tmp_path / "run", skip=["step"]).left_out == {"step": "as --skip asked"}
    assert open_trajectory(tmp_path / "run").step.values.tolist() == list(range(21))


def test_two_arrays_that_disagree_are_refused(arrays, tmp_path):
    lab.write(tmp_path / "a", {"W": arrays["W"], "step": np.arange(21), "steps": np.arange(21) * 2})
    with pytest.raises(TensorFileError, match="step and steps name other steps; leave one out with --skip"):
        import_run(tmp_path / "a", tmp_path / "run")
    import_run(tmp_path / "a", tmp_path / "run", skip=["step"])
    assert open_trajectory(tmp_path / "run").step.values[-1] == 40


def test_what_is_derived_over_gaps_says_so(arrays, tmp_path):
    import_run(lab.write(tmp_path / "a", {"W": arrays["W"], "step": np.arange(21) * 500}), tmp_path / "run")
    ds = open_trajectory(tmp_path / "run")
    for name in ("delta_W_prime", "displacement_l1", "displacement_l2", "displacement_linf", "last_motion_step"):
        assert ds[name].attrs["resolution_steps"] == 500, name
    assert "recorded step before" in ds.delta_W_prime.attrs["meaning"]
    assert "recorded step before" in ds.last_motion_step.attrs["meaning"]
    words = json.loads((tmp_path / "run/metadata.json").read_text())
    assert (words["total_steps"], words["recorded_states"], words["resolution_steps"]) == (10000, 21, 500)
    import_run(lab.write(tmp_path / "b", {"W": arrays["W"]}), tmp_path / "plain")
    assert all("resolution_steps" not in array.attrs for array in open_trajectory(tmp_path / "plain").values())


def test_moves_of_single_steps_are_reported_where_states_are_missing(tmp_path):
    """W of every second state, but the displacement of every single step: not what these states say."""
    every = lab.notebook(lab.weights(40, strange=False))
    some = {"W": every["W"][::2], "delta_W_prime": every["delta_W_prime"][1::2], "step": np.arange(21) * 2}
    some["last_motion_step"] = every["last_motion_step"]
    lab.write(tmp_path / "a", some)
    delta, *_ = import_run(tmp_path / "a", tmp_path / "run").differences
    assert delta.array == "delta_W_prime"
    between = lab.displacement(some["W"])
    first = np.argwhere((between != some["delta_W_prime"]).any(axis=(1, 2)))[0, 0]
    assert delta.where.startswith(f"step {2 * (first + 1)}, ")
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").delta_W_prime.values[1:], between)


def test_differences_are_told_by_labels(arrays, tmp_path):
    wrong = by_labels(arrays, LABELS["every 500th"])
    for name, index, value in (("delta_W_prime", (6, 3, 1), 0.25), ("centroid", (4, 1), 9), ("loss", 3, 1)):
        wrong[name] = wrong[name].copy()
        wrong[name][index] = value
    where = {
        told.array: told.where for told in import_run(lab.write(tmp_path / "a", wrong), tmp_path / "run").differences
    }
    assert where["delta_W_prime"].startswith("step 3500, ")
    assert where["centroid"].startswith("step 2000, ")


def test_an_interrupted_import_goes_on_with_its_steps(arrays, tmp_path, monkeypatch):
    named = by_labels(arrays, LABELS["growing"])
    lab.write(tmp_path / "a", named)
    monkeypatch.setattr(copying, "READ_BYTES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(importer.TrajectoryWriter, "complete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            import_run(tmp_path / "a", tmp_path / "run")
    assert read_commit(tmp_path / "run").committed_steps == LABELS["growing"][-1]
    assert import_run(tmp_path / "a", tmp_path / "run").resumed_from == LABELS["growing"][-1]
    export_run(tmp_path / "run", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == lab.bytes_of(named)


@pytest.mark.parametrize(("span", "rows"), [((0, 10001), (0, 21)), ((500, 2001), (1, 5)), ((1, 999), (1, 2)),
                                            ((0, 1), (0, 1)), ((9999, 10001), (20, 21))])  # fmt: skip
def test_steps_of_choice_are_labels(arrays, tmp_path, span, rows):
    named = by_labels(arrays, LABELS["every 500th"])
    import_run(lab.write(tmp_path / "a", named), tmp_path / "run")
    report = export_run(tmp_path / "run", tmp_path / "b", steps=span)
    first, stop = rows
    assert report.steps == (500 * first, 500 * (stop - 1) + 1)
    loaded = load_file(tmp_path / "b")
    assert loaded["W"].numpy().tolist() == named["W"][first:stop].tolist()
    assert loaded["delta_W_prime"].shape[0] == stop - first - 1
    assert ("step" in loaded) == (rows != (0, 1))
    assert "step" not in loaded or loaded["step"].tolist() == named["step"][first:stop].tolist()
    assert ("last_motion_step" in loaded) == (rows == (0, 21))


@pytest.mark.parametrize("span", [(0, 0), (1, 500), (501, 1000), (0, 10002), (-1, 5), (10001, 10002)])
def test_steps_between_the_recorded_ones_are_not_there(arrays, tmp_path, span):
    import_run(lab.write(tmp_path / "a", by_labels(arrays, LABELS["every 500th"])), tmp_path / "run")
    with pytest.raises(ValueError, match="not among the committed steps 0:10001"):
        export_run(tmp_path / "run", tmp_path / "b", steps=span)


def test_a_part_comes_in_again_under_its_own_steps(arrays, tmp_path):
    """By the array `step`; and where only W was exported, by the words beside it."""
    import_run(lab.write(tmp_path / "a", arrays), tmp_path / "run")
    for name, only in (("all", None), ("some", ["W"])):
        (tmp_path / name).mkdir()
        report = export_run(tmp_path / "run", tmp_path / name / "b", steps=(5, 12), only=only)
        assert ("step" in report.left_out) == (only is not None)
        import_run(tmp_path / name / "b", tmp_path / name / "run")
        ds = open_trajectory(tmp_path / name / "run")
        assert ds.step.values.tolist() == list(range(5, 12))
        np.testing.assert_array_equal(ds.W.values, arrays["W"][5:12])


def test_a_part_that_nothing_names_is_refused(arrays, tmp_path):
    import_run(lab.write(tmp_path / "a", by_labels(arrays, LABELS["every 500th"])), tmp_path / "run")
    (tmp_path / "part").mkdir()
    export_run(tmp_path / "run", tmp_path / "part/b", only=["W"])
    with pytest.raises(TensorFileError, match="of the steps 0:10001, but it has 21 rows and no array `step`"):
        import_run(tmp_path / "part/b", tmp_path / "run2")
    export_run(tmp_path / "run", tmp_path / "part/c", only=["W", "step"])
    import_run(tmp_path / "part/c", tmp_path / "run2")
    assert open_trajectory(tmp_path / "run2").step.values.tolist() == LABELS["every 500th"]


def test_the_commands_name_the_steps(arrays, tmp_path, capsys):
    lab.write(tmp_path / "a", {**by_labels(arrays, LABELS["every 500th"]), "extra": np.zeros(1)})
    run = str(tmp_path / "run")
    assert main(["import", str(tmp_path / "a"), run]) == 1
    assert "--skip extra" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "a"), run, "--skip", "extra"]) == 0
    told = capsys.readouterr()
    assert "21 states of steps 0 to 10,000, up to 500 steps apart, 7 tokens" in told.out
    assert told.err.startswith("left out: extra (as --skip asked)\n")
    assert main(["info", run]) == 0
    assert "recorded: 21 states of steps 0 to 10,000, up to 500 steps apart" in capsys.readouterr().out
    assert main(["info", run, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["first_step"], found["committed_steps"], found["states"], found["resolution_steps"]) == (
        0,
        10000,
        21,
        500,
    )
    assert main(["check", run]) == 0
    assert "committed step 10,000: whole" in capsys.readouterr().out


@pytest.mark.slow
def test_analysis_answers_by_the_steps_of_the_file(arrays, tmp_path, capsys):
    import_run(lab.write(tmp_path / "a", by_labels(arrays, LABELS["every 500th"])), tmp_path / "run")
    import_run(lab.write(tmp_path / "b", arrays), tmp_path / "plain")
    answers = {}
    for run in ("run", "plain"):
        assert main(["analyze", str(tmp_path / run), "--json"]) == 0
        answers[run] = json.loads(capsys.readouterr().out)
    assert answers["plain"]["freeze"]["latest"] > 0
    for name, step in answers["plain"]["freeze"].items():
        assert answers["run"]["freeze"][name] == (step if step is None else 500 * step)
    assert answers["run"]["resolution_steps"] == 500
    assert answers["run"]["end_state"] is None
    assert main(["watch", str(tmp_path / "run")]) == 0
    assert "step 10,000, last motion 9,500" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report.html")]) == 0
    assert "21 states of steps 0 to 10,000, up to 500 steps apart" in (tmp_path / "report.html").read_text()


def test_a_compacted_run_keeps_its_steps(arrays, tmp_path):
    named = by_labels(arrays, LABELS["a gap"])
    import_run(lab.write(tmp_path / "a", named), tmp_path / "run")
    compact(tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == lab.bytes_of(named)
    assert check(tmp_path / "run").is_whole


def test_a_run_and_every_fifth_step_of_it_are_compared_where_both_are(arrays, tmp_path, capsys):
    lab.write(tmp_path / "a", arrays)
    lab.write(tmp_path / "b", {"W": arrays["W"][::5], "dead_mask": arrays["dead_mask"], "step": np.arange(5) * 5})
    for name in ("a", "b"):
        import_run(tmp_path / name, tmp_path / f"run-{name}")
    runs = [str(tmp_path / "run-a"), str(tmp_path / "run-b")]
    found = compare(*runs)
    assert (found["array"], found["compared"], found["states"], found["same_steps"]) == (None, 5, [21, 5], False)
    assert main(["compare", *runs]) == 1
    told = capsys.readouterr().out
    assert "equal at the 5 steps that both recorded, of 21 and 5" in told
    assert "belong to other steps: delta_W_prime, displacement_l1" in told


def test_a_loop_does_not_go_on_with_such_a_run(tmp_path):
    table = nn.Embedding(7, 3)
    W = lab.weights(4)
    import_run(lab.write(tmp_path / "a", {"W": W, "step": np.arange(5) * 10}), tmp_path / "run")
    with pytest.raises(ValueError, match="5 states of steps 0 to 40, and a loop cannot go on with it"):
        crucible.attach(table, optim.SGD(table.parameters(), 0.1), tmp_path / "run", resume=40)
    assert read_commit(tmp_path / "run").committed_steps == 40


def test_another_file_with_other_steps_does_not_go_on(arrays, tmp_path, monkeypatch):
    """The words beside the file may have gone meanwhile, and with them the steps."""
    lab.write(tmp_path / "a", {"W": arrays["W"]}, words={"exported": {"steps": [100, 121]}, "motion_threshold": 0.1})
    with monkeypatch.context() as patch:
        patch.setattr(importer.TrajectoryWriter, "complete", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            import_run(tmp_path / "a", tmp_path / "run")
    (tmp_path / "metadata.json").unlink()
    with pytest.raises(RunExistsError, match="of other steps"):
        import_run(tmp_path / "a", tmp_path / "run")
