"""The loss of an update in a Trainer, and whether it is the one that is optimised."""

import pytest
import torch

from crucible.updates.micro_batches import LOOKED_AT, UpdateLoss

VALUES = (3.0, 5.0)


def outputs(losses, *, are_shares):
    """Losses of two micro-batches, as a model gives them."""
    found = [torch.tensor(value, requires_grad=True) * 1 for value in VALUES]
    for loss in found:
        losses.add(loss, is_share=are_shares)
    return found


OPTIMISED = [
    ("each by its share of the mean", False, lambda a, b: [a / 2, b / 2], None),
    ("the last one first", False, lambda a, b: [b / 2, a / 2], None),
    ("each as it is, of shares", True, lambda a, b: [a, b], None),
    ("with something of no interest here", True, lambda a, b: [a + 7, b], None),
    ("twice as much", True, lambda a, b: [2 * a, 2 * b], (8.0, 16.0)),
    ("both at once", False, lambda a, b: [a + b], (4.0, 8.0)),
    ("one of the two", False, lambda a, _: [a], (4.0, 3.0)),
    ("something else alone", False, lambda a, _: [a.detach() * torch.ones(1, requires_grad=True)], (4.0, 0.0)),
]


@pytest.mark.parametrize(
    ("are_shares", "optimised", "expected"), [each[1:] for each in OPTIMISED], ids=[each[0] for each in OPTIMISED]
)
def test_what_backward_is_called_on_is_compared_with_the_loss_of_the_update(are_shares, optimised, expected):
    losses = UpdateLoss()
    for _ in range(2):
        for each in optimised(*outputs(losses, are_shares=are_shares)):
            each.backward()
        assert losses.other_optimised() == expected
        assert float(losses.total()) == (8 if are_shares else 4)


def test_it_is_compared_in_the_first_updates_alone():
    losses, told = UpdateLoss(), []
    for _ in range(LOOKED_AT + 2):
        outputs(losses, are_shares=True)
        told.append(losses.other_optimised())
        losses.total()
    assert told == [(8.0, 0.0)] * LOOKED_AT + [None] * 2


def test_a_loss_that_is_no_number_or_has_no_gradient_is_not_doubted():
    losses = UpdateLoss()
    assert losses.other_optimised() is None
    losses.add(torch.tensor(3.0), is_share=False)
    assert losses.other_optimised() is None
    losses.total()
    for value in (float("nan"), float("inf")):
        losses.add(loss := torch.tensor(value, requires_grad=True) * 1, is_share=False)
        loss.backward()
        assert losses.other_optimised() is None
        losses.total()
