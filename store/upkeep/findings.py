"""What a check finds: damage, told by array, steps and tokens, and leftovers, which are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong: the array or file, the step labels ``[first, stop)`` it touches, and a sentence.

    Parameters
    ----------
    is_lost : bool
        Whether it cannot be read; False where it can, and contradicts something else.
    """

    name: str
    what: str
    steps: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None
    is_lost: bool = False

    def __str__(self) -> str:
        steps = f", steps {self.steps[0]}..{self.steps[1] - 1}" if self.steps else ""
        tokens = f", token ids {self.tokens[0]}..{self.tokens[1]}" if self.tokens else ""
        return f"{self.name}{steps}{tokens}: {self.what}"


@dataclass(slots=True)
class Report:
    """What `check` found.

    Parameters
    ----------
    run : path
        The run's folder.
    committed_steps : int
        The commit that was checked.
    chunks : int
        How many were read.
    damage : list of Damage
        Empty in a whole run.
    leftovers : list of str
        Files of an interrupted write, which are no damage.
    recomputed : list of str
        Arrays that were computed again from others and compared with what is stored.
    only_read : list of str
        Arrays of which no more is known than that they are, byte for byte, what was written: nothing else in the run
        tells what they should hold, or the check did not know how to compute them.
    foreign : list of str
        Files and folders among those of the store that it did not make; they are no damage, and stay.
    """

    run: Path
    committed_steps: int
    chunks: int = 0
    damage: list[Damage] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    recomputed: list[str] = field(default_factory=list)
    only_read: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage
