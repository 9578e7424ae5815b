"""Out to safetensors and in again, bit for bit."""

import doctest
import json
import os
import shutil
import sys

import lab_files as lab
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import crucible
import crucible.interchange.sources.named
import crucible.interchange.sources.source
from crucible.channels import table
from crucible.cli.main import main
from crucible.inspection.check import check
from crucible.interchange import file_table, matching, notebook, sources
from crucible.interchange.exporter import export_run
from crucible.interchange.importing.importer import import_run
from store.errors import (
    BudgetError,
    ChecksumError,
    MetadataError,
    NotATrajectoryError,
    RunExistsError,
    StaleHandleError,
)
from store.reading.reader import open_trajectory
from store.writing.writer import TrajectoryWriter

WORDS = {"experiment": "Crucible", "motion_threshold": 0.1, "beta1": 0.9, "final_loss": None, "notes": "as it was"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


@pytest.fixture(scope="module")
def arrays():
    return lab.notebook()


@pytest.fixture(scope="module")
def run(arrays, tmp_path_factory):
    """A finished run with those arrays, for tests that only read."""
    folder = tmp_path_factory.mktemp("imported")
    import_run(lab.write(folder / "lab.safetensors", arrays, words=WORDS), folder / "run")
    return folder / "run"


def test_the_notebooks_file_comes_back_to_the_byte(arrays, run, tmp_path):
    report = export_run(run, tmp_path / "again.safetensors")
    assert report.path.read_bytes() == lab.bytes_of(arrays)
    assert report.file_bytes == report.path.stat().st_size
    assert report.left_out == {}
    assert json.loads((tmp_path / "metadata.json").read_text()) == WORDS
    assert report.metadata == tmp_path / "metadata.json"


def test_the_words_of_an_earlier_end_do_not_go_with_a_run_that_went_on(tmp_path):
    """Steps, last motion and last loss in them were those of the file that was imported."""
    embedding = torch.nn.Embedding(6, 4)
    np.savez(tmp_path / "old.npz", W=np.stack([embedding.weight.detach().numpy()] * 9), loss=np.ones(8, np.float32))
    (tmp_path / "metadata.json").write_text(json.dumps(WORDS | {"total_steps": 8, "global_last_motion": None}))
    import_run(tmp_path / "old.npz", tmp_path / "run")
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    said = []
    with crucible.attach(embedding, optimizer, tmp_path / "run", resume=5, say=said.append) as recorder:
        for _ in range(3):
            recorder.log(loss=embedding.weight.square().sum())
            embedding.weight.square().sum().backward()
            optimizer.step()
    assert [line for line in said if "metadata.json tells of the end at step 8" in line]
    assert open_trajectory(tmp_path / "run").completed
    (tmp_path / "out").mkdir()
    assert export_run(tmp_path / "run", tmp_path / "out" / "new.safetensors").metadata is None
    assert not (tmp_path / "out" / "metadata.json").exists()
    assert check(tmp_path / "run").is_whole


def test_as_bfloat16_torch_loads_bfloat16(arrays, run, tmp_path):
    export_run(run, tmp_path / "a", dtype="bfloat16")
    assert (tmp_path / "a").read_bytes() == lab.bytes_of(arrays, bfloat16=True)
    assert load_file(tmp_path / "a")["W"].dtype == torch.bfloat16
    import_run(tmp_path / "a", tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == lab.bytes_of(arrays)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_that_are_no_bits_are_not_declared_as_bfloat16_in_silence(tmp_path, dtype):
    """They came out as they are, though bfloat16 was asked for, and nothing said so."""
    np.savez(tmp_path / "a.npz", W=np.linspace(0, 1, 24).reshape(4, 3, 2).astype(dtype), loss=np.ones(3))
    run = tmp_path / "run"
    import_run(tmp_path / "a.npz", run)
    with pytest.raises(ValueError, match=f"W holds {np.dtype(dtype)} numbers, no bits of bfloat16"):
        export_run(run, tmp_path / "b", dtype="bfloat16")
    assert not (tmp_path / "b").exists()
    assert main(["export", str(run), str(tmp_path / "b"), "--as", "bfloat16"]) == 2
    assert export_run(run, tmp_path / "b", only=["loss"], dtype="bfloat16").kept == ("loss",)


SHAPES = st.tuples(st.integers(0, 40), st.integers(1, 6), st.integers(1, 5))  # moves, tokens, hidden
MISSING = st.sets(st.sampled_from(["delta_W_prime", "centroid", "loss", "last_motion_step"]))


@pytest.mark.slow
@given(SHAPES, st.integers(0, 2**32 - 1), MISSING, st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bits_come_back(tmp_path_factory, shape, seed, missing, bfloat16):
    """Random bit patterns: NaN with payloads, -0, infinities; and files that lack what follows from W."""
    steps, tokens, hidden = shape
    folder = tmp_path_factory.mktemp("any")
    W = np.random.default_rng(seed).integers(0, 2**16, (steps + 1, tokens, hidden), np.uint16)
    arrays = lab.notebook(W, vocabulary=tokens + seed % 5, seed=seed)
    given_arrays = {name: values for name, values in arrays.items() if name not in missing}
    report = import_run(lab.write(folder / "a", given_arrays, bfloat16=bfloat16), folder / "run")
    assert not [difference for difference in report.differences if difference.array != "delta_W_prime"]
    export_run(folder / "run", folder / "b")
    exported = load_file(folder / "b")
    for name in arrays.keys() - ({"loss"} & missing) - {"delta_W_prime", "centroid"}:
        assert exported[name].numpy().tobytes() == arrays[name].tobytes(), name
    np.testing.assert_array_equal(exported["delta_W_prime"].numpy(), arrays["delta_W_prime"])
    if "centroid" not in missing:
        assert exported["centroid"].numpy().tobytes() == arrays["centroid"].tobytes()
    import_run(folder / "b", folder / "run2")
    export_run(folder / "run2", folder / "c")
    assert (folder / "c").read_bytes() == (folder / "b").read_bytes()


def test_arrays_of_choice(arrays, run, tmp_path):
    export_run(run, tmp_path / "a", only=["loss", "W"])
    assert (tmp_path / "a").read_bytes() == lab.bytes_of({name: arrays[name] for name in ("W", "loss")})
    export_run(run, tmp_path / "b", only=["displacement_linf", "token", "dead_indices"])
    linf = np.abs(arrays["delta_W_prime"]).max(axis=2)
    linf[np.isnan(arrays["delta_W_prime"]).any(axis=2)] = np.nan
    loaded = load_file(tmp_path / "b")
    np.testing.assert_array_equal(loaded["displacement_linf"].numpy(), linf)
    assert loaded["token"].tolist() == loaded["dead_indices"].tolist() == arrays["dead_indices"].tolist()
    with pytest.raises(ValueError, match=r"no array delta_w; it has .*delta_W_prime"):
        export_run(run, tmp_path / "c", only=["delta_w"])
    assert export_run(run, tmp_path / "d", only="loss").kept == ("loss",)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("start", "stop"), [(0, 21), (0, 1), (5, 6), (3, 17), (20, 21)])
def test_steps_of_choice(arrays, run, tmp_path, start, stop):
    """The first state's move is left out, as the notebook leaves out the first of all; steps from 1 on are named."""
    report = export_run(run, tmp_path / "a", steps=(start, stop))
    expected = {
        "W": arrays["W"][start:stop],
        "delta_W_prime": arrays["delta_W_prime"][start : stop - 1],
        "centroid": arrays["centroid"][start:stop],
        "loss": arrays["loss"][start:stop],
        "dead_mask": arrays["dead_mask"],
        "dead_indices": arrays["dead_indices"],
    }
    if (start, stop) == (0, 21):
        expected["last_motion_step"] = arrays["last_motion_step"]
    else:
        assert "last_motion_step" in report.left_out
    if start:
        expected["step"] = np.arange(start, stop)
    assert (tmp_path / "a").read_bytes() == lab.bytes_of(expected)


@pytest.mark.parametrize("steps", [(-1, 3), (0, 22), (5, 5), (7, 3)])
def test_steps_that_are_not_there(run, tmp_path, steps):
    with pytest.raises(ValueError, match="not among the committed steps 0:21"):
        export_run(run, tmp_path / "a", steps=steps)


@pytest.mark.parametrize("chosen", [[0], [6], [1, 2, 5], [6, 0, 3, 3], list(range(7))])
def test_tokens_of_choice(arrays, run, tmp_path, chosen):
    ids = arrays["dead_indices"][chosen].tolist()
    export_run(run, tmp_path / "a", tokens=ids)
    rows = sorted(set(chosen))
    expected = {
        "W": arrays["W"][:, rows],
        "delta_W_prime": arrays["delta_W_prime"][:, rows],
        "centroid": arrays["centroid"],
        "loss": arrays["loss"],
        "last_motion_step": arrays["last_motion_step"][rows],
        "dead_mask": arrays["dead_mask"],
        "dead_indices": arrays["dead_indices"][rows],
    }
    assert (tmp_path / "a").read_bytes() == lab.bytes_of(expected)


def test_tokens_that_are_not_recorded(arrays, run, tmp_path):
    live = int(np.flatnonzero(~arrays["dead_mask"])[0])
    for tokens in ([live], [], [10**6]):
        with pytest.raises(ValueError, match="records no tokens"):
            export_run(run, tmp_path / "a", tokens=tokens)


@pytest.mark.parametrize("tokens", [[True, False, True], np.array([False, True]), [1.5], ["1"]], ids=str)
def test_tokens_that_are_no_ids(tmp_path, tokens):
    """A mask was taken for the ids 0 and 1."""
    np.savez(tmp_path / "old.npz", W=lab.weights(3, 3, 2))
    import_run(tmp_path / "old.npz", tmp_path / "run")
    with pytest.raises(ValueError, match="tokens are ids in a list"):
        export_run(tmp_path / "run", tmp_path / "out", tokens=tokens)


def test_part_of_the_tokens_can_be_imported_again(arrays, run, tmp_path):
    """But for the centroid, which was the mean of all tokens: it is reported, and made anew of these."""
    ids = arrays["dead_indices"][[1, 4]].tolist()
    export_run(run, tmp_path / "a", tokens=ids)
    (told,) = import_run(tmp_path / "a", tmp_path / "run").differences
    assert told.array == "centroid"
    assert check(tmp_path / "run").is_whole
    rest = [name for name in arrays if name != "centroid"]
    for source, name, chosen in ((run, "b", ids), (tmp_path / "run", "c", None)):
        export_run(source, tmp_path / name, tokens=chosen, only=rest)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_several_blocks_and_tiles(tmp_path, monkeypatch):
    """Chunks of 4 steps and 2 tokens, so that every piece has neighbours; selections cut through them."""
    monkeypatch.setattr("store.format.chunking.BLOCK_STEPS", 4)
    monkeypatch.setattr("store.format.chunking.CHUNK_BYTES", 4 * 2 * 3 * 2)
    arrays = lab.notebook(lab.weights(30, 7, 3))
    import_run(lab.write(tmp_path / "lab", arrays), tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "a", threads=3)
    assert (tmp_path / "a").read_bytes() == lab.bytes_of(arrays)
    ids = arrays["dead_indices"]
    export_run(
        tmp_path / "run", tmp_path / "b", only=["W", "delta_W_prime"], steps=(6, 19), tokens=ids[[1, 2, 5]].tolist()
    )
    part = {"W": arrays["W"][6:19, [1, 2, 5]], "delta_W_prime": arrays["delta_W_prime"][6:18, [1, 2, 5]]}
    assert (tmp_path / "b").read_bytes() == lab.bytes_of(part)


def test_a_run_that_goes_on_exports_its_committed_part(arrays, tmp_path):
    from crucible.channels.table import NOTEBOOK, derive, finisher

    writer = TrajectoryWriter.create(
        tmp_path / "run", channels=NOTEBOOK, derive=derive, finish=finisher(0.1), tokens=arrays["dead_indices"],
        hidden=3, statics={"dead_mask": arrays["dead_mask"]}, commit_interval_s=1e6,
    )  # fmt: skip
    with writer:
        for t in range(12):
            writer.append(W=arrays["W"][t], centroid=arrays["centroid"][t], loss=arrays["loss"][t])
            if t == 9:
                writer.commit()
        report = export_run(tmp_path / "run", tmp_path / "a")
    assert report.steps == (0, 10)
    assert report.metadata is None
    assert "the run is not completed" in report.left_out["last_motion_step"]
    names = ("W", "centroid", "loss")
    expected = {name: arrays[name][:10] for name in names} | {"delta_W_prime": arrays["delta_W_prime"][:9]}
    expected |= {name: arrays[name] for name in ("dead_mask", "dead_indices")}
    assert (tmp_path / "a").read_bytes() == lab.bytes_of(expected)


def test_an_existing_file_is_kept_unless_forced(arrays, run, tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(RunExistsError, match="--force"):
        export_run(run, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"
    export_run(run, tmp_path / "a", force=True)
    assert (tmp_path / "a").read_bytes() == lab.bytes_of(arrays)


def test_the_words_of_another_run_are_not_replaced(run, tmp_path):
    (tmp_path / "metadata.json").write_text('{"other": 1}')
    assert export_run(run, tmp_path / "a.safetensors").metadata == tmp_path / "a.metadata.json"
    assert json.loads((tmp_path / "metadata.json").read_text()) == {"other": 1}
    assert json.loads((tmp_path / "a.metadata.json").read_text()) == WORDS
    (tmp_path / "b.metadata.json").write_text("[]")
    with pytest.raises(RunExistsError, match="another run's"):
        export_run(run, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_the_words_of_another_export_are_not_taken_for_those_of_this_one(run, tmp_path):
    """Shapes do not tell parts of runs apart: the steps of the one came in as those of the other."""

    def steps_of(name):
        import_run(tmp_path / name, tmp_path / f"{name}-in")
        return open_trajectory(tmp_path / f"{name}-in").step.values[[0, -1]].tolist()

    export_run(run, tmp_path / "a", steps=(5, 12))
    going_on = tmp_path / "going-on"
    shutil.copytree(run, going_on)
    TrajectoryWriter.resume(going_on, derive=table.derive, cut=True, from_step=6).close()
    export_run(going_on, tmp_path / "b")  # has no words, and as many rows
    assert steps_of("b") == [0, 6]
    export_run(run, tmp_path / "c", steps=(1, 8))
    export_run(run, tmp_path / "c", steps=(5, 12), force=True)  # the very words that lie there for a, too
    assert steps_of("c") == [5, 11]


def test_arrays_of_choice_keep_their_steps_and_miss_their_tokens_aloud(run, arrays, tmp_path):
    """A part of a run that goes on has no words yet to tell its steps."""
    shutil.copytree(run, tmp_path / "going-on")
    TrajectoryWriter.resume(tmp_path / "going-on", derive=table.derive, cut=True, from_step=12).close()
    report = export_run(tmp_path / "going-on", tmp_path / "a", only=["W"], steps=(5, 12))
    assert report.left_out["dead_indices"] == "it names the tokens of these rows; add it to --only"
    import_run(tmp_path / "a", tmp_path / "in")
    assert open_trajectory(tmp_path / "in").step.values.tolist() == list(range(5, 12))
    report = export_run(tmp_path / "going-on", tmp_path / "b", only=["W", "dead_indices"])
    assert "dead_indices" not in report.left_out
    import_run(tmp_path / "b", tmp_path / "in2")
    assert open_trajectory(tmp_path / "in2").token.values.tolist() == arrays["dead_indices"].tolist()


def test_the_files_in_the_folder_stay_as_they_are(run, tmp_path):
    """Whatever their names, and though they are links."""
    folder, mine = tmp_path / "out", tmp_path / "mine"
    folder.mkdir()
    mine.write_text("mine")
    names = ["out.metadata.json", "out.a", ".a.partial", ".metadata.json.partial", ".a.12.partial"]
    for name in names:
        (folder / name).write_text("mine")
    (folder / "out.b.metadata.json").symlink_to(mine)
    export_run(run, folder / "a")
    export_run(run, folder / "b", steps=(2, 9))
    assert all((folder / name).read_text() == "mine" for name in [*names, "out.b.metadata.json"])
    made = {"a", "b", "metadata.json", "b.metadata.json"}
    assert {path.name for path in folder.iterdir()} == made | {*names, "out.b.metadata.json"}


@pytest.mark.parametrize("target", ["mine", "nowhere"])
def test_words_that_are_a_link_are_not_written_through_it(run, tmp_path, target):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "metadata.json").symlink_to(tmp_path / target)
    assert export_run(run, tmp_path / "a").metadata == tmp_path / "a.metadata.json"
    assert (tmp_path / "metadata.json").is_symlink()
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_pipe_in_the_place_of_the_words_does_not_hold_up(run, tmp_path):
    os.mkfifo(tmp_path / "metadata.json")
    assert export_run(run, tmp_path / "a").metadata == tmp_path / "a.metadata.json"


@pytest.mark.parametrize("content", [b"5", b"[]", b"null", b"[" * 100_000, b"\xff", b""])
def test_words_of_the_run_that_are_none_are_refused(arrays, content, tmp_path):
    folder = tmp_path / "run"
    import_run(lab.write(tmp_path / "lab.safetensors", arrays, words=WORDS), folder)
    (folder / "metadata.json").write_bytes(content)
    with pytest.raises(MetadataError, match=r"metadata.json: is no JSON( object)?; restore it"):
        export_run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_words_that_are_another_runs_are_not_given_to_the_file(arrays, tmp_path):
    """As where a folder was put together of two; the run's own name is not asked for in them."""
    folder = tmp_path / "run"
    import_run(lab.write(tmp_path / "lab.safetensors", arrays, words=WORDS), folder)
    (folder / "metadata.json").write_text(json.dumps(WORDS | {"total_steps": 60}))
    with pytest.raises(MetadataError, match=r"metadata.json: is not the one that the run was completed with"):
        export_run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_little_room_is_said_first(run, tmp_path, monkeypatch):
    monkeypatch.setattr("store.tensorfile.file.free_bytes", lambda _: 1000)
    with pytest.raises(BudgetError, match="1,000 free"):
        export_run(run, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_damage_is_named_and_leaves_no_file(arrays, tmp_path):
    import_run(lab.write(tmp_path / "lab", arrays), tmp_path / "run")
    chunk = tmp_path / "run/trajectory.zarr/delta_W_prime/c.0.0.0"
    data = bytearray(chunk.read_bytes())
    data[9] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(ChecksumError, match=r"delta_W_prime\[step 0..20, token"):
        export_run(tmp_path / "run", tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab", "run"]


def test_a_run_compacted_meanwhile_is_not_mixed(arrays, tmp_path, monkeypatch):
    import crucible.interchange.exporter as module
    from store.upkeep.compact import compact

    import_run(lab.write(tmp_path / "lab", arrays), tmp_path / "run")
    copy_all = module.copy_all

    def copy_and_compact(*args):
        copy_all(*args)
        compact(tmp_path / "run")

    monkeypatch.setattr(module, "copy_all", copy_and_compact)
    with pytest.raises(StaleHandleError, match="export it again"):
        export_run(tmp_path / "run", tmp_path / "a")
    monkeypatch.undo()
    assert not (tmp_path / "a").exists()
    export_run(tmp_path / "run", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == lab.bytes_of(arrays)


def test_no_run_no_file(tmp_path):
    with pytest.raises(NotATrajectoryError):
        export_run(tmp_path / "nothing", tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_dead_mask_names_its_tokens(tmp_path):
    W = lab.weights(5, 3, 2)
    lab.write(tmp_path / "a", {"W": W, "token": np.array([4, 9, 17])})
    import_run(tmp_path / "a", tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "b")
    loaded = load_file(tmp_path / "b")
    assert loaded["token"].tolist() == [4, 9, 17]
    assert "dead_indices" not in loaded
    with open_trajectory(tmp_path / "run") as ds:
        assert ds.token.values.tolist() == [4, 9, 17]


def test_channels_on_a_schedule_of_their_own(tmp_path):
    from store.format.schema import Channel
    from store.writing.writer import TrajectoryWriter

    channels = (Channel("W", ("token", "hidden"), "float32"), Channel("probe", ("token",), "int64", every=3, until=12))
    W = np.random.default_rng(0).random((20, 4, 2), np.float32)
    probe = np.arange(20 * 4).reshape(20, 4)
    with TrajectoryWriter.create(tmp_path / "run", channels=channels, tokens=np.arange(4), hidden=2) as writer:
        for t in range(20):
            writer.append(W=W[t], **({"probe": probe[t]} if t % 3 == 0 and t <= 12 else {}))
        writer.complete()
    export_run(tmp_path / "run", tmp_path / "a")
    every = {"W": W, "probe": probe[[0, 3, 6, 9, 12]], "step_probe": np.arange(5) * 3, "token": np.arange(4)}
    assert (tmp_path / "a").read_bytes() == lab.bytes_of(every)
    export_run(tmp_path / "run", tmp_path / "b", only=["probe", "step_probe"], steps=(4, 12))
    assert (tmp_path / "b").read_bytes() == lab.bytes_of({"probe": probe[[6, 9]], "step_probe": np.array([6, 9])})


@pytest.mark.parametrize("only", [["W"], ["W", "delta_W_prime"], None])
def test_moves_in_cells_of_bfloat16_stay_such_when_float32_weights_come_back(tmp_path, only):
    """At first nothing moves on any lattice, then less than a cell of bfloat16: the arrays do not tell the lattice."""
    states = np.full((6, 2, 3), 1.001, np.float32)
    states[2:] += np.float32(1e-6) * np.arange(4, dtype=np.float32)[:, None, None]
    states[3:, 0] *= 2
    channels = table.on_lattice((table.W, table.DELTA, *table.NORMS, table.LAST_MOTION), "bfloat16")
    channels = (table.in_dtype(channels[0], "float32"), *channels[1:])
    with TrajectoryWriter.create(
        tmp_path / "run", channels=channels, derive=table.deriver(channels), finish=table.finisher(0.1),
        tokens=np.arange(2), hidden=3,
    ) as writer:  # fmt: skip
        for state in states:
            writer.append(W=state)
        writer.complete(lambda _: {})
    export_run(tmp_path / "run", tmp_path / "a", only=only)
    report = import_run(tmp_path / "a", tmp_path / "back")
    assert report.differences == ()
    assert open_trajectory(tmp_path / "back").last_motion_step.values.tolist() == [3, -1]


def test_a_file_that_is_called_as_its_words_is_not_replaced_by_them(arrays, run, tmp_path):
    report = export_run(run, tmp_path / "metadata.json")
    assert report.path.read_bytes() == lab.bytes_of(arrays)
    assert json.loads(report.metadata.read_text()) == WORDS
    import_run(report.path, tmp_path / "again")
    assert json.loads((tmp_path / "again/metadata.json").read_text()) == WORDS
    report.metadata.unlink()
    import_run(report.path, tmp_path / "without words")


def test_names_of_the_package():
    assert crucible.export_run is export_run
    assert crucible.import_run is import_run


def test_export_and_import_load_no_torch():
    import subprocess

    script = "import sys, crucible; crucible.export_run, crucible.import_run; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_examples_in_docstrings():
    for module in (notebook, matching, file_table, sources.source, sources.named):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


def test_the_centroid_of_a_part_is_said_to_be_that_of_all_tokens(run, tmp_path, capsys):
    ids = open_trajectory(run).token.values.tolist()
    whole, part = (export_run(run, tmp_path / str(len(some)), tokens=some) for some in (ids, ids[:2]))
    assert (whole.of_all_tokens, part.of_all_tokens) == ((), ("centroid",))
    assert main(["export", str(run), str(tmp_path / "c"), "--tokens", str(ids[0])]) == 0
    assert "centroid is that of all tokens of the run, not of these 1; --only leaves it out" in capsys.readouterr().err
    assert export_run(run, tmp_path / "d", tokens=ids[:2], only=["W"]).of_all_tokens == ()
