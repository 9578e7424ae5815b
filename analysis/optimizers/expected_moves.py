"""How many weights would still move if a silence lasted: from how the strongest push has fluctuated in it.

In a silence nothing passes 1 half cell, but the strongest push of each step is known. Its maxima over blocks of one
memory of the momentum are nearly independent and follow the law of extremes (Gumbel's). Their level, trend and spread
tell how many blocks of the future would pass 1 if the trend lasted: the expected moves E(K) within K more steps. It is
an upper estimate: level and trend are taken two standard errors too high, and a decline gives no credit.

Plain numbers in, plain numbers out; no Dataset. Steps are counted, not named: H[0] belongs to step 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limits:
    """The constants of the estimate.

    Parameters
    ----------
    fewest_blocks : int
        With fewer whole blocks since the last motion there is no estimate.
    errors : float
        Level and trend are taken so many standard errors too high.
    highest_correlation : float
        The correlation of neighbouring blocks is taken as at most this.
    lowest_push : float
        A push of 0 counts as this.
    headroom_memories : int
        The headroom looks back so many memories.
    """

    fewest_blocks: int = 20
    errors: float = 2.0
    highest_correlation: float = 0.9
    lowest_push: float = 1e-30
    headroom_memories: int = 20

    def __post_init__(self) -> None:
        if not (self.fewest_blocks >= 3 and self.errors >= 0 and 0 <= self.highest_correlation < 1):
            raise ValueError(f"need fewest_blocks >= 3, errors >= 0 and 0 <= highest_correlation < 1, not {self}")
        if not (self.lowest_push > 0 and self.headroom_memories >= 1):
            raise ValueError(f"need lowest_push > 0 and headroom_memories >= 1, not {self}")


LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the pushes of a silence say of the future. NaN where there is no answer.

    Attributes
    ----------
    expected : float
        E(K), the expected number of blocks within K more steps in which something moves; an upper estimate.
    push : float
        The strongest push of the last 20 memories.
    headroom : float
        The factor by which the learning rate could have been higher in these steps before anything moved.
    blocks : int
        B, the whole blocks since the last motion that were used.
    level, slope : float
        The fitted logarithm of the strongest push at the last block, with its standard errors, at the reference
        learning rate (0 is half a cell); and its change per block, as fitted.
    highest_slope : float
        The change per block that is reckoned with, never negative.
    spread, correlation : float
        Standard deviation around the line, and the correlation of neighbouring blocks.
    memory : int
        r, the steps of a block.
    horizon : int
        K.
    reference_learning_rate : float
        The learning rate for which `expected` and `level` hold.
    rates_below : float
        No larger learning rate is answered for.
    rate_at_last_motion : float
        The learning rate of that step.
    """

    expected: float = math.nan
    push: float = math.nan
    headroom: float = math.nan
    blocks: int = 0
    level: float = math.nan
    slope: float = math.nan
    highest_slope: float = math.nan
    spread: float = math.nan
    correlation: float = math.nan
    memory: int
    horizon: int
    reference_learning_rate: float = math.nan
    rates_below: float = math.inf
    rate_at_last_motion: float = math.nan


