"""The page's decoder against arrays that zarr-python wrote: chunks and shards, zstd and blosc, and what is damaged."""

import functools
import http.server
import itertools
import shutil
import threading

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec, ZstdCodec

from crucible.viewer.files import PAGE

NUMBERS = itertools.count()
SHAPE, SHARD, INNER = (20, 11, 3), (8, 12, 3), (8, 4, 3)
ORDER = TransposeCodec(order=(1, 2, 0))
READ = """
const [array, blocks, kind, done] = arguments;
const worker = new Worker('worker.js');
worker.onerror = (event) => done({failed: event.message});
let id = 0;
const ask = (job) => new Promise((resolve) => {
  worker.onmessage = ({data}) => { if (!('progress' in data)) resolve(data); };
  worker.postMessage({id: ++id, job});
});
(async () => {
  const located = {...array, url: new URL(array.url, location.href).href};
  if (kind === 'read') {
    const {done: found, failed} = await ask({kind: 'read', array: located});
    done(failed ? {failed: failed.message, kind: failed.kind} : {values: Array.from(found.values, Number)});
  } else {
    const seen = [];
    for (const [block, token] of blocks) {
      const {done: found, failed} = await ask({kind: 'token', weights: located, block, token});
      if (failed) { done({failed: failed.message, kind: failed.kind}); return; }
      seen.push(Array.from(found.bits));
    }
    done({seen});
  }
})();
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own file server, which answers a range with the whole file."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def at(folder):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def decoded(chromium, at, folder):
    """Write an array with zarr, let the page's worker read it, answer what it read."""
    chromium.driver.get(f"{at}licences.txt")

    def write(values, codecs, chunks, harm=None):
        name = f"array{next(NUMBERS)}"
        array = zarr.create_array(
            folder / "trajectory.zarr" / name, shape=values.shape, dtype=values.dtype, chunks=chunks,
            **split(codecs), chunk_key_encoding={"name": "default", "separator": "."}, zarr_format=3,
            config={"write_empty_chunks": True}, dimension_names=["step", "token", "hidden"][: values.ndim],
        )  # fmt: skip
        array[...] = values
        if harm:
            harm(folder / "trajectory.zarr" / name)
        metadata = array.metadata.to_dict()
        plain = {key: metadata[key] for key in ("shape", "data_type", "chunk_grid", "chunk_key_encoding")}
        plain["data_type"] = values.dtype.name
        plain["codecs"] = [codec if isinstance(codec, dict) else codec.to_dict() for codec in metadata["codecs"]]
        return {"url": f"trajectory.zarr/{name}", "tag": "run=a&g=0", "metadata": json_of(plain)}

    def read(values, codecs, chunks, *, tokens=None, harm=None):
        located = write(values, codecs, chunks, harm)
        return chromium.asynchronous(READ, located, tokens or [], "token" if tokens else "read")

    yield read
    chromium.driver.get("about:blank")
    chromium.complaints()


def json_of(value):
    if isinstance(value, dict):
        return {key: json_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_of(item) for item in value]
    return getattr(value, "value", value) if not isinstance(value, int | float | str | bool | type(None)) else value


def split(codecs):
    """Codecs as zarr's create_array wants them."""
    if isinstance(codecs[0], ShardingCodec):
        return {"serializer": codecs[0], "compressors": None, "filters": None}
    filters = [codec for codec in codecs if isinstance(codec, TransposeCodec)]
    return {
        "filters": filters or None,
        "serializer": next(codec for codec in codecs if isinstance(codec, BytesCodec)),
        "compressors": [c for c in codecs if not isinstance(c, TransposeCodec | BytesCodec)] or None,
    }


def shards(*inner, location="end"):
    index = [BytesCodec(), Crc32cCodec()]
    return [ShardingCodec(chunk_shape=INNER, codecs=list(inner), index_codecs=index, index_location=location)]


def values(dtype, shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 120, shape).astype(dtype)
        if np.dtype(dtype).kind in "iu"
        else rng.normal(size=shape).astype(dtype)
    )


