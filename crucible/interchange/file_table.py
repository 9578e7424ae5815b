"""What a file of the lab may hold, as a table: names, dimensions, dtypes, and what each array means.

`crucible import` reads this table and nothing else to know an array; a new name is a new alias here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from crucible.channels.table import ADAM_M, ADAM_V, GRADIENT, LEARNING_RATE
from store.format.schema import Channel
from store.tensorfile.header import TensorSpec

OWN_STEPS = "step_"
"""``step_gradient`` holds the steps of the rows of ``gradient``, where these are not the steps of W."""
STEP_NAMES = ("step", "steps", f"{OWN_STEPS}W")
"""Any of these may hold the step of each row of W; without, row t is step t."""
INTEGERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
MASK = ("BOOL", *INTEGERS)
FLOATS = ("F32", "F64", "F16")
WEIGHTS = ("U16", "BF16", "F32", "F16", "F64", "I16")
"""uint16 and int16 are the bits of bfloat16; float64 is taken where it holds numbers of float32."""
MOMENTS = ("F32", "BF16", "F16", "F64", "U16")
ROWS = ("token", "hidden")


@dataclass(frozen=True, slots=True)
class FileArray:
    """An array that a file of the lab may hold.

    Parameters
    ----------
    name : str
        What the store calls it.
    dims : tuple of str
        Its dimensions. "step" has T + 1 rows, one for each state; "move" has T; "either" has T + 1 or T, and T rows
        belong to the steps 1 to T. "wide" may be `token`, `vocabulary` or neither.
    codes : tuple of str
        Dtypes that are taken, as safetensors calls them.
    meaning : str
        One line for ``crucible import --list``.
    aliases : tuple of str
        What the lab's files call it, too.
    """

    name: str
    dims: tuple[str, ...]
    codes: tuple[str, ...]
    meaning: str
    aliases: tuple[str, ...] = ()


_TABLE = (
    FileArray("W", ("step", *ROWS), WEIGHTS, "weights after each update", ("embeddings", "embedding", "weights")),
    FileArray("delta_W_prime", ("move", *ROWS), ("F32",), "displacement in cells; computed anew and compared"),
    FileArray("displacement_l1", ("move", "token"), ("F32",), "its L1 norm; computed anew and compared"),
    FileArray("displacement_l2", ("move", "token"), ("F32",), "its L2 norm; computed anew and compared"),
    FileArray("displacement_linf", ("move", "token"), ("F32",), "its Linf norm; computed anew and compared"),
    FileArray("centroid", ("step", "hidden"), ("F32",), "mean of the rows; compared", ("centroids",)),
    FileArray("loss", ("either",), FLOATS, "loss of each update", ("losses", "train_loss")),
    FileArray(
        "adam_m", ("either", *ROWS), MOMENTS, "first moment of Adam after each update",
        ("m", "momentum", "momentum_W", "exp_avg"),
    ),
    FileArray(
        "adam_v", ("either", *ROWS), MOMENTS, "second moment of Adam after each update",
        ("v", "variance", "variance_W", "exp_avg_sq"),
    ),
    FileArray(
        "gradient", ("either", *ROWS), MOMENTS, "gradient that drove each update",
        ("g", "grad", "grads", "grad_W", "gradients"),
    ),
    FileArray("h_mean", ("either", "hidden"), FLOATS, "mean hidden state in each update", ("hidden_mean",)),
    FileArray("logits", ("either", "wide"), FLOATS, "logits in each update"),
    FileArray("learning_rate", ("either",), FLOATS, "learning rate of each update", ("learning_rates", "lr")),
    FileArray("last_motion_step", ("token",), ("I32", "I64"), "step of the last motion; computed anew and compared"),
    FileArray("dead_mask", ("vocabulary",), MASK, "which ids never occur in the corpus"),
    FileArray("live_mask", ("vocabulary",), MASK, "which ids occur in the corpus"),
    FileArray(
        "token_occurrence_counts", ("vocabulary",), ("I64", "I32"), "how often each id occurs",
        ("token_counts", "occurrence_counts"),
    ),
    FileArray(
        "dead_indices", ("dead",), INTEGERS, "ids that never occur in the corpus",
        ("dead_ids", "dead_token_ids", "dead_token_indices"),
    ),
    FileArray("live_indices", ("live",), INTEGERS, "ids that occur", ("live_ids", "live_token_ids")),
    FileArray("token", ("token",), INTEGERS, "id of each row", ("tokens", "token_ids")),
    *(FileArray(name, ("step",), INTEGERS, "step of each row") for name in STEP_NAMES),
)  # fmt: skip
SCHEDULED = tuple(row.name for row in _TABLE if row.dims[0] == "either" or row.name == "centroid")
"""What may have been recorded at some steps only."""
_OWN_STEPS = (
    FileArray(
        f"{OWN_STEPS}{row.name}", (f"{OWN_STEPS}{row.name}",), INTEGERS, f"step of each row of {row.name}",
        tuple(f"{OWN_STEPS}{alias}" for alias in row.aliases),
    )
    for row in _TABLE
    if row.name in SCHEDULED
)  # fmt: skip
FILE_ARRAYS: Mapping[str, FileArray] = {row.name: row for row in (*_TABLE, *_OWN_STEPS)}
"""Every array that import understands, by the store's name. W must be there."""
CALLED: Mapping[str, str] = {
    alias: row.name for row in FILE_ARRAYS.values() for alias in (row.name, *row.aliases)
}  # fmt: skip
"""What the store calls an array of a file, by any of its names."""


