"""What a trajectory keeps, declared as data, and the version of the format.

A channel is a row of a table. The writer, the reader, `check` and the exporters read the table; none of them
knows what a channel means. The normative page of the format is docs/reference/format.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

FORMAT_NAME = "crucible-trajectory"
FORMAT_VERSION = 2
"""The version that is written; older ones are read."""

Role = Literal["given", "derived", "final", "static"]
BFLOAT16_NAN = 0x7FC0
"""The bits that stand for NaN where bfloat16 numbers are kept as uint16."""
LATTICE = "lattice"
"""Attribute of what is measured in cells, and of W where its dtype does not tell it: the number format of the cells."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One array of a trajectory.

    Parameters
    ----------
    name : str
        Its name on disk.
    dims : tuple of str
        Dimensions behind the step axis, slowest first: ``("token", "hidden")``, ``("token",)``, ``("hidden",)``
        or ``()``. A `final` or `static` channel has no step axis; these are then all its dimensions.
    dtype : str
        NumPy name of the stored dtype.
    role : {"given", "derived", "final", "static"}
        `given` rows come with every `append`; `derived` ones from the writer's `derive`; `final` arrays from
        `finish` when the run ends; `static` ones are handed over at creation.
    belongs_to : {"state", "move"}
        Row t of a state describes the weights after update t; row t of a move describes update t, and row 0 is NaN.
    meaning : str
        One sentence on what row t is, e.g. "loss of update t, computed with W[t-1]".
    long_name, units : str
        As in the CF conventions. Lattice cells are ``"cell"``, pure numbers ``"1"``.
    bits_of : str or None
        ``"bfloat16"`` when integer bit patterns of that format are stored.
    every, until : int, int or None
        Record only steps that `every` divides, up to and including `until`. Anything but the default gives the
        channel a dimension of its own, ``step_<name>``, with labels.
    exported : bool
        Whether `crucible export` writes it unless told otherwise.
    codec : {"zstd", "blosc"}
        What compresses it: `blosc` for float numbers that all change a little at every step, `zstd` for all else.
    attributes : mapping
        Further attributes of the array (JSON values).
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    role: Role = "given"
    belongs_to: Literal["state", "move"] = "state"
    meaning: str = ""
    long_name: str = ""
    units: str = "1"
    bits_of: str | None = None
    every: int = 1
    until: int | None = None
    exported: bool = True
    codec: Literal["zstd", "blosc"] = "zstd"
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"a channel's name must be an identifier, not {self.name!r}")
        if self.every < 1 or (self.until is not None and self.until < 0):
            raise ValueError(f"{self.name}: every >= 1 and until >= 0, not every={self.every}, until={self.until}")
        if np.dtype(self.dtype).hasobject or np.dtype(self.dtype).kind not in "biuf":
            raise ValueError(f"{self.name}: dtype {self.dtype} cannot be stored; use bool, an integer or a float")
        if self.on_own_axis and self.role != "given":
            raise ValueError(f"{self.name}: only a given channel can have every= or until=, not a {self.role} one")

    @property
    def has_steps(self) -> bool:
        """Whether the array has a step axis."""
        return self.role in ("given", "derived")

    @property
    def on_own_axis(self) -> bool:
        """Whether the channel has a schedule, and so a step dimension, of its own."""
        return self.every != 1 or self.until is not None

    @property
    def axis(self) -> str:
        """Name of the channel's step dimension; the labels of an axis bear its name."""
        if self.attributes.get("axis"):
            return self.name
        return f"step_{self.name}" if self.on_own_axis else "step"

    @property
    def all_dims(self) -> tuple[str, ...]:
        """Dimensions of the array on disk."""
        return (self.axis, *self.dims) if self.has_steps else self.dims

    @property
    def fill_value(self) -> float | int | bool:
        """What an unwritten cell holds: NaN for floats, 0 for the rest."""
        kind = np.dtype(self.dtype).kind
        return float("nan") if kind == "f" else (False if kind == "b" else 0)

    @property
    def missing_value(self) -> float | int | bool:
        """The value of a row that does not exist: NaN, also where NaN is kept as bits."""
        return BFLOAT16_NAN if self.bits_of == "bfloat16" else self.fill_value

    def is_missing(self, row: NDArray[Any]) -> bool:
        """Whether a row is one that does not exist; any NaN where the numbers are floats."""
        return bool(np.all(np.isnan(row) if row.dtype.kind == "f" else row == self.missing_value))

    def records(self, step: int) -> bool:
        """Whether the channel's schedule takes this step."""
        return step % self.every == 0 and (self.until is None or step <= self.until)

    def to_attributes(self) -> dict[str, Any]:
        """The array's attributes; `from_array` reads them back."""
        attributes: dict[str, Any] = {"long_name": self.long_name or self.name, "units": self.units}
        attributes |= {"role": self.role, "belongs_to": self.belongs_to, "meaning": self.meaning}
        attributes |= {"exported": self.exported}
        if self.bits_of:
            attributes["bits_of"] = self.bits_of
        if self.on_own_axis:
            attributes |= {"every": self.every, "until": self.until}
        return attributes | dict(self.attributes)

    @classmethod
    def from_array(cls, name: str, metadata: Mapping[str, Any]) -> Self:
        """The channel that an array's zarr.json describes."""
        attributes = dict(metadata.get("attributes", {}))
        role = attributes.pop("role", "given")
        dims = tuple(metadata["dimension_names"])
        known = {
            key: attributes.pop(key)
            for key in ("belongs_to", "meaning", "long_name", "units", "bits_of", "every", "until", "exported")
            if key in attributes
        }
        dims = dims[1:] if role in ("given", "derived") else dims
        codec = _codec(metadata.get("codecs", ()))
        return cls(name, dims, metadata["data_type"], role=role, codec=codec, attributes=attributes, **known)


def _codec(codecs: Sequence[Mapping[str, Any]]) -> Literal["zstd", "blosc"]:
    """What compresses an array, from its codecs in either format."""
    if codecs and codecs[0]["name"] == "sharding_indexed":
        codecs = codecs[0]["configuration"]["codecs"]
    return "blosc" if any(codec["name"] == "blosc" for codec in codecs) else "zstd"
