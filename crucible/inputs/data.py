"""Reads the inputs of a training: the corpus, the tokenizer, the dead mask, and batches in a seeded order."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from crucible.inputs.tokens import encode, make_plain
from crucible.units import counted, one_line
from store.small_file import read_small

KEPT = ("live_mask", "live_indices", "token_occurrence_counts")
"""Tensors that the lab's mask files may hold beside the two that are read; they go along into the run."""
PER_ID = ("live_mask", "token_occurrence_counts")
"""Those of `KEPT` that hold a value for each id of the vocabulary."""

LARGEST_MASK = 1 << 30
"""Bytes of a mask file: five numbers of each id, at eight bytes, of 25 million ids."""
LARGEST_TEXT = {"tokenizer": 1 << 28}
"""Bytes of a text file, by what it is for; a corpus may have any size."""
LONG_ID = 16
"""Characters; ids of a text stand for fewer as a rule."""
BYTE_ORDER_MARK = "\ufeff"
Say = Callable[[str], None]


class InputError(ValueError):
    """An input file that is missing, broken, or does not fit the others."""


@dataclass(frozen=True, slots=True)
class DeadMask:
    """Which ids never occur in the corpus.

    Parameters
    ----------
    mask : (vocabulary,) bool
    indices : (token,) int64, ascending
    kept : mapping
        What else the file held of `KEPT`.
    """

    mask: NDArray[np.bool_]
    indices: NDArray[np.int64]
    kept: dict[str, NDArray[np.generic]] = field(default_factory=dict)


def read_text(path: str | Path, kind: str = "text", *, say: Say = warnings.warn) -> str:
    """A whole UTF-8 file that is not empty; `kind` is what the messages call it. Plain files only: it is read again.

    A byte order mark is no text, and all ends of lines are read as line feeds, as Python does; both are said.
    """
    try:
        text = read_small(path, LARGEST_TEXT.get(kind)).decode("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: {_missing(error, path, kind)}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file first") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if text.startswith(BYTE_ORDER_MARK):
        text = text.removeprefix(BYTE_ORDER_MARK)
        say(f"{path}: begins with a byte order mark, which is no text and is left out")
    if "\r" in text:
        ends = text.count("\r")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        say(f"{path}: {ends:,} line ends with a carriage return are read as plain ones")
    if not text.strip():
        raise InputError(f"{path}: the file holds no text")
    return text


def read_tokenizer(path: str | Path, vocab_size: int, *, say: Say = warnings.warn) -> Tokenizer:
    """A tokenizers JSON file whose ids all lie below `vocab_size`. What it does beyond encoding is switched off."""
    tokenizer = _parse_tokenizer(path, read_text(path, "tokenizer", say=say))
    largest = _largest_id(tokenizer)
    if largest >= vocab_size:
        raise InputError(f"{path}: has ids up to {largest:,}, but vocab_size is {vocab_size:,}; raise --vocab-size")
    for note in make_plain(tokenizer):
        say(f"{path}: {note}")
    return tokenizer


def _parse_tokenizer(path: str | Path, text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path}: not a tokenizers JSON file ({one_line(error)})") from None


def _largest_id(tokenizer: Tokenizer) -> int:
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


def read_sequences(
    path: str | Path,
    tokenizer: Tokenizer,
    seq_len: int,
    batch_size: int,
    *,
    vocab_size: int | None = None,
    say: Say = warnings.warn,
) -> Tensor:
    """The corpus as (sequence, seq_len) int64: encoded whole by one call, cut, the tail dropped."""
    found, notes = encode(tokenizer, read_text(path, say=say))
    for note in notes:
        say(f"{path}: {note}")
    ids = torch.tensor(found, dtype=torch.int64)
    if vocab_size is not None and len(ids) and (largest := int(ids.max())) >= vocab_size:
        raise InputError(f"{path}: the tokenizer makes id {largest:,} of it, but vocab_size is {vocab_size:,}")
    return ids[: _sequences(path, len(ids), seq_len, batch_size) * seq_len].view(-1, seq_len)


def refuse_less_than_a_batch(path: str | Path, tokenizer: Tokenizer, seq_len: int, batch_size: int) -> None:
    """Raise where a corpus has not one whole batch, as `read_sequences` does; of a long one the beginning is enough."""
    text, enough = read_text(path, say=lambda _: None), 2 * batch_size * seq_len  # where it is cut, ids may be others
    if len(tokenizer.encode(text[: LONG_ID * enough]).ids) < enough:
        _sequences(path, len(encode(tokenizer, text)[0]), seq_len, batch_size)


def _sequences(path: str | Path, ids: int, seq_len: int, batch_size: int) -> int:
    """How many sequences so many ids of a corpus give; an InputError where that is less than a batch."""
    count = ids // seq_len
    if count < batch_size:
        raise InputError(
            f"{path}: {ids:,} token ids give {counted(count, 'sequence')} of {seq_len:,}, fewer than one batch of "
            f"{batch_size:,}; "
            f"use more text or a smaller --batch-size"
        )
    return count


