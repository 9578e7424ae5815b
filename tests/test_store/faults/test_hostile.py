"""Metadata and chunks made to harm: a clear error, and no memory spent on what they claim."""

import copy
import json
import os
import shutil
import tracemalloc
from dataclasses import replace

import google_crc32c
import pytest
import shards
import store_cases
from store_cases import patch_blocks, unbroken

import store
import store.reading.reader  # loaded before memory is counted
import store.upkeep.check
from store.errors import DamageError, MetadataError, NewerFormatError, NotATrajectoryError, StoreError
from store.format.files import DOCUMENT, SECOND_COPY, TRAJECTORY
from store.run.commit import read_commit
from store.run.document import digest
from store.small_file import LARGEST_DOCUMENT

BUDGET_BYTES = 16 << 20  # Python 3.13 goes deeper into nested JSON than 3.11, and takes 12 MB


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    patch_blocks(monkeypatch.setattr)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        patch_blocks(monkeypatch.setattr)
        run = unbroken(tmp_path_factory.mktemp("whole"), 6)
        (run / SECOND_COPY).unlink()  # from which reading would go on
        return run


@pytest.fixture
def run(whole):
    """The run, whose commit each test may spoil."""
    path = whole / TRAJECTORY / DOCUMENT
    data = path.read_bytes()
    yield whole
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(data)


class Budget:
    """Fails when more memory was spent inside than anything here may take."""

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *_):
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < BUDGET_BYTES


def publish(run, **changes):
    """Write a commit with these fields changed, and with the right checksum."""
    data = replace(read_commit(run), **changes).to_bytes()
    (run / TRAJECTORY / DOCUMENT).write_bytes(data)


def with_array(run, name, **changes):
    """Every array's metadata, one of them changed."""
    arrays = copy.deepcopy(dict(read_commit(run).arrays))
    arrays[name] |= changes
    return arrays


def reshaped(run, dim, size):
    """Every array's metadata, a dimension of another size."""
    arrays = copy.deepcopy(dict(read_commit(run).arrays))
    for metadata in arrays.values():
        metadata["shape"] = [
            size if name == dim else old
            for name, old in zip(metadata["dimension_names"], metadata["shape"], strict=True)
        ]
    return arrays


def grid(*chunk_shape):
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}}


def zstd(level):
    return {"name": "zstd", "configuration": {"level": level, "checksum": False}}


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}
TURN = {"name": "transpose", "configuration": {"order": [1, 2, 0]}}
CRC = {"name": "crc32c"}
SHARD = {
    "chunk_shape": [4, 2, 2], "codecs": [TURN, BYTES, zstd(1), CRC], "index_codecs": [BYTES, CRC],
    "index_location": "end",
}  # fmt: skip


def sharded(changes):
    return {"name": "sharding_indexed", "configuration": {**SHARD, **changes} if changes else {}}


