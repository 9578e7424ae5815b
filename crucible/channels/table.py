"""What is recorded, as a table, and the two functions that derive the rest of it.

`NOTEBOOK` is the experiment's table. Any other is made of the rows below: change one with `dataclasses.replace`
(``replace(GRADIENT, every=10, until=500)``), leave some out, or add rows of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import lattice, moves
from store.format.schema import LATTICE, Channel

Array = NDArray[Any]
Derive = Callable[[Mapping[str, Array], Mapping[str, Array]], Mapping[str, Array]]
Blocks = Callable[[str], Iterator[tuple[NDArray[np.int64], Array]]]
Finish = Callable[[Blocks], Mapping[str, Array]]

ROW = ("token", "hidden")
WEIGHT_DTYPES = {"bfloat16": "uint16", "float32": "float32", "float16": "float16"}
"""How weights of a torch dtype are kept: bfloat16 as its bits, the others in their own dtype."""

W = Channel("W", ROW, "uint16", long_name="weights", meaning="state after update t", bits_of="bfloat16")
DELTA = Channel(
    "delta_W_prime", ROW, "float32", role="derived", belongs_to="move", units="cell",
    long_name="lattice displacement", meaning="(W[t] - W[t-1]) / u(W[t-1]), signed, in cells",
    attributes={"lattice": "bfloat16"},
)  # fmt: skip
NORMS = tuple(
    Channel(
        f"displacement_{norm}", ("token",), "float32", role="derived", belongs_to="move", units="cell", exported=False,
        long_name=f"{words} norm of the lattice displacement", meaning=f"{words} norm of delta_W_prime[t] over hidden",
    )
    for norm, words in (("l1", "L1"), ("l2", "L2"), ("linf", "Linf"))
)  # fmt: skip
CENTROID = Channel(
    "centroid", ("hidden",), "float32", long_name="centroid of the recorded rows",
    meaning="mean of the rows of W[t] over token, in float32",
)  # fmt: skip
LOSS = Channel(
    "loss", (), "float32", belongs_to="move", long_name="training loss",
    meaning="loss of update t, computed with W[t-1]",
)  # fmt: skip
LAST_MOTION = Channel(
    "last_motion_step", ("token",), "int32", role="final", long_name="step of the last motion",
    meaning="the last t with an L2 displacement of at least motion_threshold, -1 if never",
)  # fmt: skip
DEAD_MASK = Channel(
    "dead_mask", ("vocabulary",), "bool", role="static", long_name="ids that never occur in the corpus",
)  # fmt: skip

ROUNDED_FROM = "rounded_from"
"""Attribute of W: the dtype of the weights, where the bits of their rounding to bfloat16 are kept. Of the centroid of
such rows, where W is not kept."""
RESOLUTION = "resolution_steps"
"""Attribute of what is derived of states that are more than a step apart: how many steps they are apart at most."""
DELTA_OVER_GAPS = "(W[t] - W[s]) / u(W[s]), signed, in cells; s is the recorded step before t"
LAST_MOTION_OVER_GAPS = (
    "the last recorded t whose W is an L2 displacement of at least motion_threshold away from that of s, the recorded "
    "step before t, -1 if none; the token moved at some step after s, up to t"
)
NOTEBOOK = (W, DELTA, *NORMS, CENTROID, LOSS, LAST_MOTION, DEAD_MASK)
"""The experiment: weights, their displacement and its norms, the centroid, the loss."""

LEARNING_RATE = Channel(
    "learning_rate", (), "float64", belongs_to="move", exported=False, long_name="learning rate",
    meaning="learning rate of update t, as it ran",
)  # fmt: skip
OPTIMIZER_STEP = Channel(
    "optimizer_step", (), "float64", belongs_to="move", exported=False, long_name="the optimizer's own count",
    meaning="what the optimizer's count of its steps is after update t; NaN where it keeps none",
)  # fmt: skip
PUSH = Channel(
    "push", ("token",), "uint16", belongs_to="move", units="half cell", bits_of="bfloat16", exported=False,
    long_name="how near the optimizer came to moving a weight",
    meaning="the largest proposed change of update t over hidden, in half cells, rounded up: nothing moves below 1",
)  # fmt: skip
GRADIENT = Channel(
    "gradient", ROW, "float32", codec="blosc", belongs_to="move", exported=False, long_name="gradient of the loss",
    meaning="gradient that drove update t, taken at W[t-1], after any clipping",
)  # fmt: skip
FIRST_MOMENT, SECOND_MOMENT = "exp_avg", "exp_avg_sq"
"""What Adam and its relatives call their moments in the optimizer's state."""
ADAM_M = Channel(
    "adam_m", ROW, "float32", codec="blosc", exported=False, long_name="first moment of Adam",
    meaning=f"optimizer state {FIRST_MOMENT} after update t; zero before the first",
)  # fmt: skip
ADAM_V = Channel(
    "adam_v", ROW, "float32", codec="blosc", exported=False, long_name="second moment of Adam",
    meaning=f"optimizer state {SECOND_MOMENT} after update t; zero before the first",
)  # fmt: skip

