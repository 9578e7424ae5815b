"""What an import says, refuses, and does after it was cut short."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from contextlib import closing

import lab_files as lab
import numpy as np
import pytest
import shards
from safetensors.torch import save_file

import crucible
from crucible.cli.main import main
from crucible.inputs.config import ConfigError
from crucible.interchange.exporter import export_run
from crucible.interchange.importing import copying, importer
from crucible.interchange.importing.importer import import_run
from store.errors import BudgetError, RunExistsError, TensorFileError
from store.reading.reader import open_trajectory
from store.run.commit import read_commit
from store.writing.publisher import Publisher


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


@pytest.fixture(scope="module")
def arrays():
    return lab.notebook()


def changed(arrays, name, index, value):
    copy = arrays[name].copy()
    copy[index] = value
    return {**arrays, name: copy}


def test_what_the_weights_do_not_say_is_reported(arrays, tmp_path):
    """And the run holds what they do say."""
    wrong = changed(arrays, "delta_W_prime", (6, 3, 1), 0.25)
    wrong = changed(wrong, "delta_W_prime", (19, 4, 2), -0.0)  # nothing moved there: 0, and other bits
    wrong = changed(wrong, "last_motion_step", 5, 99)
    report = import_run(lab.write(tmp_path / "a", wrong), tmp_path / "run")
    delta, last = report.differences
    token = arrays["dead_indices"]
    assert (delta.array, delta.elements, delta.in_file) == ("delta_W_prime", 2, 0.25)
    assert delta.where == f"step 7, token {token[3]}, hidden 1"
    assert delta.computed == arrays["delta_W_prime"][6, 3, 1]
    assert (last.array, last.elements, last.where) == ("last_motion_step", 1, f"token {token[5]}")
    assert (last.in_file, last.computed) == (99, arrays["last_motion_step"][5])
    assert "2 elements differ" in str(delta)
    export_run(tmp_path / "run", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == lab.bytes_of(arrays)


def test_norms_are_compared_too(arrays, tmp_path):
    import_run(lab.write(tmp_path / "a", arrays), tmp_path / "run")
    names = ["W", "displacement_l1", "displacement_l2", "displacement_linf", "dead_mask"]
    export_run(tmp_path / "run", tmp_path / "b", only=names)
    assert import_run(tmp_path / "b", tmp_path / "run2").differences == ()
    with closing(importer.open_source(tmp_path / "b")) as source:
        norms = {name: source.read(name) for name in source.tensors}
    report = import_run(lab.write(tmp_path / "c", changed(norms, "displacement_l2", (11, 2), 7)), tmp_path / "run3")
    (difference,) = report.differences
    assert difference.array == "displacement_l2"
    assert difference.where == f"step 12, token {arrays['dead_indices'][2]}"
    assert difference.in_file == 7


def test_a_centroid_of_other_hardware_is_kept(arrays, tmp_path):
    other = changed(arrays, "centroid", (3, 1), np.nextafter(arrays["centroid"][3, 1], np.float32(9)))
    assert import_run(lab.write(tmp_path / "a", other), tmp_path / "run").differences == ()
    export_run(tmp_path / "run", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == lab.bytes_of(other)


def test_a_loss_before_the_first_update_is_not_taken(arrays, tmp_path):
    """A slice of a longer run brings one."""
    report = import_run(lab.write(tmp_path / "a", changed(arrays, "loss", 0, 3.5)), tmp_path / "run")
    assert not report.differences
    assert report.left_out == {"the loss of the first state": "it is of an update before it"}
    with open_trajectory(tmp_path / "run") as ds:
        assert np.isnan(ds.loss.values[0])


def test_what_is_not_known_is_named_before_anything_is_written(arrays, tmp_path):
    lab.write(tmp_path / "a", {**arrays, "extra": np.zeros(3), "Loss": arrays["loss"].copy()})
    refused(
        tmp_path,
        "extra, Loss are not known to import; say --skip extra to leave it out, and so for each of them, "
        "or --map extra=NAME to say what it is",
    )
    refused(tmp_path, "extra is not known to import; say --skip extra", skip=["Loss"])
    refused(tmp_path, "no losses to be left out", skip=["losses"])
    report = import_run(tmp_path / "a", tmp_path / "run", skip=["Loss", "extra"])
    assert report.left_out == dict.fromkeys(("Loss", "extra"), "as --skip asked")
    assert set(report.kept) == {"W", "centroid", "loss", "dead_mask", "dead_indices"}


def test_what_is_known_can_be_left_out_too(arrays, tmp_path):
    lab.write(tmp_path / "a", changed(arrays, "delta_W_prime", (6, 3, 1), 0.25))
    refused(tmp_path, "W cannot be left out", skip=["W"])
    report = import_run(tmp_path / "a", tmp_path / "run", skip="loss")
    assert (list(report.left_out), len(report.differences)) == (["loss"], 1)
    assert "loss" not in open_trajectory(tmp_path / "run")
    report = import_run(tmp_path / "a", tmp_path / "run2", skip=["loss", "delta_W_prime", "centroid"])
    assert report.differences == ()


def test_another_import_goes_on_only_with_the_same_left_out(arrays, tmp_path, monkeypatch):
    lab.write(tmp_path / "a", {**arrays, "extra": np.zeros(3)})
    with monkeypatch.context() as patch:
        patch.setattr(copying, "READ_BYTES", 1)
        stop_after(patch, 9)
        with pytest.raises(CutShortError):
            import_run(tmp_path / "a", tmp_path / "run", skip=["extra", "loss"])
    with pytest.raises(RunExistsError):
        import_run(tmp_path / "a", tmp_path / "run", skip=["extra"])
    assert import_run(tmp_path / "a", tmp_path / "run", skip=["loss", "extra"]).resumed_from == 8


def test_what_the_file_does_not_say_is_said(arrays, tmp_path):
    lab.write(tmp_path / "a", {"W": arrays["W"]}, words={"motion_threshold": "much", "beta1": 2})
    assert import_run(tmp_path / "a", tmp_path / "run").assumed == (
        "metadata.json says motion_threshold much, which is no number above 0; 0.1 is taken",
        "metadata.json says beta1 2, which is no number from 0 to below 1; none is taken",
        "no array names the tokens; they are called 0 to 6",
    )
    (tmp_path / "metadata.json").unlink()
    lab.write(tmp_path / "b", arrays)
    lab.write(tmp_path / "c", {"W": arrays["W"], "live_mask": np.ones(7, bool)})
    for name in ("b", "c"):
        assert import_run(tmp_path / name, tmp_path / f"run {name}").assumed == ()


def test_masks_and_counts_of_the_lab_are_kept(arrays, tmp_path):
    mask = arrays["dead_mask"]
    more = {
        "dead_mask": mask.astype(np.int64),
        "live_mask": (~mask).astype(np.uint8),
        "live_indices": np.flatnonzero(~mask),
        "token_occurrence_counts": np.arange(12) * ~mask,
    }
    import_run(lab.write(tmp_path / "a", {**arrays, **more}), tmp_path / "run")
    with open_trajectory(tmp_path / "run") as ds:
        assert ds.dead_mask.values.tolist() == mask.tolist()
        assert ds.live_mask.values.tolist() == (~mask).tolist()
        assert ds.live_indices.values.tolist() == np.flatnonzero(~mask).tolist()
        assert ds.token_occurrence_counts.values.tolist() == more["token_occurrence_counts"].tolist()


def test_rows_of_a_whole_vocabulary_are_its_ids(tmp_path):
    W = lab.weights(4, 12, 2)
    arrays = {"W": W, "dead_mask": np.arange(12) < 5, "dead_indices": np.arange(5)}
    import_run(lab.write(tmp_path / "a", arrays), tmp_path / "run")
    with open_trajectory(tmp_path / "run") as ds:
        assert ds.token.values.tolist() == list(range(12))
    export_run(tmp_path / "run", tmp_path / "b", only=["W", "dead_mask", "dead_indices", "token"])
    assert (tmp_path / "b").read_bytes() == lab.bytes_of({**arrays, "token": np.arange(12)})
    import_run(tmp_path / "b", tmp_path / "run2")
    export_run(tmp_path / "run", tmp_path / "c")
    export_run(tmp_path / "run2", tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == (tmp_path / "c").read_bytes()


def test_the_words_beside_the_file_are_taken_along(arrays, tmp_path):
    words = {"motion_threshold": 2.5, "beta1": 0.8, "series": "S", "final_loss": None}
    import_run(lab.write(tmp_path / "a", arrays, words=words), tmp_path / "run")
    assert json.loads((tmp_path / "run/metadata.json").read_text()) == words
    with open_trajectory(tmp_path / "run") as ds:
        assert ds.attrs["motion_threshold"] == 2.5
        assert ds.attrs["beta1"] == 0.8
        assert ds.last_motion_step.values.tolist() == lab.last_motion(arrays["delta_W_prime"], 2.5).tolist()


def test_the_files_own_words_come_first_and_an_argument_before_them(arrays, tmp_path):
    lab.write(tmp_path / "a.safetensors", arrays, words={"motion_threshold": 2.5})
    (tmp_path / "a.metadata.json").write_text('{"motion_threshold": 4.5}')
    import_run(tmp_path / "a.safetensors", tmp_path / "run")
    assert read_commit(tmp_path / "run").attributes["motion_threshold"] == 4.5
    import_run(tmp_path / "a.safetensors", tmp_path / "run2", motion_threshold=1.5)
    assert read_commit(tmp_path / "run2").attributes["motion_threshold"] == 1.5


@pytest.mark.parametrize("threshold", [None, "many", -1, 0, True, [1]])
def test_words_that_make_no_sense(arrays, tmp_path, threshold):
    lab.write(tmp_path / "a", arrays, words={"motion_threshold": threshold})
    import_run(tmp_path / "a", tmp_path / "run")
    assert read_commit(tmp_path / "run").attributes["motion_threshold"] == 0.1


def test_a_file_without_words_gets_some(arrays, tmp_path):
    import_run(lab.write(tmp_path / "a", arrays), tmp_path / "run")
    words = json.loads((tmp_path / "run/metadata.json").read_text())
    assert words["total_steps"] == 20
    assert words["global_last_motion"] == max(arrays["last_motion_step"].tolist())
    assert words["final_loss"] == pytest.approx(arrays["loss"][-1])
    assert words["data_shapes"]["W"] == [21, 7, 3]


def test_a_run_that_diverged_says_so_first(arrays, tmp_path, capsys):
    """Its weights stopped moving because they are no numbers any more."""
    lab.write(tmp_path / "a", arrays)
    assert main(["import", str(tmp_path / "a"), str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith("Diverged at step 10: at step 20, 2 of 21 weights are NaN or infinite")
    words = json.loads((tmp_path / "run/metadata.json").read_text())
    assert next(iter(words)) == "diverged"
    assert words["diverged"]["step"] == 10
    sound = lab.write(tmp_path / "b", lab.notebook(strange=False))
    assert import_run(sound, tmp_path / "run b").diverged is None
    assert "diverged" not in json.loads((tmp_path / "run b/metadata.json").read_text())


# Interrupted


class CutShortError(Exception):
    pass


def stop_after(monkeypatch, step):
    """The file cannot be read any more from a step on."""
    from store.tensorfile.file import TensorFile

    rows = TensorFile.rows

    def until(self, name, start, stop, out=None):
        if name == "W" and stop > step:
            raise CutShortError
        return rows(self, name, start, stop, out)

    monkeypatch.setattr(TensorFile, "rows", until)


def files_of(run):
    return {
        str(path.relative_to(run)): shards.content(path)
        for path in run.rglob("*")
        if path.is_file() and path.name != "LOCK"
    }


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("step", [0, 1, 9, 20])
def test_goes_on_where_it_was_cut_short(arrays, tmp_path, monkeypatch, step):
    wrong = changed(arrays, "delta_W_prime", (2, 3, 1), 0.25)  # before the cut: reported all the same
    lab.write(tmp_path / "a", wrong)
    with monkeypatch.context() as patch:
        patch.setattr(copying, "READ_BYTES", 1)
        stop_after(patch, step)
        with pytest.raises(CutShortError):
            import_run(tmp_path / "a", tmp_path / "run")
    report = import_run(tmp_path / "a", tmp_path / "run")
    assert report.resumed_from == (step - 1 if step else None)
    assert [difference.array for difference in report.differences] == ["delta_W_prime"]
    unbroken = import_run(tmp_path / "a", tmp_path / "unbroken")
    assert unbroken.resumed_from is None
    assert files_of(tmp_path / "run") == files_of(tmp_path / "unbroken")


def test_goes_on_by_what_the_commit_holds_where_config_json_is_damaged(arrays, tmp_path, monkeypatch):
    lab.write(tmp_path / "a", arrays)
    with monkeypatch.context() as patch:
        patch.setattr(copying, "READ_BYTES", 1)
        stop_after(patch, 9)
        with pytest.raises(CutShortError):
            import_run(tmp_path / "a", tmp_path / "run")
    whole = (tmp_path / "run/config.json").read_bytes()
    (tmp_path / "run/config.json").write_bytes(whole.replace(b'"lossy": false', b'"lossy": true'))
    assert import_run(tmp_path / "a", tmp_path / "run").resumed_from == 8
    assert [str(damage) for damage in crucible.check(tmp_path / "run").damage] == [
        "config.json: lossy is true there and false in the commit"
    ]


def test_goes_on_where_it_was_cut_short_at_its_end(arrays, tmp_path, monkeypatch):
    """metadata.json is in place before the commit that completes the run."""
    lab.write(tmp_path / "a", arrays)

    def until(self, name, values, put=Publisher.put_whole):
        if name == "last_motion_step":
            raise CutShortError
        put(self, name, values)

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "put_whole", until)
        with pytest.raises(CutShortError):
            import_run(tmp_path / "a", tmp_path / "run")
    assert (tmp_path / "run/metadata.json").exists()
    import_run(tmp_path / "a", tmp_path / "run")
    import_run(tmp_path / "a", tmp_path / "unbroken")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "unbroken")


def test_a_finished_import_and_another_run_are_not_touched(arrays, tmp_path):
    lab.write(tmp_path / "a", arrays)
    lab.write(tmp_path / "b", changed(arrays, "loss", 3, 1.25))
    import_run(tmp_path / "a", tmp_path / "run")
    before = files_of(tmp_path / "run")
    for file in ("a", "b"):
        with pytest.raises(RunExistsError):
            import_run(tmp_path / file, tmp_path / "run")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/thing").touch()
    with pytest.raises(RunExistsError):
        import_run(tmp_path / "a", tmp_path / "folder")
    assert files_of(tmp_path / "run") == before


@pytest.mark.slow
@pytest.mark.parametrize("kills", [60])
def test_killed_again_and_again(tmp_path, kills):
    """kill -9 at random instants; the import that is let through gives the bytes of an unbroken one."""
    arrays = lab.notebook(lab.weights(400, 40, 4, strange=False), vocabulary=50)
    lab.write(tmp_path / "a", arrays)
    script = """
        import os, sys
        os.fsync = lambda _: None
        from crucible.interchange.importing import copying, importer
        copying.READ_BYTES = 1
        importer.import_run(sys.argv[1], sys.argv[2], commit_interval_s=0.01)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "a"), str(tmp_path / "run")]
    random = np.random.default_rng(kills)
    for _ in range(kills):
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(0.3 + random.random())
        child.send_signal(signal.SIGKILL)
        child.wait()
        if (tmp_path / "run/trajectory.zarr").exists() and read_commit(tmp_path / "run").completed:
            assert exported(tmp_path / "run") == lab.bytes_of(arrays)
            shutil.rmtree(tmp_path / "run")
    subprocess.run(command, check=True)
    assert exported(tmp_path / "run") == lab.bytes_of(arrays)