ARRAYS = [
    ("W", {"shape": [7, 1 << 46, 1 << 46]}),
    ("W", {"shape": [7, 5, -1]}),
    ("W", {"shape": [7, 5, 2.0]}),
    ("W", {"shape": [7, 5, True]}),
    ("W", {"shape": [7, 5]}),
    ("W", {"shape": "7"}),
    ("W", {"shape": [10**400, 5, 2]}),
    ("W", {"chunk_grid": grid(1 << 20, 1 << 20, 64)}),
    ("W", {"chunk_grid": grid(4, 0, 2)}),
    ("W", {"chunk_grid": grid(4, 2)}),
    ("W", {"chunk_grid": {"name": "rectangular", "configuration": {"chunk_shape": [4, 2, 2]}}}),
    ("W", {"chunk_grid": None}),
    ("W", {"codecs": [TURN, BYTES, {"name": "blosc", "configuration": {}}, CRC]}),
    ("W", {"codecs": [TURN, BYTES, zstd(1)]}),
    ("W", {"codecs": [TURN, BIG, zstd(1), CRC]}),
    ("W", {"codecs": [TURN, BYTES, zstd("high"), CRC]}),
    ("W", {"codecs": [{"name": "transpose", "configuration": {"order": [9, 9, 9]}}, BYTES, zstd(1), CRC]}),
    ("W", {"codecs": [{"name": "sharding_indexed", "configuration": {}}, CRC]}),
    ("W", {"codecs": [sharded({})]}),
    ("W", {"codecs": [sharded({"chunk_shape": [4, 4, 2]})]}),
    ("W", {"codecs": [sharded({"chunk_shape": [4, 0, 2]})]}),
    ("W", {"codecs": [sharded({"chunk_shape": [4, 2]})]}),
    ("W", {"codecs": [sharded({"chunk_shape": [1 << 40, 2, 2]})]}),
    ("W", {"codecs": [sharded({"index_location": "start"})]}),
    ("W", {"codecs": [sharded({"index_codecs": [BYTES]})]}),
    ("W", {"codecs": [sharded({"codecs": [TURN, BYTES, zstd(1)]})]}),
    ("W", {"codecs": [sharded({"codecs": [TURN, BYTES, {"name": "gzip", "configuration": {}}, CRC]})]}),
    ("W", {"codecs": []}),
    ("W", {"codecs": "zstd"}),
    ("W", {"data_type": "object"}),
    ("W", {"data_type": "<u2"}),
    ("W", {"data_type": "float128"}),
    ("W", {"data_type": ["uint16"]}),
    ("W", {"data_type": "S99999999999"}),
    ("W", {"fill_value": 7}),
    ("W", {"chunk_key_encoding": {"name": "v2"}}),
    ("W", {"dimension_names": ["step", "token", "token"]}),
    ("W", {"dimension_names": None}),
    ("W", {"attributes": None}),
    ("W", {"attributes": [1]}),
    ("W", {"attributes": {"role": "conqueror"}}),
    ("W", {"node_type": "group"}),
    ("W", {"storage_transformers": [{"name": "python"}]}),
    ("W", {"zarr_format": 2}),
    ("token", {"shape": [1 << 40], "chunk_grid": grid(1 << 40)}),
    ("token", {"shape": [1 << 40], "chunk_grid": grid(1 << 20)}),
    ("dead", {"shape": [1 << 30], "chunk_grid": grid(1)}),
    ("loss", {"shape": [8]}),
]
STATES = [
    {"committed_steps": 7},
    {"committed_steps": -1},
    {"committed_steps": "6"},
    {"committed_steps": 6.0},
    {"committed_steps": True},
    {"completed": "yes"},
    {"generation": None},
    {"checkpoint": "../../outside"},
    {"checkpoint": "step-" + "9" * 5000},
    {"checkpoint": 3},
    {"pending": [1]},
    {"pending": {"late": 5}},
    {"sha256": {"../../etc/passwd": "0"}},
    {"sha256": {"/dev/zero": "0"}},
    {"sha256": {"config.json": 5}},
    {"generation": -1},
    {"run_id": ""},
    {"run_id": 5},
    {"writers": []},
    {"writers": None},
    {"writers": [["0123456789abcdef", 0]]},
    {"writers": [["0123456789abcdef", -1], ["0123456789abcdef", 3]]},
    {"writers": [["0123456789abcdef", -1], ["1123456789abcdef", 99]]},
    {"writers": [["xyz", -1]]},
]


def assert_refused(run, error=MetadataError):
    """Nothing opens it, nothing goes on with it, `check` says so, and none of that takes memory."""
    with Budget():
        for touch in (read_commit, store.open_trajectory, store_cases.resume):
            with pytest.raises(error, match=r"zarr\.json"):
                touch(run)
        assert [damage.name for damage in store.check(run).damage] == ["trajectory.zarr/zarr.json"]


@pytest.mark.default_cases(12)
@pytest.mark.parametrize(("name", "changes"), ARRAYS, ids=lambda value: str(value)[:60])
def test_arrays_that_cannot_be_meant(run, name, changes):
    publish(run, arrays=with_array(run, name, **changes))
    assert_refused(run)


@pytest.mark.parametrize("changes", STATES, ids=lambda value: str(value)[:60])
def test_states_that_cannot_be_meant(run, changes):
    publish(run, **changes)
    assert_refused(run)


@pytest.mark.parametrize(("dim", "size"), [("step", 1 << 47), ("token", 1 << 44), ("hidden", 1 << 44), ("token", 0)])
def test_dimensions_that_agree_and_are_huge(run, dim, size):
    publish(run, arrays=reshaped(run, dim, size), **({"committed_steps": size - 1} if dim == "step" else {}))
    assert_refused(run)


@pytest.mark.parametrize("name", ["../../outside", "..", "a/b", "", "W\\x", "a b"])
def test_names_that_lead_elsewhere(run, name):
    arrays = dict(read_commit(run).arrays)
    publish(run, arrays=arrays | {name: arrays["dead"]})
    assert_refused(run)


def rewrite(run, change):
    """Change the parsed document, and give it the checksum that fits."""
    path = run / TRAJECTORY / DOCUMENT
    document = json.loads(path.read_bytes())
    document["attributes"]["sha256_of_this_file"] = "0" * 64
    change(document)
    text = json.dumps(document, separators=(",", ":"))
    path.write_text(text.replace("0" * 64, digest(text.encode()), 1))


@pytest.mark.parametrize("missing", ["committed_steps", "generation", "pending", "sha256", "sha256_of_this_file"])
def test_attributes_that_are_missing(run, missing):
    rewrite(run, lambda document: document["attributes"].pop(missing))
    assert_refused(run, DamageError)


@pytest.mark.parametrize("value", ["0", None, [], 5])
def test_digests_of_another_kind(run, value):
    rewrite(run, lambda document: document["attributes"].update(sha256=value))
    assert_refused(run)


