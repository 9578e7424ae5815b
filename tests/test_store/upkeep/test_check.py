import numpy as np
import pytest
import tiny_runs

import store
from store.errors import NotATrajectoryError
from store.format import chunking
from store.format.schema import Channel
from store.writing.writer import TrajectoryWriter

OPTIONS = {"derive": tiny_runs.derive, "finish": tiny_runs.finish}


@pytest.fixture
def states(monkeypatch):
    monkeypatch.setattr(chunking, "BLOCK_STEPS", 8)
    return tiny_runs.weights(30)


@pytest.fixture
def run(tmp_path, states):
    return tiny_runs.record(tmp_path / "run", states)


def damage(run):
    return [str(found) for found in store.check(run, agree=tiny_runs.agree, **OPTIONS).damage]


def flip(path, at=-5):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_whole_run_has_no_damage_and_every_chunk_is_counted(run):
    seen = []
    report = store.check(run, agree=tiny_runs.agree, progress=lambda *at: seen.append(at), **OPTIONS)
    assert report.is_whole
    assert not report.leftovers
    assert report.chunks == len(tiny_runs.files(run))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_was_compared_and_what_was_only_read_is_told(run):
    report = store.check(run, agree=tiny_runs.agree, **OPTIONS)
    assert report.recomputed == ["centroid", "jump", "largest", "size", "step"]
    assert report.only_read == ["W", "dead_mask", "loss", "token"]
    knows_no_science = store.check(run)
    assert knows_no_science.recomputed == ["step"]
    assert {"jump", "largest", "size", "centroid"} <= set(knows_no_science.only_read)


def test_a_channel_whose_schedule_has_not_begun_is_no_damage(tmp_path):
    """The first step is 5, and the channel records every tenth."""
    channels = [Channel("loss", (), "float32"), Channel("rare", (), "float32", every=10)]
    options = {"channels": channels, "tokens": np.arange(1), "first_step": 5}
    with TrajectoryWriter.create(tmp_path / "run", **options) as writer:
        for _ in range(3):
            writer.append(loss=1.0)
    report = store.check(tmp_path / "run")
    assert report.is_whole
    assert "step_rare" in report.only_read
    assert store.open_trajectory(tmp_path / "run").rare.shape == (0,)


def test_damage_is_named_with_array_steps_and_token_ids(run):
    flip(run / "trajectory.zarr" / "jump" / "c.1.0.0")
    (run / "trajectory.zarr" / "size" / "c.2.0").unlink()
    flip(run / "config.json", at=0)
    found = damage(run)
    assert len(found) == 3
    assert "config.json" in found[0]
    assert found[1].startswith("jump, steps 8..15, token ids 0..8: ")
    assert found[2].startswith("size, steps 16..23, token ids 0..8: ")


def write_rows(run, states, derive):
    writer = store.TrajectoryWriter.create(
        run, channels=tiny_runs.TABLE, derive=derive, finish=tiny_runs.finish, tokens=range(0, 10, 2), hidden=3,
        statics={"dead_mask": states[0, 0] > 0},
    )  # fmt: skip
    for step in range(len(states)):
        row = tiny_runs.row(states, step)
        writer.append(**row | {"centroid": row["centroid"] + np.float32(step == 17)})
    writer.complete()


def test_wrong_numbers_under_right_checksums_are_found(tmp_path, states):
    def wrong(previous, rows):
        answer = tiny_runs.derive(previous, rows)
        answer["jump"][answer["jump"] == 2] = 3
        return answer

    write_rows(tmp_path / "run", states, wrong)
    found = damage(tmp_path / "run")
    assert any(line.startswith("jump, steps ") and "derived" in line for line in found)
    assert any(line.startswith("centroid, steps 17..17: does not fit") for line in found)
    assert not any(line.startswith("size") for line in found)


def test_metadata_behind_the_commit_is_a_leftover_and_other_metadata_is_damage(run):
    own = run / "trajectory.zarr" / "W" / "zarr.json"
    now = own.read_text()
    own.write_text(now.replace('"shape":[31,', '"shape":[24,'))
    report = store.check(run, **OPTIONS)
    assert report.is_whole
    assert "behind" in report.leftovers[0]
    for text in (now.replace('"shape":[31,', '"shape":[99,'), now.replace("uint16", "uint32"), "{", ""):
        own.write_text(text)
        assert any("W/zarr.json" in line for line in damage(run))
    assert store.repair(run, **OPTIONS) == ["wrote trajectory.zarr/W/zarr.json anew from the commit"]
    assert own.read_text() == now


def chunk_files(folder):
    return {path.read_bytes() for path in folder.rglob("c.*")}


def test_repair_cuts_back_and_deletes_nothing_whole(run, states):
    flip(run / "trajectory.zarr" / "W" / "c.2.0.0")
    (run / ".partial" / "W.zarr.json").write_text("written")
    before, bytes_before = tiny_runs.files(run), chunk_files(run)
    assert store.check(run, **OPTIONS).leftovers == [".partial/W.zarr.json"]
    done = store.repair(run, **OPTIONS)
    assert "cut the run back from step 30 to step 15" in done
    assert not damage(run)
    assert not list((run / ".partial").iterdir())
    tiny_runs.assert_holds(run, states[:16])
    assert chunk_files(run / "set-aside") | chunk_files(run / "trajectory.zarr") == bytes_before
    with store.TrajectoryWriter.resume(run, **OPTIONS) as writer:
        tiny_runs.fill(writer, states)
        writer.complete()
    assert tiny_runs.files(run) == before | {"W/c.2.0.0": tiny_runs.files(run)["W/c.2.0.0"]}
    tiny_runs.assert_holds(run, states)


def test_repair_computes_final_arrays_anew(run):
    (run / "trajectory.zarr" / "largest" / "c.0").write_bytes(b"")
    assert damage(run)
    assert store.repair(run, **OPTIONS) == ["computed largest anew"]
    assert not damage(run)


def test_what_cannot_be_mended_stays_damaged(run):
    flip(run / "trajectory.zarr" / "dead_mask" / "c.0")
    flip(run / "trajectory.zarr" / "W" / "c.0.0.0")
    found = damage(run)
    assert not store.repair(run, **OPTIONS)
    assert damage(run) == found
    assert len(found) >= 2


def test_a_damaged_commit_is_damage_and_nothing_at_all_is_no_trajectory(run, tmp_path):
    flip(run / "trajectory.zarr" / "zarr.json", at=200)
    assert "zarr.json" in damage(run)[0]
    with pytest.raises(NotATrajectoryError):
        store.check(tmp_path / "nothing")
