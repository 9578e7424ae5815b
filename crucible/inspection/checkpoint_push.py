"""How near the optimizer came to moving a weight at a checkpoint: of a run that recorded no push."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import lattice
from analysis.optimizers.update_rules import smallest_decay
from store.errors import ChecksumError, StoreError
from store.format.files import CHECKPOINT, run_folder
from store.reading.reader import open_trajectory
from store.run.commit import Commit, read_commit
from store.run.document import document_digest
from store.run.training_state import digests
from store.small_file import read_small
from store.tensorfile.file import TensorFile

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
EMBEDDING, PLACE = "token_embedding.weight", 0
"""The recorded parameter: its name in the model, and its place among the parameters of the optimizer."""


def push_of_checkpoint(run: str | Path) -> dict[str, Any] | None:
    """The strongest push of the step whose training state the last commit of `crucible train` names.

    Parameters
    ----------
    run : path
        The run's folder or its trajectory.zarr.

    Returns
    -------
    dict or None
        ``step``, ``push`` in half cells, and ``headroom``, 1 over it: how many times as high the learning rate of that
        step could have been; no more than decoupled weight decay allows, which moves weights by itself then. None
        without such a checkpoint, and where it tells no push.
    """
    folder = run_folder(run)
    commit = read_commit(folder)
    checkpoint = commit.checkpoint
    if checkpoint is None:
        return None
    try:
        _refuse_other(folder, commit, checkpoint)
        step, pushes, by_decay = _pushes(folder, folder / CHECKPOINT / checkpoint)
    except (OSError, StoreError, KeyError, ValueError, TypeError, AttributeError, RecursionError, StopIteration):
        return None  # another loop's, a broken one, float32 weights, large weight decay: `check` says what is damaged
    strongest = float(pushes.max(initial=0))
    if math.isnan(strongest):
        return None  # of weights that are not finite
    highest = max(strongest, by_decay)
    return {"step": step, "push": strongest, "headroom": 1 / highest if highest else None}


def _refuse_other(folder: Path, commit: Commit, checkpoint: str) -> None:
    """Raise where a file is not the one that the commit names: of another step or of a fork, it tells another push."""
    told = digests(commit, checkpoint)
    for name in (MODEL, OPTIMIZER, STATE):
        if document_digest(folder / CHECKPOINT / checkpoint / name) != told[name]:
            raise ChecksumError(f"{checkpoint}/{name}: its SHA-256 is not the one in the commit")


def _pushes(folder: Path, checkpoint: Path) -> tuple[int, NDArray[np.float32], float]:
    """The step, the push of each row, and how near weight decay alone comes to moving a weight (1: it may)."""
    state = json.loads(read_small(checkpoint / STATE))
    step = int(state["step"])
    group = next(each for each in state["optimizer"]["param_groups"] if PLACE in each["params"])
    ds = open_trajectory(folder)
    before, after = (ds.W.sel(step=label).values for label in (step - 1, step))
    ids = ds.token.values
    with TensorFile(checkpoint / MODEL) as model:
        if model.read(EMBEDDING)[ids].tobytes() != after.tobytes():
            raise ValueError(f"{checkpoint}: its embedding is not that of step {step}")
    with TensorFile(checkpoint / OPTIMIZER) as kept:
        second = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
        m, v = (kept.read(f"{PLACE}.{name}")[ids] for name in ("exp_avg", second))
        count = float(kept.read(f"{PLACE}.step"))
    kind = "adamw" if group["decoupled_weight_decay"] else "adam"
    beta1, beta2 = group["betas"]
    told = lattice.push(
        before, m, v, variant=f"{kind}_amsgrad" if group["amsgrad"] else kind, lr=float(group["lr"]),
        optimizer_step=count, beta1=beta1, beta2=beta2, eps=group["eps"], weight_decay=group["weight_decay"],
        fused=bool(group["fused"]),
    )  # fmt: skip
    decays = group["decoupled_weight_decay"] and not group["fused"]
    decay = float(group["lr"]) * group["weight_decay"] if decays else 0.0
    return step, told, decay / smallest_decay(lattice.lattice_of(before.dtype).mantissa_bits)
