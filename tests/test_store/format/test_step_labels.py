"""Runs whose steps are not 0, 1, 2, ...: written, read, checked, cut, resumed and compacted by their labels."""

import doctest
import json
from dataclasses import replace

import numpy as np
import pytest
import shards
import tiny_runs
from hypothesis import given
from hypothesis import strategies as st

import store
import store.format.step_labels
from store.errors import DifferenceError, MetadataError, MissingError, RowError
from store.format import chunking
from store.format.files import DOCUMENT, SECOND_COPY, TRAJECTORY
from store.format.schema import Channel
from store.format.step_labels import LARGEST_LABEL, MOST_STRETCHES, StepLabels
from store.run.commit import read_commit
from store.upkeep.compact import compact

OPTIONS = {"derive": tiny_runs.derive, "finish": tiny_runs.finish}
LABELS = {
    "every 500th": list(range(0, 15001, 500)),
    "not from 0": list(range(143000, 143031)),
    "growing": [2**i - 1 for i in range(31)],
    "a gap": [*range(10), *range(20, 41)],
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(chunking, "BLOCK_STEPS", 8)


@pytest.fixture
def states():
    return tiny_runs.weights(30)


def record(run, states, labels):
    with tiny_runs.create(run, states, labels=labels) as writer:
        fill(writer, states)
        writer.complete(lambda finals: {"largest": float(finals["largest"].max())})
    return run


def fill(writer, states, start=0, stop=None):
    for row in range(start, len(states) if stop is None else stop):
        writer.append(**tiny_runs.row(states, row))


def damage(run):
    return [str(found) for found in store.check(run, agree=tiny_runs.agree, **OPTIONS).damage]


def assert_holds(run, states, labels):
    """The run holds these states under these labels, and all else as if they were 0, 1, 2, ..."""
    ds = store.open_trajectory(run)
    assert ds.step.values.tolist() == labels
    assert ds.step.dtype == np.int64
    assert ds.attrs["committed_steps"] == labels[-1]
    np.testing.assert_array_equal(ds.W.values, states)
    expected = tiny_runs.derive({"W": states[0]}, {"W": states[1:]})
    np.testing.assert_array_equal(ds.jump.values[1:], expected["jump"])
    assert np.isnan(ds.jump.values[0]).all()
    np.testing.assert_array_equal(ds.sel(step=labels[3:9]).W.values, states[3:9])
    assert not damage(run)


ASCENDING = st.lists(st.integers(0, 40) | st.integers(0, 10**9), min_size=1, max_size=20, unique=True).map(sorted)
EVEN = st.builds(lambda first, distance, count: list(range(first, first + distance * count, distance)),
                 st.integers(0, 9), st.integers(1, 600), st.integers(1, 20))  # fmt: skip


@given(ASCENDING | EVEN | st.builds(lambda a, b: sorted({*a, *b}), EVEN, EVEN))
def test_stretches_are_the_labels(labels):
    steps, rows = StepLabels.of(labels), range(len(labels))
    assert StepLabels.from_attributes(json.loads(json.dumps(steps.to_attributes()))) == steps
    assert steps.is_plain == (labels == list(rows))
    assert [steps.label(row) for row in rows] == labels
    assert steps.label(-1) == -1
    for label in {-1, 0, *labels, *(label - 1 for label in labels), *(label + 1 for label in labels[:-1])}:
        assert steps.rows_until(label) == sum(each <= label for each in labels)
    for start in rows:
        assert steps.values(start, len(labels)).tolist() == labels[start:]
        assert steps.between(start, len(labels)) == (labels[start], labels[-1] + 1)
    assert steps.furthest_apart(len(labels)) == max([1, *np.diff(labels).tolist()])
    if (even := steps.as_range(len(labels))) is not None:
        assert list(even) == labels


@pytest.mark.parametrize(
    "labels", [[], [0.0, 1.0], [[0], [1]], [1, 0], [0, 0], [-1, 0], ["0"], [0, 2**62 + 1], [True, False]]
)
def test_labels_that_cannot_be_are_refused(tmp_path, states, labels):
    with pytest.raises(RowError, match="step labels"):
        tiny_runs.create(tmp_path / "run", states, labels=labels)
    assert not (tmp_path / "run").exists()


def test_labels_that_are_too_uneven_are_refused():
    uneven = np.cumsum(np.random.default_rng(0).integers(1, 10**6, 3 * MOST_STRETCHES))
    with pytest.raises(ValueError, match="changes more often than 65,536 times"):
        StepLabels.of(uneven)


def test_a_schedule_needs_steps_without_gaps(tmp_path):
    channels = [Channel("W", ("token",), "uint16"), Channel("probe", (), "float32", every=10)]
    with pytest.raises(RowError, match=r"probe follow a schedule"):
        store.TrajectoryWriter.create(tmp_path / "run", channels=channels, tokens=[1], labels=[0, 10, 20])


@pytest.mark.parametrize("name", LABELS)
def test_what_was_appended_stands_under_its_label(tmp_path, states, name):
    assert_holds(record(tmp_path / "run", states, LABELS[name]), states, LABELS[name])


def test_labels_without_gaps_leave_no_trace(tmp_path, states):
    one, other = tiny_runs.record(tmp_path / "one", states), record(tmp_path / "other", states, list(range(31)))
    assert tiny_runs.files(one) == tiny_runs.files(other)
    assert shards.content(one / TRAJECTORY / DOCUMENT) == shards.content(other / TRAJECTORY / DOCUMENT)
    with tiny_runs.create(tmp_path / "open", states[:3], labels=[0, 1, 2]) as writer:
        fill(writer, states)  # and they go on


def test_there_are_no_more_rows_than_labels(tmp_path, states):
    with tiny_runs.create(tmp_path / "run", states, labels=[0, 5, 7]) as writer:
        fill(writer, states, stop=3)
        assert writer.steps == 7
        with pytest.raises(RowError, match="created for 3 steps, and the last of them, 7, is there"):
            fill(writer, states, start=3)
    assert_holds_part(tmp_path / "run", states, [0, 5, 7])


def assert_holds_part(run, states, labels):
    ds = store.open_trajectory(run)
    assert ds.step.values.tolist() == labels
    np.testing.assert_array_equal(ds.W.values, states[: len(labels)])
    assert not damage(run)


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("rows", [1, 8, 13])
def test_a_run_goes_on_with_its_labels(tmp_path, states, name, rows):
    labels = LABELS[name]
    whole = record(tmp_path / "whole", states, labels)
    with tiny_runs.create(tmp_path / "run", states, labels=labels) as writer:
        fill(writer, states, stop=rows)
    assert_holds_part(tmp_path / "run", states, labels[:rows])
    with pytest.raises(ValueError, match=f"after step {labels[rows]}; it is committed up to {labels[rows - 1]}"):
        tiny_runs.resume(tmp_path / "run", from_step=labels[rows])
    with tiny_runs.resume(tmp_path / "run", from_step=labels[rows // 2]) as writer:
        assert writer.steps == labels[rows // 2]
        fill(writer, states, start=rows // 2 + 1)
        writer.complete(lambda finals: {"largest": float(finals["largest"].max())})
        assert writer.difference is None
    assert tiny_runs.files(tmp_path / "run") == tiny_runs.files(whole)
    assert_holds(tmp_path / "run", states, labels)


def test_only_a_label_can_be_gone_on_from(tmp_path, states):
    run = record(tmp_path / "run", states, LABELS["every 500th"])
    for step in (-2, 1, 499, 15500):
        with pytest.raises(ValueError, match="committed up to 15000"):
            tiny_runs.resume(run, from_step=step)
    tiny_runs.resume(run, from_step=4500, cut=True).close()
    assert_holds_part(run, states, LABELS["every 500th"][:10])


def test_a_difference_is_told_by_its_label(tmp_path, states):
    run = record(tmp_path / "run", states, LABELS["every 500th"])
    other = states.copy()
    other[20:] += 1
    with (
        pytest.raises(DifferenceError, match="step 10000: "),
        tiny_runs.resume(run, from_step=-1, on_difference="raise") as writer,
    ):
        fill(writer, other)
    with tiny_runs.resume(run, from_step=-1) as writer:
        fill(writer, other)
        writer.complete(lambda _: {})
    assert "step 10000: " in writer.difference
    assert_holds(run, other, LABELS["every 500th"])


def test_checkpoints_are_named_by_labels(tmp_path, states):
    with tiny_runs.create(tmp_path / "run", states, labels=LABELS["every 500th"]) as writer:
        fill(writer, states, stop=5)
        writer.checkpoint(1500, {"state": b"x"})
        writer.checkpoint(2500, {"state": b"y"})
        writer.commit()
        assert read_commit(tmp_path / "run").checkpoint == "step-1500"


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("label", [4999, 4501, 5001, 5499, 0, 4500, 10**6])
def test_a_wrong_label_is_found(tmp_path, states, label):
    """With the right checksum, and also where the labels still ascend."""
    run = record(tmp_path / "run", states, LABELS["every 500th"])
    array = read_commit(run).array(run / TRAJECTORY, "step")
    chunk = array.read_chunk((0,))
    chunk[10] = label
    shards.replace_chunk(array.folder / array.key((0,)), 0, b"".join(array.encode(chunk)))
    assert damage(run) == ["step, steps 5000..5000: labels are out of step"]
    assert store.repair(run, **OPTIONS) == ["wrote the labels step anew"]
    assert_holds(run, states, LABELS["every 500th"])


def test_damage_and_repair_speak_of_labels(tmp_path, states):
    labels = LABELS["every 500th"]
    run = record(tmp_path / "run", states, labels)
    (run / TRAJECTORY / "W" / "c.2.0.0").unlink()
    with pytest.raises(MissingError, match=r"W\[step 8000..11500"):
        store.open_trajectory(run).W.values  # noqa: B018 - reading is the point
    report = store.check(run, **OPTIONS)
    assert [found.steps for found in report.damage if found.name == "W"] == [(8000, 11501)]
    done = store.repair(run, **OPTIONS)
    assert "cut the run back from step 15000 to step 7500" in done
    assert_holds_part(run, states, labels[:16])


@pytest.mark.parametrize("name", LABELS)
def test_a_compacted_run_keeps_its_labels(tmp_path, states, name):
    run = record(tmp_path / "run", states, LABELS[name])
    assert compact(run).block_steps == 32
    assert_holds(run, states, LABELS[name])


def test_labels_that_the_commit_contradicts_are_damage(tmp_path, states):
    run = record(tmp_path / "run", states, LABELS["every 500th"])
    (run / SECOND_COPY).unlink()  # from which reading would go on
    for wrong in (
        [[0, 500, 30]], [[0, 500, 32], [3, 1, 1]], [[0, 0, 31]], [[0, -500, 31]], [[0, 500, None], [9, 1, 1]], [],
        [[0, 500]], [[0, 500, 31.0]], [[0, 500, True]], "0", [[0, 1, None]], [[0, 10**400, 1]], [[-1, 500, 31]],
        [[0, 500, 31]] * 2, [[0, 1, 1 << 47], [1 << 48, 2, 1 << 47]],
    ):  # fmt: skip
        commit = read_commit(run)
        step = {**commit.arrays["step"], "attributes": {**commit.arrays["step"]["attributes"], "labels": wrong}}
        data = replace(commit, arrays={**commit.arrays, "step": step}).to_bytes()
        before = (run / TRAJECTORY / DOCUMENT).read_bytes()
        (run / TRAJECTORY / DOCUMENT).write_bytes(data)
        with pytest.raises(MetadataError):
            read_commit(run)
        (run / TRAJECTORY / DOCUMENT).write_bytes(before)
    assert LARGEST_LABEL < 2**63


def test_examples_in_docstrings():
    assert doctest.testmod(store.format.step_labels).attempted > 0
    assert doctest.testmod(store.format.step_labels).failed == 0
