"""What may leave this machine: base names instead of paths, no names of hosts or users."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ABSOLUTE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)")
_PERSONAL = {"host", "hostname", "node", "user", "username"}


def without_paths(value: Any, key: str = "") -> Any:  # noqa: ANN401 - JSON
    """JSON with every absolute path cut to its last part, and without names of hosts and users.

    Examples
    --------
    >>> without_paths({"corpus": "/home/ada/text.txt", "user": "ada", "seeds": [42]})
    {'corpus': 'text.txt', 'seeds': [42]}
    """
    if isinstance(value, Mapping):
        return {name: without_paths(item, name) for name, item in value.items() if name not in _PERSONAL}
    if isinstance(value, list | tuple):
        return [without_paths(item, key) for item in value]
    if isinstance(value, str) and _ABSOLUTE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def name_of_run(run: Path) -> str:
    """The name of the run's folder, with the one above where it is called "run" as so many.

    Examples
    --------
    >>> name_of_run(Path("/home/ada/first/run")), name_of_run(Path("/home/ada/second"))
    ('first/run', 'second')
    """
    return f"{run.parent.name}/{run.name}" if run.name == "run" and run.parent.name else run.name
