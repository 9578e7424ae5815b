"""Numbers as people read them."""

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


def time_text(seconds: float) -> str:
    """A duration.

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
