"""HDF5 by h5py: a step a chunk, raw or gzip-1, flushed or not, or in single-writer multiple-reader mode."""

from peers.arrays import with_moves

NEEDS = ("h5py",)
WAYS = {
    "h5py raw": {},
    "h5py raw, a flush each step": {"flush": True},
    "h5py gzip-1": {"gzip": True},
    "h5py SWMR, a flush each step": {"flush": True, "swmr": True},
}


def write(out, rows, shape, *, gzip=False, flush=False, swmr=False):
    """Two datasets, a step a chunk."""
    import h5py

    steps, tokens, hidden = shape
    how = {"compression": "gzip", "compression_opts": 1} if gzip else {}
    with h5py.File(out, "w", libver="latest" if swmr else None) as file:
        W = file.create_dataset("W", (steps + 1, tokens, hidden), "u2", chunks=(1, tokens, hidden), **how)
        moves = file.create_dataset("delta_W_prime", (steps, tokens, hidden), "f4", chunks=(1, tokens, hidden), **how)
        if swmr:
            file.swmr_mode = True
        for step, row, move in with_moves(rows):
            W[step] = row
            if step:
                moves[step - 1] = move
            if flush:
                file.flush()


def read(out, *, gzip=False, flush=False, swmr=False):  # noqa: ARG001 - the same words as `write`
    """Datasets slice themselves."""
    import h5py

    file = h5py.File(out, "r", swmr=swmr)
    return {name: file[name] for name in ("W", "delta_W_prime")}, "moves"
