"""What a tokenizer knows of the recorded rows: the text and the piece of each, and populations that it implies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tokenizers import Tokenizer

from crucible.channels.rows import Ids
from crucible.channels.vocabulary import POPULATION, TEXTS, Statics, describe
from crucible.inputs.tokens import text_of
from crucible.units import a_or_an

Words = Callable[[int], str | None]
SPECIAL, ADDED, ORDINARY, UNNAMED = "special", "added", "ordinary", "unnamed"
"""Tokens that steer (end of text, padding); others that were added by hand; those of the vocabulary; rows of the
parameter that no token has, as where the vocabulary was padded to a round size."""


def read_of(tokenizer: object) -> tuple[Words, Words]:
    """Functions from an id to its text within a text, and to the tokenizer's own name of it; None where it has none.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizer or tokenizers.Tokenizer
        Of transformers, slow or fast, or of tokenizers.

    Raises
    ------
    TypeError
        Another object.
    """
    if isinstance(tokenizer, Tokenizer):
        return text_of(tokenizer), tokenizer.id_to_token
    if not all(hasattr(tokenizer, name) for name in ("decode", "convert_ids_to_tokens", "all_special_ids")):
        raise TypeError(
            f"tokenizer= takes a tokenizer of transformers or of tokenizers, not {a_or_an(type(tokenizer).__name__)}; "
            "for another one give statics=crucible.describe(ids, text=..., piece=...)"
        )
    return _text_of(tokenizer), _piece_of(tokenizer)


def populations_of(tokenizer: object, rows: int) -> dict[str, Ids]:
    """The populations of so many rows of an embedding that the tokenizer implies, without those that are empty.

    Examples
    --------
    >>> from crucible.inputs.prepare import train_tokenizer
    >>> tokenizer = train_tokenizer(["the cat, the rat, the mat"], 265)
    >>> {name: len(ids) for name, ids in populations_of(tokenizer, 272).items()}
    {'ordinary': 265, 'unnamed': 7}
    """
    _, piece = read_of(tokenizer)
    special, added = _marked(tokenizer)
    found: dict[str, list[int]] = {SPECIAL: [], ADDED: [], ORDINARY: [], UNNAMED: []}
    for token in range(rows):
        name = SPECIAL if token in special else ADDED if token in added else ORDINARY
        found[UNNAMED if piece(token) is None else name].append(token)
    return {name: np.array(ids, np.int64) for name, ids in found.items() if ids}


def known_of(
    ids: Ids, statics: Statics | None, populations: Mapping[str, ArrayLike] | None, tokenizer: object = None
) -> Statics:
    """What is known of the recorded tokens: what was given, and beside it their population, text and piece."""
    known = statics or Statics()
    known.refuse_others(ids)
    if populations and POPULATION.name not in known.arrays:
        known |= describe(ids, populations=populations)
    if tokenizer is not None and not any(channel.name in TEXTS for channel in known.channels):
        text, piece = read_of(tokenizer)
        known |= describe(ids, text=text, piece=piece)
    return known


def _marked(tokenizer: Any) -> tuple[set[int], set[int]]:  # noqa: ANN401 - of a library that is not imported here
    """Ids of tokens that steer, and of those that were added."""
    if isinstance(tokenizer, Tokenizer):
        known = tokenizer.get_added_tokens_decoder()
    else:
        known = getattr(tokenizer, "added_tokens_decoder", {})
    special = {token for token, each in known.items() if each.special}
    return special | set(getattr(tokenizer, "all_special_ids", ())), set(known)


def _text_of(tokenizer: Any) -> Words:  # noqa: ANN401 - as above
    piece = _piece_of(tokenizer)
    plain = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}

    def text(token: int) -> str | None:
        if piece(token) is None:
            return None
        once, twice = (tokenizer.decode([token] * times, **plain) for times in (1, 2))
        # some decoders strip the space before a text's first word
        return str(twice[len(once) :] if twice.startswith(once) else once)

    return text


def _piece_of(tokenizer: Any) -> Words:  # noqa: ANN401 - as above
    size = len(tokenizer)

    def piece(token: int) -> str | None:
        found = tokenizer.convert_ids_to_tokens(token) if token < size else None
        return None if found is None else str(found)

    return piece
