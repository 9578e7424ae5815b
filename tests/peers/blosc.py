"""blosc2's b2nd files, a block of steps at a time."""

from peers.arrays import BLOCK, TILE, in_blocks

NEEDS = ("blosc2",)
WAYS = {"blosc2 b2nd, a block at a time": {}}


def write(out, rows, shape):
    """Arrays grow by a block at a time, in files of their own."""
    import blosc2

    _, tokens, hidden = shape
    out.mkdir()
    arrays = {
        name: blosc2.empty(
            (0, tokens, hidden), dtype=dtype, chunks=(BLOCK, min(TILE, tokens), hidden),
            urlpath=str(out / f"{name}.b2nd"), mode="w",
        )
        for name, dtype in (("W", "u2"), ("delta_W_prime", "f4"))
    }  # fmt: skip
    for name, start, block in in_blocks(rows):
        arrays[name].resize((start + len(block), tokens, hidden))
        arrays[name][start : start + len(block)] = block


def read(out):
    """Arrays slice themselves."""
    import blosc2

    return {name: blosc2.open(str(out / f"{name}.b2nd"), mode="r") for name in ("W", "delta_W_prime")}, "moves"
