"""Which array of a file is which array of a run, by its name; and the runs of a file that holds several."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from crucible.interchange.file_table import CALLED, FILE_ARRAYS, OWN_STEPS, expected_of
from crucible.interchange.notebook import NAME_SHOWN, check_arrays, some_names
from crucible.interchange.sources.named import NamedArrays
from crucible.interchange.sources.opening import open_source
from crucible.interchange.sources.source import Source
from store.errors import TensorFileError

_OF_A_RUN = re.compile(r"(run_?[0-9]+)[_.](.+)", re.IGNORECASE)
SKIPPED = "as --skip asked"


@dataclass(frozen=True, slots=True)
class Match:
    """The arrays of one run in a file.

    Attributes
    ----------
    run : str
        What the file calls the run, where it holds several; else "".
    names : dict of str to str
        The file's name of each array, by the store's.
    unknown : tuple of str
        Names that are in no table.
    left_out : dict of str to str
        What is not taken, and why.
    """

    run: str
    names: dict[str, str]
    unknown: tuple[str, ...]
    left_out: dict[str, str]


def match(
    source: Source, *, skip: Sequence[str] = (), rename: Mapping[str, str] | None = None, needs_weights: bool = True
) -> list[Match]:
    """The runs of a file, each with its arrays; one of no name where the file holds one run.

    Parameters
    ----------
    source : Source
        The open file.
    skip : sequence of str
        Names that are left out: of the file, or without the run's name in front.
    rename : mapping of str to str
        What an array of the file is, where its name does not say it, as ``--map`` gives it.
    needs_weights : bool
        Refuse a file without W.

    Raises
    ------
    TensorFileError
        `skip` or `rename` name what is not there, or W is to be left out, or two arrays would be one.
    """
    renamed = dict(rename or {})
    parts = {name: _parts(name) for name in (*source.tensors, *source.others)}
    _refuse_absent(parts, skip, renamed)
    called = {name: _called(name, parts[name][1], renamed) for name in parts}
    left_out = {name: SKIPPED for name in parts if name in skip or parts[name][1] in skip}
    runs = [parts[name][0] for name in source.tensors if called[name] == "W" and name not in left_out]
    if not runs and needs_weights:
        _refuse_without_weights(source, called, left_out)
    runs = [""] if "" in runs or not runs else list(dict.fromkeys(runs))
    members = _Members(source, parts, called, left_out)
    found = [_match(members, run if len(runs) > 1 else "", runs) for run in runs]
    if len(runs) > 1:  # what belongs to a run without W is known to none of them
        homeless = [name for name, (run, _) in parts.items() if name not in left_out and run not in {"", *runs}]
        homeless.sort(key=lambda name: called[name] is not None)  # first what may be its W under another name
        found[0] = replace(found[0], unknown=(*found[0].unknown, *homeless))
    return found


def _refuse_without_weights(source: Source, called: Mapping[str, str | None], left_out: Mapping[str, str]) -> None:
    """Say why there is no W to import."""
    if any(called[name] == "W" for name in left_out):
        raise TensorFileError("W cannot be left out: all else is about it")
    for name, why in source.others.items():
        if called[name] == "W":
            raise TensorFileError(f"{name} {why}")
    names = some_names([*source.tensors, *source.others])
    raise TensorFileError(f"no array W; it holds {names}. --map NAME=W says which one it is")


@dataclass(frozen=True, slots=True)
class _Members:
    """What a file holds: the run and the local name of each member, the store's name, and what is left out."""

    source: Source
    parts: Mapping[str, tuple[str, str]]
    called: Mapping[str, str | None]
    left_out: Mapping[str, str]


def _match(members: _Members, run: str, runs: Sequence[str]) -> Match:
    """The arrays of one run: its own, and those that belong to no run and so to all."""
    mine, others, parts = {"", run or runs[0]}, members.source.others, members.parts
    names: dict[str, str] = {}
    is_single = len(runs) == 1
    why = {name: reason for name, reason in members.left_out.items() if is_single or parts[name][0] in mine}
    unknown = [name for name in parts if is_single and name not in why and parts[name][0] not in mine]
    for name in (name for name in parts if name not in members.left_out and parts[name][0] in mine):
        kind = members.called[name]
        if kind is None:
            unknown.append(name)
        elif name in others:
            raise TensorFileError(f"{name} {others[name]}")
        elif kind in names:
            raise TensorFileError(
                f"{names[kind]} and {name} would both come in as {kind}; leave one out with --skip, or say what it is "
                f"with --map {shlex.quote(name[:NAME_SHOWN])}=NAME"
            )
        else:
            names[kind] = name
    return Match(run, names, tuple(unknown), why | dict(members.source.ignored))