PACKINGS = {
    "plain": (),
    "crc32c": (Crc32cCodec(),),
    "zstd, crc32c": (ZstdCodec(level=1), Crc32cCodec()),
    "zstd with its own checksum": (ZstdCodec(level=9, checksum=True),),
    "blosc, shuffled": (BloscCodec(typesize=4, cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()),
    "blosc, not shuffled": (BloscCodec(typesize=4, cname="zstd", clevel=5, shuffle="noshuffle"),),
    "blosc, stored": (BloscCodec(typesize=4, cname="zstd", clevel=0, shuffle="shuffle"),),
}


@pytest.mark.parametrize("packing", PACKINGS.values(), ids=PACKINGS)
@pytest.mark.parametrize("sharded", [False, True], ids=["chunks", "shards"])
def test_arrays_of_zarr_are_read(decoded, packing, sharded):
    array = values(np.float32)
    inner = (ORDER, BytesCodec(), *packing)
    found = decoded(array, shards(*inner) if sharded else inner, SHARD if sharded else (8, 4, 3))
    np.testing.assert_array_equal(np.float32(found["values"]), array.ravel())


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
)
def test_numbers_of_every_type(decoded, dtype):
    array = values(dtype, (7, 5))
    found = decoded(array, (BytesCodec(), ZstdCodec(), Crc32cCodec()), (3, 2))
    np.testing.assert_array_equal(np.array(found["values"]).astype(dtype), array.ravel())


def test_large_blosc_frames_of_several_blocks(decoded):
    rng = np.random.default_rng(1)
    array = np.where(rng.random((1, 1, 300_000)) < 0.3, rng.normal(size=(1, 1, 300_000)), 0).astype(np.float32)
    packing = BloscCodec(typesize=4, cname="zstd", clevel=1, shuffle="shuffle", blocksize=1 << 16)
    found = decoded(array, (BytesCodec(), packing), array.shape)
    np.testing.assert_array_equal(np.float32(found["values"]), array.ravel())


def walks(rng):
    """Weights as they are stored: steps fastest, most of them as they were the step before."""
    return np.cumsum(rng.random((400, 300)) < 0.03, axis=1).astype(np.uint16)


ZSTD_KINDS = {
    "zeros": lambda _: np.zeros((500, 400), np.uint16),
    "noise": lambda rng: rng.integers(0, 1 << 16, (300, 500)).astype(np.uint16),
    "few values": lambda rng: rng.geometric(0.2, (400, 500)).astype(np.uint8),
    "walks": walks,
    "norms": lambda rng: np.where(rng.random((300, 300)) < 0.2, rng.random((300, 300)), 0).astype(np.float32),
    "far copies": lambda rng: np.tile(rng.integers(0, 256, 70_001).astype(np.uint8), 5).reshape(1, -1),
    "a byte": lambda _: np.array([[7]], np.uint8),
}


@pytest.mark.parametrize("level", [-5, 1, 6, 19])
@pytest.mark.parametrize("make", ZSTD_KINDS.values(), ids=ZSTD_KINDS)
def test_zstd_of_every_level_over_many_blocks(decoded, make, level):
    """Stored, repeated and packed blocks, new tables and old ones, copies that overlap and that reach far back."""
    array = make(np.random.default_rng(level + 10))
    found = decoded(array, (BytesCodec(), ZstdCodec(level=level)), array.shape)
    np.testing.assert_array_equal(np.array(found["values"]).astype(array.dtype), array.ravel())


def packed_again(pack):
    """Replace the one chunk by what `pack` makes of its numbers."""

    def harm(folder):
        path = folder / "c.0.0"
        path.write_bytes(pack(numcodecs.Zstd().decode(path.read_bytes())))

    return harm


def test_zstd_of_several_frames_and_of_some_to_be_skipped(decoded):
    array = walks(np.random.default_rng(2))
    skipped = bytes.fromhex("532a4d18") + (5).to_bytes(4, "little") + b"hello"
    pack = numcodecs.Zstd(level=3).encode
    harm = packed_again(lambda data: pack(data[:70_001]) + skipped + pack(data[70_001:]) + skipped)
    found = decoded(array, (BytesCodec(), ZstdCodec()), array.shape, harm=harm)
    np.testing.assert_array_equal(np.uint16(found["values"]), array.ravel())


