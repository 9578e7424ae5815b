"""Moving steps joined to episodes, and how likely a silence is that follows them.

Motion comes in bursts and its rate falls, so gaps between moving steps are no independent trials. Moving steps are
therefore joined to episodes, and the null hypothesis is that episodes go on for ever as a Poisson process whose
unknown rate falls like 1/t. Then the logarithms of the gaps are exponential, and the silence of now over the mean of
the n gaps before it follows F(2, 2n). docs/explanation/end-state.md holds the measured error rates.

Everything here works on a sorted one-dimensional array of step labels: plain numbers, no Dataset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]

LEAST_BETA1 = 0.9
"""By what memory a silence is judged at least: SGD's with less momentum, or with none, is taken to have this."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The constants of the verdict.

    Parameters
    ----------
    memory : int
        Moving steps with fewer than this many still steps between them are one episode. 10 = 1 / (1 - beta1) is the
        memory of Adam's momentum: a kick moves weights for about so long.
    gaps : int
        At most so many gaps between the last episodes are used: the recent past, not the whole life.
    fewest : int
        With fewer gaps there is no p.
    level : float
        By the silence alone: frozen when p is at most this.
    level_with_push : float
        Where the optimizer's push is known too: frozen when p is at most this, and E at most `most_expected`.
    most_expected : float
        The largest E, the number of moves to be expected in as many steps again.
    """

    memory: int = 10
    gaps: int = 10
    fewest: int = 4
    level: float = 0.01
    level_with_push: float = 0.05
    most_expected: float = 0.01

    def __post_init__(self) -> None:
        if not (self.memory >= 1 and self.gaps >= self.fewest >= 1 and 0 < self.level < 1):
            raise ValueError(f"need memory >= 1, gaps >= fewest >= 1 and 0 < level < 1, not {self}")
        if not (0 < self.level_with_push < 1 and self.most_expected >= 0):
            raise ValueError(f"need 0 < level_with_push < 1 and most_expected >= 0, not {self}")

    @classmethod
    def for_beta1(cls, beta1: float = LEAST_BETA1) -> Rule:
        """The rule with the memory of an Adam whose first moment decays by `beta1`.

        Examples
        --------
        >>> Rule.for_beta1(0.9).memory, Rule.for_beta1(0.0).memory
        (10, 1)
        """
        if not 0 <= beta1 < 1:
            raise ValueError(f"beta1 must be in [0, 1), not {beta1}")
        return cls(memory=max(1, round(1 / (1 - beta1))))


RULE = Rule()


@dataclass(frozen=True, slots=True)
class Moments:
    """What is known at each moving step: one entry per moving step, in order.

    Attributes
    ----------
    motion : array of int64
        g, the moving step itself.
    opened : array of int64
        e_n, where the episode of g began: a long one is no part of the gaps before it.
    anchor : array of int64
        e_0, the step from which the mean gap is measured.
    gaps : array of int64
        n, the number of gaps between episodes that are used.
    looks : array of int64
        m, the silences worth a look until now, this one included.
    """

    motion: Labels
    opened: Labels
    anchor: Labels
    gaps: Labels
    looks: Labels

    def span(self, fewest: int) -> npt.NDArray[np.float64]:
        """ln(e_n / e_0); NaN with fewer than `fewest` gaps."""
        enough = self.gaps >= fewest
        return np.where(enough, np.log(np.where(enough, self.opened / np.maximum(self.anchor, 1), np.nan)), np.nan)


def moments(moving: npt.ArrayLike, *, first_step: int = 1, rule: Rule = RULE) -> Moments:
    """Join moving steps to episodes and say what was known at each of them.

    Parameters
    ----------
    moving : array of int, (moving step)
        Labels of the steps with motion, ascending, each at least `first_step`. May be empty.
    first_step : int
        Label of the first move that was looked at: 1, or on a slice the label after its first state.
    rule : Rule
        The constants.

    Returns
    -------
    Moments
        Arrays as long as `moving`.

    Raises
    ------
    ValueError
        Labels that do not ascend, or lie before `first_step`; a `first_step` below 1.

    Notes
    -----
    Linear time and memory in the number of moving steps. Entry k depends on ``moving[:k + 1]`` alone, so one pass
    returns what would have been said at every moment of a run.

    Examples
    --------
    >>> known = moments([1, 2, 3, 20, 25, 60])
    >>> known.gaps.tolist(), known.anchor.tolist(), known.looks.tolist()
    ([0, 0, 0, 1, 1, 2], [1, 2, 3, 3, 3, 3], [1, 1, 1, 2, 2, 3])
    """
    steps = _checked(moving, first_step)
    if not len(steps):
        return Moments(steps, steps, steps, steps, steps)
    opens = np.diff(steps, prepend=steps[:1]) > rule.memory  # the first episode opens without a silence before it
    episode = np.cumsum(opens)
    starts = np.concatenate([steps[:1], steps[opens]])
    oldest = np.maximum(episode - rule.gaps, 0)
    first_end = steps[np.count_nonzero(episode == 0) - 1]  # the start of a life says nothing about gaps: use its end
    anchor = np.where(oldest > 0, starts[oldest], np.minimum(first_end, steps))
    leading = int(steps[0]) - first_step >= rule.memory
    return Moments(steps, starts[episode], anchor, np.minimum(episode, rule.gaps), episode + 1 + leading)


def p_value(known: Moments, until: npt.ArrayLike, *, rule: Rule = RULE) -> npt.NDArray[np.float64]:
    """The chance of a silence this long if episodes went on at a rate that falls like 1/t.

    Parameters
    ----------
    known : Moments
        From `moments`.
    until : array of int, or int
        T, the last step looked at: one for each entry of `known`, or one for all. No motion in (g, T].
    rule : Rule
        The constants.

    Returns
    -------
    array of float64
        ``min(1, m (1 + ln((T + 1) / g) / ln(e_n / e_0))^-n)``; NaN where n is below ``rule.fewest``.

    Notes
    -----
    Gaps between the logarithms of episodes are exponential under the null hypothesis; one of them over the mean of n
    others is F(2, 2n), whose tail this is. The factor m (Bonferroni) pays for looking after every silence.

    Examples
    --------
    >>> known = moments([1, 20, 40, 80, 160, 320])
    >>> p_value(known, 100_000).round(3).tolist()
    [nan, nan, nan, nan, 0.189, 0.189]
    """
    silence = np.log((np.asarray(until) + 1) / known.motion) / known.span(rule.fewest)
    return np.minimum(1.0, known.looks * np.exp(-known.gaps * np.log1p(silence)))


def frozen_from(known: Moments, *, rule: Rule = RULE) -> npt.NDArray[np.float64]:
    """The first T at which p reaches the level, if nothing moves any more; NaN where there is no p.

    It is the formula of `p_value` solved for T: a run can say how long it still has to be silent.

    Parameters
    ----------
    known : Moments
        From `moments`.
    rule : Rule
        The constants.

    Returns
    -------
    array of float64
        One step for each entry of `known`; infinite where it is beyond all floats.

    Examples
    --------
    >>> known = moments([20, 40, 60, 80, 100, 120])
    >>> frozen_from(known)[-1], p_value(known, [15331])[-1] <= 0.01, p_value(known, [15332])[-1] <= 0.01
    (np.float64(15332.0), np.False_, np.True_)
    """
    silence = known.span(rule.fewest) * ((known.looks / rule.level) ** (1 / np.maximum(known.gaps, 1)) - 1)
    with np.errstate(over="ignore"):  # beyond 1e308 steps: inf
        return np.ceil(known.motion * np.exp(silence)) - 1


def _checked(moving: npt.ArrayLike, first_step: int) -> Labels:
    steps = np.asarray(moving, dtype=np.int64)
    if first_step < 1:
        raise ValueError(f"the first move has the label 1 or more, not {first_step}")
    if steps.ndim != 1 or (np.diff(steps) <= 0).any() or (steps < first_step).any():
        raise ValueError(f"moving steps must be ascending labels from {first_step} on")
    return steps
