"""The numbers of the optimizer that a run tells of, by which it is judged later, and whether they still hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from analysis.optimizers.update_rules import MADE_OF, NO_PUSH, UPDATE, memory_decay, update_of
from crucible.channels.push import Arithmetic, Refused
from crucible.channels.selection import push_here
from crucible.channels.sources import group_of
from crucible.channels.table import PUSH

BETA1, MOMENTUM = "beta1", "momentum"
"""Attributes of a run, which tell `analysis.end_state` how long the optimizer's momentum remembers."""
COMPILED = "a step under torch.compile rounds at other places"
News = tuple[str, str, dict[str, Any]]
"""Of what kind it is, the words, and the attributes that a run is to have."""
TOLD_BEFORE = "told_before"
"""Attribute of a run: ``[[step, {name: value}], ...]``, what other attributes said up to a step, None for nothing."""
MOST_TOLD_BEFORE = 64
"""A momentum that a schedule raises at every step is taken back to at most so many of them."""
OF_EVERY_STEP = ("params", "lr", "initial_lr")
"""In a group of the optimizer: what is no number of it, or is recorded at every step."""


class Numbers:
    """Watches whether the optimizer's numbers become others than a run tells of.

    Parameters
    ----------
    optimizer, parameter, axis
        As of `crucible.channels.selection.push_here`.
    names : collection of str
        Of the recorded channels.
    """

    def __init__(self, optimizer: Optimizer, parameter: Tensor, axis: int, names: Collection[str]) -> None:
        self._moved = optimizer, parameter, axis
        group = group_of(optimizer, parameter)
        self._memory, self._told = memory_attributes(group), self._now()
        self._is_made_of_moments = is_made_of_moments(self._told, names)
        self._names = [name for name in group if name not in OF_EVERY_STEP]
        self._seen = [group[name] for name in self._names]

    def have_changed(self, group: Mapping[str, Any]) -> bool:
        """Whether any number in the parameter's group is another object than at the last look."""
        before, self._seen = self._seen, list(map(group.get, self._names))
        return list(map(id, before)) != list(map(id, self._seen))  # a loop of ours takes ten times as long

    def news(self, update: int, group: Mapping[str, Any], attributes: Mapping[str, Any]) -> Iterator[News]:
        """What of a run's attributes holds no longer with this update."""
        known = {**self._memory, **attributes}
        if found := grown(update, known, group):
            words, changes = found
            known |= (told := told_from(update - 1, known, changes))
            yield "memory", words, told
        is_computed = self._is_made_of_moments and NO_PUSH not in known
        if is_computed and (reason := others(self._told, self._now(), update - 1)):
            self._is_made_of_moments = False
            yield "numbers", no_longer_computed(reason), told_from(update - 1, known, {NO_PUSH: reason})

    def _now(self) -> dict[str, Any]:
        optimizer, parameter, _ = self._moved
        return push_attributes(push_here(*self._moved), optimizer, parameter)


