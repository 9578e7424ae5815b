"""Which rows are recorded, and what is known of their tokens: populations, text, counts.

They become arrays along `token` that the store's reader turns into coordinates, so that
``ds.sel(token=ds.population == "dead")`` works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from store.format.schema import Channel

Ids = NDArray[np.int64]
Rows = str | Iterable[int] | ArrayLike

POPULATION = Channel("population", ("token",), "int8", role="static", exported=False, long_name="population")
TOKEN_COUNT = Channel(
    "token_count", ("token",), "int64", role="static", exported=False, long_name="occurrences in the corpus"
)
TOKEN_TEXT = Channel(
    "token_text", ("text_byte",), "uint8", role="static", exported=False, long_name="UTF-8 text of all tokens"
)
TOKEN_TEXT_OFFSET = Channel(
    "token_text_offset", ("text_edge",), "int64", role="static", exported=False,
    long_name="where each token's text begins; the last entry is where the last one ends",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Statics:
    """Channels, and their arrays, that do not change from step to step."""

    channels: tuple[Channel, ...] = ()
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __or__(self, other: Statics) -> Statics:
        return Statics(self.channels + other.channels, self.arrays | other.arrays)


def choose(rows: Rows, size: int, populations: Mapping[str, Ids] | None = None) -> Ids:
    """Ids of the rows to record, ascending.

    Parameters
    ----------
    rows : "all", the name of a population, or ids
        What to record.
    size : int
        Rows of the parameter.
    populations : mapping of str to ids
        What the names mean.

    Raises
    ------
    ValueError
        An unknown name; ids that are out of range, double, or none.
    """
    if isinstance(rows, str):
        known = {"all": np.arange(size, dtype=np.int64), **(populations or {})}
        if rows not in known:
            raise ValueError(f"rows={rows!r} is no population: known are {', '.join(known)}; pass populations= or ids")
        rows = known[rows]
    given = rows if isinstance(rows, np.ndarray) else np.asarray(_plain(rows))
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
    ids: Ids,
    *,
    populations: Mapping[str, Ids] | None = None,
    counts: ArrayLike | None = None,
    text: Callable[[int], str | None] | None = None,
) -> Statics:
    """What is known of the recorded tokens, as arrays along `token`.

    Parameters
    ----------
    ids : (token,) int64
        The recorded ids.
    populations : mapping of str to ids
        A token gets the first population that holds it; the code -1 stands for none.
    counts : (vocabulary,) int
        How often each id occurs in the corpus.
    text : callable
        id to the token's text, e.g. ``tokenizer.id_to_token``.
    """
    known = Statics()
    if populations:
        known |= _population(ids, populations)
    if counts is not None:
        known |= Statics((TOKEN_COUNT,), {TOKEN_COUNT.name: np.asarray(counts)[ids].astype(np.int64)})
    if text is not None:
        pieces = [(text(int(i)) or "").encode() for i in ids]
        edges = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64)
        letters = np.frombuffer(b"".join(pieces), np.uint8)
        arrays: dict[str, NDArray[Any]] = {TOKEN_TEXT.name: letters, TOKEN_TEXT_OFFSET.name: edges}
        known |= Statics((TOKEN_TEXT, TOKEN_TEXT_OFFSET), arrays)
    return known


def _population(ids: Ids, populations: Mapping[str, Ids]) -> Statics:
    if unfit := [name for name in populations if not name or len(name.split()) != 1]:
        raise ValueError(f"a population is named by one word, without spaces, not {unfit[0]!r}")
    codes = np.full(len(ids), -1, np.int8)
    for code, members in reversed(list(enumerate(populations.values()))):
        codes[np.isin(ids, members)] = code
    names = list(populations)
    attributes = {"flag_values": list(range(len(names))), "flag_meanings": " ".join(names)}
    return Statics((replace(POPULATION, attributes=attributes),), {POPULATION.name: codes})


def _plain(rows: Any) -> Any:  # noqa: ANN401 - whatever numpy can make an array of
    """A tensor, a range or a list, as numpy takes it."""
    return rows.tolist() if hasattr(rows, "tolist") else list(rows)
