"""Make a tokenizer and a dead mask from text: trained on the wide text, measured on the model's corpus."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from crucible.console import is_terminal
from crucible.inputs.config import write_toml
from crucible.inputs.data import InputError, Say, read_text
from crucible.inputs.tokens import encode
from store.disk import LocalDisk, refuse_blocked
from store.format.files import local_path
from store.placed_file import PlacedFile

SMALLEST_VOCABULARY = 256
"""A byte-level tokenizer knows every byte before it learns anything."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` made.

    Parameters
    ----------
    tokenizer, dead_mask, config : Path
        The three files.
    learned : int
        Tokens that the text gave; fewer than the vocabulary when there was too little of it.
    dead, corpus_ids : int
        Ids that never occur, and the length of the encoded corpus.
    """

    tokenizer: Path
    dead_mask: Path
    config: Path
    vocab_size: int
    learned: int
    dead: int
    corpus_ids: int


def prepare(
    texts: Sequence[str | Path] | str | Path,
    model_corpus: str | Path,
    vocab_size: int,
    out: str | Path,
    *,
    say: Say = warnings.warn,
) -> Prepared:
    """Train a byte-level BPE tokenizer on `texts` and mark the ids that never occur in `model_corpus`.

    Writes ``tokenizer.json`` and ``dead_mask.safetensors`` (dead_mask, dead_indices, live_mask, live_indices,
    token_occurrence_counts) into `out`, and ``train.toml``, a config that names them and the vocabulary. None of the
    files may exist yet. All of them appear whole, or none does. What is read otherwise than it stands in a file (a byte
    order mark, ends of lines) is told through `say`.

    Raises
    ------
    InputError
        A text that cannot be read, too small a vocabulary, a file that exists.
    RunExistsError
        A file is where `out` should be.
    OSError
        As the disk says, with the path.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise InputError(f"--vocab-size must be at least {SMALLEST_VOCABULARY}, one id for each byte, not {vocab_size}")
    paths = [texts] if isinstance(texts, str | Path) else texts
    texts, model_corpus = [local_path(path) for path in paths], local_path(model_corpus)
    wide, narrow = [read_text(path, say=say) for path in texts], read_text(model_corpus, say=say)
    folder = local_path(out)
    refuse_blocked(folder)
    files = folder / "tokenizer.json", folder / "dead_mask.safetensors", folder / "train.toml"
    for file in files:
        if os.path.lexists(file):
            raise InputError(f"{file} exists already and is not replaced; choose another --out")
    tokenizer = train_tokenizer(wide, vocab_size)
    ids, notes = encode(tokenizer, narrow)
    for note in notes:
        say(f"{model_corpus}: {note}")
    counts = np.bincount(ids, minlength=vocab_size)
    inputs = {"corpus": model_corpus, "tokenizer": files[0], "dead_mask": files[1]}
    config = write_toml({name: str(path.resolve()) for name, path in inputs.items()} | {"vocab_size": vocab_size})
    contents = (tokenizer.to_str(pretty=True).encode(), save(mask_tensors(counts)), config.encode())
    write_all(dict(zip(files, contents, strict=True)), folder)
    return Prepared(*files, vocab_size, tokenizer.get_vocab_size(), int((counts == 0).sum()), int(counts.sum()))


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE, so that any text can be encoded; the same texts give the same tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=is_terminal(sys.stderr), initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_all(contents: Mapping[Path, bytes], folder: Path) -> None:
    """Put new files into a folder, which is made, each whole; where one cannot be written, none is left."""
    disk = LocalDisk()
    disk.make_folder(folder)
    files: list[PlacedFile] = []
    try:
        for path, data in contents.items():
            files.append(PlacedFile(path, disk))
            files[-1].write([data])
        for file in files:
            file.publish()
    except BaseException:
        for file in files:
            with suppress(OSError):
                file.withdraw()
        raise


def mask_tensors(counts: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """The five tensors of a mask file, from how often each id occurs."""
    dead = counts == 0
    return {
        "dead_mask": dead,
        "dead_indices": np.flatnonzero(dead).astype(np.int64),
        "live_mask": ~dead,
        "live_indices": np.flatnonzero(~dead).astype(np.int64),
        "token_occurrence_counts": counts.astype(np.int64),
    }
