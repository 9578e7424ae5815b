"""What a loop hands over by `Recorder.log`: which names are taken, and whether it is what the loop means.

What a run keeps is fixed when it is made. A run that takes numbers which nobody has declared (``scalars=True``) is
therefore made at its first update, when it is known what the loop logs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from crucible.channels.selection import Selection
from crucible.channels.sources import Recorded, logged, names_taken
from crucible.channels.table import LOSS
from crucible.updates import telling
from crucible.updates.handed import LOOKED_AT, Handed, Reduce, is_number
from crucible.updates.telling import Once
from store.format.schema import Channel
from store.run.commit import read_commit
from store.writing.plan import channels_of

UNDECLARED = "undeclared"
"""Attribute of a channel that is there since the loop logged its name."""
RESERVED = frozenset(
    {"step", "token", "hidden", "vocabulary", "population", "token_count", "token_text", "token_piece"}
)
"""Names of coordinates and dimensions that a run has or may have."""


class Intake:
    """Takes what is logged, and refuses what nobody would keep.

    Parameters
    ----------
    recorded : sequence of Recorded
        The given channels.
    tell : Once
        Takes sentences.
    others : collection of str
        Names of the run's other arrays.
    scalars : bool
        Keep any number that is logged for the first update.
    """

    def __init__(
        self, recorded: Sequence[Recorded], tell: Once, *, others: Collection[str] = (), scalars: bool = False
    ) -> None:
        self._tell, self._taken = tell, names_taken(recorded)
        numbers = [each.channel.name for each in recorded if not each.channel.dims]
        self.handed = Handed(numbers, are_plain=self._taken is not None)
        self._others = {*others, *(each.channel.name for each in recorded)}
        self._scalars: dict[str, Recorded] | None = {} if scalars else None
        self._first_names: frozenset[str] = frozenset()

    def take(self, name: str, value: object, reduce: Reduce) -> None:
        """One value more, see `Handed.take`."""
        if self._scalars is not None and self._is_undeclared(name, value):
            if name not in self._scalars:
                self._scalars[name] = Recorded(scalar(name, self._others), logged(name))
                self.handed.expect_number(name)
            self.handed.take(name, value, reduce)
        elif self._taken is None or name in self._taken:
            self.handed.take(name, value, reduce)
        elif name != LOSS.name:  # a table without a loss is meant
            raise ValueError(telling.not_taken(name, self._taken))

    def _is_undeclared(self, name: str, value: object) -> bool:
        """Whether no channel keeps it; where a source of the user's may take any name, only of a number."""
        if self._taken is not None:
            return name not in self._taken
        return name not in self._others and is_number(value)

    def undeclared(self, *, is_late: bool) -> list[Recorded]:
        """At the first update: the channels of what was logged for it; afterwards none, nor where it is too late."""
        found, self._scalars = list((self._scalars or {}).values()), None
        if is_late:
            if found:
                self._tell("scalars", telling.made_before(each.channel.name for each in found))
            return []
        if self._taken is not None:
            self._taken |= {each.channel.name for each in found}
        return found

    def look(self, ordinal: int, update: int, scale: float, end: str) -> None:
        """Say so where a loss seems to be another one, or that of another update.

        Parameters
        ----------
        ordinal, update : int
            The how many-th update since recording began, and its label.
        scale : float
            What a gradient scaler has multiplied the losses by.
        end : str
            The call with which the loop ends an update: what is logged after it counts for the next.
        """
        for words in self.handed.disagreements(scale):
            self._tell("reduce", words)
        for name in self.handed.surplus():
            self._tell("surplus", self.handed.words_of_surplus(name, update))
        if ordinal <= LOOKED_AT:
            for words in self.handed.first_had_more(update):
                self._tell("surplus", words)
        if ordinal == 1:
            self._first_names = self.handed.names
        elif ordinal == 2 and self._taken:
            for name in self._taken & (self.handed.names - self._first_names):
                self._tell(f"late {name}", telling.late(name, update, end))


def with_scalars(
    given: list[Recorded], table: Sequence[Channel], run: Path
) -> tuple[list[Recorded], tuple[Channel, ...]]:
    """The channels with those that a run, which goes on, keeps since its loop logged them."""
    kept = [channel for channel in channels_of(read_commit(run)) if channel.attributes.get(UNDECLARED)]
    return Selection([*given, *(Recorded(channel, logged(channel.name)) for channel in kept)], (*table, *kept))


def scalar(name: str, others: Collection[str]) -> Channel:
    """The channel of a number that the loop logs.

    Parameters
    ----------
    name : str
        A Python identifier.
    others : collection of str
        Names of the run's arrays.

    Raises
    ------
    ValueError
        The name cannot be that of a channel.

    Examples
    --------
    >>> scalar("accuracy", ["W"]).meaning
    'what the loop logged as accuracy for update t'
    """
    if not name.isidentifier() or name in RESERVED or name in others:
        why = "is the name of another array" if name.isidentifier() else "is no name for an array"
        raise ValueError(f"log({name}=...): {name!r} {why}; log the number under another name (letters, digits and _)")
    return Channel(
        name, (), "float64", belongs_to="move", exported=False, long_name=name,
        meaning=f"what the loop logged as {name} for update t", attributes={UNDECLARED: True},
    )  # fmt: skip
