"""reference/command-line.md, from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from crucible.cli.main import build_parser
from pages_from_code.tables import table

OPENING = """\
# Command line

`RUN` is the folder of a run or its `trajectory.zarr`. Results go to standard output, everything else (notes, progress, errors of
one line) to standard error. What a command returns is under [errors and exit codes](errors.md); what a parameter of
`plan` and `train` may be, also in a TOML file, is under [configuration](configuration.md).

`crucible --version` prints the version, `crucible COMMAND --help` what stands here.
"""


def page() -> str:
    """A section a command: what it does, how it is called, its flags."""
    parts = [OPENING]
    for name, parser in build_parser()[1].items():
        parts += [f"## {name}\n", f"{_sentence(parser.description)}\n", f"    {_usage(name, parser)}\n"]
        parts.append(table(("argument", "meaning"), _rows(parser)))
    return "\n".join(parts)


def _usage(name: str, parser: argparse.ArgumentParser) -> str:
    given = [_shown(action) for action in parser._actions if not action.option_strings or action.required]
    return " ".join(["crucible", name, *given, "[flags]"])


def _rows(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in sorted(parser._actions, key=lambda action: action.dest == "verbose"):
        if action.dest != "help":
            meaning = _sentence(action.help or "")
            choices = f" One of {', '.join(f'`{choice}`' for choice in action.choices)}." if action.choices else ""
            yield f"`{_shown(action)}`", meaning + choices


def _shown(action: argparse.Action) -> str:
    """An argument as one writes it: --port N, RUN, -v."""
    name = ", ".join(action.option_strings)
    if action.nargs == 0:
        return name
    metavar = action.metavar if isinstance(action.metavar, str) else "..." if action.choices else action.dest.upper()
    words = f"{name} {metavar}".strip()
    return f"{words} ..." if action.nargs in ("+", "*") else words


def _sentence(text: str | None) -> str:
    text = (text or "").strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?')) else '.'}"
