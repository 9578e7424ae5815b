"""info, check, analyze, watch, view, report."""

from __future__ import annotations

import argparse
from contextlib import suppress

from crucible.cli.arguments import add_selection, selection
from crucible.cli.command import Command, add_json
from crucible.console import bar, next_command, note, say, say_json, say_table
from crucible.units import counted

NORMS = ("l1", "l2", "linf")


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run that a command reads."""
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its trajectory.zarr")


def add_question(parser: argparse.ArgumentParser) -> None:
    """The flags that say what counts as motion."""
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="smallest displacement that counts as motion, in cells (default: the run's own)",
    )
    parser.add_argument("--norm", choices=NORMS, default="l2", help="norm of the displacement (default: l2)")


def _configure_info(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_json(parser)


def _info(arguments: argparse.Namespace) -> int:
    from crucible.inspection.info import has_moves, info, table

    found = info(arguments.run)
    if arguments.json:
        say_json(found)
        return 0
    header, rows, lines = table(found)
    say_table(header, rows)
    for line in lines:
        say(line)
    if found["way_on"] or has_moves(found):
        next_command(*(found["way_on"] or ["analyze", arguments.run]))
    return 0


def _configure_check(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--repair",
        action="store_true",
        help="remove leftovers, mend what can be mended, and cut back to the last whole step",
    )
    add_json(parser)


def _check(arguments: argparse.Namespace) -> int:
    from crucible.cli.checking import check_run

    return check_run(arguments.run, repair=arguments.repair, as_json=arguments.json)


def _configure_analyze(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of runs; of several, a table with a row a run")
    add_question(parser)
    add_selection(parser)
    _add_reference(parser)
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="address of a dask cluster, which must reach the run by the same path"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print all numbers as CSV, a row a run")
    add_json(form)


def _add_reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reference-learning-rate",
        type=float,
        metavar="X",
        help="learning rate to judge the end state by (default: the last recorded one)",
    )


def _analyze(arguments: argparse.Namespace) -> int:
    from crucible.cli.comparing import analyze_runs
    from crucible.inspection.analyze import analyze

    how = {"threshold": arguments.threshold, "norm": arguments.norm, "scheduler": arguments.scheduler}
    how["reference_learning_rate"] = arguments.reference_learning_rate
    how |= selection(arguments)
    if len(arguments.runs) > 1 or arguments.csv:
        return analyze_runs(arguments.runs, how, as_csv=arguments.csv, as_json=arguments.json)
    run = arguments.runs[0]
    with bar("analyze", "task") as progress:
        answers = analyze(run, **how, progress=progress)
    if arguments.json:
        say_json(answers)
        return 0
    from crucible.inspection.summary import numbers, opening

    of = f"; of {answers['part']} alone" if answers["part"] else ""
    header = f"{answers['run']}: {counted(answers['steps'], 'step')}, {counted(answers['tokens'], 'token')}{of}"
    for line in (*opening(answers), header, *numbers(answers)):
        say(line)
    next_command("report", run)
    return 0


def _configure_watch(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_question(parser)
    add_selection(parser)
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="S", help="seconds between two looks (default: 2)"
    )
    parser.add_argument("--once", action="store_true", help="look once and end; exit 4 if there is no run yet")
    parser.add_argument("--json", action="store_true", help="print each commit as one line of JSON")


def _watch(arguments: argparse.Namespace) -> int:
    from crucible.cli.watching import watch_run

    how = {"threshold": arguments.threshold, "norm": arguments.norm}
    part = selection(arguments)
    return watch_run(arguments.run, arguments.interval, how, part, once=arguments.once, as_json=arguments.json)


def _configure_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, or its trajectory.zarr; or several")
    add_question(parser)
    add_selection(parser)
    _add_reference(parser)
    parser.add_argument(
        "--out", metavar="FILE.html", help="file to write (default: report.html in the first run's folder)"
    )
    parser.add_argument("--figures", metavar="DIR", help="write each picture there as well, as PNG and SVG")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def _report(arguments: argparse.Namespace) -> int:
    from crucible.inspection.report import report

    with bar("report", "picture") as progress:
        how = {"threshold": arguments.threshold, "norm": arguments.norm, "figures": arguments.figures}
        how |= {"force": arguments.force, "progress": progress, **selection(arguments)}
        how["reference_learning_rate"] = arguments.reference_learning_rate
        path = report(arguments.runs, arguments.out, **how)
    say(f"report: {path}")
    return 0


def _configure_view(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="folder of a run, its trajectory.zarr, or the address of a published page"
    )
    add_question(parser)
    add_selection(parser)
    parser.add_argument("--port", type=int, default=0, metavar="N", help="port to listen at (default: any free one)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="H",
        help="address to listen at (default: 127.0.0.1, for this machine only)",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    parser.add_argument("--export", metavar="DIR", help="write the page as a folder for any static server instead")
    parser.add_argument("--force", action="store_true", help="replace an earlier export")


def _view(arguments: argparse.Namespace) -> int:
    from crucible.viewer.hosted import is_address

    if is_address(arguments.run):
        return _view_hosted(arguments)
    how = {"threshold": arguments.threshold, "norm": arguments.norm, **selection(arguments)}
    if arguments.export:
        from crucible.viewer.export import export_page

        say(f"page: {export_page(arguments.run, arguments.export, force=arguments.force, **how)}")
        return 0
    from crucible.viewer.show import open_browser, view

    opened = view(arguments.run, host=arguments.host, port=arguments.port, framed=False, **how)
    with opened as page, suppress(KeyboardInterrupt):  # Ctrl-C may come before the page waits for it
        say(page.url)
        note("Ctrl-C ends it")
        if not arguments.no_browser:
            open_browser(page.url)
        page.wait()
    return 0


def _view_hosted(arguments: argparse.Namespace) -> int:
    """Open a page that is published already: nothing is served or reckoned here."""
    from crucible.viewer.hosted import find_page
    from crucible.viewer.show import open_browser

    parser = argparse.ArgumentParser()
    _configure_view(parser)
    usual = vars(parser.parse_args([arguments.run, "--no-browser"]))
    given = [name for name, value in usual.items() if name != "no_browser" and getattr(arguments, name) != value]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{arguments.run}: is a page already, which was made with all it shows; leave out {flags}")
    page = find_page(arguments.run)
    say(page)
    if not arguments.no_browser:
        open_browser(page, wait=True)
    return 0


COMMANDS = (
    Command("info", "show what a run holds: arrays, sizes, config, progress", _configure_info, _info),
    Command("check", "verify every chunk, checksum and derived value", _configure_check, _check),
    Command(
        "analyze",
        "tell when the tokens froze, and whether the run has reached its end state",
        _configure_analyze,
        _analyze,
    ),
    Command("watch", "follow a run that another process is training", _configure_watch, _watch),
    Command("view", "show a live page: the tokens moving, step by step", _configure_view, _view),
    Command("report", "write pictures and answers into one HTML file", _configure_report, _report),
)