def told_from(step: int, attributes: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What a run with these attributes is to tell of the steps behind this one: `changes`, and what they replace.

    Examples
    --------
    >>> told_from(5, {"beta1": 0.9}, {"beta1": 0.99})
    {'beta1': 0.99, 'told_before': [[5, {'beta1': 0.9}]]}
    """
    told, before = attributes.get(TOLD_BEFORE, []), {name: attributes.get(name) for name in changes}
    if len(told) >= MOST_TOLD_BEFORE and NO_PUSH not in changes:
        return dict(changes)  # a cut to here leaves the longest memory of all, as if nothing were cut
    return {**changes, TOLD_BEFORE: [*told, [step, before]]}


def told_until(step: int, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a run that has no steps behind this one any more: without what was told of those alone.

    Examples
    --------
    >>> changed = {"beta1": 0.9} | told_from(5, {"beta1": 0.9}, {"beta1": 0.99, "no_push": "it changed"})
    >>> told_until(5, changed), told_until(6, changed) == changed
    ({'beta1': 0.9}, True)
    """
    told = dict(attributes)
    while told.get(TOLD_BEFORE) and told[TOLD_BEFORE][-1][0] >= step:
        *earlier, (_, before) = told[TOLD_BEFORE]
        told |= {**before, TOLD_BEFORE: earlier or None}
        told = {name: value for name, value in told.items() if value is not None or name not in (*before, TOLD_BEFORE)}
    return told


def push_attributes(push: Arithmetic | Refused, optimizer: Optimizer | None, parameter: Tensor) -> dict[str, Any]:
    """What a run tells of its push: the optimizer's numbers, or why none is known."""
    if isinstance(push, Refused):
        return {NO_PUSH: push.reason}
    return {} if optimizer is None else {UPDATE: push.attributes(optimizer, parameter)}


def is_made_of_moments(attributes: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether the push of a run with these channels is computed later, of its moments; one that is recorded is not."""
    needed = MADE_OF.get(update_of(attributes).get("variant", ""))
    return PUSH.name not in names and needed is not None and set(names) >= set(needed.values())


def others(attributes: Mapping[str, Any], now: Mapping[str, Any], step: int) -> str | None:
    """In what the optimizer is another behind this step than a run tells of; None where it is the same.

    `now` are the attributes that a new run of it would have.
    """
    told, found = update_of(attributes), update_of(now)
    since = f"of the steps behind {step} the optimizer is another than the run tells of: "
    if not found:
        return since + str(now.get(NO_PUSH, "there is none"))
    for name in sorted((told.keys() | found.keys()) - {"exact", "inexact"}):
        if told.get(name) != found.get(name):
            return f"{since}its {name} is {found.get(name)} now, and was {told.get(name)}"
    return since + str(found["inexact"]) if told["exact"] and not found["exact"] else None


def compiled(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What a run must tell whose optimizer's step turns out to be compiled: its push is not exact to the last digit.

    Examples
    --------
    >>> compiled({"optimizer_update": {"variant": "adamw", "exact": True}})["optimizer_update"]["exact"]
    False
    """
    told = update_of(attributes)
    return {UPDATE: {**told, "exact": False, "inexact": COMPILED}} if told.get("exact") else {}


def no_longer_computed(reason: str) -> str:
    """That nothing tells of the push of a run any more."""
    return f"no push can be computed of this run any more: {reason}"


def memory_attributes(group: Mapping[str, Any]) -> dict[str, float]:
    """What a run tells of the momentum of an optimizer's group.

    Examples
    --------
    >>> memory_attributes({"betas": (0.95, 0.999)}), memory_attributes({"momentum": 0.5}), memory_attributes({})
    ({'beta1': 0.95}, {'momentum': 0.5}, {})
    """
    if "betas" in group:
        return {BETA1: float(group["betas"][0])}
    return {MOMENTUM: float(group["momentum"])} if "momentum" in group else {}


def longer_memory(attributes: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, float]:
    """What the attributes of a run must tell from now on, where this group remembers for longer than they say.

    Examples
    --------
    >>> longer_memory({"beta1": 0.9}, {"momentum": 0.99}), longer_memory({"beta1": 0.9}, {"betas": (0.8, 0.9)})
    ({'beta1': 0.99}, {})
    """
    now = memory_attributes(group)
    decay = max(now.values(), default=0.0)
    if decay <= memory_decay(attributes):
        return {}
    return {BETA1 if BETA1 in attributes else next(iter(now)): decay}


def grown(update: int, attributes: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """That the momentum remembers for longer than a run's attributes say, if so: in words, and as what they must.

    Numbers that are tensors are not looked at: they may lie on a device.
    """
    betas = group.get("betas")
    if isinstance(group.get("momentum") if betas is None else betas[0], Tensor):
        return None
    for name, decay in longer_memory(attributes, group).items():
        told = memory_decay(attributes)
        return (
            f"update {update}: the optimizer's {name} is {decay:g} now, and the run told of {told:g}: from now on its "
            f"silence is judged by a memory of {round(1 / (1 - decay))} steps"
        ), {name: decay}
    return None
