"""TinyLM: a small causal language model with tied embeddings, made in the order that decides its first bits."""

from __future__ import annotations

import random
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

INITIAL_STD = 0.02


class Shape(Protocol):
    """The parameters that decide the model; `crucible.Config` has them."""

    @property
    def vocab_size(self) -> int: ...  # noqa: D102
    @property
    def seq_len(self) -> int: ...  # noqa: D102
    @property
    def hidden_dim(self) -> int: ...  # noqa: D102
    @property
    def num_layers(self) -> int: ...  # noqa: D102
    @property
    def num_heads(self) -> int: ...  # noqa: D102


class TinyLM(nn.Module):
    """Token and position embedding, a pre-norm encoder with a causal mask, a final LayerNorm.

    Calling it gives the final states; `next_token_loss` multiplies them with the transposed token embedding.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden = shape.hidden_dim
        self.token_embedding = nn.Embedding(shape.vocab_size, hidden)
        self.position_embedding = nn.Embedding(shape.seq_len, hidden)
        layer = nn.TransformerEncoderLayer(
            hidden, shape.num_heads, 4 * hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        # nested tensors need post-norm; torch would only warn that it does not use them
        self.encoder = nn.TransformerEncoder(layer, shape.num_layers, enable_nested_tensor=False)
        self.final_norm = nn.LayerNorm(hidden)
        nn.init.normal_(self.token_embedding.weight, 0.0, INITIAL_STD)
        nn.init.normal_(self.position_embedding.weight, 0.0, INITIAL_STD)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, seq) int64 -> (batch, seq, hidden)."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = self.token_embedding(ids) + self.position_embedding(positions)  # (batch, seq, hidden)
        # with the hint set attention does not read the mask; torch still wants it
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device)
        x = self.encoder(x, mask=mask, is_causal=True)
        states: Tensor = self.final_norm(x)
        return states


def next_token_loss(states: Tensor, embedding: Tensor, ids: Tensor, chunk: int = 0) -> Tensor:
    """Mean cross entropy of each position's logits against the next id.

    Parameters
    ----------
    states : Tensor
        (batch, seq, hidden), of `TinyLM`.
    embedding : Tensor
        (vocabulary, hidden), the tied token embedding.
    ids : Tensor
        (batch, seq) int64; position p is asked for id p + 1, the last position for none.
    chunk : int
        0: all logits at once, (batch, seq, vocabulary). Otherwise slices of so many positions, whose logits are
        computed again in the backward pass: little memory, and other bits, since sums are taken in another order.
    """
    targets = ids[:, 1:].reshape(-1)
    if not chunk:
        logits = states @ embedding.t()  # (batch, seq, vocabulary)
        return nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), targets)
    rows = states[:, :-1].reshape(-1, states.shape[-1])  # (batch * (seq - 1), hidden)
    total = torch.zeros((), dtype=torch.float32, device=states.device)
    for start in range(0, len(rows), chunk):
        part = (rows[start : start + chunk], embedding, targets[start : start + chunk])
        total = total + checkpoint(_summed_loss, *part, use_reentrant=False, preserve_rng_state=False)
    return total / len(rows)


def _summed_loss(rows: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(rows @ embedding.t(), targets, reduction="sum").float()


def loss_of(model: TinyLM, ids: Tensor, compute: str, chunk: int = 0) -> Tensor:
    """The loss of a batch, (batch, seq) int64, in this arithmetic.

    "bfloat16": forward and loss under autocast, as in the notebook. "float32": the weights are widened on the way in,
    so that gradients arrive in their own dtype; weights and optimizer state stay what they are.
    """
    if compute == "float32":
        wide = {name: parameter.float() for name, parameter in model.named_parameters()}
        states = functional_call(model, wide, (ids,))
        return next_token_loss(states, wide["token_embedding.weight"], ids, chunk)
    kind = "cpu" if ids.device.type == "mps" else ids.device.type
    with torch.autocast(device_type=kind, dtype=torch.bfloat16):
        return next_token_loss(model(ids), model.token_embedding.weight, ids, chunk)


def seed_everything(seed: int) -> None:
    """Seed Python's random, numpy and torch: once, before anything draws."""
    random.seed(seed)
    np.random.seed(seed)  # the notebook's generator, kept in checkpoints
    torch.manual_seed(seed)


def parameter_count(model: nn.Module) -> int:
    """Number of trained values; the tied embedding counts once."""
    return sum(parameter.numel() for parameter in model.parameters())
