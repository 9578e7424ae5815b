"""Training state to bytes and back: safetensors and JSON, never pickle.

A checkpoint is a mapping of file names to bytes, the same bytes for the same state: the store writes the files and
says with a commit which step they belong to.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from crucible.inputs.data import BatchPosition

MODEL, OPTIMIZER, RANDOM, STATE = "model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"

UNFIT = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError, SafetensorError)
"""What parsing and loading a file raises that `capture` did not make."""


class CheckpointError(ValueError):
    """A checkpoint that is broken or belongs to another model."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of the loop that is not in tensors.

    Parameters
    ----------
    step : int
        Updates done.
    loss : float or None
        Loss of the last one.
    place : BatchPosition
        Where the order of batches is.
    """

    step: int
    loss: float | None
    place: BatchPosition


def capture(model: nn.Module, optimizer: Optimizer, progress: Progress) -> dict[str, bytes]:
    """Copy everything that decides the next step into the files of a checkpoint."""
    optimizer_tensors, optimizer_plain = _split_optimizer(optimizer)
    random_tensors, random_plain = _capture_random(progress.place)
    state = {
        "step": progress.step,
        "loss": progress.loss,
        "epoch": progress.place.epoch,
        "drawn": progress.place.drawn,
        "optimizer": optimizer_plain,
        "random": random_plain,
    }
    return {
        MODEL: save({name: _plain(tensor) for name, tensor in model.state_dict().items()}),
        OPTIMIZER: save(optimizer_tensors),
        RANDOM: save(random_tensors),
        STATE: json.dumps(state, indent=1, sort_keys=True).encode(),
    }


def restore(files: Mapping[str, bytes], model: nn.Module, optimizer: Optimizer) -> Progress:
    """Put a captured state back and say where it was; the inverse of `capture`.

    Raises
    ------
    CheckpointError
        A file is missing or broken, or the tensors are those of another model.
    """
    try:
        state = json.loads(files[STATE])
        tensors = {name: load(files[name]) for name in (MODEL, OPTIMIZER, RANDOM)}
        # load_state_dict of an optimizer keeps the tensors that it is given: clone what lies in the file's memory
        model.load_state_dict({name: tensor.clone() for name, tensor in tensors[MODEL].items()})
        optimizer.load_state_dict(_join_optimizer(tensors[OPTIMIZER], state["optimizer"]))
        start = _restore_random(tensors[RANDOM], state["random"])
        return _progress(state, start)
    except UNFIT as error:
        why = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the checkpoint does not fit this model: {why}") from error


def _progress(state: Mapping[str, Any], epoch_start: Tensor | None) -> Progress:
    """What `capture` noted beside the tensors; ValueError where it cannot be so."""
    counts = [state[name] for name in ("step", "epoch", "drawn")]
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError(f"{STATE} counts {counts}, not whole numbers of steps, epochs and batches")
    if counts[2] and epoch_start is None:
        raise ValueError(f"{RANDOM} lacks the state at the start of the epoch")
    if not isinstance(state["loss"], float | None):
        raise ValueError(f"{STATE} names a loss that is no number")
    return Progress(counts[0], state["loss"], BatchPosition(counts[1], counts[2], epoch_start))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone().contiguous()


def _split_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by "<parameter>.<name>", and the rest as JSON values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = _plain(value)
            else:
                scalars.setdefault(str(index), {})[name] = value
    return tensors, {"param_groups": state["param_groups"], "scalars": scalars}


def _join_optimizer(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in plain["scalars"].items()}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor.clone()
    groups = [
        {name: tuple(value) if name == "betas" else value for name, value in group.items()}
        for group in plain["param_groups"]
    ]
    return {"state": state, "param_groups": groups}


def _capture_random(place: BatchPosition) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The generators' states: torch now and at the start of the epoch, devices, numpy, Python."""
    version, words, gauss = random.getstate()
    _, key, position, has_gauss, cached = np.random.get_state()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(key, dtype=np.int64)),
        "python": torch.tensor(words, dtype=torch.int64),
    }
    if place.random_state is not None:
        tensors["epoch_start"] = place.random_state.clone()
    if torch.cuda.is_available():
        tensors |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    if torch.backends.mps.is_available():
        tensors["mps"] = torch.mps.get_rng_state()
    plain = {
        "numpy": [int(position), int(has_gauss), float(cached)],
        "python": [int(version), gauss],
    }
    return tensors, plain


def _restore_random(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> Tensor | None:
    """Set every generator of this machine; returns the state at the start of the epoch."""
    version, gauss = plain["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    key = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, *plain["numpy"]))
    torch.set_rng_state(tensors["torch"].clone())
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda.{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{index}"].clone(), index)
    if torch.backends.mps.is_available() and "mps" in tensors:
        torch.mps.set_rng_state(tensors["mps"].clone())
    start = tensors.get("epoch_start")
    return None if start is None else start.clone()
