"""What a check finds: damage, told by array, steps and tokens, and leftovers, which are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong: the array or file, the step labels ``[first, stop)`` it touches, and a sentence."""

    name: str
    what: str
    steps: tuple[int, int] | None = None
    tokens: tuple[int, int] | None = None

    def __str__(self) -> str:
        steps = f", steps {self.steps[0]}..{self.steps[1] - 1}" if self.steps else ""
        tokens = f", token ids {self.tokens[0]}..{self.tokens[1]}" if self.tokens else ""
        return f"{self.name}{steps}{tokens}: {self.what}"


@dataclass(slots=True)
class Report:
    """What `check` found. `leftovers` of an interrupted write are no damage."""

    run: Path
    committed_steps: int
    chunks: int = 0
    damage: list[Damage] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage
