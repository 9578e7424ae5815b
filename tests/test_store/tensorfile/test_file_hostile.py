"""Broken and hostile files: a clear error, before a byte of data is believed, in little time and memory."""

import json
import os
import struct
import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
import torch
from descriptors import open_below
from hypothesis import given, settings
from hypothesis import strategies as st
from resident import run_python
from safetensors.torch import save

from store.errors import TensorFileError
from store.tensorfile.file import TensorFile
from store.tensorfile.header import HEADER_CAP, parse_header

GOOD = {"dtype": "U16", "shape": [2, 3], "data_offsets": [0, 12]}
MORE_CASES = int(os.environ.get("CRUCIBLE_FUZZ_CASES", "500"))


def file_of(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(**changes):
    return {**GOOD, **changes}


def many(count):
    """A header of this many empty arrays."""
    entries = b",".join(b'"t%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(count))
    return b"{" + entries + b"}"


DATA = bytes(12)
EMPTY = json.dumps(entry(shape=[0], data_offsets=[0, 0])).encode()
HOSTILE = {
    "an empty file": (b"", "does not fit"),
    "seven bytes": (b"\0" * 7, "does not fit"),
    "header length 0": (file_of(b"", DATA), "header of 0 bytes"),
    "header beyond the file": (file_of({"W": GOOD}, DATA, length=4000), "does not fit a file"),
    "header length 2^64 - 1": (b"\xff" * 8 + DATA, "does not fit a file"),
    "header above the cap": (file_of(b" " * (HEADER_CAP + 1), DATA), "above the limit"),
    "400,000 tensors": (file_of(many(400_000)), "above the limit"),
    "not UTF-8": (file_of(b'{"\xff":1}'), "no JSON"),
    "not JSON": (file_of(b"{nonsense"), "no JSON"),
    "JSON and more": (file_of(b"{}{}"), "no JSON"),
    "a list": (file_of(b"[]"), "not a JSON object"),
    "space first": (file_of(b" {}"), "not a JSON object"),
    "nested 100,000 deep": (file_of(b'{"a":' + b"[" * 100_000), "no JSON"),
    "NaN": (file_of(b'{"a":NaN}'), "NaN"),
    "an integer of 5,000 digits": (file_of(b'{"a":' + b"9" * 5000 + b"}"), "no JSON"),
    "duplicate keys": (file_of(b'{"a":%b,"a":%b}' % (EMPTY, EMPTY)), "twice"),
    "duplicate keys inside": (file_of(b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "twice"),
    "overlapping": (file_of({"a": GOOD, "b": entry(data_offsets=[6, 18])}, bytes(18)), "right behind"),
    "gapped": (file_of({"a": GOOD, "b": entry(data_offsets=[14, 26])}, bytes(26)), "right behind"),
    "a gap at the start": (file_of({"a": entry(data_offsets=[8, 20])}, bytes(20)), "right behind"),
    "unordered": (file_of({"a": entry(data_offsets=[12, 24]), "b": GOOD}, bytes(24)), "right behind"),
    "begin above end": (file_of({"a": entry(data_offsets=[12, 0])}, DATA), "right behind"),
    "negative": (file_of({"a": entry(data_offsets=[-12, 0])}, DATA), "pair of counts"),
    "offset of 2^64": (file_of({"a": entry(data_offsets=[0, 2**64])}, DATA), "pair of counts"),
    "three offsets": (file_of({"a": entry(data_offsets=[0, 12, 24])}, DATA), "pair of counts"),
    "offsets that are true": (file_of({"a": entry(shape=[], dtype="U8", data_offsets=[False, True])}, b"1"), "counts"),
    "offsets that are floats": (file_of({"a": entry(data_offsets=[0.0, 12.0])}, DATA), "pair of counts"),
    "length against shape": (file_of({"a": entry(shape=[2, 4])}, DATA), "right behind"),
    "length against dtype": (file_of({"a": entry(dtype="F32")}, DATA), "right behind"),
    "a product that overflows": (file_of({"a": entry(shape=[2**32, 2**32, 4])}, DATA), "more elements"),
    "a product that overflows to 12 bytes": (file_of({"a": entry(shape=[2**63 - 1, 2**63 - 1, 6])}, DATA), "more ele"),
    "a dimension of 2^64 + 2": (file_of({"a": entry(shape=[2**64 + 2, 3])}, DATA), "counts below"),
    "a rank of 1,000": (file_of({"a": entry(shape=[1] * 1000)}, DATA), "at most 8"),
    "a shape that is a text": (file_of({"a": entry(shape="23")}, DATA), "counts"),
    "an unknown dtype": (file_of({"a": entry(dtype="Q16")}, DATA), "'Q16' is not one of"),
    "a dtype that is a list": (file_of({"a": entry(dtype=["U16"])}, DATA), "is not one of"),
    "a further key": (file_of({"a": entry(pickle="x")}, DATA), "nothing else"),
    "a missing key": (file_of({"a": {"dtype": "U8", "shape": [0]}}, b""), "nothing else"),
    "an array that is null": (file_of({"a": None}, b""), "nothing else"),
    "metadata that is no text": (file_of({"__metadata__": {"a": 1}}, b""), "__metadata__"),
    "metadata that is a list": (file_of({"__metadata__": []}, b""), "__metadata__"),
    "trailing bytes": (file_of({"a": GOOD}, bytes(13)), "no array owns"),
    "truncated data": (file_of({"a": GOOD}, bytes(11)), "cut short"),
    "a path": (file_of({"../../etc/passwd": GOOD}, DATA), "not a name"),
    "a Windows path": (file_of({"c:\\x": GOOD}, DATA), "not a name"),
    "two dots": (file_of({"..": GOOD}, DATA), "not a name"),
    "a zero byte": (file_of({"a\0b": GOOD}, DATA), "not a name"),
    "no name": (file_of({"": GOOD}, DATA), "not a name"),
    "a name of 100,000 characters": (file_of({"n" * 100_000: GOOD}, DATA), "not a name"),
    "a zip archive": (b"PK\x03\x04" + bytes(100), "zip archive"),
    "a pickle": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0" + bytes(100), "a pickle"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "gzip": (b"\x1f\x8b\x08\x08abcd" + bytes(100), "gzip"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_is_refused_with_a_clear_error_and_little_memory(tmp_path, name):
    data, expected = HOSTILE[name]
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(TensorFileError, match=expected) as raised:
            TensorFile(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 600
    assert "\n" not in str(raised.value)
    assert peak < 12e6


DENSE = {
    "lists": b'{"a":[' + b"[]," * (HEADER_CAP // 3 - 5) + b"0]}",
    "texts": b'{"a":[' + b'"ab",' * (HEADER_CAP // 5 - 5) + b"0]}",
    "numbers": b'{"a":[' + b"999," * (HEADER_CAP // 4 - 5) + b"0]}",
    "objects": b'{"a":[' + b"{}," * (HEADER_CAP // 3 - 5) + b"0]}",
    "members": ("{" + ",".join(f'"{i:x}":0' for i in range(30_000)) + "}").encode()[:HEADER_CAP],
    "one shape": b'{"a":{"dtype":"U8","shape":[' + b"9," * (HEADER_CAP // 2 - 50) + b'9],"data_offsets":[0,0]}}',
}


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", DENSE)
def test_the_densest_headers_under_the_cap_take_little_memory(name):
    tracemalloc.start()
    try:
        with pytest.raises(TensorFileError):
            parse_header(DENSE[name], 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(DENSE[name]) > HEADER_CAP * 0.9
    assert peak < 15e6


def test_the_whole_process_stays_small(tmp_path):
    """Resident memory, where tracemalloc cannot see: at most 20 MB above the idle process."""
    path = tmp_path / "a"
    path.write_bytes(file_of(DENSE["members"]))
    script = """
        import sys
        from resident import peak_bytes
        from store.errors import TensorFileError
        from store.tensorfile.file import TensorFile
        idle = peak_bytes()
        try:
            TensorFile(sys.argv[1])
        except TensorFileError:
            print(peak_bytes() - idle)
    """
    assert int(run_python(script, path)) < 20e6


def test_a_pipe_a_folder_and_nothing_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TensorFileError, match="not a regular file"):
        TensorFile(tmp_path / "pipe")
    with pytest.raises(TensorFileError, match="not a regular file"):
        TensorFile(tmp_path)
    with pytest.raises(TensorFileError, match="not a regular file"):
        TensorFile("/dev/zero")
    with pytest.raises(FileNotFoundError):
        TensorFile(tmp_path / "nothing")


def test_no_descriptor_is_left_open(tmp_path):
    (tmp_path / "a").write_bytes(HOSTILE["gapped"][0])
    for _ in range(10):
        with pytest.raises(TensorFileError):
            TensorFile(tmp_path / "a")
    assert open_below(tmp_path) == []


def test_bool_that_is_neither_0_nor_1(tmp_path):
    (tmp_path / "a").write_bytes(file_of({"m": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}, b"\0\1\2"))
    with TensorFile(tmp_path / "a") as file, pytest.raises(TensorFileError, match="other than 0 and 1"):
        file.read("m")


SOUND = save({"W": torch.arange(24).to(torch.uint16).reshape(2, 3, 4), "loss": torch.zeros(2), "m": torch.ones(5) > 0})


@st.composite
def damaged(draw):
    """A sound file with bytes changed, cut out, put in or cut off; mostly in the header."""
    data = bytearray(SOUND)
    header_end = 8 + int.from_bytes(data[:8], "little")
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), header_end + 4) - 1) | st.integers(0, max(0, len(data) - 1)))
        change = draw(st.sampled_from(["set", "flip", "insert", "delete", "cut"]))
        if change == "set":
            data[at] = draw(st.sampled_from(list(b'0123456789,:[]{}"-. eUFB\\\x00\xff')))
        elif change == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9) | st.sampled_from([b"0", b"-", b",0", b"[", b'"']))
        elif change == "delete":
            del data[at : at + draw(st.integers(1, 20))]
        else:
            del data[at:]
        if not data:
            data = bytearray(b"\0")
    if draw(st.booleans()) and len(data) > 8:
        data[:8] = draw(st.integers(0, len(data) + 8)).to_bytes(8, "little")
    return bytes(data)


def holds_what_it_says(path, size):
    """Open it; if that succeeds, all arrays lie inside the file and do not overlap."""
    with TensorFile(path) as file:
        owned = sorted((t.begin, t.begin + t.nbytes) for t in file.tensors.values() if t.nbytes)
        assert all(a[1] == b[0] for a, b in pairwise(owned))
        assert not owned or (owned[0][0] == 0 and 8 + owned[-1][1] < size)
        for name, tensor in file.tensors.items():
            with suppress(TensorFileError):  # a BOOL of other bytes
                assert file.read(name).shape == tensor.shape


@given(damaged())
@settings(max_examples=100, deadline=None)
def test_fuzz_damaged_files_are_refused_or_sound(tmp_path_factory, data):
    refused_or_sound(tmp_path_factory, data)


@pytest.mark.slow
@given(damaged())
@settings(max_examples=MORE_CASES, deadline=None)
def test_fuzz_more_damaged_files(tmp_path_factory, data):
    refused_or_sound(tmp_path_factory, data)


def refused_or_sound(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(data)
    with suppress(TensorFileError):
        holds_what_it_says(path, len(data))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
COUNTS = st.integers(-2, 30) | st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, 2**64, True, 1.0])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "U16", "F32", "BF16", "BOOL", "I64", "X", ""]) | JSON_VALUES,
        "shape": st.lists(COUNTS, max_size=4) | JSON_VALUES,
        "data_offsets": st.lists(COUNTS, min_size=2, max_size=2) | JSON_VALUES,
    }
)