def expected_of(name: str, names: Collection[str]) -> FileArray:
    """The row of the table for an array of a file that holds arrays of these names.

    Examples
    --------
    >>> expected_of("loss", ["W", "loss"]).dims, expected_of("loss", ["W", "loss", "step_loss"]).dims
    (('either',), ('step_loss',))
    """
    row, own = FILE_ARRAYS[name], f"{OWN_STEPS}{name}"
    return replace(row, dims=(own, *row.dims[1:])) if name in SCHEDULED and own in names else row


H_MEAN = Channel(
    "h_mean", ("hidden",), "float32", belongs_to="move", exported=False, long_name="mean hidden state",
    meaning="mean of the hidden state over batch and positions in update t, computed with W[t-1]",
)  # fmt: skip
LOGITS = Channel(
    "logits", ("logit",), "float32", codec="blosc", belongs_to="move", exported=False, long_name="logits",
    meaning="logits in update t, computed with W[t-1]",
)  # fmt: skip
BESIDE: Mapping[str, Channel] = {
    channel.name: channel for channel in (ADAM_M, ADAM_V, GRADIENT, H_MEAN, LOGITS, LEARNING_RATE)
}
"""What is kept as it is, beside the weights, the loss and the centroid."""
OF_EITHER = {"h_mean": "mean of the hidden state at step t, computed with W[t]",
             "logits": "logits at step t, computed with W[t]"}  # fmt: skip
"""What describes states where there is a row for each of them, the first one too."""


def beside_channel(name: str, tensor: TensorSpec, sizes: Mapping[str, int], *, has_first: bool) -> Channel:
    """The channel that keeps an array as a file has it.

    Parameters
    ----------
    name : str
        A key of `BESIDE`.
    tensor : TensorSpec
        Its dtype and shape.
    sizes : mapping of str to int
        Sizes of the dimensions.
    has_first : bool
        Whether the file has a row of it for the first state.

    Examples
    --------
    >>> made = beside_channel("logits", TensorSpec("logits", "F16", (9, 5)), {"token": 5}, has_first=False)
    >>> made.dims, made.dtype, made.belongs_to
    (('token',), 'float16', 'move')
    """
    channel = BESIDE[name]
    if tensor.code == "BF16":
        channel = replace(channel, dtype="uint16", bits_of="bfloat16", codec="zstd")
    else:
        channel = replace(channel, dtype=np.dtype(tensor.dtype).name)
    if has_first and name in OF_EITHER:
        channel = replace(channel, belongs_to="state", meaning=OF_EITHER[name])
    if "logit" in channel.dims:
        same = [dim for dim in ("token", "vocabulary") if sizes.get(dim) == tensor.shape[-1]]
        channel = replace(channel, dims=((same or ["logit"])[0],))
    return channel
