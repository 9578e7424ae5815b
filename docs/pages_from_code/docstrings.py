"""Docstrings as reStructuredText: what reads well in a terminal, and would be taken for markup on the site."""

from __future__ import annotations

import re

VARIABLE = re.compile(r"^    ([\w*]+(?:, [\w*]+)*) : ")
SECTION = re.compile(r"^(Parameters|Returns|Yields|Raises|Notes|Examples|Attributes)$")


def as_restructured(lines: list[str]) -> list[str]:
    r"""The lines with the variables of an answer as a list, and with | as the bars of an absolute value.

    Examples
    --------
    >>> as_restructured(["Returns", "-------", "Dataset", "    gap : int64 - still steps,", "        |g|"])[3:]
    ['', '    * gap : int64 - still steps,', '      \\|g\\|']
    """
    made: list[str] = []
    section, in_list = "", False
    for line in lines:
        section = line if SECTION.match(line) else section
        was_in_list, starts = in_list, section == "Returns" and bool(VARIABLE.match(line))
        in_list = starts or (was_in_list and line.startswith("        "))
        if made and made[-1].strip() and line.strip() and starts != was_in_list and (starts or not in_list):
            made.append("")
        shown = f"    * {line.strip()}" if starts else f"      {line.strip()}" if in_list else line
        made.append(shown if section == "Examples" else escaped(shown))
    return made


def escaped(line: str) -> str:
    """The line with bars that begin no substitution; those in literals stay."""
    parts = re.split(r"(``.*?``)", line)
    return "".join(part if part.startswith("``") else part.replace("|", "\\|") for part in parts)
