"""What goes to the terminal: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from crucible.progress import Progress, silent


def say(line: str = "") -> None:
    """A line of results, at once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """A line that is no result. Names from files may hold anything: what a terminal would obey is shown as text."""
    shown = (c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
    sys.stderr.write("".join(shown) + "\n")
    sys.stderr.flush()


def next_command(*words: object) -> None:
    """Tell which command probably comes next, on stderr: it is no result."""
    note(f"next: crucible {shlex.join(str(word) for word in words)}")


def say_json(value: Any) -> None:  # noqa: ANN401 - JSON
    """One JSON document; a number that does not exist is null, never NaN."""
    say(json.dumps(_strict(value), indent=2, allow_nan=False))


@contextmanager
def bar(title: str, unit: str) -> Iterator[Progress]:
    """A progress bar on stderr, on a terminal only, where the work takes more than a second."""
    if not sys.stderr.isatty():
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
    cells = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        parts = [
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        say("  ".join(parts).rstrip())


def _strict(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