EXPERIMENT = (*NOTEBOOK, PUSH, LEARNING_RATE, OPTIMIZER_STEP)
"""What `crucible train` records: the notebook's table, and beside it how near each update came to moving a weight."""

KEPT = {
    "live_mask": Channel("live_mask", ("vocabulary",), "bool", role="static", exported=False),
    "live_indices": Channel("live_indices", ("live",), "int64", role="static", exported=False),
    "token_occurrence_counts": Channel("token_occurrence_counts", ("vocabulary",), "int64", role="static",
                                       exported=False),
}  # fmt: skip
"""What a mask file may hold beside the mask, and where it goes."""


def over_gaps(channels: Iterable[Channel], resolution_steps: int) -> tuple[Channel, ...]:
    """The table for states that are up to so many steps apart: what is derived of them is of the steps between.

    Examples
    --------
    >>> [c.meaning for c in over_gaps([DELTA], 500)]
    ['(W[t] - W[s]) / u(W[s]), signed, in cells; s is the recorded step before t']
    """
    if resolution_steps == 1:
        return tuple(channels)
    said = {DELTA.name: DELTA_OVER_GAPS, LAST_MOTION.name: LAST_MOTION_OVER_GAPS}
    return tuple(
        replace(
            channel,
            meaning=said.get(channel.name, channel.meaning),
            attributes={**channel.attributes, RESOLUTION: resolution_steps},
        )
        if channel.role in ("derived", "final")
        else channel
        for channel in channels
    )


def in_dtype(channel: Channel, dtype: str) -> Channel:
    """The channel for tensors of a torch dtype ("bfloat16", "float32", "float16").

    Examples
    --------
    >>> in_dtype(GRADIENT, "bfloat16").dtype, in_dtype(GRADIENT, "bfloat16").bits_of
    ('uint16', 'bfloat16')
    """
    if dtype not in WEIGHT_DTYPES:
        known = ", ".join(WEIGHT_DTYPES)
        raise ValueError(f"{channel.name}: a tensor of dtype {dtype} cannot be recorded; expected one of {known}")
    if dtype == "bfloat16":
        return replace(channel, dtype=WEIGHT_DTYPES[dtype], bits_of=dtype, codec="zstd")
    return replace(channel, dtype=WEIGHT_DTYPES[dtype], bits_of=None, codec="blosc")


def rounded(channel: Channel) -> Channel:
    """The channel of float32 weights kept as the bits of their rounding to bfloat16, which its attributes then say.

    Examples
    --------
    >>> rounded(in_dtype(W, "float32")).dtype, rounded(W).attributes
    ('uint16', {'rounded_from': 'float32'})
    """
    meaning = f"{channel.meaning}, rounded to the nearest bfloat16, ties to even"
    return of_rounded(replace(in_dtype(channel, "bfloat16"), meaning=meaning))


