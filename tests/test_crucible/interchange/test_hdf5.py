"""The lab's HDF5 files, sound and hostile."""

import os
from contextlib import closing, suppress

import h5py
import lab_files as lab
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crucible
from crucible.interchange.exporter import export_run
from crucible.interchange.importing.importer import import_run
from crucible.interchange.notebook import check_arrays
from crucible.interchange.sources.hdf5 import Hdf5File
from crucible.interchange.sources.named import to_bfloat16_bits
from store.errors import TensorFileError
from store.reading.reader import open_trajectory

MORE_CASES = int(os.environ.get("CRUCIBLE_FUZZ_CASES", "500"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


@pytest.fixture(scope="module")
def arrays():
    return lab.notebook()


def write(path, arrays, **options):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **(options if values.ndim == 3 else {}))
    return path


STORED = {
    "contiguous": {},
    "chunked": {"chunks": (4, 3, 2)},
    "gzip and shuffle": {"chunks": (8, 7, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"chunks": (21, 1, 3), "compression": "lzf"},
}


@pytest.mark.parametrize("how", STORED)
def test_an_hdf5_file_is_the_same_run(arrays, tmp_path, how):
    without = {name: values for name, values in arrays.items() if name != "delta_W_prime"}
    report = import_run(write(tmp_path / "lab.h5", without, **STORED[how]), tmp_path / "run")
    assert report.differences == ()
    assert not report.lossy
    export_run(tmp_path / "run", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == lab.bytes_of(arrays)


def test_big_endian_files_and_masks_as_integers(arrays, tmp_path):
    other = {"W": arrays["W"].astype(">u2"), "loss": arrays["loss"].astype(">f4")}
    other["dead_mask"] = arrays["dead_mask"].astype(np.int32)
    import_run(write(tmp_path / "lab.h5", other), tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "b")
    import_run(lab.write(tmp_path / "c", arrays), tmp_path / "run2")
    export_run(tmp_path / "run2", tmp_path / "d")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "d").read_bytes()


def test_rows_of_the_whole_vocabulary(tmp_path):
    """As the lab's files have them: every id recorded, masks beside."""
    W, mask = lab.weights(6, 12, 3), np.arange(12) % 3 == 0
    report = import_run(write(tmp_path / "lab.h5", {"W": W, "dead_mask": mask, "live_mask": ~mask}), tmp_path / "run")
    assert report.tokens == 12
    export_run(tmp_path / "run", tmp_path / "b", only=["W", "token", "dead_indices", "dead_mask", "live_mask"])
    expected = {"W": W, "dead_mask": mask, "live_mask": ~mask, "token": np.arange(12)}
    assert (tmp_path / "b").read_bytes() == lab.bytes_of({**expected, "dead_indices": np.flatnonzero(mask)})


def test_float16_is_kept_and_rounded_where_that_is_asked(tmp_path):
    W = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float16)
    write(tmp_path / "lab.h5", {"W": W})
    report = import_run(tmp_path / "lab.h5", tmp_path / "as it is")
    assert not report.lossy
    assert "--lossy rounds them to bfloat16" in report.assumed[-1]
    export_run(tmp_path / "as it is", tmp_path / "b", only=["W"])
    assert (tmp_path / "b").read_bytes() == lab.bytes_of({"W": W})
    (tmp_path / "b").unlink()
    assert import_run(tmp_path / "lab.h5", tmp_path / "run", lossy=True).lossy
    export_run(tmp_path / "run", tmp_path / "b", only=["W"])
    bits = lab.torch.from_numpy(W).bfloat16().view(lab.torch.uint16).numpy()
    assert (tmp_path / "b").read_bytes() == lab.bytes_of({"W": bits})


def test_every_float16_rounds_as_torch_rounds():
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    expected = lab.torch.from_numpy(values.copy()).bfloat16().view(lab.torch.uint16).numpy()
    numbers = ~np.isnan(values)
    assert (to_bfloat16_bits(values)[numbers] == expected[numbers]).all()
    assert (to_bfloat16_bits(values)[~numbers] == lab.NAN).all()


def test_other_members_are_named_before_anything_is_written(arrays, tmp_path):
    write(tmp_path / "lab.h5", {"W": arrays["W"], "notes": np.zeros(3)})
    with h5py.File(tmp_path / "lab.h5", "a") as file:
        file.create_group("more")
        file["linked"] = h5py.SoftLink("/nowhere")
        file.attrs["many"] = np.zeros(99)
    for skip in ([], ["linked"], ["linked", "notes"]):
        with pytest.raises(TensorFileError, match="links are not followed" if not skip else "more.* not known"):
            import_run(tmp_path / "lab.h5", tmp_path / "run", skip=skip)
        assert not (tmp_path / "run").exists()
    report = import_run(tmp_path / "lab.h5", tmp_path / "run", skip=["linked", "notes", "more"])
    assert report.left_out.keys() == {"notes", "linked", "more", "attribute many"}


def test_arrays_in_a_group_are_those_of_the_file(arrays, tmp_path):
    with h5py.File(tmp_path / "lab.h5", "w") as file:
        group = file.create_group("crucible").create_group("one")
        for name in ("W", "loss"):
            group[name] = arrays[name]
        file["dead_mask"] = arrays["dead_mask"]
        group.attrs["learning_rate"] = 0.01
    import_run(tmp_path / "lab.h5", tmp_path / "run")
    ds = open_trajectory(tmp_path / "run")
    assert (ds.W.values == arrays["W"]).all()
    assert ds.token.values.tolist() == arrays["dead_indices"].tolist()
    assert crucible.info(tmp_path / "run")["config"]["learning_rate"] == 0.01


def test_groups_that_lead_back_are_refused(arrays, tmp_path):
    with h5py.File(tmp_path / "lab.h5", "w") as file:
        file["W"] = arrays["W"]
        file.create_group("a")["back"] = file["/"]
    with pytest.raises(TensorFileError, match="groups within groups"):
        import_run(tmp_path / "lab.h5", tmp_path / "run")


def test_long_texts_are_not_read(arrays, tmp_path, monkeypatch):
    """Nothing says how long a text of HDF5 is before it is read."""
    from crucible.interchange.sources import hdf5

    with h5py.File(tmp_path / "lab.h5", "w") as file:
        file["W"] = arrays["W"]
        file["notes"] = "x" * 5000
        file.attrs["optimizer"] = "adam"
        file.attrs["seed"] = 3
    import_run(tmp_path / "lab.h5", tmp_path / "run")
    said = crucible.info(tmp_path / "run")["provenance"]["said_by_the_file"]
    assert said == {"notes": "x" * 5000, "optimizer": "adam", "seed": 3}
    monkeypatch.setattr(hdf5, "LONGEST_TEXTS", 100)
    report = import_run(tmp_path / "lab.h5", tmp_path / "run2", skip=["notes"])
    assert "attribute optimizer" in report.left_out
    assert crucible.info(tmp_path / "run2")["provenance"]["said_by_the_file"] == {"seed": 3}


# Hostile


def external_link(file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["W"] = np.zeros((2, 2, 2), np.uint16)
    file["W"] = h5py.ExternalLink("other.h5", "W")


def soft_link(file, _):
    file["data"] = np.zeros((2, 2, 2), np.uint16)
    file["W"] = h5py.SoftLink("/data")


def dangling_link(file, _):
    file["W"] = h5py.SoftLink("/nowhere")


def external_data(file, tmp_path):
    (tmp_path / "secret").write_bytes(b"x" * 16)
    file.create_dataset("W", (2, 2, 2), np.uint16, external=[(str(tmp_path / "secret"), 0, 16)])


def virtual(file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.zeros((2, 2, 2), np.uint16)
    layout = h5py.VirtualLayout((2, 2, 2), np.uint16)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (2, 2, 2))
    file.create_virtual_dataset("W", layout)


def external_link_in_a_group(file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["W"] = np.zeros((2, 2, 2), np.uint16)
    file.create_group("run")["W"] = h5py.ExternalLink("other.h5", "W")


def a_plugin(file, _):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((2, 2, 2))
    layout.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((2, 2, 2))
    h5py.h5d.create(file.id, b"W", h5py.h5t.NATIVE_UINT16, space, layout)


def a_group(file, _):
    file.create_group("W")


def strings(file, _):
    file.create_dataset("W", (2, 2, 2), h5py.string_dtype())


def references(file, _):
    file.create_dataset("W", (2, 2, 2), h5py.ref_dtype)


def compound(file, _):
    file.create_dataset("W", (2, 2, 2), [("a", "u2")])


def nothing(file, _):
    file["W"] = h5py.Empty("u2")


def a_bomb(file, _):
    file.create_dataset("W", (2, 2**20, 2**10), np.uint16, chunks=(1, 2**20, 2**9), compression="gzip")


def half_written(file, _):
    data = file.create_dataset("W", (100, 2, 2), np.uint16, chunks=(10, 2, 2))
    data[:50] = 1


def never_written(file, _):
    file.create_dataset("W", (2**20, 2**10, 2**10), np.uint16)


def many(file, _):
    for i in range(1100):
        file.create_group(f"g{i}")


def float64(file, _):
    file["W"] = np.full((2, 2, 2), 0.1)


HOSTILE = {
    external_link_in_a_group: "'run/W' is a link", a_plugin: "W is packed with filter 32015",
    external_link: "ExternalLink", soft_link: "SoftLink", dangling_link: "SoftLink", external_data: "in other files",
    virtual: "in other files", a_group: "not an array", strings: "W is object", references: "W is object",
    compound: "not an array of numbers", nothing: "not an array", a_bomb: "chunks", half_written: "5 of its 10 chunks",
    never_written: "0 bytes in the file", many: "1100 members", float64: "no float32 can hold",
}  # fmt: skip


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_is_refused_and_nothing_is_written(tmp_path, make):
    with h5py.File(tmp_path / "lab.h5", "w") as file:
        make(file, tmp_path)
    with pytest.raises(TensorFileError, match=HOSTILE[make]) as raised:
        import_run(tmp_path / "lab.h5", tmp_path / "run")
    assert str(tmp_path / "lab.h5") in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_cut_short_and_empty(arrays, tmp_path):
    data = write(tmp_path / "lab.h5", {"W": arrays["W"]}).read_bytes()
    for length in (8, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "lab.h5").write_bytes(data[:length])
        with pytest.raises(TensorFileError):
            import_run(tmp_path / "lab.h5", tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "lab.h5"
    small = lab.notebook(lab.weights(8, 5, 4))
    with h5py.File(path, "w") as file:
        file.create_dataset("W", data=small["W"], chunks=(4, 5, 4), compression="gzip")
        for name in ("loss", "dead_mask", "centroid"):
            file[name] = small[name]
    return path.read_bytes()


PIECES = st.sampled_from([b"\0", b"\xff", b"\x01", b"\x7f", b"\xff" * 8, b"\0" * 8]) | st.binary(min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(st.integers(0, 2**31), PIECES), min_size=1, max_size=5)


@given(CHANGES, st.none() | st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_fuzz_damaged_files_are_refused_or_read(sound, tmp_path_factory, changes, cut):
    refused_or_read(sound, tmp_path_factory, changes, cut)


@pytest.mark.slow
@given(CHANGES, st.none() | st.integers(0, 2**31))
@settings(max_examples=MORE_CASES, deadline=None)
def test_fuzz_more_damaged_files(sound, tmp_path_factory, changes, cut):
    refused_or_read(sound, tmp_path_factory, changes, cut)


def refused_or_read(sound, tmp_path_factory, changes, cut):
    path = tmp_path_factory.getbasetemp() / "fuzzed.h5"
    path.write_bytes(lab.damaged(sound, changes, cut))
    with suppress(TensorFileError), closing(Hdf5File(path)) as file:
        check_arrays(file.tensors)
        for name, tensor in file.tensors.items():
            if tensor.nbytes < 1 << 20:
                assert file.read(name).shape == tensor.shape
