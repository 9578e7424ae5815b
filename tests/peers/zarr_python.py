"""zarr-python with its default codecs, a step a chunk."""

from peers.arrays import with_moves

NEEDS = ("zarr",)
WAYS = {"zarr-python, a step a chunk": {}}


def write(out, rows, shape):
    """Two arrays in a group."""
    import zarr

    steps, tokens, hidden = shape
    group, chunks = zarr.create_group(out), (1, tokens, hidden)
    W = group.create_array("W", shape=(steps + 1, tokens, hidden), chunks=chunks, dtype="u2")
    moves = group.create_array("delta_W_prime", shape=(steps, tokens, hidden), chunks=chunks, dtype="f4")
    for step, row, move in with_moves(rows):
        W[step] = row
        if step:
            moves[step - 1] = move


def read(out):
    """Arrays slice themselves."""
    import zarr

    group = zarr.open_group(out, mode="r")
    return {name: group[name] for name in ("W", "delta_W_prime")}, "moves"
