"""TileDB's dense arrays, zstd-1 and byte shuffle, a fragment a block."""

from peers.arrays import BLOCK, TILE, in_blocks

NEEDS = ("tiledb",)
WAYS = {"TileDB, a block at a time": {}}


def write(out, rows, shape):
    """A fragment for each block."""
    import numpy as np
    import tiledb

    steps, tokens, hidden = shape
    out.mkdir()
    filters = tiledb.FilterList([tiledb.ByteShuffleFilter(), tiledb.ZstdFilter(level=1), tiledb.ChecksumMD5Filter()])
    for name, length, dtype in (("W", steps + 1, np.uint16), ("delta_W_prime", steps, np.float32)):
        dims = [
            tiledb.Dim(dim, domain=(0, size - 1), tile=min(tile, size), dtype=np.int64)
            for dim, size, tile in (("step", length, BLOCK), ("token", tokens, TILE), ("hidden", hidden, hidden))
        ]
        attribute = tiledb.Attr("", dtype=dtype, filters=filters)
        tiledb.Array.create(str(out / name), tiledb.ArraySchema(domain=tiledb.Domain(*dims), attrs=[attribute]))
    for name, start, block in in_blocks(rows):
        with tiledb.open(str(out / name), "w") as array:
            array[start : start + len(block)] = block


def read(out):
    """Arrays slice themselves."""
    import tiledb

    return {name: tiledb.open(str(out / name)) for name in ("W", "delta_W_prime")}, "moves"
