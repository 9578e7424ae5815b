"""Numbers as a text tells them: never on the other side of a level, and never all or none where it is not."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def beside(number: float, *levels: float, digits: int = 2) -> str:
    """A number in so many digits, or as many more as it takes to show on which side of each level it is.

    Examples
    --------
    >>> beside(0.0496, 0.05), beside(0.05, 0.05), beside(0.05004, 0.05), beside(0.0100004, 0.01, 0.05)
    ('0.05', '0.05', '0.05004', '0.0100004')
    """
    exact = 17  # digits that tell any two float64 apart
    for enough in range(digits, exact):
        text = f"{number:.{enough}g}"
        if all((float(text) <= level) == (number <= level) for level in levels):
            return text
    return f"{number:.{exact}g}"


def at_most(number: float, digits: int = 2) -> str:
    """A number in so many digits, rounded up: what is at most so much is not more than the text says.

    Examples
    --------
    >>> at_most(0.2539), at_most(0.25), at_most(float("inf"))
    ('0.26', '0.25', 'inf')
    """
    return f"{float(Context(digits, ROUND_CEILING).create_decimal(Decimal(number))):.{digits}g}"


def at_least(number: float, digits: int = 3) -> str:
    """A number in so many digits, rounded down.

    Examples
    --------
    >>> at_least(3.938), at_least(4.0)
    ('3.93', '4')
    """
    return f"{float(Context(digits, ROUND_FLOOR).create_decimal(Decimal(number))):.{digits}g}"


def percent(share: float, digits: int = 2) -> str:
    """A fraction as text: 0% and 100% stand for exactly none and all.

    Examples
    --------
    >>> percent(0.25), percent(1e-6), percent(0.0), percent(0.999999), percent(1.0)
    ('25.00%', '< 0.01%', '0%', '> 99.99%', '100%')
    >>> percent(0.25, 0), percent(0.004, 0), percent(0.996, 0)
    ('25%', '< 1%', '> 99%')
    """
    if share in (0, 1):
        return f"{share:.0%}"
    least = 10.0 ** -(digits + 2)
    if share < least:
        return f"< {least:.{digits}%}"
    return f"> {1 - least:.{digits}%}" if share > 1 - least else f"{share:.{digits}%}"