def of_rounded(channel: Channel) -> Channel:
    """The channel of something that is made of float32 weights after their rounding to bfloat16: its attributes say so.

    Examples
    --------
    >>> of_rounded(CENTROID).attributes
    {'rounded_from': 'float32'}
    """
    return replace(channel, attributes={**channel.attributes, ROUNDED_FROM: "float32"})


def check_table(channels: Iterable[Channel]) -> None:
    """Raise ValueError where a table cannot be recorded: what is derived needs W at every step, and its parts."""
    table = {channel.name: channel for channel in channels}
    if not any(channel.role == "given" for channel in table.values()):
        raise ValueError("channels= names nothing to record")
    derived = [channel.name for channel in table.values() if channel.role in ("derived", "final")]
    if derived and "W" in table and table["W"].on_own_axis:
        raise ValueError(f"{', '.join(derived)} needs W at every step; leave out every= and until= of W")
    if LAST_MOTION.name in table and NORMS[1].name not in table:
        raise ValueError(f"{LAST_MOTION.name} is made of {NORMS[1].name}, which is not among the channels")


def on_lattice(channels: Iterable[Channel], name: str) -> tuple[Channel, ...]:
    """The table with the displacement measured on this lattice, which its attributes and its norms' then say.

    So do those of float32 weights that are measured on another lattice than their own: where W is kept or selected
    alone, nothing else says it.

    Examples
    --------
    >>> weights, delta = on_lattice((in_dtype(W, "float32"), DELTA), "bfloat16")
    >>> weights.attributes["lattice"], delta.attributes["lattice"]
    ('bfloat16', 'bfloat16')
    """
    measured = {DELTA.name, *(norm.name for norm in NORMS)}

    def says_it(channel: Channel) -> bool:
        return channel.name in measured or (channel.name == W.name and channel.dtype == "float32" != name)

    return tuple(
        replace(channel, attributes={**channel.attributes, LATTICE: name}) if says_it(channel) else channel
        for channel in channels
    )


CENTROID_TOLERANCE = 1e-5
"""Relative to the largest weight: other hardware sums in another order."""
SMALLEST_NUMBER = np.finfo(np.float32).smallest_subnormal
"""A mean is rounded to a whole number of these, so the centroid of weights that are hardly larger is no nearer."""
STRIP_TOKENS = 16