def refuse_unknown(found: Match) -> None:
    """Refuse a file with arrays that are in no table and that nobody said to leave out."""
    if not found.unknown:
        return
    first = shlex.quote(found.unknown[0][:NAME_SHOWN])
    verb, each = ("is", "") if len(found.unknown) == 1 else ("are", ", and so for each of them")
    raise TensorFileError(
        f"{some_names(found.unknown)} {verb} not known to import; say --skip {first} to leave it out{each}, or "
        f"--map {first}=NAME to say what it is; crucible import --list shows the names"
    )


def view(source: Source, found: Match, *, lossy: bool) -> NamedArrays:
    """The file through the store's names, with the hyper-parameters of this run."""
    inside = {_parts(name)[0] for name in found.names.values()} | {""}
    words: dict[str, Any] = {}
    for name, value in source.words.items():
        run, local = _parts(name)
        if run in inside:
            words[local] = value
    return NamedArrays(source, found.names, words, lossy=lossy)


def list_file(
    path: str | os.PathLike[str], *, skip: Sequence[str] = (), rename: Mapping[str, str] | None = None,
    parameter: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """What an import of this file would bring; nothing is written.

    Parameters
    ----------
    path : path-like
        A file, or a folder of checkpoints.
    skip, rename, parameter
        As for `import_run`.

    Returns
    -------
    list of dict
        One for each array: ``run`` (in a file of several runs), ``name``, ``dtype``, ``shape``, ``comes_in_as`` (None
        where it does not), ``dims``, ``meaning``, or why it does not come in.

    Raises
    ------
    TensorFileError
        The file is broken, hostile, or of a kind that is not taken.
    """
    with closing(open_source(path, skip=skip, parameter=parameter)) as source:
        try:
            found = match(source, skip=skip, rename=rename, needs_weights=False)
        except TensorFileError as error:
            raise TensorFileError(f"{source.path}: {error}") from None
        return [row for each in found for row in _rows(source, each)]


def _rows(source: Source, found: Match) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind, name in found.names.items():
        tensor, expected = source.tensors[name], expected_of(kind, found.names)
        try:
            if "W" in found.names:
                beside = [each for each in ("W", f"{OWN_STEPS}{kind}") if each in found.names]
                check_arrays({each: source.tensors[found.names[each]] for each in beside} | {kind: tensor})
            why = None
        except TensorFileError as error:
            why = str(error)
        told = {"comes_in_as": None if why else kind, "dims": list(expected.dims), "meaning": why or expected.meaning}
        rows.append({"run": found.run, "name": name, "dtype": tensor.code, "shape": list(tensor.shape), **told})
    ask = "is not known: leave it out with --skip, or say what it is with --map"
    why_not = {**dict.fromkeys(found.unknown, ask), **found.left_out}
    for name, reason in why_not.items():
        spec = source.tensors.get(name)
        shape: dict[str, Any] = {"dtype": spec.code if spec else "", "shape": list(spec.shape) if spec else []}
        told = {"comes_in_as": None, "dims": [], "meaning": source.others.get(name, reason) if not spec else reason}
        rows.append({"run": found.run, "name": name, **shape, **told})
    return rows


def _parts(name: str) -> tuple[str, str]:
    """The run or group that a name of the file begins with, "" for none, and the rest.

    Examples
    --------
    >>> _parts("run_0_embeddings"), _parts("seed7/W"), _parts("loss"), _parts("run_1.losses")
    (('run_0', 'embeddings'), ('seed7', 'W'), ('', 'loss'), ('run_1', 'losses'))
    """
    group, _, local = name.rpartition("/")
    if not group and (found := _OF_A_RUN.fullmatch(name)):
        return found[1], found[2]
    return group, local


def _called(name: str, local: str, renamed: Mapping[str, str]) -> str | None:
    """What the store calls an array of the file; None if it has no name for it."""
    given = renamed.get(name, renamed.get(local))
    return CALLED.get(given, given) if given is not None else CALLED.get(local)


def _refuse_absent(parts: Mapping[str, tuple[str, str]], skip: Sequence[str], renamed: Mapping[str, str]) -> None:
    groups = {"/".join(name.split("/")[: i + 1]) for name in parts for i in range(name.count("/"))}
    there = {*parts, *(local for _, local in parts.values()), *groups}
    for name in skip:
        if name not in there:
            raise TensorFileError(f"there is no {name[:NAME_SHOWN]} to be left out")
    for name, new in renamed.items():
        if name not in there:
            raise TensorFileError(f"there is no {name[:NAME_SHOWN]} to be mapped; it holds {some_names(list(parts))}")
        if new not in CALLED:
            raise TensorFileError(
                f"--map {name[:NAME_SHOWN]}={new[:NAME_SHOWN]}: there is no such array; it can be one of "
                f"{', '.join(FILE_ARRAYS)}"
            )