def expected_moves(
    strongest: npt.ArrayLike,
    learning_rate: npt.ArrayLike,
    optimizer_step: npt.ArrayLike | None = None,
    *,
    last_motion: int,
    beta1: float,
    beta2: float | None = None,
    reference_learning_rate: float | None = None,
    rates_below: float = math.inf,
    horizon: int | None = None,
    limits: Limits = LIMITS,
) -> Outlook:
    """How many blocks of the next K steps would see a move if what the silence shows goes on.

    Parameters
    ----------
    strongest : array of float, (step,)
        H, the largest push of all weights at each recorded step, in half cells.
    learning_rate : array of float, (step,)
        Of the same steps. Steps at which it is 0 say nothing and are left out.
    optimizer_step : array of int or float, (step,), optional
        n, the optimizer's own count. Needed with `beta2`. The window begins anew where it does not go on by one.
    last_motion : int
        g, how many steps were recorded up to the last one with motion, that one included; 0 if nothing has moved.
    beta1 : float
        The decay of the momentum; SGD's momentum, 0 without one. The memory is r = round(1 / (1 - beta1)) steps.
    beta2 : float, optional
        The decay of Adam's second moment, whose bias correction still lets the push grow. None for SGD.
    reference_learning_rate : float, optional
        The learning rate to be reckoned with; by default the last recorded one. 0 or NaN: no estimate.
    rates_below : float
        From this learning rate on a push does not tell what moves: weight decay alone can move a weight.
    horizon : int, optional
        K; by default as many steps as were recorded.
    limits : Limits
        The constants.

    Returns
    -------
    Outlook

    Raises
    ------
    ValueError
        For arrays of different lengths, a `last_motion` outside of them, `beta1` or `beta2` outside [0, 1), and
        `beta2` without `optimizer_step`.

    Notes
    -----
    L = ln(H / lr) - ln(1 - beta2^n) / 2 + ln(reference): in 16-bit formats v seldom falls, so what the bias correction
    will still add is counted now. y_1 .. y_B are the maxima of L over blocks of r steps that end at multiples of r,
    the whole ones that begin after g. On the block number they have the least-squares slope b and at k = B the fitted
    value, with standard errors se_b and se from the residual deviation s with B - 2 degrees of freedom, both widened by
    sqrt f, f = (1 + rho) / (1 - rho), where rho is the sum of products of neighbouring residuals over the sum of their
    squares, clipped to [0, 0.9]. With l the fitted value + 2 se sqrt f and b+ = max(0, b + 2 se_b sqrt f),

        E(K) = sum over k = 1 .. floor(K / r) of 1 - exp(-exp(-(x_k / (s sqrt(6) / pi) + 0.5772))), x_k = -(l + b+ k),

    Gumbel's tail with mean l + b+ k and deviation s. Where s is 0: 0 if l < 0 and b+ = 0, else every block. A push that
    is NaN or infinite in the window: no estimate.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> pushes = np.exp(random.normal(-2, 0.1, 1000))
    >>> told = expected_moves(pushes, np.full(1000, 1e-3), last_motion=200, beta1=0.9)
    >>> told.blocks, told.expected < 1e-6, round(told.headroom, 1)
    (80, True, 5.8)
    >>> expected_moves(7 * pushes, np.full(1000, 1e-3), last_motion=200, beta1=0.9).expected > 10
    True
    """
    pushes, rates, counts = _checked(strongest, learning_rate, optimizer_step, last_motion, (beta1, beta2))
    memory = max(1, round(1 / (1 - beta1)))
    recent = slice(-limits.headroom_memories * memory, None)
    strongest_now = _largest(pushes[recent], rates[recent])
    with np.errstate(invalid="ignore"):  # an infinite rate and no weight decay: the push tells
        highest = max(strongest_now, _largest(rates[recent] / rates_below, rates[recent]))
    told = Outlook(
        push=strongest_now,
        headroom=1 / highest if highest else math.inf,
        memory=memory,
        horizon=len(pushes) if horizon is None else horizon,
        reference_learning_rate=_reference(rates, reference_learning_rate),
        rates_below=rates_below,
        rate_at_last_motion=float(rates[last_motion - 1]) if last_motion else math.nan,
    )
    if not 0 < told.reference_learning_rate < rates_below:
        return told
    levels = _levels(pushes, rates, counts if beta2 else None, beta2 or 0.0, limits)
    levels += math.log(told.reference_learning_rate)
    maxima = _block_maxima(levels, rates != 0, max(last_motion, _last_restart(counts)), memory)
    told = replace(told, blocks=len(maxima))
    if len(maxima) < limits.fewest_blocks or not np.isfinite(maxima).all():
        return told
    line = _fit(maxima, limits)
    expected = _expected(line.level, line.highest_slope, line.spread, told.horizon // memory)
    return replace(told, expected=expected, **asdict(line))


@dataclass(frozen=True, slots=True)
class _Line:
    """A line through block maxima: its end and slope with their standard errors, and what lies around it."""

    level: float
    slope: float
    highest_slope: float
    spread: float
    correlation: float


def _checked(
    strongest: npt.ArrayLike,
    learning_rate: npt.ArrayLike,
    optimizer_step: npt.ArrayLike | None,
    last_motion: int,
    betas: tuple[float, float | None],
) -> tuple[Numbers, Numbers, Numbers | None]:
    pushes, rates = np.asarray(strongest, np.float64), np.asarray(learning_rate, np.float64)
    counts = None if optimizer_step is None else np.asarray(optimizer_step, np.float64)
    shapes = [array.shape for array in (pushes, rates, counts) if array is not None]
    if any(shape != pushes.shape or len(shape) != 1 for shape in shapes):
        raise ValueError(f"pushes, learning rates and optimizer steps must be one for each step, not {shapes}")
    if not 0 <= last_motion <= len(pushes):
        raise ValueError(f"last_motion must be in 0 .. {len(pushes)}, the steps recorded, not {last_motion}")
    if not all(0 <= (beta or 0) < 1 for beta in betas):
        raise ValueError(f"beta1 and beta2 must be in [0, 1), not {betas[0]} and {betas[1]}")
    if betas[1] is not None and counts is None:
        raise ValueError("beta2 needs optimizer_step: the bias correction depends on the optimizer's own count")
    return pushes, rates, counts


def _reference(rates: Numbers, wanted: float | None) -> float:
    """The learning rate wanted, else the last recorded one; NaN if there is none."""
    if wanted is not None:
        return float(wanted)
    return float(rates[-1]) if len(rates) else math.nan


def _largest(numbers: Numbers, rates: Numbers) -> float:
    """The largest of the steps that have a learning rate; NaN where one is unknown or there is none."""
    told = numbers[rates != 0]
    return float(np.max(told)) if len(told) else math.nan


def _levels(pushes: Numbers, rates: Numbers, counts: Numbers | None, beta2: float, limits: Limits) -> Numbers:
    """ln(H / lr) without what the bias correction of v still holds back."""
    with np.errstate(all="ignore"):
        levels: Numbers = np.log(np.maximum(pushes, limits.lowest_push) / rates)
        if counts is not None:
            levels -= np.log(1 - beta2**counts) / 2
    return levels


def _last_restart(counts: Numbers | None) -> int:
    """How many steps were recorded before the optimizer's count last failed to go on by one; 0 if it never did."""
    if counts is None or len(counts) < 2:
        return 0
    breaks = np.flatnonzero(np.diff(counts) != 1)  # NaN is not 1 either
    return int(breaks[-1]) + 1 if len(breaks) else 0


def _block_maxima(levels: Numbers, counted: npt.NDArray[np.bool_], after: int, memory: int) -> Numbers:
    """Maxima over the whole blocks of `memory` steps that begin after a step, without blocks in which none counts."""
    first, end = -(-after // memory), len(levels) // memory
    if first >= end:
        return np.empty(0)
    window = slice(first * memory, end * memory)
    blocks = np.where(counted, levels, -np.inf)[window].reshape(-1, memory)
    return np.asarray(blocks.max(axis=1)[counted[window].reshape(-1, memory).any(axis=1)], np.float64)


def _fit(maxima: Numbers, limits: Limits) -> _Line:
    count = len(maxima)
    from_mean = np.arange(count) - (count - 1) / 2
    squares = float(np.sum(from_mean**2))
    heights = maxima - maxima[-1]  # equal maxima leave no residuals, to the bit
    slope = float(np.sum(from_mean * heights)) / squares
    residuals = heights - heights.mean() - slope * from_mean
    sum_of_squares = float(np.sum(residuals**2))
    spread = math.sqrt(sum_of_squares / (count - 2))
    neighbours = float(np.sum(residuals[1:] * residuals[:-1])) / sum_of_squares if sum_of_squares else 0.0
    correlation = min(max(neighbours, 0.0), limits.highest_correlation)
    wider = limits.errors * spread * math.sqrt((1 + correlation) / (1 - correlation))
    fitted = float(heights.mean()) + slope * float(from_mean[-1]) + float(maxima[-1])
    level = fitted + wider * math.sqrt(1 / count + float(from_mean[-1]) ** 2 / squares)
    return _Line(level, slope, max(0.0, slope + wider / math.sqrt(squares)), spread, correlation)


def _expected(level: float, slope: float, spread: float, blocks: int) -> float:
    """The expected number of the next blocks that pass 0: Gumbel tails around a rising mean."""
    if spread == 0:
        return 0.0 if level < 0 and slope == 0 else float(blocks)
    means = level + slope * np.arange(1, blocks + 1)
    with np.errstate(all="ignore"):
        tails = -np.expm1(-np.exp(means / (spread * math.sqrt(6) / math.pi) - np.euler_gamma))
    return float(np.sum(tails))
