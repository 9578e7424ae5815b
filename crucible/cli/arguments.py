"""Small texts of the command line to values."""

from __future__ import annotations

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
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{text!r} is no list of token ids; write for example 3,17,29") from None


def span(text: str | None) -> tuple[int, int] | None:
    """The pair of a text like 100:200."""
    if text is None:
        return None
    first, _, stop = text.partition(":")
    if not (first.isdecimal() and stop.isdecimal()):
        raise ConfigError(f"{text!r} is no range of steps; write for example 100:200")
    return int(first), int(stop)


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
