"""Files written here are save_file's to the byte, and are read back to the bit."""

import doctest
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

import store.tensorfile.header
from store.disk import LocalDisk
from store.errors import BudgetError, RunExistsError, TensorFileError
from store.tensorfile.file import TensorFile, TensorFileWriter
from store.tensorfile.header import DTYPES, TensorSpec, code_of, encode_header, lay_out

TORCH = {
    "U64": torch.uint64, "I64": torch.int64, "F64": torch.float64, "F32": torch.float32, "U32": torch.uint32,
    "I32": torch.int32, "BF16": torch.bfloat16, "F16": torch.float16, "U16": torch.uint16, "I16": torch.int16,
    "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
SPECS = st.dictionaries(
    NAMES.filter(lambda name: name not in (".", "..", "__metadata__")),
    st.tuples(st.sampled_from(list(DTYPES)), SHAPES),
    max_size=8,
)


def tensors_of(specs, seed=0):
    """Random bytes as tensors, and the same as arrays of the dtype that the store uses."""
    random = np.random.default_rng(seed)
    tensors, arrays = {}, {}
    for name, (code, shape) in specs.items():
        dtype = np.dtype(DTYPES[code])
        raw = random.integers(0, 2 if code == "BOOL" else 256, int(np.prod(shape)) * dtype.itemsize, np.uint8)
        arrays[name] = raw.view(dtype).reshape(shape)
        tensors[name] = torch.empty(shape, dtype=TORCH[code])
        if raw.size:
            tensors[name] = torch.from_numpy(raw.copy()).view(TORCH[code]).reshape(shape)
    return tensors, arrays


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, specs, arrays, **options):
    with TensorFileWriter(path, [TensorSpec(n, c, s) for n, (c, s) in specs.items()], **options) as file:
        for name, array in arrays.items():
            file.put(name, (), array)


@given(SPECS)
@settings(max_examples=60, deadline=None)
def test_bytes_are_those_of_save_file_and_come_back(tmp_path_factory, specs):
    path = tmp_path_factory.mktemp("file") / "a.safetensors"
    tensors, arrays = tensors_of(specs)
    write(path, specs, arrays)
    assert path.read_bytes() == save(tensors)
    with TensorFile(path) as file:
        assert {name: (t.code, t.shape) for name, t in file.tensors.items()} == specs
        for name, array in arrays.items():
            assert file.read(name).tobytes() == array.tobytes()
            if array.ndim:
                for start in range(array.shape[0] + 1):
                    for stop in range(start, array.shape[0] + 1):
                        assert file.rows(name, start, stop).tobytes() == array[start:stop].tobytes()


def test_arrays_put_in_pieces_and_any_order(tmp_path):
    specs = {"W": ("U16", (5, 7, 3)), "loss": ("F32", (5,)), "mask": ("BOOL", (9,))}
    tensors, arrays = tensors_of(specs)
    with TensorFileWriter(tmp_path / "a", [TensorSpec(n, c, s) for n, (c, s) in specs.items()]) as file:
        file.put("mask", (), arrays["mask"])
        for step in reversed(range(5)):
            for token, stop in ((4, 7), (0, 4)):
                file.put("W", (step, token), arrays["W"][step, token:stop])
        file.put("loss", (2,), arrays["loss"][2:])
        file.put("loss", (0,), arrays["loss"][:2])
    assert (tmp_path / "a").read_bytes() == save(tensors)
    assert names(tmp_path) == ["a"]


def test_pieces_of_rows_and_holes(tmp_path):
    arrays = {"W": np.arange(60, dtype=np.uint16).reshape(5, 4, 3), "d": np.zeros((5, 4), np.float32)}
    arrays["W"][2:4, 1:3] = 0
    with TensorFileWriter(tmp_path / "a", [TensorSpec("W", "U16", (5, 4, 3)), TensorSpec("d", "F32", (5, 4))]) as file:
        for start, stop in ((0, 2), (2, 4), (4, 5)):
            file.put_rows("W", (start, 0), arrays["W"][start:stop, :1])
            file.put_rows("W", (start, 3), arrays["W"][start:stop, 3:])
            if start == 2:
                file.put_zeros("W", (start, 1), (2, 2, 3))
            else:
                file.put_rows("W", (start, 1), arrays["W"][start:stop, 1:3])
        file.put_zeros("d", (0,), (4, 4))
        file.put_rows("d", (4,), arrays["d"][4:])
        file.put_rows("d", (0,), arrays["d"][:0])
        with pytest.raises(ValueError, match="pass the end"):
            file.put_rows("W", (4, 0), arrays["W"][:2, :1])
        with pytest.raises(ValueError, match="pass the end"):
            file.put_zeros("d", (1,), (5, 4))
    assert (tmp_path / "a").read_bytes() == save({name: torch.from_numpy(values) for name, values in arrays.items()})


def test_bfloat16_is_loaded_by_torch_as_bfloat16(tmp_path):
    bits = np.array([[0x3F80, 0x8000, 0x7FC1], [0xFF80, 0x0001, 0x7F81]], np.uint16)
    write(tmp_path / "a", {"W": ("BF16", (2, 3))}, {"W": bits})
    loaded = load_file(tmp_path / "a")["W"]
    assert loaded.dtype == torch.bfloat16
    assert loaded.view(torch.uint16).numpy().tolist() == bits.tolist()
    with TensorFile(tmp_path / "a") as file:
        assert file.read("W").tolist() == bits.tolist()


