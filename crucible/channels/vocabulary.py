"""What is known of the recorded tokens: populations, text, counts.

They become arrays along `token` that the store's reader turns into coordinates, so that
``ds.sel(token=ds.population == "dead")`` works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crucible.channels.rows import Ids, as_array, some
from crucible.units import a_or_an
from store.format.schema import Channel

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


def by_count(counts: ArrayLike) -> dict[str, Ids]:
    """The populations "dead" and "live" of occurrence counts, one for each id.

    Raises
    ------
    ValueError
        For what is not one number for each id.
    """
    seen = _by_id(counts) > 0
    return {"dead": np.flatnonzero(~seen).astype(np.int64), "live": np.flatnonzero(seen).astype(np.int64)}


def describe(
    ids: ArrayLike,
    *,
    populations: Mapping[str, ArrayLike] | None = None,
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

    Raises
    ------
    ValueError
        For a name of several words, and counts that are not a whole number from 0 on for each id.
    """
    ids = np.sort(np.asarray(ids, np.int64))
    known = Statics(ids=ids)
    if populations:
        known |= _population(ids, populations)
    if counts is not None:
        known |= Statics((TOKEN_COUNT,), {TOKEN_COUNT.name: _counts_of(ids, counts)})
    for name, words in (("token_text", text), ("token_piece", piece)):
        if words is not None:
            known |= _texts(name, [words(int(i)) or "" for i in ids])
    return known


def _by_id(counts: ArrayLike) -> NDArray[Any]:
    """Counts as an array; refused where they are not one for each id."""
    found = np.asarray(counts)
    if found.ndim != 1 or found.dtype.kind not in "biuf":
        raise ValueError(
            "counts must be one number for each id, as np.bincount gives them, not "
            f"{a_or_an(type(counts).__name__)} of shape {found.shape}"
        )
    return found


def _counts_of(ids: Ids, counts: ArrayLike) -> NDArray[np.int64]:
    """The counts of these tokens."""
    found = _by_id(counts)
    if len(ids) and ids[-1] >= len(found):
        raise ValueError(
            f"counts has {len(found):,} numbers, one for each id of the vocabulary, and none for the token {ids[-1]}"
        )
    chosen = found[ids]
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~((chosen >= 0) & (chosen == np.floor(chosen)) & np.isfinite(chosen)))
    if wrong.size:
        at = wrong[0]
        raise ValueError(f"counts must be whole numbers from 0 on, found {chosen[at]:g} at id {ids[at]}")
    return chosen.astype(np.int64)


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


def _population(ids: Ids, populations: Mapping[str, ArrayLike]) -> Statics:
    if unfit := [name for name in populations if not name or len(name.split()) != 1]:
        raise ValueError(f"a population is named by one word, without spaces, not {unfit[0]!r}")
    codes = np.full(len(ids), -1, np.int8)
    for code, members in reversed(list(enumerate(populations.values()))):
        array = as_array(members)
        codes[np.isin(ids, np.flatnonzero(array) if array.dtype.kind == "b" else array)] = code
    names = list(populations)
    attributes = {"flag_values": list(range(len(names))), "flag_meanings": " ".join(names)}
    return Statics((replace(POPULATION, attributes=attributes),), {POPULATION.name: codes})
