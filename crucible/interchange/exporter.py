"""A run out to one safetensors file: byte for byte what ``save_file`` would write of the same arrays, in a stream.

Chunks are decoded in two threads, each straight to its place in the file, so that memory holds a few chunks whatever
the run's length, and decoding hides behind the disk.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crucible.channels.table import ROUNDED_FROM, stored_lattice
from crucible.interchange.chunk_copy import Part, copy_all
from crucible.interchange.notebook import DEAD_INDICES, TOKEN, first_row, id_arrays
from crucible.interchange.report import Transfer
from crucible.interchange.selection import Selection, select, tokens_of
from crucible.interchange.words import target_of_words, without_results
from crucible.progress import Progress, silent
from store.errors import MetadataError, StaleHandleError
from store.format.files import METADATA, local_path, run_folder, trajectory_of
from store.format.schema import LATTICE, Channel
from store.placed_file import place
from store.run.commit import Commit, read_commit
from store.run.document import digest, to_json
from store.small_file import read_small
from store.tensorfile.file import TensorFileWriter
from store.tensorfile.header import TensorSpec, code_of

Array = NDArray[Any]
DTYPES = ("uint16", "bfloat16")
MADE_OF_ALL_TOKENS = ("centroid",)


def export_run(
    run: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    only: Sequence[str] | None = None,
    steps: tuple[int | None, int | None] | None = None,
    tokens: Sequence[int] | None = None,
    population: str | None = None,
    dtype: Literal["uint16", "bfloat16"] = "uint16",
    force: bool = False,
    threads: int = 2,
    progress: Progress = silent,
) -> Transfer:
    """Write a run, or its committed part while it goes on, to a safetensors file.

    The bytes are those that ``safetensors.torch.save_file`` writes of the same arrays; its ``__metadata__`` says where
    the bits of W are those of rounded weights (`rounded_from`), and where moves of a float32 W are measured in cells of
    bfloat16 (`lattice`). The file appears under its name whole and durable or not at all; the run's metadata.json is
    copied beside it.

    Parameters
    ----------
    run : path-like
        The run's folder or its trajectory.zarr.
    path : path-like
        The file to make.
    only : sequence of str, optional
        Names of the arrays to write; any that the run keeps, and ``dead_indices`` or ``token`` for the token ids.
        Without it, what the notebook's file holds, and `step` where the steps are not 0, 1, 2, ...
    steps : (int, int), optional
        Labels of the first step and of one past the last. Moves into the first state are left out, as everywhere; its
        loss, of the update that led to it, is written.
    tokens : sequence of int, optional
        Ids of the tokens to write, in any order; the file has them in ascending order. The centroid stays that of
        all recorded tokens.
    population : str, optional
        Name of a population: its tokens, those of them that are in `tokens` if that is given.
    dtype : {"uint16", "bfloat16"}
        How arrays that keep bfloat16 bits are declared: the notebook's way, or so that torch loads them as bfloat16.
        A `W` of numbers (float32, float16) is written as these, and "bfloat16" is refused with it.
    force : bool
        Replace a file that is there.
    threads : int
        Decoding threads.
    progress : callable, optional
        Called with (bytes written, bytes in all).

    Returns
    -------
    Transfer

    Raises
    ------
    RunExistsError, BudgetError
        The file exists; the disk has too little room. Nothing was written.
    ValueError
        An array, step or token that the run does not have.
    StoreError
        The run is missing or damaged; the message names array, steps and tokens.

    Notes
    -----
    One pass over each array. Memory: about 100 MB for the whole process, whatever the length of the run.
    """
    since = time.monotonic()
    folder, path = run_folder(os.fspath(run)), local_path(os.fspath(path))
    commit = read_commit(folder)
    if dtype not in DTYPES:
        raise ValueError(f"dtype says how bits are declared, as {' or '.join(map(repr, DTYPES))}, not {dtype!r}; for "
                         "numbers read the run: analysis.weights(ds)")  # fmt: skip
    tokens = tokens if population is None else tokens_of(folder, population, tokens)
    selection = select(trajectory_of(folder), commit, steps, tokens)
    only = [only] if isinstance(only, str) else only
    parts = _plan(selection, only, as_bfloat16=dtype == "bfloat16")
    data = _words(folder, selection, parts)
    words = target_of_words(data, path, force=force, is_needed="step" in selection.left_out)
    if words is not None and data is None:
        data = to_json(_of_part(selection, parts), indent=2)
    with TensorFileWriter(path, [p.tensor for p in parts], replace=force, metadata=_of_weights(commit)) as file:
        by_name = {part.tensor.name: part for part in parts}
        ordered = [by_name[name] for name in file.tensors]
        copied = 0

        def done(count: int) -> None:
            nonlocal copied
            copied += count
            progress(copied, file.file_bytes)

        copy_all(file, ordered, done, threads)
        if read_commit(folder).generation != commit.generation:
            raise StaleHandleError(f"{folder}: the run was cut back or compacted during the export; export it again")
    if data is not None and words is not None:
        place(words, data, replace=True)
    first, stop = selection.steps
    labels = commit.labels().values(selection.first, selection.stop)
    return Transfer(
        run=folder, path=path, file_bytes=file.file_bytes, arrays=tuple(file.tensors.values()), first_step=first,
        last_step=stop - 1, states=len(labels), resolution_steps=int(np.diff(labels).max(initial=1)),
        tokens=len(selection.tokens), hidden=_hidden(commit), kept=tuple(file.tensors), left_out=selection.left_out,
        of_all_tokens=_of_all_tokens(selection, file.tensors), metadata=words, elapsed_s=time.monotonic() - since,
    )  # fmt: skip


def _of_all_tokens(selection: Selection, written: Collection[str]) -> tuple[str, ...]:
    """What is written as it is though it is made of all tokens of the run, and only some are exported."""
    is_part = len(selection.tokens) < len(selection.whole(TOKEN))
    return tuple(name for name in MADE_OF_ALL_TOKENS if is_part and name in written)


def _of_weights(commit: Commit) -> dict[str, str]:
    """What the header must say of W: that its bits are those of rounded weights, or that its moves are measured on the
    lattice of bfloat16, though it is float32.
    """
    of_weights = commit.arrays.get("W", {})
    found = of_weights.get("attributes", {}).get(ROUNDED_FROM)
    is_projected = of_weights.get("data_type") == "float32" and stored_lattice(commit.arrays) == "bfloat16"
    return ({ROUNDED_FROM: str(found)} if found else {}) | ({LATTICE: "bfloat16"} if is_projected else {})


def _hidden(commit: Commit) -> int:
    """Size of the dimension `hidden`; 0 in a run that has none."""
    sizes = (dict(zip(a["dimension_names"], a["shape"], strict=True)) for a in commit.arrays.values())
    return next((int(each["hidden"]) for each in sizes if "hidden" in each), 0)


def _plan(selection: Selection, only: Sequence[str] | None, *, as_bfloat16: bool) -> list[Part]:
    """The parts of the file: the stored arrays that are wanted, and the token ids."""
    channels = {name: Channel.from_array(name, data) for name, data in selection.commit.arrays.items()}
    mask = (lambda: selection.whole("dead_mask")) if "dead_mask" in channels else None
    ids = id_arrays(selection.tokens, mask)
    known = {*channels, *ids, DEAD_INDICES}
    if unknown := sorted(set(only or ()) - known):
        raise ValueError(f"the run has no array {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    if only is not None and not _names_rows(ids, only):
        selection.left_out[TOKEN if TOKEN in ids else DEAD_INDICES] = (
            "it names the tokens of these rows; add it to --only"
        )
    for name in {TOKEN, DEAD_INDICES} & set(only or ()):
        ids.setdefault(name, selection.tokens)
    parts = [
        Part(TensorSpec(name, "I64", values.shape), values=values)
        for name, values in ids.items()
        if only is None or name in only
    ]
    wanted = _wanted(selection, channels, only)
    if as_bfloat16 and "W" in wanted and channels["W"].bits_of is None:
        raise ValueError(f"W holds {channels['W'].dtype} numbers, no bits of bfloat16 that could be declared as such; "
                         "without bfloat16 it is exported as it is")  # fmt: skip
    for name in wanted:
        part = _part(selection, channels[name], as_bfloat16=as_bfloat16)
        parts += [part] if part else []
    for name, metadata in selection.commit.pending.items():
        if only is None and Channel.from_array(name, metadata).exported:
            selection.left_out[name] = "the run is not completed; it is made when it is"
    return parts


def _names_rows(ids: Mapping[str, NDArray[np.int64]], only: Sequence[str]) -> bool:
    """Whether the tokens of the rows are told by these arrays of a file, or are 0, 1, 2, ..."""
    tokens = ids.get(TOKEN, ids.get(DEAD_INDICES, np.empty(0, np.int64)))
    return (
        TOKEN in only or (TOKEN not in ids and DEAD_INDICES in only) or bool((tokens == np.arange(len(tokens))).all())
    )


def _wanted(selection: Selection, channels: Mapping[str, Channel], only: Sequence[str] | None) -> set[str]:
    """The stored arrays to write; with the labels of their steps, where these are not 0, 1, 2, ...

    Of an array with a schedule they come along unasked: its rows would else be taken for those of other steps.
    """
    usual = {name for name, channel in channels.items() if channel.exported and not channel.attributes.get("axis")}
    wanted = (usual if only is None else channels.keys() & set(only)) - {TOKEN}
    axes = {channels[name].axis for name in wanted if channels[name].has_steps} - wanted
    labels = {axis for axis in axes if not selection.is_numbered(axis)}
    if only is None:
        return wanted | labels
    if "step" in labels:
        selection.left_out["step"] = "it names the steps of these rows; add it to --only"
    return wanted | (labels - {"step"})


def _part(selection: Selection, channel: Channel, *, as_bfloat16: bool) -> Part | None:
    """The part that a stored array becomes; None if it would not be true of the selected steps."""
    array = selection.commit.array(selection.trajectory, channel.name)
    code = code_of(array.dtype, bits_of=channel.bits_of if as_bfloat16 else None)
    inner = list(array.shape[1:] if channel.has_steps else array.shape)
    axis = channel.dims.index("token") if "token" in channel.dims else None
    if selection.chosen is not None and axis is not None:
        inner[axis] = len(selection.chosen)
    if not channel.has_steps:
        if channel.role == "final" and not selection.has_all_steps:
            selection.left_out[channel.name] = "it belongs to all steps, and only some are exported"
            return None
        values = selection.whole(channel.name)
        if selection.chosen is not None and axis is not None:
            values = values.take(selection.chosen, axis)
        return Part(TensorSpec(channel.name, code, tuple(inner)), values=values)
    first, stop = selection.rows_of(channel.axis)
    first += first_row(channel)
    chosen = selection.chosen if axis == 0 else None
    return Part(TensorSpec(channel.name, code, (stop - first, *inner)), array, first, stop, chosen=chosen)


def _words(folder: Path, selection: Selection, parts: Sequence[Part]) -> bytes | None:
    """metadata.json of a completed run, as it is; of a part, with its shapes, and the results set apart.

    None where there is none, or one of an earlier end, from which the run went on.
    """
    is_of_the_end = selection.commit.completed and METADATA in selection.commit.sha256
    if not is_of_the_end or not (folder / METADATA).is_file():
        return None
    try:
        data = read_small(folder / METADATA)
        words = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no JSON"
        raise MetadataError(f"{folder / METADATA}: {why}; restore it from a copy, or move it away") from None
    if not isinstance(words, dict):
        raise MetadataError(f"{folder / METADATA}: is no JSON object; restore it from a copy, or move it away")
    if digest(data) not in selection.commit.sha256[METADATA].split():
        raise MetadataError(
            f"{folder / METADATA}: is not the one that the run was completed with, by its SHA-256: it was edited, or "
            "is another run's; restore it from a copy, or move it away"
        )
    is_part = selection.chosen is not None or not selection.has_all_steps
    if not is_part and "step" not in selection.left_out:
        return data
    told = without_results(words) if is_part else words
    return to_json(told | _of_part(selection, parts), indent=2)


def _of_part(selection: Selection, parts: Sequence[Part]) -> dict[str, Any]:
    """What the words of a file say of its arrays and its steps."""
    shapes = {part.tensor.name: list(part.tensor.shape) for part in parts}
    return {"data_shapes": shapes, "exported": {"steps": list(selection.steps), "tokens": len(selection.tokens)}}
