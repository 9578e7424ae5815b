"""Several tables in one trajectory: a group ``parameters/<name>`` for each recorded parameter. Pure functions.

Crucible writes one table, at the root, and reads no other yet. What the groups are called is settled here, so that
files of today and of later stand side by side; docs/reference/format.md says what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from store.errors import MetadataError, NewerFormatError

PARAMETERS = "parameters"
"""The group below the root that holds a group for each parameter."""
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.\-]{0,198}[A-Za-z0-9_])?")


def check_names(names: Iterable[str]) -> None:
    """Raise unless parameters of these names can have their groups in one trajectory.

    Raises
    ------
    ValueError
        A name is no name of a folder on every system, or two differ in upper and lower case alone: one folder would
        hold both on a disk that does not tell these apart.
    """
    names = list(names)
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"a parameter cannot be recorded as {name!r}; "
                "a name is 1 to 200 letters and digits of ASCII, '_' and, inside, '.' and '-'"
            )
    if (both := of_one_folder(names)) is not None:
        raise ValueError(f"{both[0]!r} and {both[1]!r} differ in upper and lower case alone; rename one of them")


def of_one_folder(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names of which a disk that does not tell upper case from lower would make one folder; None without such.

    Examples
    --------
    >>> of_one_folder(["loss", "W", "w"])
    ('W', 'w')
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return other, name
    return None


def names_among(paths: Iterable[str]) -> list[str]:
    """Names of the parameters that have groups among the paths of a group's nodes, in their order.

    Examples
    --------
    >>> names_among(["W", "parameters", "parameters/wte", "parameters/wte/W", "parameters/lm_head.weight/W"])
    ['wte', 'lm_head.weight']
    """
    below = (path.split("/") for path in paths if path.startswith(f"{PARAMETERS}/"))
    return list(dict.fromkeys(parts[1] for parts in below))


def refuse_tables(paths: Iterable[str], where: Path) -> None:
    """Raise where a commit holds tables of parameters: this code reads the one at the root alone.

    Raises
    ------
    NewerFormatError
        It does.
    MetadataError
        It does, under names that cannot be.
    """
    names = names_among(paths)
    if not names:
        return
    try:
        check_names(names)
    except ValueError as error:
        raise MetadataError(f"{where}: {error}") from None
    raise NewerFormatError(
        f"{where}: the run holds tables of several parameters ({', '.join(names)}), and this Crucible reads runs of "
        "one table. Update Crucible; xarray.open_datatree opens the run meanwhile"
    )
