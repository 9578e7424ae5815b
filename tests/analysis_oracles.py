"""Random trajectories, and their answers by plain loops that share nothing with the package analysis."""

import functools
import math

import dask.array as da
import numpy as np
import xarray as xr
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

CELLS = np.ldexp(np.float32(1), np.maximum(np.arange(256), 1) - 134)
TINIEST = np.float32(2.0**-149)
STILL = [0x3F80] * 6
ORDINARY = [0x3F81, 0x3F7F, 0x3F90, 0xBF80, 0x3FFF, 0x4000]
STRANGE = [0x0000, 0x8000, 0x0001, 0x0080, 0x7F7F, 0xFF7F]
NONFINITE = [0x7F80, 0xFF80, 0x7FC0]


def weight(pattern):
    return np.array([int(pattern) << 16], np.uint32).view(np.float32)[0]


def is_finite(pattern):
    return (int(pattern) >> 7) & 255 != 255


@functools.cache
def displacement(before, after):
    with np.errstate(all="ignore"):
        return (weight(after) - weight(before)) / CELLS[(int(before) >> 7) & 255]


@functools.lru_cache(1 << 16)
def norm_of(d, norm):
    """One norm of a tuple of floats, in order, in double precision."""
    sizes = [abs(x) for x in d]
    if any(math.isnan(x) for x in sizes):
        return np.float32(np.nan)
    with np.errstate(over="ignore"):
        if norm == "l1":
            return np.float32(sum(sizes))
        if norm == "l2":
            return np.float32(math.sqrt(sum(x * x for x in sizes)))
        return np.float32(max(sizes, default=0.0))


class Trajectory:
    """Bit patterns (step, token, hidden) with labels, and the norms of their moves by label."""

    def __init__(self, bits, first=0, tokens=None, steps=None):
        self.bits = bits
        self.steps = list(range(first, first + len(bits))) if steps is None else list(steps)
        self.tokens = list(range(bits.shape[1])) if tokens is None else tokens
        self.moves = self.steps[1:]
        self.d = np.full(bits.shape, np.nan, np.float32)
        for t in range(1, len(bits)):
            for i in range(bits.shape[1]):
                pairs = zip(bits[t - 1, i].tolist(), bits[t, i].tolist(), strict=True)
                self.d[t, i] = [displacement(p, q) for p, q in pairs]
        rows = [[tuple(row) for row in state] for state in self.d.tolist()]
        self.norms = {
            norm: {step: [norm_of(row, norm) for row in rows[t]] for t, step in enumerate(self.steps)}
            for norm in ("l1", "l2", "linf")
        }

    def moved(self, step, i, norm="l2", threshold=0.1):
        return step != self.steps[0] and bool(self.norms[norm][step][i] >= max(np.float32(threshold), TINIEST))

    def last(self, i, norm="l2", threshold=0.1):
        last = -1
        for step in self.moves:
            if self.moved(step, i, norm, threshold):
                last = step
        return last

    def any_moved(self, norm="l2", threshold=0.1):
        return [any(self.moved(step, i, norm, threshold) for i in range(len(self.tokens))) for step in self.steps]

    def nonfinite(self):
        count, first = 0, -1
        for step, state in zip(self.steps, self.bits, strict=True):
            here = sum(not is_finite(x) for x in state.ravel())
            if here and first == -1:
                first = step
            count += here
        return count, first

    def dataset(self, *, stored=("W", "delta_W_prime", "l1", "l2", "linf"), junk=None, **attributes):
        """As a Dataset in memory; `junk` goes into row 0 of the moves, as a slice of a longer run would have it."""
        variables = {}
        if "W" in stored:
            variables["W"] = (("step", "token", "hidden"), self.bits)
        if "delta_W_prime" in stored:
            variables["delta_W_prime"] = (("step", "token", "hidden"), self.d.copy())
        for norm in ("l1", "l2", "linf"):
            if norm in stored:
                rows = np.array([self.norms[norm][step] for step in self.steps], np.float32)
                variables[f"displacement_{norm}"] = (("step", "token"), rows.reshape(self.bits.shape[:2]))
        for name, (_, values) in variables.items():
            if name != "W" and junk is not None:
                values[0] = junk
        steps = ("step", self.steps, {"long_name": "optimizer step"})  # as a run has them: stored moves are read
        attributes = {"hidden": self.bits.shape[2], **attributes}
        return xr.Dataset(variables, coords={"step": steps, "token": self.tokens}, attrs=attributes)


def runs_of_still_steps(moving):
    """[(position, length)] of maximal stretches of False."""
    found, start = [], None
    for position, moves in enumerate([*moving, True]):
        if not moves and start is None:
            start = position
        if moves and start is not None:
            found.append((start, position - start))
            start = None
    return found


def lower_median(values):
    return sorted(values)[(len(values) - 1) // 2] if len(values) else -1


@st.composite
def trajectories(draw, *, strange=True, min_steps=1, min_tokens=1):
    """Mostly still trajectories, with what the lattice can hold: -0, subnormals, infinities, NaN."""
    shape = draw(st.tuples(st.integers(min_steps, 9), st.integers(min_tokens, 4), st.integers(1, 3)))
    more = draw(st.sampled_from([[], STRANGE, NONFINITE, STRANGE + NONFINITE])) if strange else []
    patterns = STILL + ORDINARY + more
    bits = draw(hnp.arrays(np.uint16, shape, elements=st.sampled_from(patterns), fill=st.nothing()))
    held = draw(hnp.arrays(bool, shape[:2], fill=st.nothing()))
    for t in range(1, shape[0]):  # most rows do not move
        bits[t][held[t]] = bits[t - 1][held[t]]
    first = draw(st.sampled_from([0, 0, 7, 1000]))
    tokens = sorted(draw(st.sets(st.integers(0, 9999), min_size=shape[1], max_size=shape[1])))
    return Trajectory(bits, first, tokens)


@st.composite
def cut(draw, ds):
    """The same Dataset in memory, or in dask chunks of any sizes, each array in its own."""
    if draw(st.booleans()):
        return ds
    out = ds.copy()
    for name, array in ds.data_vars.items():
        chunks = tuple(draw(compositions(size)) for size in array.shape)
        out[name] = array.copy(data=da.from_array(array.values, chunks=chunks))
    return out


@st.composite
def compositions(draw, total):
    """Positive integers that add up to a total."""
    parts = []
    while total:
        parts.append(draw(st.integers(1, total)))
        total -= parts[-1]
    return tuple(parts) or (0,)


SOURCES = [
    ("W",),
    ("W", "delta_W_prime", "l1", "l2", "linf"),
    ("W", "delta_W_prime"),
    ("W", "l2"),
]
"""What a Dataset may hold, with the same answers."""
