"""Parses short lists and ranges, and holds the arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import Any

from crucible.inputs.config import ConfigError


def names(text: str | None) -> list[str] | None:
    """The names in a text like W,loss; None stays None.

    Examples
    --------
    >>> names("W, loss")
    ['W', 'loss']
    """
    found = None if text is None else [name.strip() for name in text.split(",") if name.strip()]
    if found == []:
        raise ConfigError(f"{text!r} names no array; write for example W,loss")
    return found


def ids(text: str | None) -> list[int] | None:
    """The numbers in a text like 3,17."""
    try:
        found = None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{text!r} is no list of token ids; write for example 3,17,29") from None
    if found and max(map(abs, found)) >= 1 << 63:
        raise ConfigError(f"{text!r}: a token id has at most 63 bits")
    return found


def span(text: str | None) -> tuple[int | None, int | None] | None:
    """The pair of a text like 100:200; None for an end that is left out.

    Examples
    --------
    >>> span("100:200"), span("100:")
    ((100, 200), (100, None))
    """
    if text is None:
        return None
    first, colon, stop = text.partition(":")
    if not colon or not all(part.isdecimal() or not part for part in (first, stop)) or not (first or stop):
        raise ConfigError(f"{text!r} is no range of steps; write for example 100:200")
    return (int(first) if first else None), (int(stop) if stop else None)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Which tokens and which steps of a run: the same three flags for every command that asks of a part."""
    group = parser.add_argument_group("of a part of the run")
    group.add_argument("--population", metavar="NAME", help="tokens of a population: dead, live, or one the run names")
    group.add_argument("--tokens", metavar="ID,ID", help="these token ids")
    group.add_argument("--steps", metavar="FIRST:STOP", help="labels of the first step and of one past the last")


def selection(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_selection` was told, as the options of the public functions."""
    return {
        "population": arguments.population,
        "tokens": ids(arguments.tokens),
        "steps": span(arguments.steps),
    }


def pairs(texts: list[str]) -> dict[str, str]:
    """The pairs of texts like OLD=NEW.

    Examples
    --------
    >>> pairs(["embeddings=W", "a=b=loss"])
    {'embeddings': 'W', 'a=b': 'loss'}
    """
    found = {}
    for text in texts:
        old, _, new = text.rpartition("=")
        if not old or not new:
            raise ConfigError(f"--map {text!r}: write for example --map emb=W")
        found[old] = new
    return found
