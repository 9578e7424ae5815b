"""The notebook: everything in memory, one safetensors file at the end."""

import numpy as np
from peers.arrays import with_moves

NEEDS = ("safetensors",)
WAYS = {"notebook: memory, then save_file": {}}


def write(out, rows, shape):
    """Fill two arrays, then save."""
    from safetensors.numpy import save_file

    steps, tokens, hidden = shape
    W = np.zeros((steps + 1, tokens, hidden), np.uint16)
    moves = np.zeros((steps, tokens, hidden), np.float32)
    for step, row, move in with_moves(rows):
        W[step] = row
        if step:
            moves[step - 1] = move
    save_file({"W": W, "delta_W_prime": moves}, out)


def read(out):
    """Slices of the file."""
    from safetensors import safe_open

    file = safe_open(out, "np")
    return {name: Sliced(file.get_slice(name)) for name in ("W", "delta_W_prime")}, "moves"


class Sliced:
    """safetensors' slices, with a shape."""

    def __init__(self, data):
        self.data, self.shape = data, tuple(data.get_shape())

    def __getitem__(self, key):
        return self.data[key]
