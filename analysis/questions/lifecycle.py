"""The life of a token in phases, and a census of every step: two questions that read tables of rules."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from analysis.engine import nonfinite
from analysis.engine.question import Answer, Block, Partial, Reduction, Span
from analysis.engine.reduction import answers_to, conclude
from analysis.engine.trajectory import Trajectory, trajectory_of
from analysis.lattice import Array
from analysis.moves import last_true
from analysis.questions.motion import lower_quantile, norm_name

ROOT = "sqrt(hidden)"
"""The bound that grows with the number of hidden dimensions."""


@dataclass(frozen=True, slots=True)
class NormRule:
    """A condition on one norm of a displacement.

    Parameters
    ----------
    name : str
        What a move (or a token, as long as it makes such moves) is called.
    norm : {"l1", "l2", "linf"}
    bound : float or "sqrt(hidden)"
        In cells, rounded to float32. True for a norm above it.
    inclusive : bool
        True for a norm that equals the bound, too.

    Raises
    ------
    ValueError
        For any other bound.

    Examples
    --------
    >>> NormRule("far", "l2", "sqrt(hidden)").holds(np.array([2, 3, np.inf, np.nan], np.float32), hidden=4)
    array([False,  True,  True, False])
    """

    name: str
    norm: str
    bound: float | Literal["sqrt(hidden)"]
    inclusive: bool = False

    def __post_init__(self) -> None:
        is_known = self.bound == ROOT if isinstance(self.bound, str) else not math.isnan(self.bound)
        if not is_known:
            raise ValueError(f"rule {self.name!r}: bound must be a number of cells or {ROOT!r}, not {self.bound!r}")

    def holds(self, norm: Array, hidden: int) -> NDArray[np.bool_]:
        """Where it is true; never where the norm is NaN."""
        bound = np.float32(math.sqrt(hidden) if isinstance(self.bound, str) else self.bound)
        answer: NDArray[np.bool_] = norm >= bound if self.inclusive else norm > bound
        return answer


NO_KIND = "none"
"""What `census` calls a move for which no rule holds."""
PHASES = (
    NormRule("supernova", "l2", "sqrt(hidden)"),
    NormRule("cooling", "linf", 1.0),
    NormRule("stumbling", "linf", 0.0),
)
"""The phases of a life. A token leaves one when its rule is true for the last time; after the last it is frozen.
Linf is above 0 just when the displacement is not 0."""

KINDS = (
    NormRule("teleporting", "l2", "sqrt(hidden)"),
    NormRule("multi-cell", "linf", 1.0),
    NormRule("neighbour", "l1", 1.0),
    NormRule("face", "l1", 1.0, inclusive=True),
    NormRule("less than a cell", "l1", 0.0),
)
"""The kinds of a move, the first that holds; a move for which none does is of the kind "none"."""


def lifecycle(ds: xr.Dataset, *, phases: Sequence[NormRule | tuple[Any, ...]] = PHASES) -> xr.Dataset:
    """When each token left the phases of its life.

    A token leaves a phase at the last step at which the phase's rule is true of its move. By default: supernova,
    L2 > sqrt(D); cooling, Linf > 1; stumbling, any move; then Fimbulwinter. The threshold of motion plays no role.

    Parameters
    ----------
    ds : Dataset
        A trajectory or a slice of one.
    phases : sequence of NormRule, or of tuples (name, norm, bound)
        Any table of rules.

    Returns
    -------
    Dataset
        ``exit`` (token, phase) int64, the last step at which the rule was true, -1 if never; ``median_exit`` (phase)
        int64, the lower middle value over tokens (those of -1 count), -1 if that does not exist. ``nonfinite``,
        ``first_nonfinite``. The attribute ``so_far`` is true while the run goes on: an exit may yet come to be later.

    Raises
    ------
    ValueError
        For a table without rules or with two of one name, sqrt(hidden) of a Dataset without `hidden`, where steps are
        missing (a move over several has no kind), and as `motion.moved` for norms and labels.
    TypeError, FloatingPointError
        As `motion.moved`.

    Notes
    -----
    One pass over the norms that the rules name (two by default); 8 bytes a token and phase in memory. An infinite
    norm is above every bound, a NaN above none.

    Examples
    --------
    >>> from analysis import simulate
    >>> found = lifecycle(simulate.with_phases([[1, 3, 4], [2, 2, 6]], total_steps=8))
    >>> found.exit.values
    array([[1, 3, 4],
           [2, 2, 6]])
    >>> int(found.median_exit.sel(phase="stumbling"))
    4
    """
    asked, table = trajectory_of(ds), _table(phases)
    names = [phase.name for phase in table]
    gives = {"exit": Answer(("token", "phase"), "int64", "last step in the phase", "step", True)}
    chunk = functools.partial(_exits, phases=table, hidden=_hidden(asked, table))
    question = Reduction("lifecycle", _needs(table), "token", chunk, _later, gives, coords={"phase": names})
    source = answers_to(asked, question, nonfinite.nonfinite(asked, norm=table[0].norm))
    median = {"median_exit": Answer(("phase",), "int64", "median last step in the phase", "step", True)}
    answer = conclude(source[["exit"]], _median_exit, median)
    return source.assign(median_exit=answer.median_exit, phase=source.phase).assign_attrs(
        so_far=not asked.attributes.get("completed", True)
    )


def _exits(block: Block, *, phases: tuple[NormRule, ...], hidden: int) -> Partial:
    exits = []
    for phase in phases:
        holds = phase.holds(block[norm_name(phase.norm)], hidden) & block.is_move[:, None]
        exits.append(last_true(holds, block.steps))
    return {"exit": np.stack(exits, axis=1)}


def _later(one: Partial, other: Partial) -> Partial:
    return {"exit": np.maximum(one["exit"], other["exit"])}


def _median_exit(known: Mapping[str, Array], _span: Span) -> Mapping[str, Any]:
    return {"median_exit": np.array([lower_quantile(exits, 0.5) for exits in known["exit"].T], np.int64)}


def census(ds: xr.Dataset, *, kinds: Sequence[NormRule | tuple[Any, ...]] = KINDS) -> xr.Dataset:
    """How many tokens make which kind of move, step by step.

    A move is of the first kind whose rule holds: by default teleporting (L2 > sqrt(D)), multi-cell (Linf > 1),
    neighbour (L1 > 1), face (L1 = 1), less than a cell, none.

    Parameters
    ----------
    ds : Dataset
        A trajectory or a slice of one.
    kinds : sequence of NormRule, or of tuples (name, norm, bound) or (name, norm, bound, inclusive)
        Any table of rules; "none" is added.

    Returns
    -------
    Dataset
        ``tokens`` (step, kind) int64, 0 in all kinds at the first step, which is no move; ``fraction`` (kind)
        float64 of all moves, NaN where there are none. ``nonfinite``, ``first_nonfinite``.

    Raises
    ------
    ValueError, TypeError, FloatingPointError
        As `lifecycle`.

    Notes
    -----
    One pass over the norms that the rules name (all three by default); 8 bytes a step and kind in memory. An
    infinite norm is above every bound; a NaN above none, so it counts as "none".

    Examples
    --------
    >>> from analysis import simulate
    >>> found = census(simulate.trajectory([[[9, 0], [1, 1], [1, 0], [0, 0]]]))
    >>> found.tokens.sel(step=1, kind=["teleporting", "neighbour", "face", "none"]).values
    array([1, 1, 1, 1])
    """
    asked, table = trajectory_of(ds), _table(kinds, taken=NO_KIND)
    names = [*(kind.name for kind in table), NO_KIND]
    gives = {"tokens": Answer(("step", "kind"), "int64", "tokens that make this kind of move")}
    chunk = functools.partial(_count_kinds, kinds=table, hidden=_hidden(asked, table))
    question = Reduction("census", _needs(table), "step", chunk, _add, gives, coords={"kind": names})
    source = answers_to(asked, question, nonfinite.nonfinite(asked, norm=table[0].norm))
    share = {"fraction": Answer(("kind",), "float64", "fraction of all moves")}
    return source.assign(fraction=conclude(source[["tokens"]], _fractions, share).fraction)


def _count_kinds(block: Block, *, kinds: tuple[NormRule, ...], hidden: int) -> Partial:
    left = np.zeros_like(block[norm_name(kinds[0].norm)], dtype=bool)  # in the memory order of the norms
    left[block.is_move] = True
    counts = []
    for kind in kinds:
        here = left & kind.holds(block[norm_name(kind.norm)], hidden)
        left &= ~here
        counts.append(np.count_nonzero(here, axis=1))
    counts.append(np.count_nonzero(left, axis=1))
    return {"tokens": np.stack(counts, axis=1)}


def _add(one: Partial, other: Partial) -> Partial:
    return {"tokens": one["tokens"] + other["tokens"]}


def _fractions(known: Mapping[str, Array], _span: Span) -> Mapping[str, Any]:
    totals = known["tokens"].sum(axis=0)
    with np.errstate(invalid="ignore"):
        return {"fraction": totals / np.float64(totals.sum())}


def _table(rules: Sequence[NormRule | tuple[Any, ...]], taken: str = "") -> tuple[NormRule, ...]:
    if odd := [rule for rule in rules if not isinstance(rule, NormRule) and not _is_rule(rule)]:
        raise ValueError(f"a rule is (name, norm, bound), as in ('far', 'l2', 2.0), not {odd[0]!r}")
    table = tuple(rule if isinstance(rule, NormRule) else NormRule(*rule) for rule in rules)
    names = [rule.name for rule in table]
    if taken in names:
        raise ValueError(f"{taken!r} is the kind of moves for which no rule holds: give the rule another name")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a table of rules needs at least one, with different names, not {names}")
    return table


def _is_rule(given: object) -> bool:
    return isinstance(given, tuple | list) and len(given) in (3, 4)


def _needs(rules: tuple[NormRule, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(norm_name(rule.norm) for rule in rules))


def _hidden(asked: Trajectory, rules: tuple[NormRule, ...]) -> int:
    """The number of hidden dimensions, if a rule asks for it."""
    if "hidden" not in asked.sizes and any(isinstance(rule.bound, str) for rule in rules):
        raise ValueError(
            "the Dataset has no dimension 'hidden', so sqrt(hidden) is unknown: keep W, delta_W_prime or centroid, "
            "or give rules whose bounds are numbers"
        )
    return asked.sizes.get("hidden", 0)
