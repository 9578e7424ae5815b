"""Channels that were recorded at some steps only: out to a file and in again, values and labels."""

import os
from dataclasses import replace

import lab_files as lab
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import crucible
from crucible.channels.sources import hidden_mean
from crucible.channels.table import (
    ADAM_M,
    ADAM_V,
    CENTROID,
    DELTA,
    GRADIENT,
    LAST_MOTION,
    LEARNING_RATE,
    LOSS,
    NORMS,
    W,
)
from store.errors import TensorFileError

T, V, D = 20, 6, 3
NAMES = ("adam_m", "adam_v", "gradient", "loss", "learning_rate", "centroid", "h_mean")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


def record(run, table, *, dtype=torch.float32, first_step=0, steps=T):
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(V, D).to(dtype)
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=0.01)
    mean = hidden_mean(embedding)
    table = (*table, replace(mean, channel=replace(mean.channel, every=4)))
    with crucible.attach(embedding, optimizer, run, channels=table, first_step=first_step) as recorder:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (embedding(torch.arange(V)).float() ** 3).sum()
            loss.backward()
            recorder.log(loss=loss)
            optimizer.step()
    return run


TABLES = {
    "each its own": (
        W, DELTA, *NORMS, replace(CENTROID, every=5), replace(LOSS, every=2), LAST_MOTION,
        replace(GRADIENT, every=3), replace(ADAM_M, until=4), replace(ADAM_V, every=2, until=9), LEARNING_RATE,
    ),
    "one row": (W, DELTA, *NORMS, CENTROID, LOSS, LAST_MOTION, replace(ADAM_M, until=0), replace(GRADIENT, every=20)),
}  # fmt: skip


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("first_step", [0, 1003])
def test_schedules_come_back_in(tmp_path, name, dtype, first_step):
    if first_step:
        table = [replace(c, until=c.until and c.until + 1003) if c.until is not None else c for c in TABLES[name]]
        table = [c for c in table if c.until != 0]
    else:
        table = TABLES[name]
    run = record(tmp_path / "run", table, dtype=dtype, first_step=first_step)
    ds = crucible.open_trajectory(run)
    there = [each for each in NAMES if each in ds and ds[each].sizes[ds[each].dims[0]]]
    crucible.export_run(run, tmp_path / "a", only=["W", *there, *{ds[each].dims[0] for each in there}, "token"])
    report = crucible.import_run(tmp_path / "a", tmp_path / "again")
    assert report.differences == ()
    assert report.left_out == {}
    again = crucible.open_trajectory(tmp_path / "again")
    for each in ("W", *there):
        one, other = ds[each], again[each]
        assert (one.dims, one.dtype) == (other.dims, other.dtype)
        assert one[one.dims[0]].values.tolist() == other[one.dims[0]].values.tolist()
        assert one.values.tobytes() == other.values.tobytes(), each
    assert crucible.check(run).is_whole
    assert crucible.check(tmp_path / "again").is_whole
    crucible.export_run(tmp_path / "again", tmp_path / "b", only=list(load_file(tmp_path / "a")))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def arrays(**more):
    return {"W": lab.weights(T, V, D, strange=False), **more}


def moments(rows, seed=0):
    return np.random.default_rng(seed).random((rows, V, D), np.float32)


def test_weights_with_a_schedule_come_in_as_a_run_with_gaps(tmp_path):
    run = record(tmp_path / "run", (replace(W, every=5), replace(GRADIENT, every=5), LOSS))
    crucible.export_run(run, tmp_path / "a", only=["W", "step_W", "gradient", "step_gradient"])
    crucible.import_run(tmp_path / "a", tmp_path / "again")
    ds, again = crucible.open_trajectory(run), crucible.open_trajectory(tmp_path / "again")
    assert again.step.values.tolist() == ds.step_W.values.tolist() == [0, 5, 10, 15, 20]
    for name in ("W", "gradient"):
        assert again[name].dims[0] == "step"
        assert again[name].values.tobytes() == ds[name].values.tobytes()


def test_labels_that_are_those_of_the_weights_change_nothing(tmp_path):
    for rows in (T, T + 1):
        path = lab.write(tmp_path / f"{rows}", arrays(m=moments(rows), step_m=np.arange(T + 1)[-rows:]))
        crucible.import_run(path, tmp_path / f"run{rows}")
        ds = crucible.open_trajectory(tmp_path / f"run{rows}")
        assert ds.adam_m.dims == ("step", "token", "hidden")
        assert (ds.adam_m.values[-rows:] == moments(rows)).all()


