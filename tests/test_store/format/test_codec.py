import threading

import numpy as np
import pytest
from format2_cases import random_values
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc, zstd
from zarr.codecs import BloscCodec

from store.format import codec
from store.format.codec import BLOSC, ZSTD, Compression, blosc_content_bytes, chunk_codecs, crc32c, pack, unpack


def joined(values, compression):
    return b"".join(pack(values, compression))


@pytest.mark.parametrize("compression", [ZSTD, BLOSC, Compression("zstd", 19), Compression("blosc", 9)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint16", "int8", "bool"])
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_what_is_packed_unpacks_to_the_same_bits(compression, dtype, size):
    values = random_values(dtype, (size,))
    out = np.empty(values.nbytes, np.uint8)
    unpack(joined(values, compression), compression, out)
    assert out.tobytes() == values.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("size", [1, 7, 1000, 300_000])
def test_blosc_gives_the_bytes_of_zarr(dtype, size):
    walk = np.cumsum(np.random.default_rng(0).normal(size=size)).astype(dtype)
    (configuration,) = [c["configuration"] for c in chunk_codecs(walk.dtype, (0,), BLOSC) if c["name"] == "blosc"]
    assert configuration["typesize"] == walk.itemsize
    by_zarr = bytes(BloscCodec(**configuration)._blosc_codec.encode(walk.view(np.uint8)))
    packed = joined(walk, BLOSC)
    assert packed[:-4] == by_zarr == blosc.compress(walk, b"zstd", 1, 1, 0)
    assert int.from_bytes(packed[-4:], "little") == crc32c([by_zarr])


def test_blosc_gives_the_same_bytes_in_every_thread():
    walk = np.cumsum(np.random.default_rng(0).normal(size=1_000_000)).astype("float32")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(joined(walk, BLOSC)))
    thread.start()
    thread.join()
    assert seen == [joined(walk, BLOSC)]
    assert blosc.use_threads is False


def test_numbers_that_all_change_a_little_are_smaller_by_blosc():
    rows = np.cumsum(np.random.default_rng(0).normal(size=(4096, 128)), axis=1)
    for dtype in ("float16", "float32"):
        values = rows.astype(dtype)
        assert len(joined(values, BLOSC)) < 0.95 * len(joined(values, ZSTD))


@pytest.mark.parametrize("compression", [ZSTD, BLOSC])
def test_what_claims_to_be_larger_is_refused_before_it_is_unpacked(compression):
    packed = joined(np.zeros(1000, "float32"), compression)
    with pytest.raises(ValueError, match="claims to unpack to 4000 bytes, not 400"):
        unpack(packed, compression, np.empty(400, np.uint8))


def test_a_blosc_buffer_that_says_another_length_of_itself_is_refused():
    packed = joined(np.zeros(1000, "float32"), BLOSC)[:-4]
    assert blosc_content_bytes(packed) == 4000
    assert blosc_content_bytes(packed + b"\0") is blosc_content_bytes(packed[:-1]) is blosc_content_bytes(b"") is None


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([ZSTD, BLOSC]), st.data())
def test_garbled_bytes_give_an_error_or_a_chunk_and_nothing_worse(compression, data):
    packed = bytearray(joined(np.arange(500, dtype="float32"), compression))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    out = np.empty(2000, np.uint8)
    try:
        unpack(bytes(packed), compression, out)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - both ends are right


@pytest.mark.parametrize(
    ("name", "level"), [("lz4", 1), ("zstd", 0), ("zstd", 23), ("blosc", 10), ("zstd", True), ("zstd", "1"), (None, 1)]
)
def test_no_other_compression(name, level):
    with pytest.raises(ValueError, match="no compression"):
        Compression(name, level)


@pytest.mark.parametrize("compression", [ZSTD, BLOSC, Compression("zstd", 7)])
def test_the_compression_is_read_back_from_the_metadata(compression):
    codecs = chunk_codecs(np.dtype("float32"), (1, 2, 0), compression)
    assert [c["name"] for c in codecs] == ["transpose", "bytes", compression.codec, "crc32c"]
    assert Compression.from_metadata(codecs) == compression


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 300_000])
def test_content_size_is_read_from_any_frame(size):
    packed = zstd.compress(b"a" * size, 1) if size else b"".join(codec._raw_frame(memoryview(b"")))
    assert codec.frame_content_bytes(packed) == size


def test_content_size_of_what_is_no_frame():
    assert codec.frame_content_bytes(b"") is None
    assert codec.frame_content_bytes(b"no frame at all, really") is None
