"""What goes to the terminal: results to stdout, everything else to stderr.

Names and values come from files and may hold anything. Every line that is printed passes `printable` here, so that no
file can move the cursor, set colours, or forge a line.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from crucible.progress import Progress, silent


def printable(text: str) -> str:
    r"""The text with everything escaped that a terminal would obey: ESC and its kind, line ends, writing directions.

    Examples
    --------
    >>> printable("run \x1b[31mred\r\n")
    'run \\x1b[31mred\\r\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def say(line: str = "") -> None:
    """A line of results, at once, also into a pipe."""
    _write(sys.stdout, printable(line))


def note(line: str) -> None:
    """A line that is no result."""
    _write(sys.stderr, printable(line))


def _write(stream: TextIO | None, text: str) -> None:
    """Write a line; what the stream's encoding does not have is escaped. None is a stream that was closed before."""
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def next_command(*words: object) -> None:
    """Tell which command probably comes next, on stderr: it is no result."""
    note(f"next: crucible {shlex.join(str(word) for word in words)}")


def say_json(value: Any) -> None:  # noqa: ANN401 - JSON
    """One JSON document; a number that does not exist is null, never NaN."""
    text = json.dumps(strict(value), indent=2, allow_nan=False)  # escapes all but ASCII, and of that all but DEL
    _write(sys.stdout, text.replace("\x7f", "\\u007f"))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person reads there. A process that was started without the stream has None in its place."""
    return stream is not None and stream.isatty()


@contextmanager
def bar(title: str, unit: str) -> Iterator[Progress]:
    """A progress bar on stderr, on a terminal only, where the work takes more than a second."""
    if not is_terminal(sys.stderr):
        yield silent
        return
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, unit_scale=unit == "B", delay=1.0, file=sys.stderr) as shown:

        def progress(done: int, total: int, words: str = "") -> None:
            shown.total = total
            if words:
                shown.set_postfix_str(words, refresh=False)
            shown.update(done - shown.n)

        yield progress


def say_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their contents; numbers to the right."""
    cells = [list(header), *[[printable(str(cell)) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        parts = [
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        say("  ".join(parts).rstrip())


def strict(value: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON values with None for NaN and infinities."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
