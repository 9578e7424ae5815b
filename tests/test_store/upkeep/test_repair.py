"""`repair`: what the commit or the whole rows tell is written anew, nothing whole is lost, the rest is cut back."""

import json
import shutil

import numpy as np
import pytest
import shards
import tiny_runs

import store
from store.format import chunking
from store.format.files import TRAJECTORY
from store.format.schema import Channel
from store.run.commit import read_commit

OPTIONS = {"derive": tiny_runs.derive, "finish": tiny_runs.finish}
EVERY = 5
SCHEDULED = (
    Channel("W", ("token", "hidden"), "uint16"),
    Channel("probe", ("token",), "float32", every=EVERY),
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(chunking, "BLOCK_STEPS", 8)


@pytest.fixture
def states():
    return tiny_runs.weights(30)


@pytest.fixture
def run(tmp_path, states):
    return tiny_runs.record(tmp_path / "run", states)


@pytest.fixture
def scheduled(tmp_path):
    """A run of 100 steps with a channel of every fifth step: 21 rows of it, in blocks of 8."""
    writer = store.TrajectoryWriter.create(
        tmp_path / "run", channels=SCHEDULED, tokens=np.arange(4) * 100, hidden=2, disk=tiny_runs.QUICK
    )
    with writer:
        for step in range(101):
            probe = {"probe": np.full(4, step, np.float32)} if step % EVERY == 0 else {}
            writer.append(W=np.full((4, 2), step, np.uint16), **probe)
    return tmp_path / "run"


def spoil(run, name, index):
    array = read_commit(run).array(run / TRAJECTORY, name)
    (array.folder / array.key(index)).write_bytes(b"")


def rewrite(run, name, index, change):
    """Replace a chunk by one that is whole, but holds other numbers."""
    array = read_commit(run).array(run / TRAJECTORY, name)
    values = np.array(array.read_chunk(index))
    change(values)
    chunk = b"".join(bytes(part) for part in array.encode(values))
    shards.replace_chunk(array.folder / array.key(index), array.layout.position(index), chunk)


def test_steps_of_a_channel_with_a_schedule_are_named_by_their_labels(scheduled):
    spoil(scheduled, "probe", (1, 0))  # rows 8 to 15, of steps 40, 45, ... 75
    [found] = store.check(scheduled).damage
    assert (found.name, found.steps, found.tokens) == ("probe", (40, 76), (0, 300))
    assert str(found).startswith("probe, steps 40..75, token ids 0..300: run: probe[step_probe 40..75]")
    spoil(scheduled, "probe", (2, 0))  # the last, cut off by the length
    assert store.check(scheduled).damage[1].steps == (80, 101)


def test_labels_out_of_step_are_named(scheduled):
    def change(labels):
        labels[[3, 6]] += 1

    rewrite(scheduled, "step_probe", (0,), change)
    rewrite(scheduled, "step", (0,), change)
    found = {damage.name: (damage.steps, damage.what) for damage in store.check(scheduled).damage}
    assert found == {
        "step": ((3, 7), "labels are out of step"),
        "step_probe": ((15, 31), "labels are out of step"),
    }


def test_a_cut_for_a_channel_with_a_schedule_is_at_its_label(scheduled):
    spoil(scheduled, "probe", (1, 0))
    assert "cut the run back from step 100 to step 39" in store.repair(scheduled)
    ds = store.open_trajectory(scheduled)
    assert ds.step.values.tolist() == list(range(40))
    assert ds.step_probe.values.tolist() == list(range(0, 40, EVERY))
    assert ds.probe.values[:, 0].tolist() == list(range(0, 40, EVERY))
    assert store.check(scheduled).is_whole


def test_rows_of_a_schedule_end_with_the_cut(scheduled):
    """Step 48 lies in the tenth block of probe's axis as in the seventh of the main one: each is cut at its own row."""
    spoil(scheduled, "W", (6, 0, 0))
    assert "cut the run back from step 100 to step 47" in store.repair(scheduled)
    ds = store.open_trajectory(scheduled)
    assert (ds.sizes["step"], ds.step_probe.values.tolist()) == (48, list(range(0, 48, EVERY)))


def test_damaged_labels_are_written_anew_and_in_the_way_of_no_cut(scheduled):
    before = tiny_runs.files(scheduled)
    spoil(scheduled, "step_probe", (0,))
    rewrite(scheduled, "step", (0,), lambda labels: labels.__setitem__(7, 8))
    found = {damage.name: damage.steps for damage in store.check(scheduled).damage}
    assert found == {"step_probe": (0, 101), "step": (7, 8)}
    assert store.repair(scheduled) == ["wrote the labels step anew", "wrote the labels step_probe anew"]
    assert store.check(scheduled).is_whole
    assert tiny_runs.files(scheduled) == before
    spoil(scheduled, "step_probe", (0,))
    spoil(scheduled, "W", (6, 0, 0))
    assert "cut the run back from step 100 to step 47" in store.repair(scheduled)
    assert store.open_trajectory(scheduled).step_probe.values.tolist() == list(range(0, 48, EVERY))


def test_a_row_of_a_move_at_step_0_is_damage_and_is_not_taken(run, states, tmp_path):
    rewrite(run, "loss", (0,), lambda values: values.__setitem__(0, 3.5))
    [found] = store.check(run, **OPTIONS).damage
    assert (found.name, found.steps) == ("loss", (0, 1))
    with tiny_runs.create(tmp_path / "new", states) as writer:
        with pytest.raises(store.errors.RowError, match="loss describes an update, and none leads to the first state"):
            writer.append(**(tiny_runs.row(states, 0) | {"loss": 3.5}))
        tiny_runs.fill(writer, states)
    tiny_runs.assert_holds(tmp_path / "new", states)


def chunks_below(folder, run):
    """The bytes of each file's chunks, whoever wrote it."""
    return [
        b"".join(shards.chunks_in(path, run / TRAJECTORY / path.parent.name)[1]) for path in sorted(folder.rglob("c.*"))
    ]


def test_a_second_cut_leaves_what_the_first_set_aside(run, states):
    contents = []
    for step, block in ((15, 2), (23, 3)):
        rewrite(run, "W", (block, 0, 0), lambda values: values.__iadd__(1))  # makes what is derived from it wrong
        contents += chunks_below(run / TRAJECTORY, run)
        assert f"cut the run back from step 30 to step {step}" in store.repair(run, **OPTIONS)
        assert store.check(run, **OPTIONS).is_whole
        with tiny_runs.resume(run) as writer:
            tiny_runs.fill(writer, states)
            writer.complete()
    assert set(contents) <= set(chunks_below(run, run))
    assert sorted(path.name for path in run.glob("set-aside*")) == ["set-aside", "set-aside-2"]
    tiny_runs.assert_holds(run, states)


def test_training_state_of_a_later_step_is_set_aside(tmp_path, states):
    run = tmp_path / "run"
    with tiny_runs.create(run, states) as writer:
        tiny_runs.fill(writer, states)
        writer.checkpoint(30, {"model.bin": b"weights", "state.json": b"{}"})
    spoil(run, "W", (2, 0, 0))
    store.repair(run, **OPTIONS)
    assert store.open_trajectory(run).attrs["checkpoint"] is None
    kept = run / "set-aside" / "checkpoint" / "step-30"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {"model.bin": b"weights", "state.json": b"{}"}
    assert store.check(run, **OPTIONS).is_whole


def test_training_state_that_is_gone_is_in_the_way_of_no_cut(tmp_path, states):
    run = tmp_path / "run"
    with tiny_runs.create(run, states) as writer:
        tiny_runs.fill(writer, states)
        writer.checkpoint(30, {"state.json": b"{}"})
    shutil.rmtree(run / "checkpoint" / "step-30")
    assert [damage.name for damage in store.check(run, **OPTIONS).damage] == ["checkpoint/step-30/state.json"]
    spoil(run, "W", (2, 0, 0))
    assert "cut the run back from step 30 to step 15" in store.repair(run, **OPTIONS)
    assert store.check(run, **OPTIONS).is_whole


def test_repair_leaves_nothing_in_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(store.errors.NotATrajectoryError):
        store.repair(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_repair_of_a_whole_run_changes_nothing(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != "LOCK"}
    assert store.repair(run, **OPTIONS) == []
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != "LOCK"} == before


def test_training_state_that_the_cut_reaches_stays(tmp_path, states):
    run = tmp_path / "run"
    with tiny_runs.create(run, states) as writer:
        tiny_runs.fill(writer, states, stop=16)
        writer.checkpoint(15, {"state.json": b"{}"})
        writer.commit()
        tiny_runs.fill(writer, states)
    spoil(run, "W", (2, 0, 0))
    assert "cut the run back from step 30 to step 15" in store.repair(run, **OPTIONS)
    assert store.open_trajectory(run).attrs["checkpoint"] == "step-15"
    assert store.check(run, **OPTIONS).is_whole


def test_an_array_whose_folder_is_gone_is_derived_again_or_named_never_ignored(run, states):
    shutil.rmtree(run / TRAJECTORY / "jump")
    found = store.check(run, **OPTIONS).damage
    assert {damage.name for damage in found} == {"jump", "trajectory.zarr/jump/zarr.json"}
    assert store.repair(run) == ["wrote trajectory.zarr/jump/zarr.json anew from the commit"]
    assert {damage.name for damage in store.check(run, **OPTIONS).damage} == {"jump"}  # its first step is lost, too
    assert store.repair(run, **OPTIONS) == ["derived jump again, 4 blocks of steps"]
    tiny_runs.assert_holds(run, states)


def test_metadata_of_a_static_array_is_never_behind(run):
    own = run / TRAJECTORY / "token" / "zarr.json"
    now = own.read_text()
    own.write_text(now.replace('"shape":[5]', '"shape":[4]'))
    assert [damage.name for damage in store.check(run, **OPTIONS).damage] == ["trajectory.zarr/token/zarr.json"]
    store.repair(run, **OPTIONS)
    assert own.read_text() == now


def test_config_json_is_compared_with_the_commit_and_written_anew(tmp_path, states):
    config = {"batch_size": 8, "rate": 1e-3, "corpus": "/old", "sha256": {"corpus": "ab"}}
    run = tmp_path / "run"
    with store.TrajectoryWriter.create(
        run, channels=tiny_runs.TABLE[:1], tokens=np.arange(5), hidden=3, disk=tiny_runs.QUICK, config=config,
        attributes={"config": config},
    ) as writer:  # fmt: skip
        writer.append(W=states[0])
    path = run / "config.json"
    whole = path.read_bytes()

    def found():
        report = store.check(run, config_paths=["corpus"])
        return [str(damage) for damage in report.damage], report.leftovers

    assert found() == ([], [])
    path.write_text(json.dumps(config | {"batch_size": 9, "sha256": {"corpus": "bb", "new": 1}}))
    assert found()[0] == [
        'config.json: batch_size is 9 there and 8 in the commit; sha256.corpus is "bb" there and "ab" in the commit; '
        "sha256.new is 1 there and missing in the commit"
    ]
    path.write_text(json.dumps(config | {"corpus": "/new"}))
    assert found() == ([], ["config.json (names another corpus than the commit: files may be moved)"])
    assert store.repair(run, config_paths=["corpus"]) == []
    assert path.read_text() == json.dumps(config | {"corpus": "/new"})
    assert len(store.check(run).damage) == 1  # nobody said that it is a path
    path.write_bytes(whole + b"\n")
    assert found() == ([], ["config.json (as committed, in other words)"])
    for text in ("", "[8]", "{", json.dumps(config | {"corpus": 8}), None):
        path.unlink()
        if text is not None:
            path.write_text(text)
        assert [line.split(":")[0] for line in found()[0]] == ["config.json"]
        assert store.repair(run, config_paths=["corpus"]) == ["wrote config.json anew from the commit"]
        assert path.read_bytes() == whole
    assert found() == ([], [])


def test_a_config_that_the_commit_does_not_hold_is_named_and_left_alone(tmp_path, states):
    tiny_runs.record(tmp_path / "run", states, config={"seed": 1})
    path = tmp_path / "run" / "config.json"
    path.write_text('{"seed": 2}')
    [found] = store.check(tmp_path / "run", **OPTIONS).damage
    assert str(found) == "config.json: its SHA-256 is not the one in the commit"
    assert store.repair(tmp_path / "run", **OPTIONS) == []
    assert path.read_text() == '{"seed": 2}'
