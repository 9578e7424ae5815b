"""The words of the command line. Each parses, calls one function, and prints; heavy imports stand inside them."""

from __future__ import annotations

from crucible.commands import moving, reading, training
from crucible.commands.command import Command

COMMANDS: tuple[Command, ...] = (*training.COMMANDS, *reading.COMMANDS, *moving.COMMANDS)
