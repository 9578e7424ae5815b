"""Groups of format 2 made by `store.format` alone, for its tests: arrays of every kind and type, with short blocks."""

import io
import itertools
import json
from pathlib import Path

import numpy as np

from store.format.codec import BLOSC, ZSTD
from store.format.label import STATIC
from store.format.layout import DTYPES, Layout, array_metadata
from store.format.schema import Channel
from store.format.shard import ShardWriter

WRITER = 0x0123456789ABCDEF
STEPS, TOKENS, HIDDEN = 9, 10, 3
SIZES = {"step": STEPS, "step_probe": 3, "token": TOKENS, "hidden": HIDDEN, "vocabulary": 21}
LABELS = {"axis": True}


def _tiled(name, dtype, **options):
    return Channel(name, ("token", "hidden"), dtype, **options)


# (channel, shape of a chunk, compression); blocks of 4 steps, tiles of 4 tokens, so the last of each is short
KINDS = {
    channel.name: (channel, chunk, compression)
    for channel, chunk, compression in [
        (_tiled("W", "uint16", bits_of="bfloat16"), (4, 4, 3), ZSTD),
        (_tiled("delta", "float32", role="derived", belongs_to="move"), (4, 4, 3), ZSTD),
        (_tiled("moment", "float32"), (4, 4, 3), BLOSC),
        (_tiled("half", "float16"), (4, 4, 3), BLOSC),
        (Channel("norm", ("token",), "float32", role="derived"), (4, 10), ZSTD),
        (Channel("norm_tiled", ("token",), "float32", role="derived"), (4, 4), ZSTD),
        (Channel("centroid", ("hidden",), "float32"), (4, 3), ZSTD),
        (Channel("loss", (), "float32"), (16,), ZSTD),
        (Channel("step", (), "int64", attributes=LABELS), (16,), ZSTD),
        (_tiled("probe", "float32", every=4, until=30), (2, 10, 3), BLOSC),
        (Channel("step_probe", (), "int64", every=4, until=30, attributes=LABELS), (16,), ZSTD),
        (Channel("dead_mask", ("vocabulary",), "bool", role="static"), (21,), ZSTD),
        (Channel("token", ("token",), "int64", role="static"), (10,), ZSTD),
        (Channel("last_motion_step", ("token",), "int32", role="final"), (10,), ZSTD),
    ]
}
KINDS |= {f"of_{dtype}": (_tiled(f"of_{dtype}", dtype), (4, 4, 3), ZSTD) for dtype in sorted(DTYPES)}


def random_values(dtype, shape, seed=0):
    """Any bits at all, NaN with payloads among them; bool is 0 or 1."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = np.random.default_rng(seed).integers(0, 256, count, np.uint8)
    return (data & 1 if dtype == "bool" else data).view(dtype).reshape(shape)


def values_of(name):
    """What the array of this name holds; labels are labels."""
    channel = KINDS[name][0]
    shape = tuple(SIZES[dim] for dim in channel.all_dims)
    if channel.attributes.get("axis"):
        return np.arange(shape[0]) * channel.every
    return random_values(channel.dtype, shape, seed=len(name))


def layout_of(name, values, *, path=None):
    channel, chunk, compression = KINDS[name]
    return Layout.from_metadata(path or name, array_metadata(channel, values.shape, chunk, compression))


def padded(layout, values, index):
    """A full-size chunk of the values; what lies outside of the array is the fill value."""
    chunk = layout.empty_chunk()
    chunk[...] = np.nan if layout.dtype.kind == "f" else 0
    spans = tuple(slice(i * part, (i + 1) * part) for i, part in zip(index, layout.chunk_shape, strict=True))
    inside = values[spans]
    chunk[tuple(slice(size) for size in inside.shape)] = inside
    return chunk


def file_bytes(layout, values, block, *, writer=WRITER, last=None, name=None):
    """The file of a block."""
    if last is None:
        last = {"static": STATIC, "final": STEPS - 1}.get(layout.role, layout.last(block))
    sink = io.BytesIO()
    shard = ShardWriter(
        sink, name=name or layout.file_name(block), writer=writer, last=last, count=layout.chunks_of_a_file
    )
    for index in layout.indices(block):
        shard.add(layout.encode(padded(layout, values, index)))
    shard.finish()
    return sink.getvalue()


def write_array(group, name, values=None, *, path=None):
    """An array with all of its files, at this path below the group; its layout."""
    values = values_of(name) if values is None else values
    channel, chunk, compression = KINDS[name]
    metadata = array_metadata(channel, values.shape, chunk, compression)
    layout = Layout.from_metadata(path or name, metadata)
    folder = Path(group) / layout.name
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(metadata))
    for block in range(layout.blocks):
        (folder / layout.key(block)).write_bytes(file_bytes(layout, values, block))
    return layout


def write_group(group, names=tuple(KINDS)):
    """A group of these arrays, consolidated; the values by name."""
    arrays = {name: values_of(name) for name in names}
    for name, values in arrays.items():
        write_array(group, name, values)
    write_consolidated(group, names)
    return arrays


def write_consolidated(group, names):
    """The group's own file, with the metadata of these arrays in it."""
    metadata = {name: json.loads((Path(group) / name / "zarr.json").read_text()) for name in sorted(names)}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": metadata}
    document = {"zarr_format": 3, "node_type": "group", "attributes": {}, "consolidated_metadata": consolidated}
    (Path(group) / "zarr.json").write_text(json.dumps(document))


def same_bits(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def flips(data):
    """The data with one bit flipped, for every bit."""
    for byte, bit in itertools.product(range(len(data)), range(8)):
        yield data[:byte] + bytes([data[byte] ^ 1 << bit]) + data[byte + 1 :]
