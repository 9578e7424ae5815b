"""What the weights of a file are taken for, found by a look at some of them before anything is written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import numpy as np

from analysis import lattice
from crucible.channels.table import ADAM_V
from crucible.interchange.sources.named import NamedArrays
from store.errors import TensorFileError
from store.format.schema import LATTICE

WEIGHT_DTYPE = {"U16": "bfloat16", "BF16": "bfloat16", "F32": "float32", "F16": "float16"}
_WEIGHTS = (1e-10, 1e10)
"""Sizes between which the median of weights lies as a rule when a training begins."""
_LARGE_STATE, _LOOKED_AT = 64 << 20, 8 << 20
"""Bytes of weights that are looked at before the import begins."""
KEPT_FLOAT16 = (
    "W is float16 and is kept so; if the weights were bfloat16, small ones and mantissas were changed when the file "
    "was written, and --lossy rounds them to bfloat16"
)


def refuse_negative(arrays: NamedArrays) -> None:
    """A second moment is a mean of squares; one below 0 is another array under its name. Two rows are looked at."""
    if ADAM_V.name not in arrays.tensors:
        return
    tensor = arrays.tensors[ADAM_V.name]
    for row in sorted({0, tensor.shape[0] - 1} if tensor.shape[0] else ()):
        values = arrays.rows(ADAM_V.name, row, row + 1)
        numbers = lattice.as_float32(values) if values.dtype == np.uint16 else values
        if (numbers < 0).any():
            raise TensorFileError(
                f"{tensor.name} would come in as {ADAM_V.name}, the second moment of Adam, but has numbers below "
                f"0, which that never has; say what it is with --map {shlex.quote(tensor.name[:80])}=NAME, or --skip it"
            )


def look_at_weights(arrays: NamedArrays, sizes: Mapping[str, int]) -> None:
    """Read the first and the last state where they are converted: what cannot be taken is mostly seen there."""
    if arrays.raw["W"].dtype != arrays.tensors["W"].dtype and arrays.raw["W"].nbytes // sizes["step"] < _LOOKED_AT:
        arrays.rows("W", 0, 1)
        arrays.rows("W", sizes["step"] - 1, sizes["step"])


def doubt_bits(arrays: NamedArrays, sizes: Mapping[str, int]) -> list[str]:
    """A sentence where integers that are taken for bits of bfloat16 would be no weights that anybody begins with."""
    raw = arrays.raw["W"]
    if raw.code not in ("U16", "I16") or raw.nbytes // sizes["step"] > _LARGE_STATE:
        return []
    size = np.abs(lattice.as_float32(arrays.rows("W", 0, 1)))
    size = size[np.isfinite(size) & (size > 0)]
    if not size.size or _WEIGHTS[0] < (median := float(np.median(size))) < _WEIGHTS[1]:
        return []
    return [
        f"W is {raw.dtype} and is taken for bits of bfloat16; the median of its first weights is then {median:.1e} in "
        "size, which is unusual: if they are bits of float16, or integers, save them as float16 or float32"
    ]


def find_lattice(arrays: NamedArrays, sizes: Mapping[str, int]) -> tuple[str, list[str]]:
    """Where displacements are measured, and a sentence where the file does not tell.

    float32 weights have their own lattice. Some are bfloat16 numbers all the same: where a file brings displacements,
    they say on which lattice they were measured; where it has none, or none that tells, its header does, as that of an
    export; else it is bfloat16's if every state lies on it. The first and the last state are looked at before the
    others, so that only such a file is read once more.
    """
    own = WEIGHT_DTYPE[arrays.tensors["W"].code]
    state_bytes = arrays.tensors["W"].nbytes // sizes["step"]
    if own != "float32":
        return own, [KEPT_FLOAT16] if own == "float16" else []
    told = "bfloat16" if arrays.words.get(LATTICE) == "bfloat16" else None
    if state_bytes > _LARGE_STATE:
        return told or own, []
    if "delta_W_prime" in arrays.tensors and sizes["step"] > 1:
        rows = min(sizes["step"], max(2, _LOOKED_AT // state_bytes))
        states, moves = arrays.rows("W", 0, rows), arrays.rows("delta_W_prime", 0, rows - 1)
        fitting = [
            name
            for name, on in ((own, states), ("bfloat16", lattice.float32_to_bits(states)))
            if np.array_equal(lattice.displacement(on[:-1], on[1:]), moves, equal_nan=True)
        ]
        if len(fitting) < 2:  # where nothing moved yet, both do
            return (fitting or [told or own])[0], []
    if told:
        return told, []
    if not _are_rounded(arrays, sizes["step"], max(1, _LOOKED_AT // max(1, state_bytes))):
        return own, []
    return "bfloat16", ["every weight of every state is a bfloat16 number, though kept as float32; displacements are "
                        "measured on bfloat16's lattice"]  # fmt: skip


def _are_rounded(arrays: NamedArrays, states: int, at_once: int) -> bool:
    """Whether every weight of every state is a bfloat16 number, and not all of them are 0."""
    spans = [
        (0, 1),
        (states - 1, states),
        *((start, min(start + at_once, states)) for start in range(0, states, at_once)),
    ]
    is_any = False
    for span in spans:
        values = arrays.rows("W", *span)
        if (values.view(np.uint32) & 0xFFFF).any():
            return False
        is_any |= bool(values.any())
    return is_any
