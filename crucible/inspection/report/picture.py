"""What a picture of a report is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE, NARROW = 7.6, 4.1
"""Widths in inches: of a page on a screen or on paper, and on a phone."""
Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Picture(Generic[Subject]):
    """A picture of a run, or of several.

    Parameters
    ----------
    name : str
        Of its files.
    heading : str
    needs : tuple of str
        Answers without which it is left out.
    draw : function of the subject and a width in inches to a Figure
    caption : function of the subject to str
        What is seen and what its words mean; words between asterisks stand out.
    alt : function of the subject to str
        The same in numbers, for who does not see it.
    """

    name: str
    heading: str
    needs: tuple[str, ...]
    draw: Callable[[Subject, float], Figure]
    caption: Callable[[Subject], str]
    alt: Callable[[Subject], str]