def test_rows_go_into_memory_that_is_given(tmp_path):
    save_file({"x": torch.arange(12).reshape(4, 3)}, tmp_path / "a")
    with TensorFile(tmp_path / "a") as file:
        room = np.full((3, 3), -1)
        assert np.shares_memory(file.rows("x", 1, 3, room), room)
        assert room.tolist() == [[3, 4, 5], [6, 7, 8], [-1, -1, -1]]
        with pytest.raises(IndexError, match="0 to 4"):
            file.rows("x", 3, 5)
        with pytest.raises(ValueError, match="cannot take"):
            file.rows("x", 0, 2, np.empty((2, 3), np.int32))


def test_a_file_that_exists_is_kept_unless_told(tmp_path):
    path = tmp_path / "a"
    path.write_text("mine")
    with pytest.raises(RunExistsError, match="--force"):
        write(path, {"x": ("I8", (1,))}, {"x": np.zeros(1, np.int8)})
    assert path.read_text() == "mine"
    write(path, {"x": ("I8", (1,))}, {"x": np.zeros(1, np.int8)}, replace=True)
    assert load_file(path)["x"].tolist() == [0]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "target")
    write(tmp_path / "a", {"x": ("I8", (1,))}, {"x": np.zeros(1, np.int8)}, replace=True)
    assert (tmp_path / "target").read_text() == "mine"
    assert not (tmp_path / "a").is_symlink()


def test_a_dangling_link_counts_as_something_there(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunExistsError):
        TensorFileWriter(tmp_path / "a", [])


@pytest.mark.parametrize("fails", [True, False])
def test_nothing_stays_of_a_file_that_was_not_finished(tmp_path, fails):
    (tmp_path / "a").write_text("mine")

    def unfinished():
        with TensorFileWriter(tmp_path / "a", [TensorSpec("x", "I8", (4,))], replace=True) as file:
            file.put("x", (0,), np.zeros(3, np.int8))
            if fails:
                raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError if fails else ValueError, match="on purpose" if fails else "3 bytes were put"):
        unfinished()
    assert (tmp_path / "a").read_text() == "mine"
    assert names(tmp_path) == ["a"]


def test_values_that_do_not_fit_are_refused(tmp_path):
    with TensorFileWriter(tmp_path / "a", [TensorSpec("x", "I8", (2, 2))]) as file:
        with pytest.raises(ValueError, match="pass the end"):
            file.put("x", (1,), np.zeros(3, np.int8))
        with pytest.raises(ValueError, match="cannot be put"):
            file.put("x", (), np.zeros((2, 2), np.uint8))
        file.put("x", (), np.zeros((2, 2), np.int8))


def test_a_file_larger_than_the_disk_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(BudgetError, match="bytes, the disk has"):
        TensorFileWriter(tmp_path / "a", [TensorSpec("x", "U8", (1 << 60,))])
    assert not names(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TensorFileWriter(tmp_path / "nowhere" / "a", [])


class FailingCalls:
    """The os module until the nth call; then the disk is full for good."""

    def __init__(self, n):
        self.left = n

    def __getattr__(self, name):
        def call(*arguments, **options):
            if name in ("open", "pwrite", "fsync", "replace"):
                self.left -= 1
                if self.left < 0:
                    raise OSError(28, "No space left on device")
            if name == "pwrite":  # a short write, too
                fd, data, offset = arguments
                return os.pwrite(fd, data[: max(1, len(data) // 2)], offset)
            return getattr(os, name)(*arguments, **options)

        return call


def test_the_nth_call_fails(tmp_path):
    specs = {"x": ("F32", (50,)), "y": ("U16", (9,))}
    tensors, arrays = tensors_of(specs)
    path = tmp_path / "a"
    for n in range(200):
        path.write_text("mine")
        failed = None
        try:
            write(path, specs, arrays, replace=True, disk=LocalDisk(FailingCalls(n)))
        except OSError as error:
            failed = error.errno
        assert failed in (28, None)
        assert path.read_bytes() in (b"mine", save(tensors))  # the last call flushes the folder, after the rename
        assert names(tmp_path) == ["a"]
        if not failed:
            break
    assert n > 10
    assert path.read_bytes() == save(tensors)


def test_dtype_codes():
    for code, name in DTYPES.items():
        if code != "BF16":
            assert code_of(name) == code
    assert code_of(np.uint16, bits_of="bfloat16") == "BF16"


def test_names_that_the_reader_refuses_are_not_written():
    for name in ("", "a/b", "a\\b", "..", "x" * 256):
        with pytest.raises(TensorFileError, match="not a name"):
            lay_out([TensorSpec(name, "U8", ())])


def test_a_cut_while_reading_is_said(tmp_path):
    save_file({"x": torch.zeros(1000)}, tmp_path / "a")
    with TensorFile(tmp_path / "a") as file:
        os.truncate(tmp_path / "a", 500)
        with pytest.raises(TensorFileError, match="cut while"):
            file.read("x")


def test_metadata_of_other_tools_is_accepted(tmp_path):
    save_file({"x": torch.arange(3)}, tmp_path / "a", metadata={"format": "pt"})
    with TensorFile(tmp_path / "a") as file:
        assert file.read("x").tolist() == [0, 1, 2]


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path):
    tensors = {"x": torch.zeros(1)}
    for pad in range(400, 700):
        data = save(tensors, metadata={"pad": "p" * pad})
        if data[:2] == b"\x80\x02":
            break
    assert data[:2] == b"\x80\x02"
    (tmp_path / "a").write_bytes(data)
    with TensorFile(tmp_path / "a") as file:
        assert list(file.tensors) == ["x"]


def test_header_is_padded_json():
    data = encode_header(lay_out([TensorSpec("é", "U8", (3,))]))
    assert int.from_bytes(data[:8], "little") == len(data) - 8
    assert len(data) % 8 == 0
    assert json.loads(data[8:]) == {"é": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}


def test_examples_in_docstrings():
    assert doctest.testmod(store.tensorfile.header).attempted > 0
    assert doctest.testmod(store.tensorfile.header).failed == 0