def vocabulary_of(tokenizer: str | Path | None, dead_mask: str | Path | None) -> int | None:
    """Rows that the embedding needs: as many as the mask has ids, else the tokenizer; None without either file."""
    if dead_mask is not None:
        return read_mask_tensors(dead_mask)["dead_mask"].size
    if tokenizer is not None:
        return _largest_id(_parse_tokenizer(tokenizer, read_text(tokenizer, "tokenizer"))) + 1
    return None


def read_dead_mask(path: str | Path, vocab_size: int) -> DeadMask:
    """`dead_mask` and `dead_indices` of a safetensors file, checked against each other."""
    tensors = read_mask_tensors(path)
    mask, indices = tensors["dead_mask"], tensors["dead_indices"]
    if mask.shape != (vocab_size,):
        raise InputError(f"{path}: dead_mask has shape {mask.shape}, vocab_size is {vocab_size:,}")
    if mask.dtype.kind not in "biu" or indices.dtype.kind not in "iu":
        found_dtypes = f"dead_mask is {mask.dtype} and dead_indices {indices.dtype}"
        raise InputError(f"{path}: {found_dtypes}; expected bool or integers")
    mask = mask != 0
    found = np.flatnonzero(mask)
    if not len(found):
        raise InputError(f"{path}: the mask has no dead token, so there is nothing to record")
    if indices.shape != found.shape or not np.array_equal(indices, found):
        raise InputError(
            f"{path}: dead_indices ({indices.shape} of {indices.dtype}) contradicts dead_mask, "
            f"which marks {counted(len(found), 'id')}; expected its ids in ascending order"
        )
    kept = {name: tensors[name] for name in KEPT if name in tensors}
    _check_kept(path, kept, vocab_size)
    _refuse_contradiction(path, mask, kept)
    return DeadMask(mask, found.astype(np.int64), kept)


def read_mask_tensors(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """All tensors of a mask file; `dead_mask`, with an axis, and `dead_indices` are among them."""
    tensors = _load_tensors(path)
    for name in ("dead_mask", "dead_indices"):
        if name not in tensors:
            raise InputError(f"{path}: holds no tensor {name!r}, only {', '.join(sorted(tensors)) or 'none'}")
    return tensors


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(slots=True)
class BatchPosition:
    """Where the loop is in the order of batches: enough to find it again.

    Parameters
    ----------
    epoch : int
        Passes of the loader begun, counted from 1; 0 before the first.
    drawn : int
        Batches drawn in this pass.
    random_state : Tensor or None
        torch's generator just before this pass began.
    """

    epoch: int = 0
    drawn: int = 0
    random_state: Tensor | None = None


def batches(sequences: Tensor, batch_size: int, place: BatchPosition) -> Iterator[Tensor]:
    """Batches without end, (batch, seq), from `place` on, which is kept up to date.

    Making a loader's iterator and drawing its first batch both advance torch's generator. So a pass that was left
    in the middle is begun again from its own random state, and what was drawn already is drawn and dropped.
    """
    loader = DataLoader(TensorDataset(sequences), batch_size=batch_size, shuffle=True, drop_last=True)
    while True:
        if place.drawn:
            now = torch.get_rng_state()
            assert place.random_state is not None
            torch.set_rng_state(place.random_state)
            pass_ = iter(loader)
            for _ in range(place.drawn):
                next(pass_)
            torch.set_rng_state(now)
        else:
            place.epoch += 1
            place.random_state = torch.get_rng_state()
            pass_ = iter(loader)
        for (ids,) in pass_:
            place.drawn += 1
            yield ids
        place.drawn = 0


def _check_kept(path: str | Path, kept: dict[str, NDArray[np.generic]], vocab_size: int) -> None:
    """Refuse kept tensors that do not go with a mask of so many ids."""
    for name, values in kept.items():
        if values.dtype.kind not in "biu":
            raise InputError(f"{path}: {name} is {values.dtype}; expected bool or integers")
        wanted = f"({vocab_size},)" if name in PER_ID else "(live ids,)"
        if values.ndim != 1 or (name in PER_ID and len(values) != vocab_size):
            raise InputError(f"{path}: {name} has shape {values.shape}, expected {wanted}, to go with dead_mask")


def _refuse_contradiction(path: str | Path, mask: NDArray[np.bool_], kept: dict[str, NDArray[np.generic]]) -> None:
    """Raise where what the file tells of the live ids names a dead one, as an inverted mask does."""
    live = {
        "live_mask": np.flatnonzero(kept.get("live_mask", ())),
        "live_indices": kept.get("live_indices", np.empty(0)),
    }
    for name, ids in live.items():
        both = np.intersect1d(ids, np.flatnonzero(mask))
        if both.size:
            raise InputError(
                f"{path}: {name} and dead_mask both name {counted(both.size, 'id')}, the first of them {both[0]:.0f}; "
                "mend the file, since no id is dead and live"
            )


def _load_tensors(path: str | Path) -> dict[str, NDArray[np.generic]]:
    try:
        return dict(load(read_small(path, LARGEST_MASK)))
    except FileNotFoundError as error:
        raise InputError(f"{path}: {_missing(error, path, 'safetensors')}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a safetensors file that numpy can hold ({one_line(error)})") from None


def _missing(error: OSError, path: str | Path, kind: str) -> str | None:
    return error.strerror if Path(path).is_symlink() else f"there is no such {kind} file"
