"""The experiment the notebook's way: everything in memory, written to one file at the end.

An oracle for `crucible train`, written from the description of the experiment and using none of the project's code.
Every tensor is kept, every displacement is computed in the loop.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # as `crucible train` chooses it
CELLS = torch.tensor([2.0 ** (max(exponent, 1) - 134) for exponent in range(256)], dtype=torch.float32)


@dataclass
class Settings:
    corpus: str
    tokenizer: str
    dead_mask: str
    total_steps: int = 5000
    batch_size: int = 128
    seq_len: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    vocab_size: int = 10000
    hidden_dim: int = 64
    num_layers: int = 2
    num_heads: int = 2
    random_seed: int = 42
    motion_threshold: float = 0.1


@dataclass
class Notebook:
    tensors: dict[str, torch.Tensor]
    epochs: int
    said: dict[str, Any] = field(default_factory=dict)


class GPT(nn.Module):
    def __init__(self, s: Settings):
        super().__init__()
        self.tok = nn.Embedding(s.vocab_size, s.hidden_dim)
        self.pos = nn.Embedding(s.seq_len, s.hidden_dim)
        layer = nn.TransformerEncoderLayer(
            d_model=s.hidden_dim,
            nhead=s.num_heads,
            dim_feedforward=s.hidden_dim * 4,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.enc = nn.TransformerEncoder(layer, num_layers=s.num_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(s.hidden_dim)
        nn.init.normal_(self.tok.weight, mean=0.0, std=0.02)
        nn.init.normal_(self.pos.weight, mean=0.0, std=0.02)

    def forward(self, ids):
        x = self.tok(ids) + self.pos(torch.arange(ids.shape[1], device=ids.device))
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device)
        x = self.norm(self.enc(x, mask=mask, is_causal=True))
        return x @ self.tok.weight.T


def displacement(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """(W[t] - W[t-1]) / u(W[t-1]) of bfloat16 rows, in float32."""
    exponent = (before.view(torch.int16).to(torch.int64) >> 7) & 255
    return (after.float() - before.float()) / CELLS.to(exponent.device)[exponent]


def run(s: Settings) -> Notebook:
    random.seed(s.random_seed)
    np.random.seed(s.random_seed)
    torch.manual_seed(s.random_seed)
    masks = load_file(s.dead_mask)
    mask, dead = masks["dead_mask"].bool(), masks["dead_indices"].long()
    ids = Tokenizer.from_file(s.tokenizer).encode(Path(s.corpus).read_text(encoding="utf-8")).ids
    count = len(ids) // s.seq_len
    sequences = torch.tensor(ids[: count * s.seq_len]).view(count, s.seq_len)
    model = GPT(s).to(DEVICE).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=s.learning_rate,
        betas=(s.beta1, s.beta2),
        eps=s.epsilon,
        weight_decay=s.weight_decay,
    )
    loader = DataLoader(TensorDataset(sequences), batch_size=s.batch_size, shuffle=True, drop_last=True)
    rows = dead.to(DEVICE)
    W = [model.tok.weight.detach()[rows].clone()]
    centroid, losses, deltas = [W[0].float().mean(dim=0)], [float("nan")], []
    epochs = step = 0
    while step < s.total_steps:
        epochs += 1
        for (batch,) in loader:
            if step >= s.total_steps:
                break
            ids = batch.to(DEVICE)
            with torch.autocast(device_type=DEVICE, dtype=torch.bfloat16):
                logits = model(ids)
                loss = nn.functional.cross_entropy(logits[:, :-1].reshape(-1, s.vocab_size), ids[:, 1:].reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            W.append(model.tok.weight.detach()[rows].clone())
            deltas.append(displacement(W[-2], W[-1]))
            centroid.append(W[-1].float().mean(dim=0))
            losses.append(loss.item())
            step += 1
    delta = torch.stack(deltas).cpu()
    tensors = {
        "W": torch.stack(W).cpu().view(torch.uint16),
        "delta_W_prime": delta,
        "centroid": torch.stack(centroid).cpu(),
        "loss": torch.tensor(losses, dtype=torch.float32),
        "last_motion_step": last_motion(delta, s.motion_threshold),
        "dead_mask": mask,
        "dead_indices": dead,
    }
    return Notebook(tensors, epochs, said(tensors["last_motion_step"], delta, s))


def last_motion(delta: torch.Tensor, threshold: float) -> torch.Tensor:
    moved = delta.norm(dim=-1) >= threshold
    last = torch.full((delta.shape[1],), -1, dtype=torch.int32)
    for t in range(delta.shape[0]):
        last[moved[t]] = t + 1
    return last


def said(last: torch.Tensor, delta: torch.Tensor, s: Settings) -> dict[str, Any]:
    """What the notebook prints: the Fimbulwinter check and the stillness analysis."""
    still = (~(delta.norm(dim=-1) >= s.motion_threshold).any(dim=1)).tolist()
    runs, length = [], 0
    for is_still in [*still, False]:
        if is_still:
            length += 1
        elif length:
            runs.append(length)
            length = 0
    top = int(last.max())
    return {
        "global_last_motion": top if top > 0 else None,
        "fimbulwinter_duration": s.total_steps - max(top, 0),
        "freeze": [int(last.min()), int(last.median()), top],
        "never_moved": int((last == -1).sum()),
        "stillness_longest": sorted(runs, reverse=True)[:10],
        "stillness_count": len(runs),
    }


def save(notebook: Notebook, path: str | Path) -> None:
    save_file(notebook.tensors, str(path))


def shapes(notebook: Notebook) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in notebook.tensors.items()}


if __name__ == "__main__":  # python tests/notebook_loop.py '{"corpus": ..., "total_steps": 300}' out.safetensors
    import sys

    result = run(Settings(**json.loads(sys.argv[1])))
    save(result, sys.argv[2])
    print(json.dumps(result.said))
