"""Tokenizers as they are needed here: a text is encoded whole, the same each time, and each id has a text."""

from __future__ import annotations

import json
from collections.abc import Callable

from tokenizers import Tokenizer, decoders

from crucible.units import counted

SHOWN = 12
"""Characters that are shown of a text that decodes otherwise."""


def make_plain(tokenizer: Tokenizer) -> list[str]:
    """Switch off what its file may ask for beyond encoding: to cut, to pad, to choose at random.

    A byte-level tokenizer without a decoder is given one; ids do not change by that.

    Returns
    -------
    list of str
        What was switched off, in words.
    """
    notes = []
    if (cut := tokenizer.truncation) is not None:
        notes.append(f"the tokenizer's file cuts every text after {counted(cut['max_length'], 'id')}")
        tokenizer.no_truncation()
    if tokenizer.padding is not None:
        notes.append("the tokenizer's file pads every text")
        tokenizer.no_padding()
    for name in ("dropout", "alpha", "nbest_size"):  # of BPE, and of Unigram's sampling
        if value := getattr(tokenizer.model, name, None):
            notes.append(f"the tokenizer's file makes it choose at random ({name} {value:.3g})")
            setattr(tokenizer.model, name, None)
    if tokenizer.decoder is None and "ByteLevel" in json.dumps(json.loads(tokenizer.to_str())["pre_tokenizer"]):
        tokenizer.decoder = decoders.ByteLevel()
    return [f"{words}, which is switched off" for words in notes]


def encode(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[str]]:
    """The ids of a text by one call of the tokenizer, and where they are not simply the text, in words.

    Decoding them again for the comparison takes a tenth of the time of encoding.
    """
    encoding = tokenizer.encode(text)
    ids, notes = encoding.ids, []
    added, kept = encoding.special_tokens_mask, ids
    if any(added):
        tokens = sorted({(i, t) for i, t, is_added in zip(ids, encoding.tokens, added, strict=True) if is_added})
        kept = [i for i, is_added in zip(ids, added, strict=True) if not is_added]
        names = ", ".join(token for _, token in tokens)
        notes.append(f"the tokenizer adds {counted(len(ids) - len(kept), 'id')} not in the text ({names})")
    decoded = tokenizer.decode(kept, skip_special_tokens=False)
    if decoded != text:
        at = next((i for i, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), len(decoded))
        notes.append(
            f"the ids do not decode to the text (a normalizer, unknown characters or the decoder change it): of "
            f"{len(text):,} characters {len(decoded):,} come back, and {text[at : at + SHOWN]!r} at character {at:,} "
            f"becomes {decoded[at : at + SHOWN]!r}"
        )
    return ids, notes


def text_of(tokenizer: Tokenizer) -> Callable[[int], str | None]:
    """A function from an id to the text that the token stands for within a text; None where there is no such token.

    Where a token holds a part of a letter's bytes alone, its text is the replacement character.

    Examples
    --------
    >>> from crucible.inputs.prepare import train_tokenizer
    >>> tokenizer = train_tokenizer(["the cat, the rat, the mat"], 265)
    >>> tokenizer.id_to_token(220), text_of(tokenizer)(220)
    ('Ġ', ' ')
    """

    def text(token: int) -> str | None:
        if tokenizer.id_to_token(token) is None:
            return None
        once = tokenizer.decode([token], skip_special_tokens=False)
        twice = tokenizer.decode([token, token], skip_special_tokens=False)
        # some decoders strip the space before a text's first word
        return twice[len(once) :] if twice.startswith(once) else once

    return text
