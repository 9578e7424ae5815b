"""reference/errors.md, from store.errors and the exit codes of the command line."""

from __future__ import annotations

import inspect

import crucible.cli.main as command_line
from pages_from_code.tables import table
from store import errors

CODES = """\
# Errors and exit codes

A command that fails prints one line on standard error: what is wrong, where, what was expected and found, what to do. `-v` shows the
traceback. A traceback that nobody asked for is a mistake of Crucible's.

## Exit codes

"""
ERRORS = """
`crucible compare` returns 1 where the runs differ. A code above 128 is 128 and the number of a signal: `train` and `resume` have
finished their step, written a checkpoint and committed by then ([schedulers](../how-to/schedulers.md)).

## Errors of the store

Each is also the builtin that a caller expects: `except FileNotFoundError` catches a `NotATrajectoryError`. All are in `store.errors` and in
`store`. Functions of `analysis` raise builtins alone: `ValueError` for an argument or a Dataset that cannot be, `TypeError`
for what is no Dataset.

"""
OTHERS = {
    "ConfigError": "a parameter that does not exist, or a value that it cannot have",
    "InputError": "a corpus, tokenizer or mask that cannot be trained on",
    "CheckpointError": "training state that is missing or does not fit",
    "KeyboardInterrupt": "Ctrl-C",
    "OSError": "the system refused: a full disk, no permission, a file that is not there",
    "MemoryError": "no memory",
    "ValueError": "an argument that a function refuses",
}


def page() -> str:
    """The exit codes, the tree of the store's errors, what each means and returns, and the errors of others."""
    parts = [CODES, table(("code", "meaning"), _codes()), ERRORS, f"```text\n{_tree()}\n```\n\n"]
    parts += [table(("error", "meaning", "exit code"), _errors()), "\n## Other errors of a command\n\n"]
    parts += [table(("error", "meaning", "exit code"), _others())]
    return "".join(parts)


def _codes() -> list[tuple[str, str]]:
    """Each code with its meaning, as the command line's own table has it."""
    return [(f"`{code}`", meaning) for code, meaning in command_line.CODES.items()]


def _tree() -> str:
    return inspect.cleandoc((errors.__doc__ or "").split("::\n")[1].split("\n\nA message")[0])


def _errors() -> list[tuple[str, str, str]]:
    found = [(name, kind) for name, kind in vars(errors).items() if inspect.isclass(kind)]
    return [(f"`{name}`", _first(kind), _code(*(base.__name__ for base in kind.__mro__))) for name, kind in found]


def _others() -> list[tuple[str, str, str]]:
    """What else the command line knows, by name."""
    names = [name for name in command_line.EXIT_CODES if not hasattr(errors, name)]
    if unsaid := set(names) - OTHERS.keys():
        raise ValueError(f"pages_from_code.errors.OTHERS does not say what {', '.join(sorted(unsaid))} means")
    return [(f"`{name}`", OTHERS[name], _code(name)) for name in names]


def _first(kind: type) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")


def _code(*names: str) -> str:
    return f"`{next(command_line.EXIT_CODES[name] for name in names if name in command_line.EXIT_CODES)}`"
