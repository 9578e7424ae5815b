"""The command line: parse, call one function, print. `CODES` says what each exit code means."""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, Never

from crucible.cli import inspection, interchange, training
from crucible.cli.command import Command
from crucible.console import note, say
from crucible.inputs.config import meant

COMMANDS: tuple[Command, ...] = (*training.COMMANDS, *inspection.COMMANDS, *interchange.COMMANDS)

CODES = {
    0: "all is well", 1: "failed", 2: "wrong usage", 3: "damage found", 4: "no trajectory there",
    5: "locked by a writer", 6: "over the budget", 129: "ended by SIGHUP", 130: "ended by Ctrl-C",
    138: "ended by SIGUSR1", 143: "ended by SIGTERM", 152: "ended by SIGXCPU",
}  # fmt: skip
"""Each exit code and what it means. From 129 on, 128 and the signal: `train` and `resume` have committed by then."""

EXIT_CODES = {
    "ConfigError": 2, "InputError": 1, "CheckpointError": 1,
    "DamageError": 3, "NotATrajectoryError": 4, "LockedError": 5, "BudgetError": 6, "StoreError": 1,
    "KeyboardInterrupt": 130, "OSError": 1, "MemoryError": 1, "ValueError": 2,
}  # fmt: skip
"""What can go wrong without a mistake of ours: the name of an error or of the first of its bases that stands here.
Names, so that no module is loaded for it. A bare ValueError is how a function refuses an argument."""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front, and which word was probably meant."""

    def error(self, message: str) -> Never:
        """Exit with 2."""
        if wrong := re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL):
            name, given, known = wrong.groups()
            choices = [choice.strip("' ") for choice in known.split(",")]
            if name == "COMMAND":
                message = f"there is no command {given!r}{meant(given, choices)}"
            else:
                listed = ", ".join(choices)
                message = f"{name} cannot be {given!r}, only one of {listed}{meant(given.lower(), choices)}"
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> Never:
        """End with this exit code. The message quotes what was typed, and may hold anything."""
        if message:
            note(message.rstrip("\n"))
        sys.exit(status)

    def refuse_unknown(self, words: Sequence[str]) -> Never:
        """Exit with 2 because of words that are neither flags nor arguments of this command."""
        flag = words[0].partition("=")[0]
        flags = [option for action in self._actions for option in action.option_strings]
        if flag in flags:  # it would not be left over if it stood where this command looks for it
            self.error(f"{flag} comes after the command: {self.prog} {flag} ...")
        if flag.startswith("-"):
            self.error(f"unknown flag {flag}{meant(flag, flags)}")
        self.error(f"one argument too many: {flag}")


class ShowVersion(argparse.Action):
    """Prints the version of the installed distribution; it is looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:  # noqa: ANN401 - argparse
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and exit."""
        from crucible.version import __version__

        say(f"crucible {__version__}")
        parser.exit()


TORCH = {"OMP_WAIT_POLICY": "passive", "THP_MEM_ALLOC_ENABLE": "1"}
"""Set before torch is loaded, unless the user has. Threads sleep at barriers, where they would starve each other on a
busy machine; and memory comes in large pages, where Linux has them: the same bits (docs/explanation/threads.md)."""


def build_parser() -> tuple[OneLineParser, dict[str, OneLineParser]]:
    """The parser of all commands, and the parser of each; loads nothing heavy."""
    parser = OneLineParser(
        prog="crucible",
        description="Record every optimizer step of dead-token embeddings.",
        epilog=f"Exit codes: {', '.join(f'{code} {words}' for code, words in CODES.items())}.",
    )
    parser.add_argument("--version", action=ShowVersion, help="show the version and exit")
    parsers = {}
    words = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=OneLineParser)
    for each in COMMANDS:
        word = words.add_parser(each.name, help=each.help, description=each.help, allow_abbrev=False)
        word.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
        each.configure(word)
        word.set_defaults(function=each.run)
        parsers[each.name] = word
    return parser, parsers


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for variable, value in TORCH.items():
        os.environ.setdefault(variable, value)
    parser, parsers = build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        parsers[arguments.command].refuse_unknown(unknown)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code: int = arguments.function(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        return _explain(error, verbose=arguments.verbose)
    return code


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as a line, without the place in the code that Python would show."""
    note(f"note: {message}")


def _sentence(error: BaseException) -> str:
    """What an error says; one of the operating system names the file first, and no number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _explain(error: BaseException, *, verbose: bool) -> int:
    """One line for an error; the traceback only when it is asked for."""
    if verbose:
        for line in "".join(traceback.format_exception(error)).splitlines():
            note(line)
    if isinstance(error.__cause__, KeyboardInterrupt):  # Python 3.11 makes a RuntimeError of it as a class is made
        error = error.__cause__
    names = [kind.__name__ for kind in type(error).__mro__]
    text = " ".join(_sentence(error).split())
    code = next((EXIT_CODES[name] for name in names if name in EXIT_CODES), None)
    if code is None:
        text = f"unexpected {type(error).__name__}: {text} (this is a mistake of Crucible's; -v shows where)"
    note(f"crucible: {text or ('interrupted' if 'KeyboardInterrupt' in names else names[0])}")
    return 1 if code is None else code
