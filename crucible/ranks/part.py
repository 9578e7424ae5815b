"""What this process has to do with a run that several train: it writes, it hands over its part, or it does nothing.

Plain tensors are the same on every rank (DistributedDataParallel, accelerate, the Trainer, ZeroRedundancyOptimizer):
one rank writes, the others do nothing, and no rank waits for another. The rows of a DTensor (fully_shard) are gathered,
so every rank of its mesh takes part then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from crucible.ranks.gather import Gather


def own_rank() -> int:
    """The rank of this process: torch's, else that of the environment (torchrun, accelerate), else 0."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK") or 0)


def is_spread(tensor: Tensor) -> bool:
    """Whether it is a DTensor, of which this process holds a part."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


@dataclass(frozen=True, slots=True)
class Part:
    """What this process has to do with a run.

    Parameters
    ----------
    rank : int
        Its rank.
    writer : int
        The rank that writes the run.
    gather : Gather, optional
        How rows of a parameter that is spread over ranks come together; None where each rank has all of it.
    """

    rank: int = 0
    writer: int = 0
    gather: Gather | None = None

    @property
    def writes(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == self.writer

    @property
    def looks(self) -> bool:
        """Whether this process must look at its weights: it writes them, or the writer needs its part of them."""
        return self.writes or self.gather is not None

    def words(self, run: object) -> str:
        """That another process writes the run."""
        return (
            f"{run}: rank {self.writer} records this run, and rank {self.rank}, this process, records nothing; its "
            "recorder takes everything and keeps nothing (on_rank=None lets each rank record a run of its own)"
        )


ALONE = Part()
"""Of a process that writes, with all of the parameter at hand."""


def part_of(parameter: Tensor, ids: NDArray[np.int64] | None, on_rank: int | None) -> Part:
    """What this process has to do with recording these rows of a parameter.

    Where the parameter is a DTensor this meets the other ranks of its mesh, which must all come here.

    Parameters
    ----------
    parameter : Tensor
        As this process has it.
    ids : (row,) int64, optional
        The wanted rows, ascending; all of them for None.
    on_rank : int or None
        The rank that writes; None for each rank a run of its own. Of a DTensor: if it is in the mesh, else the mesh's
        first rank.

    Raises
    ------
    ValueError
        A run of its own for each rank is asked for where each has a part of the parameter only.
    """
    if not is_spread(parameter):
        rank = own_rank()
        return Part(rank, rank if on_rank is None else on_rank)
    if on_rank is None:
        raise ValueError(
            "on_rank=None: each rank holds a part of this parameter only (a DTensor), so that it has no run of its own "
            "to record; leave on_rank= out, and the parts are gathered on one rank"
        )
    placed: Any = parameter
    members = placed.device_mesh.mesh.flatten().tolist()
    writer = on_rank if on_rank in members else members[0]
    rank = dist.get_rank()
    return Part(rank, writer, Gather(parameter, ids, writer) if rank in members else None)