def stored_lattice(arrays: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The lattice that the displacements of a run with these arrays are measured on, where it says."""
    named = (channel.name for channel in (DELTA, *NORMS, W))
    told = (arrays[name]["attributes"].get(LATTICE) for name in named if name in arrays)
    return next((str(name) for name in told if name), None)


def deriver(channels: Iterable[Channel]) -> Derive | None:
    """The function that derives this table's derived channels; None if it has none.

    Which lattice the displacement is measured on stands in their attributes.
    """
    derived = {channel.name: channel for channel in channels if channel.role == "derived"}
    if not derived:
        return None
    projects = any(c.attributes.get(LATTICE) == "bfloat16" for c in derived.values())

    def derive_some(previous: Mapping[str, Array], rows: Mapping[str, Array]) -> Mapping[str, Array]:
        before, after = previous["W"], rows["W"]
        if projects and after.dtype == np.float32:
            before, after = lattice.float32_to_bits(before), lattice.float32_to_bits(after)
        answers = _named(moves.moves(before, after))
        return {name: answers[name] for name in derived}

    return derive_some


def derive(previous: Mapping[str, Array], rows: Mapping[str, Array]) -> Mapping[str, Array]:
    """Displacement and norms of a tile of tokens, on the lattice of the weights' own dtype.

    Parameters
    ----------
    previous : mapping
        "W": (token, hidden), the state before the block.
    rows : mapping
        "W": (step, token, hidden), the block's states.

    Returns
    -------
    mapping
        delta_W_prime (step, token, hidden), displacement_l1, _l2, _linf (step, token); float32, in cells.
    """
    return _named(moves.moves(previous["W"], rows["W"]))


def finisher(threshold: float) -> Finish:
    """The function that makes last_motion_step of a whole run, for this motion threshold.

    Infinity counts as motion, NaN as none; the comparison is made in float32. One pass over displacement_l2.
    """
    limit = np.float32(threshold)

    def finish(blocks: Blocks) -> Mapping[str, Array]:
        last: NDArray[np.int32] | None = None
        for steps, norms in blocks("displacement_l2"):
            if last is None:
                last = np.full(norms.shape[1], -1, np.int32)
            np.maximum(last, moves.last_true(norms >= limit, steps), out=last, casting="same_kind")
        return {} if last is None else {LAST_MOTION.name: last}

    return finish


def centroids_fit(weights: Array, centroids: Array) -> NDArray[np.bool_]:
    """Whether each step's centroid is the mean of its weights, within `CENTROID_TOLERANCE` of the largest of them.

    Where they are so small that float32 rounds their mean, it may also lie one `SMALLEST_NUMBER` away.

    Parameters
    ----------
    weights : array, shape (step, token, hidden)
        uint16 (bits of bfloat16), float32 or float16.
    centroids : array of float32, shape (step, hidden)
        Where a weight is NaN or infinite, its column's must not be finite either. Where weights are so large that
        float32 may not hold their sum, it need not be: torch adds them up in float32.

    Returns
    -------
    array of bool, shape (step,)
    """
    for exactly in (False, True):
        agreement = CentroidAgreement(exactly)
        agreement.see({"W": weights})
        fits = agreement.fits(lambda _: centroids)["centroid"]
        if fits.all():
            break
    return fits


class CentroidAgreement:
    """Whether the centroids of a block of steps are the means of its weights, seen a tile of tokens at a time.

    Parameters
    ----------
    exactly : bool
        Add in float64, leave out columns whose weights are not finite, and look for the largest weight among all.
        Else add a few tokens at a time in float32, and look for it among some, which makes the check stricter and
        quicker: where a step does not fit then, look again exactly.
    """

    def __init__(self, exactly: bool) -> None:
        self._exactly = exactly
        self._sums: Array | None = None
        self._size: Array | None = None
        self._tokens = 0

    def see(self, tile: Mapping[str, Array]) -> None:
        """Take in W (steps, tokens, hidden): uint16 (bits of bfloat16), float32 or float16; quickest time fastest."""
        W = tile["W"]
        steps, tokens, hidden = W.shape
        if self._sums is None or self._size is None:
            self._sums, self._size = np.zeros((steps, hidden)), np.zeros(steps, np.float32)
        dtype = np.float64 if self._exactly else np.float32
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, tokens, STRIP_TOKENS):  # few enough to stay in the processor's cache
                wide = lattice.as_float32(W[:, start : start + STRIP_TOKENS])
                self._sums += wide.sum(axis=1, dtype=dtype)
                few = np.where(np.isfinite(wide), wide, 0) if self._exactly else wide[:, :1]
                np.maximum(self._size, few.max(axis=(1, 2), initial=0), out=self._size)
                np.maximum(self._size, -few.min(axis=(1, 2), initial=0), out=self._size)
        self._tokens += tokens

    def fits(self, rows: Callable[[str], Array]) -> dict[str, NDArray[np.bool_]]:
        """``{"centroid": bool (steps,)}``: within `CENTROID_TOLERANCE` of the largest weight of the step."""
        centroid = rows("centroid")
        if self._sums is None or self._size is None:
            return {"centroid": np.ones(len(centroid), np.bool_)}
        with np.errstate(invalid="ignore", over="ignore"):
            mean = self._sums / self._tokens
            near = np.abs(mean - centroid) <= CENTROID_TOLERANCE * self._size[:, None] + SMALLEST_NUMBER
            overflows = self._size.astype(np.float64) * self._tokens > np.finfo(np.float32).max
        near |= self._exactly & overflows[:, None] & ~np.isfinite(centroid)
        known = np.isfinite(mean)
        fits: NDArray[np.bool_] = np.all(np.where(known, near, self._exactly & ~np.isfinite(centroid)), axis=1)
        return {"centroid": fits}


def _named(moved: moves.Moves) -> dict[str, Array]:
    names = (DELTA.name, *(channel.name for channel in NORMS))
    return dict(zip(names, moved, strict=True))
