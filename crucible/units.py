"""Numbers and errors as people read them."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Bytes in decimal units.

    Examples
    --------
    >>> size_text(7_100_000_000), size_text(950)
    ('7.10 GB', '950 B')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            value = size / scale
            return f"{value:.2f} {unit}" if value < 10 else f"{value:,.0f} {unit}"
    return f"{size:.0f} B"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the singular for 1.

    Examples
    --------
    >>> counted(1, "step"), counted(1234, "step"), counted(0, "token")
    ('1 step', '1,234 steps', '0 tokens')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def a_or_an(noun: str) -> str:
    """The noun with its article.

    Examples
    --------
    >>> a_or_an("AdamW"), a_or_an("list")
    ('an AdamW', 'a list')
    """
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


def steps_text(first: int, last: int, states: int, apart: int) -> str:
    """Which steps are recorded: the labels of the first state and of the last, how many, how far apart at most.

    Examples
    --------
    >>> steps_text(0, 5000, 5001, 1)
    '5,000 steps'
    >>> steps_text(0, 5000, 11, 500)
    '11 states of steps 0 to 5,000, up to 500 steps apart'
    """
    if first == 0 and apart == 1:
        return f"{counted(last, 'step')}"
    gaps = "" if apart == 1 else f", up to {counted(apart, 'step')} apart"
    return f"{counted(states, 'state')} of steps {first:,} to {last:,}{gaps}"


def time_text(seconds: float) -> str:
    """A duration as text.

    Examples
    --------
    >>> time_text(0.0123), time_text(75)
    ('12.3 ms', '1 min 15 s')
    """
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def one_line(error: BaseException) -> str:
    """The beginning of what an error says, without its line breaks."""
    return " ".join(str(error).split())[:200]