def test_labels_come_under_the_names_of_their_arrays(tmp_path):
    path = lab.write(tmp_path / "old", arrays(velocity=moments(3), step_velocity=np.array([0, 7, 14], np.int32)))
    told = crucible.list_file(path, rename={"velocity": "adam_m", "step_velocity": "step_adam_m"})
    assert {row["name"]: row["comes_in_as"] for row in told} == {
        "W": "W", "velocity": "adam_m", "step_velocity": "step_adam_m"
    }  # fmt: skip
    assert next(row for row in told if row["name"] == "velocity")["dims"] == ["step_adam_m", "token", "hidden"]
    crucible.import_run(path, tmp_path / "run", rename={"velocity": "adam_m", "step_velocity": "step_adam_m"})
    ds = crucible.open_trajectory(tmp_path / "run")
    assert ds.step_adam_m.values.tolist() == [0, 7, 14]
    assert (ds.adam_m.values == moments(3)).all()


def test_labels_of_what_is_left_out_are_left_out_and_said(tmp_path):
    path = lab.write(tmp_path / "old", arrays(m=moments(3), step_m=np.array([0, 7, 14])))
    report = crucible.import_run(path, tmp_path / "run", skip=["m"])
    assert report.left_out["step_adam_m"] == "it holds the steps of an array that does not come in"


WRONG = {
    "no schedule": ([0, 1, 5], "are no schedule"),
    "beyond the end": ([0, 20, 40], "are no schedule"),
    "not ascending": ([0, 6, 3], "cannot be: labels ascend"),
    "too few": ([0, 5], "expected 3 along its step_adam_m dimension"),
}


@pytest.mark.parametrize("name", WRONG)
def test_labels_that_make_no_sense_are_refused(tmp_path, name):
    labels, sentence = WRONG[name]
    path = lab.write(tmp_path / "old", arrays(m=moments(3), step_m=np.array(labels)))
    with pytest.raises(TensorFileError, match=sentence):
        crucible.import_run(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_schedule_in_a_run_with_gaps_is_refused(tmp_path):
    path = lab.write(tmp_path / "old", arrays(step=np.arange(T + 1) * 2, m=moments(3), step_m=np.array([0, 20, 40])))
    with pytest.raises(
        TensorFileError, match="leaves out steps itself; mend them, or leave m out with --skip m --skip"
    ):
        crucible.import_run(path, tmp_path / "run")


def test_the_labels_of_a_schedule_come_along_unasked(tmp_path):
    """One row of step 10 was taken for one of step 11, where there are two states."""
    run = record(tmp_path / "run", (W, replace(ADAM_M, every=10)))
    report = crucible.export_run(run, tmp_path / "a", only=["W", "adam_m", "step"], steps=(10, 12))
    assert {array.name: array.shape[0] for array in report.arrays} == {"W": 2, "adam_m": 1, "step": 2, "step_adam_m": 1}
    crucible.import_run(tmp_path / "a", tmp_path / "again")
    ds, again = (crucible.open_trajectory(each) for each in (run, tmp_path / "again"))
    assert again.step_adam_m.values.tolist() == [10]
    assert (again.adam_m.values[0] == ds.adam_m.values[1]).all()


def test_a_schedule_without_rows_is_left_out_and_said(tmp_path):
    run = record(tmp_path / "run", (W, replace(ADAM_V, every=10)))
    crucible.export_run(run, tmp_path / "a", only=["W", "adam_v", "step"], steps=(3, 7))
    report = crucible.import_run(tmp_path / "a", tmp_path / "again")
    assert report.left_out == dict.fromkeys(["adam_v", "step_adam_v"], "it has no rows")
    assert crucible.open_trajectory(tmp_path / "again").step.values.tolist() == [3, 4, 5, 6]


def test_one_state_alone_comes_in_with_its_empty_moments(tmp_path):
    path = lab.write(tmp_path / "old", {"W": arrays()["W"][:1], "m": moments(0), "v": moments(0)})
    crucible.import_run(path, tmp_path / "run")
    assert (crucible.open_trajectory(tmp_path / "run").adam_v.values == 0).all()
