"""TensorStore with Crucible's chunks and codecs, a block of steps at a time."""

from peers.arrays import BLOCK, TILE, in_blocks

NEEDS = ("tensorstore",)
WAYS = {"TensorStore, the same chunks and codecs": {}}


def write(out, rows, shape):
    """Blocks are gathered in memory and written whole."""
    steps, *rest = shape
    arrays = {
        "W": _open(out, "W", create=[steps + 1, *rest], dtype="uint16"),
        "delta_W_prime": _open(out, "delta_W_prime", create=[steps, *rest], dtype="float32"),
    }
    for name, start, block in in_blocks(rows):
        arrays[name][start : start + len(block)].write(block).result()


def read(out):
    """Arrays that are read when they are sliced."""
    return {name: Sliced(_open(out, name)) for name in ("W", "delta_W_prime")}, "moves"


def _open(out, name, *, create=None, dtype=None):
    import tensorstore as ts

    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{out}/{name}"}}
    if create is None:
        return ts.open(spec).result()
    codecs = [
        {"name": "transpose", "configuration": {"order": [1, 2, 0]}},
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 1}},
        {"name": "crc32c"},
    ]
    grid = {"name": "regular", "configuration": {"chunk_shape": [BLOCK, min(TILE, create[1]), create[2]]}}
    spec["metadata"] = {"shape": create, "data_type": dtype, "chunk_grid": grid, "codecs": codecs}
    return ts.open(spec, create=True).result()


class Sliced:
    """Reads when it is sliced."""

    def __init__(self, data):
        self.data, self.shape = data, tuple(data.shape)

    def __getitem__(self, key):
        return self.data[key].read().result()
