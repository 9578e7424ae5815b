"""Which rows are recorded, and what is known of their tokens: populations, text, counts.

They become arrays along `token` that the store's reader turns into coordinates, so that
``ds.sel(token=ds.population == "dead")`` works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from store.format.schema import Channel

Ids = NDArray[np.int64]
Rows = str | slice | Iterable[int] | tuple[ArrayLike, ...] | ArrayLike | None
"""Ids in any of the ways one has them, see `choose`."""

POPULATION = Channel("population", ("token",), "int8", role="static", exported=False, long_name="population")
TOKEN_COUNT = Channel(
    "token_count", ("token",), "int64", role="static", exported=False, long_name="occurrences in the corpus"
)
TEXTS = {
    "token_text": "what the token decodes to within a text",
    "token_piece": "the tokenizer's own name of the token, in its own alphabet",
}
"""Kept as the UTF-8 bytes of all tokens, one behind the other, and the offsets where each begins."""


@dataclass(frozen=True, slots=True)
class Statics:
    """Channels, and their arrays, that do not change from step to step.

    Parameters
    ----------
    channels, arrays
        What they are, and their values by name.
    ids : (token,) int64, optional
        The tokens, ascending, that arrays along `token` are of; `crucible.attach` refuses those of other rows.
    """

    channels: tuple[Channel, ...] = ()
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    ids: Ids | None = None

    def __or__(self, other: Statics) -> Statics:
        if other.ids is not None:
            self.refuse_others(other.ids)
        ids = other.ids if self.ids is None else self.ids
        return Statics(self.channels + other.channels, self.arrays | other.arrays, ids)

    def refuse_others(self, ids: Ids) -> None:
        """Raise ValueError unless these are of the tokens `ids`."""
        if self.ids is not None and not np.array_equal(self.ids, ids):
            raise ValueError(
                f"statics describe {len(self.ids)} tokens, {some(self.ids)}, and not the {len(ids)} that are recorded, "
                f"{some(ids)}: give `describe` the ids of the rows"
            )


def choose(rows: Rows, size: int, populations: Mapping[str, Ids] | None = None) -> Ids:
    """Ids of the rows to record, ascending.

    Parameters
    ----------
    rows : "all" or None, the name of a population, a mask, a slice, or ids
        What to record. A mask is bool, (row,). Ids may be a list, a range, an array, a tensor, (n,) or (n, 1) as of
        ``nonzero()``, or the tuple of one array that ``np.where`` gives.
    size : int
        Rows of the parameter.
    populations : mapping of str to ids
        What the names mean.

    Raises
    ------
    ValueError
        An unknown name; a mask of another length; ids that are out of range, double, or none.

    Examples
    --------
    >>> choose(np.array([[True, False, True]])[0], 3), choose(slice(1, None), 3), choose(np.where(np.eye(3)[1]), 3)
    (array([0, 2]), array([1, 2]), array([1]))
    """
    if rows is None:
        rows = "all"
    if isinstance(rows, str):
        known = {"all": np.arange(size, dtype=np.int64), **(populations or {})}
        if rows not in known:
            raise ValueError(f"rows={rows!r} is no population: known are {', '.join(known)}; pass populations= or ids")
        rows = known[rows]
    given: NDArray[Any] = np.arange(size)[rows] if isinstance(rows, slice) else _as_array(rows)
    if given.dtype.kind == "b":
        given = _marked(given, size)
    if given.ndim != 1 or given.dtype.kind not in "iu" or not given.size:
        raise ValueError(f"rows must be a list of at least one id, not {given.dtype} of shape {given.shape}")
    ids = np.sort(given.astype(np.int64))
    if ids[0] < 0 or ids[-1] >= size:
        raise ValueError(f"rows hold ids from {ids[0]} to {ids[-1]}, but the parameter has rows 0 to {size - 1}")
    if (ids[1:] == ids[:-1]).any():
        raise ValueError(f"rows hold id {ids[:-1][ids[1:] == ids[:-1]][0]} twice")
    return ids


def by_count(counts: ArrayLike) -> dict[str, Ids]:
    """The populations "dead" and "live" of occurrence counts, one for each id."""
    seen = np.asarray(counts) > 0
    return {"dead": np.flatnonzero(~seen).astype(np.int64), "live": np.flatnonzero(seen).astype(np.int64)}


def describe(
    ids: ArrayLike,
    *,
    populations: Mapping[str, Ids] | None = None,
    counts: ArrayLike | None = None,
    text: Callable[[int], str | None] | None = None,
    piece: Callable[[int], str | None] | None = None,
) -> Statics:
    """What is known of the recorded tokens, as arrays along `token`, in ascending order of id.

    Parameters
    ----------
    ids : (token,) int
        The recorded ids, in any order.
    populations : mapping of str to ids
        A token gets the first population that holds it; the code -1 stands for none.
    counts : (vocabulary,) int
        How often each id occurs in the corpus.
    text : callable
        id to the text that the token decodes to: `crucible.inputs.tokens.text_of` makes one, or
        ``lambda i: tokenizer.decode([i])``. Several tokens may share a text.
    piece : callable
        id to the tokenizer's own name of it, e.g. ``tokenizer.id_to_token``; byte-level ones write a space as ``Ġ``.

    Returns
    -------
    Statics
        For the `statics` of `crucible.attach`.
    """
    ids = np.sort(np.asarray(ids, np.int64))
    known = Statics(ids=ids)
    if populations:
        known |= _population(ids, populations)
    if counts is not None:
        known |= Statics((TOKEN_COUNT,), {TOKEN_COUNT.name: np.asarray(counts)[ids].astype(np.int64)})
    for name, words in (("token_text", text), ("token_piece", piece)):
        if words is not None:
            known |= _texts(name, [words(int(i)) or "" for i in ids])
    return known


def _texts(name: str, texts: Sequence[str]) -> Statics:
    pieces = [text.encode() for text in texts]
    edges = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64)
    letters = Channel(
        name, (f"{name}_byte",), "uint8", role="static", exported=False, long_name=TEXTS[name],
        meaning="UTF-8 bytes of all tokens",
    )  # fmt: skip
    offsets = Channel(
        f"{name}_offset", (f"{name}_edge",), "int64", role="static", exported=False,
        long_name="where each token's text begins; the last entry is where the last one ends",
    )  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {letters.name: np.frombuffer(b"".join(pieces), np.uint8), offsets.name: edges}
    return Statics((letters, offsets), arrays)


def _population(ids: Ids, populations: Mapping[str, Ids]) -> Statics:
    if unfit := [name for name in populations if not name or len(name.split()) != 1]:
        raise ValueError(f"a population is named by one word, without spaces, not {unfit[0]!r}")
    codes = np.full(len(ids), -1, np.int8)
    for code, members in reversed(list(enumerate(populations.values()))):
        array = _as_array(members)
        codes[np.isin(ids, np.flatnonzero(array) if array.dtype.kind == "b" else array)] = code
    names = list(populations)
    attributes = {"flag_values": list(range(len(names))), "flag_meanings": " ".join(names)}
    return Statics((replace(POPULATION, attributes=attributes),), {POPULATION.name: codes})


def some(ids: Ids) -> str:
    """The first of them, for a message."""
    return ", ".join(map(str, ids[:4])) + (", ..." if len(ids) > 4 else "")


def _as_array(rows: Any) -> NDArray[Any]:  # noqa: ANN401 - whatever numpy can make an array of
    """A tensor, a range or a list as an array; out of the tuple of `where`, without the second axis of `nonzero()`."""
    if isinstance(rows, tuple) and len(rows) == 1 and getattr(rows[0], "ndim", 0) == 1:
        rows = rows[0]
    if not isinstance(rows, np.ndarray):
        rows = np.asarray(rows.tolist() if hasattr(rows, "tolist") else list(rows))
    array: NDArray[Any] = rows
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _marked(mask: NDArray[np.bool_], size: int) -> Ids:
    """The ids that a mask marks."""
    if mask.shape != (size,):
        raise ValueError(
            f"rows is a mask of shape {mask.shape}, but the parameter has {size} rows: give one bool for each"
        )
    return np.flatnonzero(mask).astype(np.int64)
