"""The loss of an update, from the losses of its micro-batches."""

from __future__ import annotations

from torch import Tensor


class UpdateLoss:
    """Gathers the losses of the micro-batches of one update, and says what the update's own loss is.

    Nothing is copied to the host here.
    """

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._are_shares = False

    def add(self, loss: Tensor, *, is_share: bool) -> None:
        """One micro-batch's loss: its own mean, or its share of the update's."""
        self._are_shares = is_share
        self._values.append(loss.detach().float().mean())

    def total(self) -> Tensor | None:
        """The update's loss on this rank; begins the next update."""
        values, self._values = self._values, []
        if not values:
            return None
        whole = sum(values[1:], values[0])
        return whole if self._are_shares else whole / len(values)

    @property
    def are_shares(self) -> bool:
        """Whether the losses seen last are shares of the update's, divided by the number of items in all of it."""
        return self._are_shares
