"""What all ways of writing share: the displacement in plain NumPy, as the notebook has it."""

import numpy as np

CELLS = np.ldexp(np.float32(1), np.maximum(np.arange(256), 1) - 134).astype(np.float32)
BLOCK, TILE = 128, 256


def as_float(bits):
    """The numbers of bfloat16 bit patterns."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def displacement(before, after):
    """The update of a row in lattice cells."""
    return (as_float(after) - as_float(before)) / CELLS[(before >> 7) & 255]


def with_moves(rows):
    """Each step's row and its displacement, None at step 0."""
    before = None
    for step, row in rows:
        yield step, row, None if before is None else displacement(before, row)
        before = row


def in_blocks(rows, size=BLOCK):
    """Rows gathered in blocks: the name of the array, where the block starts, and its rows."""
    held = {"W": [], "delta_W_prime": []}
    starts = {"W": 0, "delta_W_prime": 0}
    for _, row, move in with_moves(rows):
        held["W"].append(row)
        if move is not None:
            held["delta_W_prime"].append(move)
        for name, block in held.items():
            if len(block) == size:
                yield name, starts[name], np.stack(block)
                starts[name] += size
                block.clear()
    for name, block in held.items():
        if block:
            yield name, starts[name], np.stack(block)
