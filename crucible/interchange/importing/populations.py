"""Which tokens of a file are dead and which live: its masks, counts and lists of ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crucible.channels.table import DEAD_MASK, KEPT
from crucible.channels.vocabulary import describe
from crucible.interchange.notebook import DEAD_INDICES, LIVE_INDICES, MASKS, read_mask
from crucible.interchange.sources.named import NamedArrays
from store.format.schema import Channel

Array = NDArray[Any]


def read_statics(arrays: NamedArrays, tokens: NDArray[np.int64]) -> tuple[dict[str, Array], tuple[Channel, ...]]:
    """The masks and counts that a file brings, and the population of each token where that is known."""
    found: dict[str, Array] = {name: arrays.read(name) for name in (DEAD_MASK.name, *KEPT) if name in arrays.tensors}
    found |= {name: read_mask(found[name], name) for name in MASKS if name in found}
    if DEAD_MASK.name not in found and "live_mask" in found:
        found = {DEAD_MASK.name: ~found["live_mask"], **found}
    populations: dict[str, Array] = {}
    if (mask := found.get(DEAD_MASK.name)) is not None:
        if tokens[-1] < len(mask):
            populations = {"dead": np.flatnonzero(mask), "live": np.flatnonzero(found.get("live_mask", ~mask))}
    elif lists := {name: arrays.read(name) for name in (DEAD_INDICES, LIVE_INDICES) if name in arrays.tensors}:
        members = _members(tokens, lists)
        populations = {name: tokens[chosen] for name, chosen in members.items() if chosen.any()}
        if _are_vocabulary(tokens, lists):
            found = {DEAD_MASK.name: members["dead"], **found}
    found |= {name: values.astype(KEPT[name].dtype) for name, values in found.items() if name in KEPT}
    channels = [DEAD_MASK if name == DEAD_MASK.name else KEPT[name] for name in found]
    known = describe(tokens, populations=populations)
    return found | known.arrays, (*channels, *known.channels)


def doubt_counts(statics: Mapping[str, Array]) -> list[str]:
    """A sentence where ids that never occur, by the mask, do so by the counts of a file, or the other way round."""
    mask, counts = (statics.get(name) for name in (DEAD_MASK.name, "token_occurrence_counts"))
    if mask is None or counts is None or mask.shape != counts.shape:
        return []
    told = {
        "dead_mask marks {count:,} ids that occur by token_occurrence_counts, as {first}": mask & (counts != 0),
        "dead_mask does not mark {count:,} ids that never occur by token_occurrence_counts, as {first}":
            ~mask & (counts == 0),
    }  # fmt: skip
    said = [text.format(count=int(ids.sum()), first=int(np.argmax(ids))) for text, ids in told.items() if ids.any()]
    return [f"{'; '.join(said)}; dead are those of the mask"] if said else []


def _are_vocabulary(tokens: NDArray[np.int64], lists: Mapping[str, Array]) -> bool:
    """Whether the rows are the ids 0, 1, 2, ... of which each list names some: of other rows there is no mask."""
    is_whole = tokens[-1] == len(tokens) - 1
    return bool(is_whole and all(len(ids) < len(tokens) > ids.max(initial=-1) for ids in lists.values()))


def _members(tokens: NDArray[np.int64], lists: Mapping[str, Array]) -> dict[str, NDArray[np.bool_]]:
    """Which rows are dead and which live, by lists of ids; what a lone list does not name is of the other kind.

    Examples
    --------
    >>> found = _members(np.array([10, 20, 30]), {"dead_indices": np.array([10])})
    >>> found["dead"].tolist(), found["live"].tolist()
    ([True, False, False], [False, True, True])
    """
    dead, live = (np.isin(tokens, lists[name]) if name in lists else None for name in (DEAD_INDICES, LIVE_INDICES))
    if dead is None:
        dead = ~live if live is not None else np.zeros(len(tokens), np.bool_)
    return {"dead": dead, "live": ~dead if live is None else live}
