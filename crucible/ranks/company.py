"""What the ranks of a training tell one another, beside the rows: that all are here, and the loss of all of them."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor


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


def loss_of_all(loss: Tensor | None, device: torch.device, *, is_share: bool) -> Tensor | None:
    """The loss of an update that several ranks made together; each of them must call this.

    Parameters
    ----------
    loss : Tensor or None
        On this rank; None where it saw none.
    device : torch.device
        Where the process group works.
    is_share : bool
        Each rank's loss is divided by the items of all ranks: they are added up. Else their mean is taken.

    Returns
    -------
    Tensor or None
        None where no rank saw a loss; it stays on the device.
    """
    seen = torch.zeros(2, device=device)
    if loss is not None:
        seen[0], seen[1] = loss, 1
    dist.all_reduce(seen)
    if loss is None:
        return None
    return seen[0] if is_share else seen[0] / seen[1]


def _key_value_store() -> Any:  # noqa: ANN401 - torch's, which has no public name
    return dist.distributed_c10d._get_default_store()
