import json
import pickle

import numpy as np
import pytest
import zarr
from format2_cases import KINDS, layout_of, padded, same_bits, values_of
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.buffer import default_buffer_prototype

from store.errors import ChecksumError, MetadataError
from store.format.codec import BLOSC
from store.format.layout import Layout, array_metadata, check_array_metadata
from store.format.schema import Channel
from store.format.validity import STATIC_NEED, Need, final_need


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


def metadata_of(name):
    channel, chunk, compression = KINDS[name]
    return array_metadata(channel, values_of(name).shape, chunk, compression)


def test_metadata_is_what_zarr_writes(tmp_path, name):
    metadata = metadata_of(name)
    (tmp_path / "zarr.json").write_text(json.dumps(metadata))
    array = zarr.open_array(tmp_path, mode="r+")
    document = array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"]
    assert json.loads(document.to_bytes()) == metadata
    check_array_metadata(name, metadata)


def test_chunks_are_the_bytes_that_zarr_writes(tmp_path, name):
    """zarr orders the chunks of a file differently, so each one is compared where the index says that it is."""
    values, layout = values_of(name), layout_of(name, values_of(name))
    (tmp_path / "zarr.json").write_text(json.dumps(metadata_of(name)))
    zarr.open_array(tmp_path, mode="r+", config={"write_empty_chunks": True})[...] = values
    for block in range(layout.blocks):
        data = (tmp_path / layout.key(block)).read_bytes()
        pairs = np.frombuffer(data[-4 - 16 * layout.chunks_of_a_file : -4], "<u8").reshape(-1, 2)
        for index in layout.indices(block):
            offset, size = pairs[layout.position(index)].tolist()
            assert b"".join(layout.encode(padded(layout, values, index))) == data[offset : offset + size]


def test_a_chunk_is_decoded_to_the_same_bits(name):
    values = values_of(name)
    layout = layout_of(name, values)
    for block in range(layout.blocks):
        for index in layout.indices(block):
            chunk = padded(layout, values, index)
            data = b"".join(layout.encode(chunk))
            assert same_bits(layout.decode(data, "here"), chunk)
            room = np.empty(layout.chunk_bytes, np.uint8)
            assert np.shares_memory(layout.decode(data, "here", room), room)


def test_a_chunk_of_another_size_is_refused():
    layout = layout_of("W", values_of("W"))
    other = layout_of("norm", values_of("norm"))
    data = b"".join(other.encode(other.empty_chunk()))
    with pytest.raises(ChecksumError, match="here: claims to unpack to 160 bytes, not 96"):
        layout.decode(data, "here")


def test_a_file_is_a_block_of_all_tokens_in_whole_tiles():
    layout = layout_of("W", values_of("W"))
    assert metadata_of("W")["chunk_grid"]["configuration"]["chunk_shape"] == [4, 12, 3]
    assert (layout.blocks, layout.chunks_of_a_file) == (3, 3)
    assert list(layout.indices(2)) == [(2, 0, 0), (2, 1, 0), (2, 2, 0)]
    assert layout.file_name(2) == "W/c.2.0.0"
    assert layout.where((2, 2, 0)) == "W[step 8..8, token positions 8..9, hidden 0..2]"
    assert layout.where((2,)) == "W[step 8..8]"


