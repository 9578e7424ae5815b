"""The rows of a parameter that lies on several ranks (a DTensor, as fully_shard makes them) come to one of them."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

LONGEST_WAIT = timedelta(minutes=10)
"""A rank waits so long for the rows of the others; it must outlast the evaluation and saving of one of them."""


class Gather:
    """Brings the recorded rows of tensors that are spread like a parameter to the rank that writes.

    It has a process group of its own, so that it doesn't mix with the operations of fully_shard.

    Parameters
    ----------
    parameter : DTensor
        Tensors like it are taken.
    ids : (row,) int64, optional
        The wanted rows, ascending; all of them for None.
    writer : int
        The rank that gets them.
    """

    def __init__(self, parameter: Tensor, ids: NDArray[np.int64] | None, writer: int) -> None:
        placed: Any = parameter
        self._members = placed.device_mesh.mesh.flatten().tolist()
        self._writer, self._rows = writer, len(parameter)
        self._ids = np.arange(self._rows) if ids is None else ids
        self._index = torch.from_numpy(self._ids).to(parameter.device)
        try:
            self._group = dist.new_group(self._members, timeout=LONGEST_WAIT, use_local_synchronization=True)
        except RuntimeError as error:
            raise RuntimeError(_not_met("attach")) from error
        counts = np.diff(np.searchsorted(self._ids, self._bounds())).tolist()
        self._counts, self._most = counts, max(counts)
        self._own = self._index[self._wanted(self._members.index(dist.get_rank()))]

    def __call__(self, tensor: Tensor) -> Tensor:
        """The wanted rows of a DTensor on the rank that writes, and zeros of that shape on the others."""
        spread: Any = tensor
        if not self._is_cut_along_rows(spread):
            whole: Tensor = spread.full_tensor()
            return whole.index_select(0, self._index)
        place = self._members.index(dist.get_rank())
        part: Tensor = spread.to_local().index_select(0, self._own - self._bounds()[place])
        padded = part.new_zeros((self._most, *part.shape[1:]))
        padded[: len(part)] = part
        parts = self._gathered(padded)
        if parts is None:
            return part.new_zeros((len(self._ids), *part.shape[1:]))
        return torch.cat([parts[place][:count] for place, count in enumerate(self._counts)])

    def _gathered(self, padded: Tensor) -> list[Tensor] | None:
        """The tensors of all members in the order of the mesh; None where another rank gets them."""
        is_writer = dist.get_rank() == self._writer
        parts = [torch.empty_like(padded) for _ in self._members] if is_writer else None
        try:
            dist.gather(padded, parts, group=self._group, dst=self._writer)
        except RuntimeError as error:
            raise RuntimeError(_not_met("its optimizer step")) from error
        return parts and [parts[dist.get_group_rank(self._group, rank)] for rank in self._members]

    def _is_cut_along_rows(self, tensor: Any) -> bool:  # noqa: ANN401 - a DTensor
        return len(tensor.placements) == 1 and tensor.placements[0].is_shard(0)

    def _bounds(self) -> NDArray[np.int64]:
        """Where the rows of each place of the mesh begin, and the end: as many to each as there are, the rest last."""
        each = math.ceil(self._rows / len(self._members))
        return np.minimum(np.arange(len(self._members) + 1) * each, self._rows)

    def _wanted(self, place: int) -> slice:
        start = sum(self._counts[:place])
        return slice(start, start + self._counts[place])


def _not_met(where: str) -> str:
    return (
        f"the ranks that share this parameter did not meet in {where} within {LONGEST_WAIT.total_seconds():.0f} s: "
        "another rank failed, left its loop, closed its recorder, or never attached. Every rank must call attach, and "
        "close its recorder after the same step"
    )