def exported(run):
    export_run(run, run.with_name("b"), force=True)
    return run.with_name("b").read_bytes()


# Refused, and nothing written


def refused(tmp_path, message, error=TensorFileError, **options):
    with pytest.raises(error, match=message) as raised:
        import_run(tmp_path / "a", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
    assert str(tmp_path / "a") in str(raised.value)


BAD = {
    "no W": (lambda a: {k: v for k, v in a.items() if k != "W"}, "no array W; it holds"),
    "W of another dtype": (lambda a: {**a, "W": a["W"].astype(np.int32)}, "W is I32; expected U16 or BF16 or F32"),
    "W of float64 that is no float32": (lambda a: {**a, "W": a["W"] / 3.0}, "which no float32 can hold; say --lossy"),
    "W of rank 2": (lambda a: {**a, "W": a["W"][0]}, r"W has shape \(7, 3\); expected 3 dimensions"),
    "no steps": (lambda a: {"W": a["W"][:0]}, "nothing in it"),
    "no tokens": (lambda a: {"W": a["W"][:, :0]}, "nothing in it"),
    "no hidden": (lambda a: {"W": a["W"][:, :, :0]}, "nothing in it"),
    "delta of float64": (lambda a: {**a, "delta_W_prime": a["delta_W_prime"].astype(float)}, "is F64; expected F32"),
    "delta with a row 0": (lambda a: {**a, "delta_W_prime": np.zeros((21, 7, 3), np.float32)}, "20 along its move"),
    "delta of other tokens": (lambda a: {**a, "delta_W_prime": a["delta_W_prime"][:, 1:]}, "7 along its token"),
    "loss too short": (lambda a: {**a, "loss": a["loss"][2:]}, "expected 21 or 20 along its step"),
    "centroid too wide": (lambda a: {**a, "centroid": np.zeros((21, 4), np.float32)}, "expected 3 along its hidden"),
    "masks of two lengths": (lambda a: {**a, "live_mask": np.ones(11, bool)}, "12 along its vocabulary"),
    "a mask of 2": (lambda a: {**a, "dead_mask": a["dead_mask"] * 2}, "other than 0 and 1"),
    "a mask of -1": (lambda a: {**a, "dead_mask": -a["dead_mask"].astype(int)}, "other than 0 and 1"),
    "a mask of floats": (lambda a: {**a, "dead_mask": a["dead_mask"].astype(np.float32)}, "dead_mask is F32"),
    "indices not in the mask": (lambda a: {**a, "dead_mask": ~a["dead_mask"]}, "which dead_mask does not mark"),
    "indices beyond the mask": (lambda a: {**a, "dead_indices": np.arange(7) + 9}, "the masks have 12 ids"),
    "negative indices": (lambda a: {**a, "dead_indices": np.arange(7) - 1}, "ascending"),
    "descending indices": (lambda a: {**a, "dead_indices": a["dead_indices"][::-1]}, "ascending"),
    "indices twice": (lambda a: {**a, "dead_indices": np.zeros(7, int)}, "ascending"),
    "other indices than rows": (lambda a: {**a, "W": a["W"][:, :3], "dead_indices": a["dead_indices"]}, "W|expected"),
    "rows of nobody": (lambda a: {"W": a["W"], "dead_mask": np.arange(12) < 3}, "cannot be told"),
    "tokens of another length": (lambda a: {"W": a["W"], "token": np.arange(6)}, "expected 7 along its token"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_do_not_fit(arrays, tmp_path, name):
    make, message = BAD[name]
    lab.write(tmp_path / "a", make(arrays))
    refused(tmp_path, message)


def test_rows_that_need_too_much_memory(tmp_path):
    """A sparse file may claim terabytes at no cost."""
    shape = [2, 1 << 20, 1 << 10]
    header = {"W": {"dtype": "U16", "shape": shape, "data_offsets": [0, math.prod(shape) * 2]}}
    path = tmp_path / "a"
    path.write_bytes(lab.file_of(header))
    os.truncate(path, path.stat().st_size + math.prod(shape) * 2)
    refused(tmp_path, "bytes of memory to write, more than", BudgetError)


def test_words_that_are_hostile(arrays, tmp_path):
    lab.write(tmp_path / "a", arrays)
    for text in ("{", "[" * 100_000, "[]", '"x"', '{"a":' + "9" * 10_000 + "}", " " * (2 << 20)):
        (tmp_path / "metadata.json").write_text(text)
        with pytest.raises(TensorFileError, match=r"metadata\.json"):
            import_run(tmp_path / "a", tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_full_disk_is_said_before(arrays, tmp_path, monkeypatch):
    lab.write(tmp_path / "a", arrays)
    monkeypatch.setattr(importer, "free_bytes", lambda _: 3)
    with pytest.raises(BudgetError, match="3 bytes free"):
        import_run(tmp_path / "a", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_link_in_the_place_of_the_run_is_not_followed(arrays, tmp_path):
    """Whatever lies where the run should be is refused, so that nothing is written through it."""
    lab.write(tmp_path / "a", arrays)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").touch()
    (tmp_path / "run").symlink_to(outside)
    with pytest.raises(RunExistsError):
        import_run(tmp_path / "a", tmp_path / "run")
    assert [path.name for path in outside.iterdir()] == ["mine"]


def test_archives_are_not_opened(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("W.safetensors", "x")
    with pytest.raises(TensorFileError, match=r"zip archive without a \.npy array"):
        import_run(tmp_path / "a.zip", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Words of other files, numbers that cannot be


def test_words_of_another_file_are_not_taken(arrays, tmp_path):
    """A folder's metadata.json is that of the last export; this file was there before."""
    lab.write(tmp_path / "a", arrays, words={"data_shapes": {"W": [9, 9, 9]}, "motion_threshold": 2.5})
    report = import_run(tmp_path / "a", tmp_path / "run")
    assert read_commit(tmp_path / "run").attributes["motion_threshold"] == 0.1
    assert "[9, 9, 9]" in report.left_out["metadata.json"]


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ({"hidden_dim": 64}, "hidden_dim 64, and the arrays give 3;"),
        ({"vocab_size": 77}, "vocab_size 77, and the arrays give 12;"),
        ({"n_dead_tokens": 5}, "n_dead_tokens 5, and the arrays give 7;"),
        ({"total_steps": 5000}, "total_steps 5,000, and the arrays give 20;"),
        ({"global_last_motion": 3}, "global_last_motion 3, and the arrays give 19;"),
        ({"final_loss": 0.5}, "final_loss 0.5, and the arrays give 0.276891;"),
    ],
)
def test_words_that_the_arrays_contradict_are_doubted(arrays, tmp_path, said, there):
    lab.write(tmp_path / "a", arrays, words=said | {"beta1": 0.9})
    report = import_run(tmp_path / "a", tmp_path / "run")
    assert report.assumed == (f"metadata.json says {there} is it that of another run? What it says is kept",)
    assert json.loads((tmp_path / "run/metadata.json").read_text()) == said | {"beta1": 0.9}


def test_words_beside_a_file_that_says_something_else_are_doubted(arrays, tmp_path):
    said = {"num_layers": "2", "learning_rate": str(np.float32(0.003).item()), "series": "T"}
    save_file(lab.as_tensors(arrays), tmp_path / "a", metadata=said)
    (tmp_path / "metadata.json").write_text('{"num_layers": 2, "learning_rate": 0.003, "series": "S"}')
    assert import_run(tmp_path / "a", tmp_path / "run").assumed == (
        "metadata.json says series S, and the file itself T; is it that of another run? What it says is kept",
    )


def test_a_motion_that_was_told_of_weights_that_never_move_is_doubted(tmp_path):
    lab.write(tmp_path / "a", {"W": np.full((9, 2, 3), 0x3F80, np.uint16)}, words={"global_last_motion": 3})
    assert "global_last_motion 3, and the arrays give none;" in import_run(tmp_path / "a", tmp_path / "run").assumed[1]


@pytest.mark.parametrize("how", [{}, {"steps": (5, 12)}, {"only": ["W"]}], ids=str)
def test_the_words_of_a_run_are_true_of_its_export(arrays, tmp_path, how):
    """Its own, which say all that could be doubted."""
    (tmp_path / "first").mkdir()
    import_run(lab.write(tmp_path / "first/a", arrays), tmp_path / "run")
    report = export_run(tmp_path / "run", tmp_path / "b", **how)
    assert {"total_steps", "hidden_dim", "n_dead_tokens"} & set(json.loads(report.metadata.read_text()))
    back = import_run(tmp_path / "b", tmp_path / "back")
    assert not any("another run" in sentence for sentence in back.assumed), back.assumed


def test_a_part_brings_words_that_tell_of_it(arrays, tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "part").mkdir()
    lab.write(tmp_path / "all/a", arrays, words={"motion_threshold": 2.5, "data_shapes": {"W": [21, 7, 3]}})
    import_run(tmp_path / "all/a", tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "part/a", steps=(2, 9))
    assert json.loads((tmp_path / "part/metadata.json").read_text())["data_shapes"]["W"] == [7, 7, 3]
    import_run(tmp_path / "part/a", tmp_path / "again")
    assert read_commit(tmp_path / "again").attributes["motion_threshold"] == 2.5


RESULTS = {"global_last_motion": 18, "fimbulwinter_duration": 2, "final_loss": 1.5}


@pytest.mark.parametrize("part", [{"steps": (2, 9)}, {"tokens": 2}, {"steps": (0, 3), "tokens": 1}], ids=str)
def test_the_results_of_the_whole_run_are_not_told_as_those_of_a_part(arrays, tmp_path, part):
    """The last motion of all tokens over all steps is not that of these."""
    words = {"motion_threshold": 0.1, "series": "S", **RESULTS}
    import_run(lab.write(tmp_path / "a", arrays, words=words), tmp_path / "run")
    (tmp_path / "part").mkdir()
    chosen = {"tokens": arrays["dead_indices"][: part["tokens"]].tolist()} if "tokens" in part else {}
    export_run(tmp_path / "run", tmp_path / "part/a", **(part | chosen))
    import_run(tmp_path / "part/a", tmp_path / "again")
    told = json.loads((tmp_path / "again/metadata.json").read_text())
    assert not RESULTS.keys() & told.keys()
    assert (told["of_the_whole_run"], told["series"], told["motion_threshold"]) == (RESULTS, "S", 0.1)
    (tmp_path / "less").mkdir()
    first = open_trajectory(tmp_path / "again").step.values[0]
    export_run(tmp_path / "again", tmp_path / "less/a", steps=(first, first + 1))
    told = json.loads((tmp_path / "less/metadata.json").read_text())
    assert (told["of_the_whole_run"], told["exported"]["steps"]) == (RESULTS, [first, first + 1])


def test_words_tell_the_threshold_that_was_asked_for_and_what_moved_by_it(arrays, tmp_path):
    words = {"motion_threshold": 0.1, "global_last_motion": 18, "series": "S"}
    import_run(lab.write(tmp_path / "a", arrays, words=words), tmp_path / "run", motion_threshold=100)
    told = json.loads((tmp_path / "run/metadata.json").read_text())
    last = int(open_trajectory(tmp_path / "run").last_motion_step.max())
    assert last != 18
    assert told == {"motion_threshold": 100, "global_last_motion": last, "series": "S"}


@pytest.mark.parametrize("beta1", ["1e400", "-1", "1", "5", "true", "NaN", '"0.9"'])
def test_a_beta1_that_makes_no_sense_is_not_taken(arrays, tmp_path, beta1):
    lab.write(tmp_path / "a", arrays)
    (tmp_path / "metadata.json").write_text(f'{{"beta1": {beta1}}}')
    import_run(tmp_path / "a", tmp_path / "run")
    assert "beta1" not in read_commit(tmp_path / "run").attributes


@pytest.mark.parametrize("threshold", [-1, 0, float("nan"), float("inf"), 1e-60])
def test_a_threshold_that_cannot_be_is_refused(arrays, tmp_path, threshold):
    lab.write(tmp_path / "a", arrays)
    with pytest.raises(ConfigError, match="above 0"):
        import_run(tmp_path / "a", tmp_path / "run", motion_threshold=threshold)
    assert not (tmp_path / "run").exists()


def test_another_file_of_the_same_shape_does_not_go_on_with_this_one(arrays, tmp_path, monkeypatch):
    lab.write(tmp_path / "a", arrays)
    with monkeypatch.context() as patch:
        patch.setattr(copying, "READ_BYTES", 1)
        stop_after(patch, 9)
        with pytest.raises(CutShortError):
            import_run(tmp_path / "a", tmp_path / "run")
    before = files_of(tmp_path / "run")
    lab.write(tmp_path / "a", changed(arrays, "W", (0, 2, 1), 7))
    with pytest.raises(RunExistsError, match=r"step 0: W differs.*another file"):
        import_run(tmp_path / "a", tmp_path / "run")
    assert files_of(tmp_path / "run") == before


def test_names_from_a_file_cannot_command_the_terminal(arrays, tmp_path, capsys):
    name = "x\n\x1b[31m"
    lab.write(tmp_path / "a", {**arrays, name: arrays["loss"].copy()})
    words = ["import", str(tmp_path / "a"), str(tmp_path / "run")]
    assert main(words) == 1
    assert "\x1b" not in capsys.readouterr().err
    assert main([*words, "--skip", name]) == 0
    assert "left out: x\\n\\x1b[31m (as --skip asked)\n" in capsys.readouterr().err