@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 5), st.integers(1, 9), st.integers(1, 12))
def test_files_and_positions_name_each_chunk_once(steps, tokens, hidden, block, tile):
    channel = Channel("W", ("token", "hidden"), "uint16")
    metadata = array_metadata(channel, (steps, tokens, hidden), (block, tile, hidden))
    layout = Layout.from_metadata("W", metadata)
    check_array_metadata("W", metadata)
    places = [(b, layout.position(index)) for b in range(layout.blocks) for index in layout.indices(b)]
    assert places == [(b, p) for b in range(-(-steps // block)) for p in range(-(-tokens // tile))]


def test_what_a_commit_needs_of_a_file():
    needs = {name: layout_of(name, values_of(name)).need(0, 8) for name in KINDS}
    assert needs["W"] == needs["norm"] == needs["centroid"] == Need(3)
    assert layout_of("W", values_of("W")).need(2, 8) == Need(8)
    assert needs["loss"] == needs["step"] == Need(8)
    assert needs["probe"] == Need(4)
    assert layout_of("probe", values_of("probe")).need(1, 8) == needs["step_probe"] == Need(8)
    assert needs["dead_mask"] == needs["token"] == STATIC_NEED
    assert needs["last_motion_step"] == final_need(8)


def test_nothing_to_store_is_no_file():
    channel = Channel("mask", ("vocabulary",), "bool", role="static")
    layout = Layout.from_metadata("mask", array_metadata(channel, (0,), (1,)))
    assert layout.blocks == 0
    assert layout_of("W", values_of("W")[:0]).blocks == 0


def test_an_array_without_dimensions_is_refused():
    with pytest.raises(ValueError, match="give it one dimension of size 1"):
        array_metadata(Channel("seed", (), "int64", role="static"), (), ())


def test_a_layout_pickles():
    for name in KINDS:
        layout = layout_of(name, values_of(name))
        assert pickle.loads(pickle.dumps(layout)) == layout


def test_an_array_of_a_group_in_the_group_is_known_by_its_path():
    layout = layout_of("W", values_of("W"), path="parameters/head/W")
    assert layout.file_name(1) == "parameters/head/W/c.1.0.0"


def sharding(**changes):
    codec = metadata_of("moment")["codecs"][0]
    return [{**codec, "configuration": {**codec["configuration"], **changes}}]


def inner(position, **changes):
    codecs = [dict(codec) for codec in sharding()[0]["configuration"]["codecs"]]
    codecs[position]["configuration"] = {**codecs[position]["configuration"], **changes}
    return sharding(codecs=codecs)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [1, 2]), ("shape", [-1, 10, 3]), ("shape", [1 << 60, 10, 3]), ("shape", "abc"), ("shape", []),
        ("shape", [True, 10, 3]), ("shape", [9, 13, 3]), ("data_type", "object"), ("data_type", "float99"),
        ("data_type", "longdouble"), ("data_type", None), ("dimension_names", ["token", "step", "hidden"]),
        ("dimension_names", None), ("codecs", []), ("codecs", 7), ("codecs", [{"name": "bytes"}]), ("fill_value", 1),
        ("codecs", sharding(index_location="start")), ("codecs", sharding(index_codecs=[{"name": "bytes"}])),
        ("codecs", sharding(chunk_shape=[4, 5, 3])), ("codecs", sharding(chunk_shape=[2, 4, 3])),
        ("codecs", sharding(chunk_shape=[0, 4, 3])), ("codecs", sharding(chunk_shape=[4, 4])),
        ("codecs", sharding(codecs=[])), ("codecs", sharding(codecs=[{"name": "pickle"}])),
        ("codecs", [*sharding(), {"name": "crc32c"}]), ("codecs", sharding(codecs=sharding())),
        ("codecs", inner(2, typesize=1)), ("codecs", inner(2, cname="lz4")), ("codecs", inner(2, clevel=10)),
        ("codecs", inner(2, shuffle="bitshuffle")), ("codecs", inner(2, blocksize=1)),
        ("codecs", inner(0, order=[2, 1, 0])),
        ("attributes", {"role": "secret"}), ("attributes", None), ("attributes", {"every": 2.0, "role": "given"}),
        ("chunk_key_encoding", {"name": "v2"}), ("chunk_grid", {"name": "rectilinear"}),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [4, 8, 3]}}),
        ("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [8, 12, 3]}}),
    ],
)  # fmt: skip
def test_metadata_of_another_kind_is_refused(key, value):
    with pytest.raises(MetadataError, match="array 'moment': "):
        check_array_metadata("moment", {**metadata_of("moment"), key: value})


@pytest.mark.parametrize(
    ("shape", "chunk", "message"),
    [
        ((9, 10, 1 << 20), (1 << 10, 1, 1 << 20), "would unpack to more than"),
        ((1 << 40, 10, 3), (1, 10, 3), "would be .* files"),
        ((9, 1 << 30, 3), (4, 1, 3), "files of 1073741824 chunks"),
        ((1 << 19, 1 << 19, 3), (1, 1, 3), "would be"),
    ],
)
def test_sizes_that_cannot_be_meant_are_refused(shape, chunk, message):
    channel = Channel("W", ("token", "hidden"), "float32")
    with pytest.raises(MetadataError, match=message):
        check_array_metadata("W", array_metadata(channel, shape, chunk, BLOSC))


def test_a_static_array_is_one_chunk():
    metadata = array_metadata(Channel("mask", ("vocabulary",), "bool", role="static"), (21,), (7,))
    with pytest.raises(MetadataError, match="which is one chunk of"):
        check_array_metadata("mask", metadata)
