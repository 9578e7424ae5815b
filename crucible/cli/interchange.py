"""export, import, compact, upgrade, compare."""

from __future__ import annotations

import argparse

from crucible.cli.arguments import add_selection, selection
from crucible.cli.command import Command, add_json
from crucible.cli.inspection import add_run
from crucible.console import bar, next_command, note, say, say_json

EQUAL, DIFFERENT = 0, 1


def _configure_export(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("file", metavar="FILE.safetensors", help="file to write")
    parser.add_argument("--only", metavar="W,loss", help="arrays to write (default: those of the notebook)")
    add_selection(parser)
    parser.add_argument(
        "--as", dest="dtype", choices=("uint16", "bfloat16"), default="uint16", help="how bits of bfloat16 are declared"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def _export(arguments: argparse.Namespace) -> int:
    from crucible.cli.arguments import names
    from crucible.interchange.exporter import export_run
    from crucible.units import size_text, time_text

    with bar("export", "B") as progress:
        made = export_run(
            arguments.run,
            arguments.file,
            only=names(arguments.only),
            **selection(arguments),
            dtype=arguments.dtype,
            force=arguments.force,
            progress=progress,
        )
    for name, why in made.left_out.items():
        note(f"left out: {name} ({why})")
    for name in made.of_all_tokens:
        note(f"{name} is that of all tokens of the run, not of these {made.tokens:,}; --only leaves it out")
    say(f"exported: {made.path}, {size_text(made.file_bytes)} in {time_text(made.elapsed_s)}")
    return 0


def _configure_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="safetensors, HDF5, .npz, or a folder of checkpoints")
    parser.add_argument("run", metavar="RUN", nargs="?", help="folder to make; of a file of several runs, one for all")
    parser.add_argument("--list", action="store_true", help="show what each array would become, and write nothing")
    parser.add_argument("--skip", action="append", default=[], metavar="NAME", help="leave an array out; repeatable")
    parser.add_argument(
        "--map", action="append", default=[], metavar="OLD=NEW", help="take the array OLD as NEW; repeatable"
    )
    parser.add_argument("--parameter", metavar="NAME", help="array of the checkpoints to take")
    parser.add_argument("--lossy", action="store_true", help="round a float16 W to bfloat16, a float64 one to float32")
    parser.add_argument(
        "--motion-threshold",
        type=float,
        metavar="X",
        help="smallest displacement that counts as motion, in cells (default: as in metadata.json, else 0.1)",
    )
    add_json(parser)


def _import(arguments: argparse.Namespace) -> int:
    from crucible.cli.arguments import pairs
    from crucible.cli.importing import import_file, list_arrays
    from crucible.inputs.config import ConfigError

    which = {"skip": arguments.skip, "rename": pairs(arguments.map), "parameter": arguments.parameter}
    if arguments.list:
        return list_arrays(arguments.file, which, as_json=arguments.json)
    if arguments.run is None:
        raise ConfigError("import needs the RUN to make; --list says what a file would bring")
    how = {"lossy": arguments.lossy, "motion_threshold": arguments.motion_threshold}
    return import_file(arguments.file, arguments.run, which, how, as_json=arguments.json)


def _configure_compact(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def _compact(arguments: argparse.Namespace) -> int:
    from crucible.units import size_text, time_text
    from store.upkeep.compact import compact

    with bar("compact", "B") as progress:
        made = compact(arguments.run, progress=progress)
    before, after = size_text(made.before_bytes), size_text(made.after_bytes)
    ratio = made.raw_bytes / max(1, made.after_bytes)
    say(f"compacted: {made.run}, {before} to {after}, ratio {ratio:.1f}, in {time_text(made.elapsed_s)}")
    next_command("info", made.run)
    return 0


def _configure_upgrade(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def _upgrade(arguments: argparse.Namespace) -> int:
    from crucible.units import time_text
    from store.upkeep.upgrade import upgrade

    with bar("upgrade", "B") as progress:
        made = upgrade(arguments.run, progress=progress)
    if made.elapsed_s:
        files = f"{made.before_files:,} to {made.after_files:,} files"
        say(f"upgraded: {made.run}, format {made.was_of_version} to 2, {files}, in {time_text(made.elapsed_s)}")
    else:
        say(f"nothing to do: {made.run} is of format {made.was_of_version}, the newest")
    return 0


def _configure_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("others", metavar="RUN", nargs="+", help="folders of others, each compared with the first")
    add_selection(parser)
    add_json(parser)


def _compare(arguments: argparse.Namespace) -> int:
    from crucible.inspection.compare import compare, tell_comparison

    with bar("compare", "task") as progress:
        found = compare(arguments.run, *arguments.others, **selection(arguments), progress=progress)
    if arguments.json:
        say_json(found)
    else:
        tell_comparison(found, say)
    return DIFFERENT if found["differs"] else EQUAL


COMMANDS = (
    Command("export", "write a run to the notebook's safetensors file", _configure_export, _export),
    Command("import", "make a run from a file of weights, or from a folder of checkpoints", _configure_import, _import),
    Command(
        "compact",
        "rewrite a finished run into long blocks, permanently; it cannot be resumed",
        _configure_compact,
        _compact,
    ),
    Command(
        "upgrade", "rewrite a run of format 1 in format 2, so that it can be resumed", _configure_upgrade, _upgrade
    ),
    Command(
        "compare",
        "find the first difference of runs, bit for bit; exit code 1 if there is one",
        _configure_compare,
        _compare,
    ),
)
