"""What is said of several runs at once: a table of answers, and where they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crucible.console import bar, next_command, note, say, say_json, say_table
from crucible.inspection.analyze import analyze
from crucible.inspection.runs import as_csv as csv_of
from crucible.inspection.runs import find_runs, said_of_several, table, told_of_copies


def analyze_runs(runs: Sequence[str], how: Mapping[str, Any], *, as_csv: bool, as_json: bool) -> int:
    """The answers about each run, in a table with a row a run."""
    folders = find_runs(runs)
    with bar("analyze", "run") as progress:
        answers = []
        for number, folder in enumerate(folders, 1):
            answers.append(analyze(folder, **how))
            progress(number, len(folders))
    if as_json or as_csv:
        for line in told_of_copies({folder.name: folder for folder in folders}):
            note(f"note: {line}")
    if as_json:
        say_json(answers)
    elif as_csv:
        for line in csv_of(answers).splitlines():
            say(line)
    else:
        header, rows = table(answers)
        say_table(header, rows)
        part = [f"All of this is of {answers[0]['part']} alone."] if answers[0]["part"] else []
        for line in (*part, *said_of_several(answers)):
            say(line)
        next_command("compare" if len(folders) > 1 else "report", *folders)
    return 0
