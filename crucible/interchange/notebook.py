"""What the notebook's file looks like, and how its arrays belong to a run's. No I/O.

The file holds what a run holds, but for two habits that only this module knows: arrays of moves that are derived from
the states (delta_W_prime and its norms) begin with step 1, while `loss` keeps an empty row 0; and the token ids are
called dead_indices where they are the ids of dead tokens, else `token`. Step labels stand in it as `step` (or `steps`)
where they are not 0, 1, 2, ...
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crucible.interchange.file_table import FILE_ARRAYS, STEP_NAMES, FileArray, expected_of
from crucible.interchange.sources.named import NamedArrays
from store.errors import TensorFileError
from store.format.schema import Channel
from store.format.step_labels import StepLabels
from store.tensorfile.header import TensorSpec

Array = NDArray[Any]
DEAD_INDICES, LIVE_INDICES = "dead_indices", "live_indices"
TOKEN = "token"
MOST_LABELS = 1 << 24
MOST_NAMES, NAME_SHOWN = 20, 80
LARGEST_STEP = 2**31 - 1
"""What last_motion_step, of int32, can hold."""
MASKS = ("dead_mask", "live_mask")
LONG_NAMES = {"either": "step", "wide": "vocabulary"}
"""Dimensions of the table, as a message names them."""


def check_arrays(tensors: Mapping[str, TensorSpec]) -> dict[str, int]:
    """The sizes of the dimensions of a file's arrays.

    Parameters
    ----------
    tensors : mapping of str to TensorSpec
        The arrays that are to be imported, under the store's names.

    Raises
    ------
    TensorFileError
        W is missing, an array has another dtype or rank than the table says, or two disagree about a length.
    """
    if "W" not in tensors:
        raise TensorFileError(f"no array W; it holds {some_names(list(tensors))}")
    sizes: dict[str, int] = {}
    for name in FILE_ARRAYS:
        if name in tensors:
            _check_array(tensors[name], expected_of(name, tensors), sizes)
    if not sizes["step"] or not sizes["token"] or not sizes["hidden"]:
        raise TensorFileError(f"{tensors['W'].name} has shape {tensors['W'].shape}: there is nothing in it")
    return sizes


def some_names(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return (", ".join(name[:NAME_SHOWN] for name in names[:MOST_NAMES]) or "nothing") + more


def _check_array(tensor: TensorSpec, expected: FileArray, sizes: dict[str, int]) -> None:
    name, dims = tensor.name, expected.dims
    mend = "" if expected.name == "W" else f"; mend it, or leave it out with --skip {shlex.quote(name[:NAME_SHOWN])}"
    if tensor.code not in expected.codes:
        raise TensorFileError(f"{name} is {tensor.code}; expected {' or '.join(expected.codes)}{mend}")
    if len(tensor.shape) != len(dims):
        named = ", ".join(LONG_NAMES.get(dim, dim) for dim in dims)
        raise TensorFileError(f"{name} has shape {tensor.shape}; expected {len(dims)} dimensions, {named}{mend}")
    for dim, size in zip(dims, tensor.shape, strict=True):
        known = _lengths(dim, size, sizes)
        if size not in known:
            wanted = " or ".join(map(str, known))
            raise TensorFileError(
                f"{name} has shape {tensor.shape}; expected {wanted} along its {LONG_NAMES.get(dim, dim)} dimension, "
                f"as the arrays before it{mend}"
            )


def _lengths(dim: str, size: int, sizes: dict[str, int]) -> tuple[int, ...]:
    """The lengths that a dimension may have, where this array's is `size`."""
    if dim == "move":
        return (sizes["step"] - 1,)
    if dim == "either":
        return sizes["step"], sizes["step"] - 1
    return (size,) if dim == "wide" else (sizes.setdefault(dim, size),)


def read_mask(values: Array, name: str) -> NDArray[np.bool_]:
    """A mask of any integer dtype as bool; only 0 and 1 make sense."""
    if values.size and (values.min() < 0 or values.max() > 1):
        raise TensorFileError(f"{name} holds numbers other than 0 and 1")
    return values.astype(np.bool_)


