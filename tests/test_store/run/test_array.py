import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.buffer import default_buffer_prototype

from store.errors import ChecksumError, MetadataError, MissingError
from store.format.schema import Channel
from store.run.array import StoredArray, array_metadata, check_array_metadata

CHANNELS = {
    "tiled": (Channel("W", ("token", "hidden"), "uint16"), (0, 10, 3), (4, 4, 3)),
    "summary": (Channel("size", ("token",), "float32"), (0, 10), (4, 10)),
    "scalar": (Channel("loss", (), "float32"), (0,), (16,)),
    "static": (Channel("mask", ("vocabulary",), "bool", role="static"), (7,), (7,)),
    "codes": (Channel("population", ("token",), "int8", role="static"), (7,), (7,)),
    "labels": (Channel("token", ("token",), "int64", role="static"), (7,), (7,)),
}


@pytest.fixture(params=CHANNELS)
def case(request):
    return CHANNELS[request.param]


def written_by_zarr(folder, metadata):
    (folder / "zarr.json").write_text(json.dumps(metadata))
    return zarr.open_array(folder, mode="r+", config={"write_empty_chunks": True})


def test_metadata_is_what_zarr_writes(tmp_path, case):
    channel, shape, chunk = case
    metadata = array_metadata(channel, shape, chunk)
    array = written_by_zarr(tmp_path, metadata)
    document = array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"]
    assert json.loads(document.to_bytes()) == metadata
    check_array_metadata(channel.name, metadata)
    assert Channel.from_array(channel.name, metadata).all_dims == channel.all_dims


def test_chunks_are_the_bytes_that_zarr_writes(tmp_path, case):
    channel, shape, chunk = case
    shape = (9, *shape[1:]) if channel.has_steps else shape
    metadata = array_metadata(channel, shape, chunk)
    values = np.random.default_rng(0).integers(0, 2, shape).astype(channel.dtype)
    written_by_zarr(tmp_path, metadata)[...] = values
    array = StoredArray(tmp_path, metadata)
    for index in array.indices():
        padded = np.full(chunk, channel.fill_value, channel.dtype)
        part = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk, strict=True))]
        padded[tuple(slice(size) for size in part.shape)] = part
        assert b"".join(array.encode(padded)) == (tmp_path / array.key(index)).read_bytes()
    np.testing.assert_array_equal(array.read_rows(0, shape[0]), values)
    np.testing.assert_array_equal(array.read_rows(1, shape[0] - 1), values[1:-1])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40_000), st.integers(0, 2**32))
def test_incompressible_floats_are_stored_as_they_are_in_a_frame_that_any_zstd_reads(rows, seed):
    values = np.random.default_rng(seed).random((128, rows // 16 + 1)).astype(np.float32)
    channel = Channel("noise", ("token",), "float32")
    array = StoredArray(Path("x"), array_metadata(channel, values.shape, values.shape))
    packed = b"".join(array.encode(values))
    if values.nbytes > 4 * (64 << 10):
        assert values.nbytes < len(packed) < values.nbytes * 1.001 + 30
    np.testing.assert_array_equal(array.decode(packed, (0, 0)), values)


def test_float_numbers_that_compress_are_compressed():
    channel = Channel("calm", ("token",), "float32")
    array = StoredArray(Path("x"), array_metadata(channel, (128, 4096), (128, 4096)))
    assert sum(map(len, array.encode(np.zeros((128, 4096), np.float32)))) < 1000


def test_damage_is_named(tmp_path):
    channel = Channel("W", ("token", "hidden"), "uint16")
    folder = tmp_path / "run" / "trajectory.zarr" / "W"
    folder.mkdir(parents=True)
    array = StoredArray(folder, array_metadata(channel, (6, 10, 3), (4, 4, 3)))
    with pytest.raises(MissingError, match=r"run: W\[step 4..5, token positions 8..9, hidden 0..2\]"):
        array.read_chunk((1, 2, 0))
    whole = b"".join(array.encode(np.zeros((4, 4, 3), np.uint16)))
    for data, message in [
        (b"", "checksum"),
        (whole[:-1], "checksum"),
        (whole[:5] + bytes([whole[5] ^ 1]) + whole[6:], "checksum"),
        (b"".join(StoredArray(folder, array_metadata(channel, (9, 9, 9), (9, 9, 9))).encode(
            np.zeros((9, 9, 9), np.uint16))), "claims to unpack to 1458 bytes, not 96"),
    ]:  # fmt: skip
        with pytest.raises(ChecksumError, match=message):
            array.decode(data, (0, 0, 0))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [1, 2]), ("shape", [-1, 10, 3]), ("shape", [1 << 60, 10, 3]), ("shape", "abc"),
        ("shape", [True, 10, 3]), ("data_type", "object"), ("data_type", "float99"), ("data_type", None),
        ("dimension_names", ["token", "step", "hidden"]), ("dimension_names", None), ("codecs", []),
        ("codecs", [{"name": "pickle"}]), ("codecs", 7), ("fill_value", 1), ("chunk_key_encoding", {"name": "v2"}),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [1 << 20, 1 << 20, 1 << 20]}}),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [0, 1, 1]}}),
        ("chunk_grid", {"name": "rectilinear"}),
    ],
)  # fmt: skip
def test_metadata_of_another_kind_is_refused(key, value):
    metadata = array_metadata(Channel("W", ("token", "hidden"), "uint16"), (6, 10, 3), (4, 4, 3))
    with pytest.raises(MetadataError, match="'W'"):
        check_array_metadata("W", {**metadata, key: value})