DOCUMENTS = st.dictionaries(st.sampled_from(["W", "loss", "a/b", "__metadata__", "x"]), ENTRIES | JSON_VALUES)


@pytest.mark.slow
@given(DOCUMENTS, st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_fuzz_made_up_headers_are_refused_or_sound(document, data_bytes):
    named_or_refused(document, data_bytes)


@pytest.mark.slow
@given(DOCUMENTS, st.integers(0, 60))
@settings(max_examples=MORE_CASES, deadline=None)
def test_fuzz_more_made_up_headers(document, data_bytes):
    named_or_refused(document, data_bytes)


def named_or_refused(document, data_bytes):
    with suppress(TensorFileError):
        tensors = parse_header(json.dumps(document).encode(), data_bytes)
        assert sum(tensor.nbytes for tensor in tensors.values()) == data_bytes


def test_reading_maps_nothing_and_takes_only_what_is_asked(tmp_path):
    """A row of a large file costs a row: resident memory of the process does not grow with the file."""
    rows, width = 64, 1 << 20
    header = {"x": {"dtype": "U8", "shape": [rows, width], "data_offsets": [0, rows * width]}}
    path = tmp_path / "a"
    path.write_bytes(file_of(header))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + rows * width)
    script = """
        import sys
        import numpy as np
        from resident import peak_bytes
        from store.tensorfile.file import TensorFile
        rows, width = int(sys.argv[2]), int(sys.argv[3])
        room = np.ones((1, width), np.uint8)
        idle = peak_bytes()
        with TensorFile(sys.argv[1]) as file:
            for row in range(rows):
                assert not file.rows("x", row, row + 1, room).any()
        print(peak_bytes() - idle)
    """
    assert int(run_python(script, path, rows, width)) < 20e6
