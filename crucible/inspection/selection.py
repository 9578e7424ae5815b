"""Which tokens and which steps of a run are asked: the same three words for every command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from crucible.units import counted

POPULATION, DEAD_MASK = "population", "dead_mask"
Steps = tuple[int | None, int | None]
STEPS_LEFT_OUT = "steps_left_out"
"""The attribute of a Dataset of which some recorded steps were selected."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a run; everything, unless something is named.

    Parameters
    ----------
    population : str, optional
        Name of a population: "dead" or "live" where a mask tells them, or one that the run names.
    tokens : sequence of int, optional
        Token ids; with a population, those of them that are in it.
    steps : (int or None, int or None), optional
        Labels of the first step and of one past the last; None for the run's own end.
    """

    population: str | None = None
    tokens: Sequence[int] | None = None
    steps: Steps | None = None

    def __post_init__(self) -> None:
        """Refuse what would be taken for something else, or for nothing."""
        population: object = self.population
        if population is not None and not isinstance(population, str):
            raise ValueError(f"population is one name, as in population='dead', not {population!r}")
        require_range(self.steps)
        ids = np.asarray([] if self.tokens is None else self.tokens)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iuO"):
            raise ValueError(f"tokens are ids in a list, as in tokens=[3, 17], not {self.tokens!r}")

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Selection:
        """The selection among named options; takes `population`, `tokens` and `steps` of them."""
        return cls(*(words.get(name) for name in ("population", "tokens", "steps")))

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.population, self.tokens, self.steps))

    def __str__(self) -> str:
        """The selection in words, for a heading; "" for everything."""
        words = [] if self.population is None else [f"population {self.population}"]
        if self.tokens is not None:
            words.append(counted(len(set(self.tokens)), "chosen token"))
        if self.steps is not None:
            words.append("steps " + ":".join("" if end is None else f"{end}" for end in self.steps))
        return ", ".join(words)


def require_range(steps: object) -> None:
    """Refuse steps that are no pair of labels.

    Raises
    ------
    ValueError
    """
    ends = steps if isinstance(steps, tuple | list) else ()
    is_pair = len(ends) == 2 and all(end is None or isinstance(end, int | np.integer) for end in ends)
    if steps is not None and not is_pair:
        raise ValueError(
            f"steps are the first and one past the last, as in steps=(100, 200), either may be None; not {steps!r}"
        )


def select(ds: xr.Dataset, selection: Selection) -> xr.Dataset:
    """The part of a run, lazy; the run itself for a selection of everything.

    Raises
    ------
    ValueError
        The run has no such population, token or step.
    """
    if selection.population is not None or selection.tokens is not None:
        ds = ds.isel(token=positions(ds, selection))
    part = ds.isel(step=slice(*rows(ds, selection)))
    return part.assign_attrs({STEPS_LEFT_OUT: True}) if part.sizes["step"] < ds.sizes["step"] else part


def share_of_silence(answers: Mapping[str, Any]) -> str:
    """What the silence is a share of, in words: a part of the steps is not the run."""
    return "of the run" if answers["all_steps"] else "of these steps"


def positions(ds: xr.Dataset, selection: Selection) -> NDArray[np.int64]:
    """Where the selected tokens stand along `token`, ascending.

    Raises
    ------
    ValueError
        As `select`.
    """
    wanted = np.ones(ds.sizes["token"], np.bool_)
    if selection.population is not None:
        known = populations(ds)
        if selection.population not in known:
            names = ", ".join(known) or "none: it has neither populations nor a dead mask"
            raise ValueError(f"{_run(ds)}: there is no population {selection.population!r}; known are {names}")
        wanted &= known[selection.population]
    if selection.tokens is not None:
        ids = ds["token"].values
        asked = np.unique(np.asarray(selection.tokens, np.int64))
        missing = np.setdiff1d(asked, ids)[:_SHOWN].tolist()
        if missing or not asked.size:
            raise ValueError(
                f"{_run(ds)}: the run records no tokens {missing}; its {len(ids):,} ids go from {ids[0]} to {ids[-1]}"
            )
        wanted &= np.isin(ids, asked)
    if not wanted.any():
        raise ValueError(f"{_run(ds)}: there is no token in {selection}")
    return np.flatnonzero(wanted)


def populations(ds: xr.Dataset) -> dict[str, NDArray[np.bool_]]:
    """Which tokens are in each population that the run names, or that its dead mask tells.

    Examples
    --------
    >>> ds = xr.Dataset(coords={"token": [3, 5, 8], "population": ("token", ["dead", "live", "dead"])})
    >>> populations(ds)["dead"].tolist()
    [True, False, True]
    """
    if POPULATION in ds.coords:
        names = ds[POPULATION].values
        return {str(name): names == name for name in sorted(set(names.tolist())) if name}
    if DEAD_MASK in ds and ds["token"].values.max(initial=-1) < ds.sizes.get("vocabulary", 0):
        dead: NDArray[np.bool_] = ds[DEAD_MASK].values[ds["token"].values]
        return {name: chosen for name, chosen in (("dead", dead), ("live", ~dead)) if chosen.any()}
    return {}


def mixed(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """The part of each population where a Dataset holds several, or one and tokens of none; else empty."""
    known = {name: chosen for name, chosen in populations(ds).items() if chosen.any()}
    if not known or next(iter(known.values())).all():
        return {}
    return {name: ds.isel(token=np.flatnonzero(chosen)) for name, chosen in known.items()}


def rows(ds: xr.Dataset, selection: Selection) -> tuple[int, int]:
    """Where the selected steps stand along `step`: the first, and one past the last.

    Raises
    ------
    ValueError
        There is no such step.
    """
    first, stop = selection.steps or (None, None)
    labels = ds["step"].values
    start = 0 if first is None else int(np.searchsorted(labels, first))
    end = len(labels) if stop is None else int(np.searchsorted(labels, stop))
    if start >= end:
        asked = f"{'' if first is None else first}:{'' if stop is None else stop}"
        raise ValueError(f"{_run(ds)}: no recorded step in {asked}; the steps go from {labels[0]} to {labels[-1]}")
    return start, end


def _run(ds: xr.Dataset) -> str:
    return str(ds.attrs.get("run", "the Dataset"))