def read_tokens(source: NamedArrays, sizes: Mapping[str, int]) -> NDArray[np.int64]:
    """The token id of each recorded row: as the file says, or as it must be.

    In this order: the array `token`; dead_indices or live_indices, where they are as many as the rows; the ids that
    dead_mask or live_mask marks, where those are as many; 0, 1, 2, ... where the rows are the whole vocabulary, or
    where nothing is said.

    Raises
    ------
    TensorFileError
        Two of them contradict each other, or could both be the rows, or none of them fits.
    """
    rows, names = sizes["token"], source.tensors
    masks = {name: read_mask(source.read(name), name) for name in MASKS if name in names}
    lists = {name: source.read(name) for name in (DEAD_INDICES, LIVE_INDICES) if name in names}
    for name, ids in (lists | ({TOKEN: source.read(TOKEN)} if TOKEN in names else {})).items():
        _check_ids(ids, name, sizes.get("vocabulary"))
    _refuse_contradictions(masks, lists)
    if TOKEN in names:
        return source.read(TOKEN)
    marked = {name: np.flatnonzero(mask) for name, mask in masks.items()}
    if set(marked) == {"live_mask"}:
        marked["what live_mask leaves out"] = np.flatnonzero(~masks["live_mask"])
    fitting = {name: ids for name, ids in {**lists, **marked}.items() if len(ids) == rows}
    if DEAD_INDICES in fitting and LIVE_INDICES not in fitting:  # where the notebook keeps them
        return fitting[DEAD_INDICES]
    if len({ids.tobytes() for ids in fitting.values()}) > 1:
        raise TensorFileError(
            f"W has {rows} rows, and {' and '.join(fitting)} name as many, not the same ones; leave one out with "
            f"--skip, or name the rows in an array `{TOKEN}`"
        )
    for ids in fitting.values():
        return ids
    named = np.concatenate([np.empty(0, np.int64), *lists.values()])
    if rows == sizes.get("vocabulary", rows) and len(named) <= rows and named.max(initial=-1) < rows:
        return np.arange(rows, dtype=np.int64)
    told = [f", {name} marks {mask.sum()} of {mask.size}" for name, mask in masks.items()]
    told += [f", {name} names {len(ids)}" for name, ids in lists.items()]
    raise TensorFileError(f"W has {rows} rows{''.join(told)}: which tokens they are cannot be told")


def _refuse_contradictions(masks: Mapping[str, Array], lists: Mapping[str, Array]) -> None:
    """No id may be dead and live at once; the ids of a list are among those that the mask of its kind marks."""
    dead, live = ({n: v for n, v in {**masks, **lists}.items() if n.startswith(kind)} for kind in ("dead", "live"))
    for name, ids in lists.items():
        mask = masks.get(f"{name.partition('_')[0]}_mask")
        if mask is not None and not mask[ids].all():
            raise TensorFileError(
                f"{name} names {ids[~mask[ids]][0]}, which {name.partition('_')[0]}_mask does not mark"
            )
    for one, other in itertools.product(dead, live):
        here, there = (np.flatnonzero(each) if each.dtype == np.bool_ else each for each in (dead[one], live[other]))
        both = np.intersect1d(here, there)
        if both.size:
            raise TensorFileError(
                f"{one} and {other} contradict each other: both have the id {both[0]}; leave one out with --skip"
            )


def read_steps(source: NamedArrays) -> StepLabels | None:
    """The step of each row, as the file says; None where it says nothing.

    Raises
    ------
    TensorFileError
        They are no ascending steps, too many or too uneven; or `step` and `steps` disagree.
    """
    there = [name for name in STEP_NAMES if name in source.tensors]
    if not there:
        return None
    if source.tensors[there[0]].shape[0] > MOST_LABELS:
        raise TensorFileError(f"{there[0]} has more than {MOST_LABELS:,} labels")
    found = [source.read(name) for name in there]
    if not all(np.array_equal(found[0], other) for other in found[1:]):
        raise TensorFileError(f"{' and '.join(there)} name other steps; leave one out with --skip")
    try:
        steps = StepLabels.of(found[0])
    except ValueError as error:
        raise TensorFileError(
            f"{there[0]}: {error}; mend it, or leave it out with --skip {there[0]}: the rows are then 0, 1, 2, ..."
        ) from None
    if found[0][-1] > LARGEST_STEP:
        raise TensorFileError(f"{there[0]} goes up to {found[0][-1]:,}; steps up to {LARGEST_STEP:,} can be kept")
    return steps


def _check_ids(ids: Array, name: str, vocabulary: int | None) -> None:
    if ids.size and (ids[0] < 0 or (ids[1:] <= ids[:-1]).any()):
        raise TensorFileError(f"{name} is not a list of ids in ascending order")
    if ids.size and vocabulary is not None and ids[-1] >= vocabulary:
        raise TensorFileError(f"{name} names {ids[-1]}, but the masks have {vocabulary} ids")


def first_row(channel: Channel) -> int:
    """The row of a run's array with which the file's begins: derived moves leave out row 0, which is NaN."""
    return int(channel.role == "derived" and channel.belongs_to == "move")


def id_arrays(tokens: NDArray[np.int64], dead: Callable[[], Array] | None) -> dict[str, NDArray[np.int64]]:
    """The arrays of token ids that a file of these tokens holds.

    Parameters
    ----------
    tokens : array of int64
        Ids of the exported rows.
    dead : callable or None
        Reads the run's dead_mask, if it has one.

    Examples
    --------
    >>> mask = np.array([False, True, True])
    >>> list(id_arrays(np.array([1, 2]), lambda: mask)), list(id_arrays(np.array([0, 1]), lambda: mask))
    (['dead_indices'], ['dead_indices', 'token'])
    """
    if dead is None:
        return {TOKEN: tokens}
    mask = dead()
    if tokens.size and tokens.max() < mask.size and mask[tokens].all():
        return {DEAD_INDICES: tokens}
    return {DEAD_INDICES: np.flatnonzero(mask), TOKEN: tokens}