@pytest.mark.parametrize("seed", range(12))
def test_zstd_that_is_damaged_is_refused_or_unpacked_and_never_hangs(decoded, seed):
    """Without a checksum nobody can tell all damage; what is refused must be said to be unreadable."""
    rng = np.random.default_rng(seed)

    def harm(folder):
        path = folder / "c.0.0"
        data = bytearray(path.read_bytes())
        for at in rng.integers(0, len(data), 3):
            data[at] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(data[: len(data) - seed]))

    array = walks(rng)
    found = decoded(array, (BytesCodec(), ZstdCodec(level=3)), array.shape, harm=harm)
    assert found.get("kind") == "unread" or len(found["values"]) == array.size


@pytest.mark.parametrize("location", ["end", "start"])
def test_one_token_by_ranges_of_a_shard(decoded, location):
    """The host answers each range with the whole file; test_page_of_shards.py has one that does not."""
    array = values(np.uint16)
    inner = (ORDER, BytesCodec(), ZstdCodec(), Crc32cCodec())
    asked = [(0, 0), (0, 10), (1, 4), (2, 9)]
    found = decoded(array, shards(*inner, location=location), SHARD, tokens=asked)
    for (block, token), bits in zip(asked, found["seen"], strict=True):
        rows = array[8 * block : 8 * block + 8, token]
        np.testing.assert_array_equal(np.array(bits).reshape(3, -1).T, rows)


def with_label(folder):
    """Bytes between the chunks and the index that no entry of the index names."""
    for path in folder.glob("c.*"):
        data = path.read_bytes()
        size = 16 * 3 + 4
        path.write_bytes(data[:-size] + b"a label that readers skip" + data[-size:])


def test_bytes_that_no_entry_names_are_skipped(decoded):
    array = values(np.uint16)
    inner = shards(ORDER, BytesCodec(), ZstdCodec(), Crc32cCodec())
    found = decoded(array, inner, SHARD, harm=with_label)
    np.testing.assert_array_equal(np.uint16(found["values"]), array.ravel())
    found = decoded(array, inner, SHARD, tokens=[(1, 6)], harm=with_label)
    np.testing.assert_array_equal(np.array(found["seen"][0]).reshape(3, -1).T, array[8:16, 6])


def flip(offset):
    def harm(folder):
        path = folder / "c.1.0.0"
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.write_bytes(bytes(data))

    return harm


def cut(folder):
    path = folder / "c.1.0.0"
    path.write_bytes(path.read_bytes()[:-9])


def without_a_chunk(folder):
    """An index that says that the second chunk is not there, with a checksum that agrees."""
    path = folder / "c.1.0.0"
    data = path.read_bytes()
    index = data[-52:-36] + b"\xff" * 16 + data[-20:-4]
    path.write_bytes(data[:-52] + index + google_crc32c.value(index).to_bytes(4, "little"))


DAMAGE = [flip(3), flip(-1), flip(-30), cut, without_a_chunk, lambda folder: (folder / "c.1.0.0").unlink()]


@pytest.mark.parametrize(
    "harm", DAMAGE, ids=["chunk", "checksum of the index", "index", "cut short", "no chunk", "no file"]
)
def test_damage_is_said_and_never_shown(decoded, harm):
    codecs = shards(ORDER, BytesCodec(), ZstdCodec(), Crc32cCodec())
    assert decoded(values(np.uint16), codecs, SHARD, harm=harm).get("kind") == "unread"


@pytest.mark.parametrize("harm", DAMAGE[1:], ids=["checksum of the index", "index", "cut short", "no chunk", "no file"])
def test_damage_is_said_where_one_token_is_read(decoded, harm):
    codecs = shards(ORDER, BytesCodec(), ZstdCodec(), Crc32cCodec())
    assert decoded(values(np.uint16), codecs, SHARD, tokens=[(1, 5)], harm=harm).get("kind") == "unread"
