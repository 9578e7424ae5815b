"""The record that describes one command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A word of the command line: one line of help, its flags, and the function that it runs."""

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_json(parser: argparse._ActionsContainer) -> None:
    """The flag of every command that reports."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")