@pytest.mark.parametrize("value", [None, [], {}, {"metadata": None}, {"metadata": [1]}, {"metadata": {"W": 1}}])
def test_consolidated_metadata_of_another_kind(run, value):
    rewrite(run, lambda document: document.update(consolidated_metadata=value))
    assert_refused(run)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"7", b"\xff\xfe\x00", b"{", b'{"attributes":null}', b'{"attributes":[]}',
        b"[" * 200_000, b'{"attributes":' * 100_000, b'{"crucible-trajectory":' + b"9" * 100_000 + b"}",
    ],
    ids=lambda data: data[:20].decode(errors="replace"),
)  # fmt: skip
def test_documents_that_are_none(run, data):
    (run / TRAJECTORY / DOCUMENT).write_bytes(data)
    assert_refused(run)


@pytest.mark.parametrize("depth", [20, 60, 300, 900, 5_000])
def test_deep_attributes_open_or_are_refused(run, depth):
    def deepen(document):
        document["attributes"]["config"] = "DEEP"

    rewrite(run, deepen)
    path = run / TRAJECTORY / DOCUMENT
    text = path.read_text().replace('"DEEP"', "[" * depth + "]" * depth)
    own = json.loads(path.read_bytes())["attributes"]["sha256_of_this_file"]
    zeroed = text.replace(own, "0" * 64)
    path.write_text(text.replace(own, digest(zeroed.encode())))
    try:
        commit = read_commit(run)
    except MetadataError:
        assert_refused(run)
    else:
        assert depth <= 60
        assert commit.to_bytes()
        assert store.open_trajectory(run).sizes["step"] == 7
        store_cases.resume(run).close()


def test_a_document_without_end(run):
    path = run / TRAJECTORY / DOCUMENT
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(MetadataError, match=f"more than the {LARGEST_DOCUMENT:,} that"):
        read_commit(run)


def test_pipes_and_folders_for_a_document(run):
    path = run / TRAJECTORY / DOCUMENT
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NotATrajectoryError, match="is a pipe"):
        store.open_trajectory(run)
    path.unlink()
    path.mkdir()
    with pytest.raises(NotATrajectoryError, match="is a folder"):
        store.open_trajectory(run)


def test_other_groups_and_later_formats(run):
    rewrite(run, lambda document: document["attributes"].update(format_version=3))
    with pytest.raises(NewerFormatError, match=r"format version 3; .* up to 2"):
        store.open_trajectory(run)
    (run / TRAJECTORY / DOCUMENT).write_text('{"zarr_format":3,"node_type":"group","attributes":{}}')
    with pytest.raises(NotATrajectoryError, match="not a trajectory of Crucible"):
        store.open_trajectory(run)


def frame(claimed, blocks=b"\x01\x00\x00"):
    """A zstd frame that says it unpacks to so many bytes."""
    return b"\x28\xb5\x2f\xfd\xe0" + claimed.to_bytes(8, "little") + blocks


def raw_blocks(count, bytes_each=131_000):
    """Blocks that repeat a byte so often; four bytes each."""
    return b"".join((bytes_each << 3 | 2 | (i == count - 1)).to_bytes(3, "little") + b"\x07" for i in range(count))


CHUNKS = {
    "claims 16 GiB": frame(1 << 34),
    "claims all there is": frame((1 << 64) - 1),
    "claims nothing": b"\x28\xb5\x2f\xfd\x00\x58" + raw_blocks(8000),
    "unpacks to more than it claims": frame(32, raw_blocks(8000)),
    "unpacks to less than it claims": frame(32),
    "two frames": frame(32, raw_blocks(1)) * 2,
    "no frame": b"not a frame of zstd at all",
    "nothing": b"",
    "skippable frame": b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + bytes(40),
}


@pytest.mark.parametrize("what", CHUNKS)
def test_chunks_with_a_right_checksum(whole, tmp_path, what):
    run = shutil.copytree(whole, tmp_path / "run")
    path = run / TRAJECTORY / "W" / "c.0.0.0"
    data = CHUNKS[what]
    shards.replace_chunk(path, 0, data + google_crc32c.value(data).to_bytes(4, "little"))
    ds = store.open_trajectory(run)
    ds.loss.compute(scheduler="sync")  # loads what dask loads
    with Budget(), pytest.raises(DamageError, match=r"W\[step 0\.\.3[],]"):
        ds.W.isel(step=0, token=0).compute(scheduler="sync")
    with pytest.raises(StoreError):
        store_cases.stored(run)


def test_links_pipes_and_endless_files_for_a_chunk(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    path = run / TRAJECTORY / "loss" / "c.0"
    ds = store.open_trajectory(run)
    for make in (
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(tmp_path / "nowhere"),
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: path.touch() or os.truncate(path, 1 << 40),
    ):
        path.unlink()
        make()
        with Budget(), pytest.raises(DamageError, match="loss"):
            ds.loss.compute(scheduler="sync")
        if path.is_dir():
            path.rmdir()
            path.touch()
