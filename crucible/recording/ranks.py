"""Several processes that train together: which of them writes the run, and how rows that lie on several come to it.

Plain tensors are the same on every rank (DistributedDataParallel, accelerate, the Trainer, ZeroRedundancyOptimizer):
one rank writes, the others do nothing, and no rank waits for another. The rows of a DTensor (fully_shard) are gathered,
so every rank of its mesh takes part then.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

LONGEST_WAIT = timedelta(minutes=10)
"""A rank waits so long for the rows of the others; it must outlast the evaluation and saving of one of them."""


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


class Company:
    """Whether every rank of a training has come here: told through torch's key-value store, so that none waits.

    Each rank makes one when its training begins, and asks after the first gradients were exchanged.
    """

    _made = 0

    def __init__(self) -> None:
        self.is_alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        self._key = f"crucible/{Company._made}"
        Company._made += 1
        if not self.is_alone:
            _key_value_store().set(f"{self._key}/{dist.get_rank()}", "here")

    @classmethod
    def of_one(cls) -> Self:
        """Nobody but this rank."""
        company = cls.__new__(cls)
        company.is_alone = True
        return company

    @cached_property
    def is_complete(self) -> bool:
        """Whether all of them are here; asked once."""
        return bool(_key_value_store().check([f"{self._key}/{rank}" for rank in range(dist.get_world_size())]))


def _key_value_store() -> Any:  # noqa: ANN401 - torch's, which has no public name
    return dist.distributed_c10d._get_default_store()


class NoWriter:
    """Counts the steps of a process that writes nothing.

    Parameters
    ----------
    steps : int
        Label of the step before the first.
    """

    waited_s = 0.0

    def __init__(self, steps: int = -1) -> None:
        self.steps = steps

    @property
    def committed_steps(self) -> int:
        """As many as there are: nothing can be lost."""
        return self.steps

    def append(self, **rows: Any) -> None:  # noqa: ANN401, ARG002 - as of a writer
        """Count the step."""
        self.steps += 1

    def checkpoint(self, step: int, files: object) -> None:
        """Keep nothing."""

    def commit(self) -> None:
        """There is nothing to make durable."""

    def complete(self, describe: object = None) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""
