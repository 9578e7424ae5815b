"""What `crucible import` says: what a file would bring, and what was brought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from crucible.console import bar, next_command, note, say, say_json, say_table
from crucible.interchange.file_table import FILE_ARRAYS
from crucible.interchange.importing.importer import holds_several, import_run, import_runs
from crucible.interchange.matching import list_file
from crucible.interchange.report import Transfer
from crucible.units import counted, steps_text, time_text


def list_arrays(file: str, which: Mapping[str, Any], *, as_json: bool) -> int:
    """A row for each array of a file: what it would come in as, or why it would not."""
    rows = list_file(file, **which)
    if as_json:
        say_json({"file": file, "arrays": rows})
        return 0
    several = any(row["run"] for row in rows)
    header = [*(["run"] if several else []), "in the file", "dtype", "shape", "comes in as", "dims", "meaning"]
    say_table(header, [[*([row["run"]] if several else []), *_cells(row)] for row in rows])
    if any(row["comes_in_as"] is None for row in rows):
        say(f"names that --map takes: {', '.join(FILE_ARRAYS)}")
    return 0


def _cells(row: Mapping[str, Any]) -> list[str]:
    shape = " x ".join(f"{size:,}" for size in row["shape"])
    name = row["name"].encode("unicode_escape", "surrogatepass").decode()[:80]
    return [name, row["dtype"], shape, row["comes_in_as"] or "-", " x ".join(row["dims"]), row["meaning"]]


def import_file(run_file: str, run: str, which: Mapping[str, Any], how: Mapping[str, Any], *, as_json: bool) -> int:
    """Import one run, or each run of a file that holds several, and say what came of it."""
    several = holds_several(run_file, **which)
    with bar("import", "row") as progress:
        if several:
            only = {name: value for name, value in which.items() if name != "parameter"}
            made = import_runs(run_file, run, **only, **how, progress=progress)
        else:
            made = (import_run(run_file, run, **which, **how, progress=progress),)
    if as_json:
        say_json([_plain(each) for each in made] if several else _plain(made[0]))
        return 0
    for each in made:
        tell(each)
    if not made:
        say(f"nothing to do: every run of the file is in {run} already, with the same numbers")
        return 0
    if several:
        say(f"a set of {counted(len(made), 'run')}: {run}")
    next_command("analyze", *(each.run for each in made))
    return 0


def tell(made: Transfer) -> None:
    """What one import brought, left out, assumed and found."""
    if made.diverged:
        say(made.diverged)
    for name, why in made.left_out.items():
        note(f"left out: {name} ({why})")
    for sentence in made.assumed:
        note(f"note: {sentence}")
    for difference in made.differences:
        note(f"differs from what the weights give: {difference}")
    steps = steps_text(made.first_step, made.last_step, made.states, made.resolution_steps)
    say(f"imported: {made.run}, {steps}, {counted(made.tokens, 'token')} in {time_text(made.elapsed_s)}")


def _plain(made: Transfer) -> dict[str, Any]:
    told = asdict(made) | {"run": str(made.run), "path": str(made.path), "metadata": str(made.metadata)}
    arrays = [{"name": a.name, "dtype": a.code, "shape": list(a.shape)} for a in made.arrays]
    return told | {"arrays": arrays, "differences": [str(difference) for difference in made.differences]}
