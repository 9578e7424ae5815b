"""Which pages are made from the code and kept, and what each holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pages_from_code import command_line, configuration, errors, python_names, variables

DOCS = Path(__file__).parents[1]
MADE = "<!-- Made from the code by `make reference`; what is changed here by hand will be overwritten. -->\n\n"
PAGES: dict[str, Callable[[], str]] = {
    "reference/command-line.md": command_line.page,
    "reference/configuration.md": configuration.page,
    "reference/errors.md": errors.page,
    "reference/variables.md": variables.page,
    "reference/api/index.md": python_names.index,
    **{f"reference/api/{package}.md": partial(python_names.page, package) for package in python_names.PACKAGES},
}


def content(name: str) -> str:
    """What the page should hold."""
    return MADE + PAGES[name]()


def write() -> list[str]:
    """Write every page that is stale and return their names."""
    stale = [name for name in PAGES if not (DOCS / name).exists() or (DOCS / name).read_text("utf-8") != content(name)]
    for name in stale:
        (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / name).write_text(content(name), encoding="utf-8")
    return stale
