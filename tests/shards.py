"""What the files of a run hold, apart from who wrote them: the same for a resumed and an unbroken run."""

import json
from contextlib import suppress
from pathlib import Path

from store.errors import ChecksumError
from store.format.layout import Layout
from store.format.shard import ShardWriter, parse_tail, tail_bytes

OF_THE_WRITERS = ("run_id", "writers", "sha256_of_this_file")


def layout_of(folder):
    """The layout of the array in this folder."""
    return Layout.from_metadata(folder.name, json.loads((folder / "zarr.json").read_bytes()))


def tail_of(path, data, folder=None):
    count = layout_of(folder or path.parent).chunks_of_a_file
    return parse_tail(data[len(data) - tail_bytes(count) :], len(data), count, 1 << 40, path)


def chunks_in(path, folder=None):
    """The step label of a file's last row, and the bytes of its chunks; `folder` is its array's."""
    data = path.read_bytes()
    tail = tail_of(path, data, folder)
    return tail.label.last, [data[a:b] for a, b in zip(tail.bounds, tail.bounds[1:], strict=False)]


def content(path):
    """A file of a run, without what tells its writer; as it is where it is damaged."""
    data = path.read_bytes()
    if path.name.startswith("c."):
        with suppress(ChecksumError):
            last, chunks = chunks_in(path)
            data = str(last).encode() + b"".join(chunks)
    if path.parts[-2:] == ("trajectory.zarr", "zarr.json") or path.name == "commit.json":
        document = json.loads(data)
        attributes = {k: v for k, v in document["attributes"].items() if k not in OF_THE_WRITERS}
        return json.dumps({**document, "attributes": attributes}).encode()
    return data


def replace_chunk(path, position, chunk, **label):
    """Put other bytes in the place of a chunk, under a label and an index that fit them."""
    data = path.read_bytes()
    known = tail_of(path, data).label
    last, chunks = chunks_in(path)
    chunks[position] = chunk
    layout = layout_of(path.parent)
    with Path(path).open("wb") as file:
        options = {"name": f"{path.parent.name}/{path.name}", "writer": known.writer, "last": last} | label
        shard = ShardWriter(file, count=layout.chunks_of_a_file, **options)
        for each in chunks:
            shard.add([each])
        shard.finish()
