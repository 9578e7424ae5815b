"""metadata.json: parameters and headline results of a run, as the notebook writes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np

from crucible.experiment.session import Session
from crucible.inputs.config import PATHS, rules

PARAMETERS = (
    "total_steps", "batch_size", "seq_len", "learning_rate", "weight_decay", "beta1", "beta2", "epsilon", "vocab_size",
    "hidden_dim", "num_layers", "num_heads", "random_seed", "motion_threshold", *PATHS, "compute_dtype",
)  # fmt: skip


def describer(session: Session, steps: int, loss: float | None) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The function that makes metadata.json from a run's final arrays; where the run diverged, that stands first."""

    def describe(finals: Mapping[str, Any]) -> dict[str, Any]:
        from crucible.inspection.analyze import (
            divergence_of,  # xarray and dask: half a second and 80 MB that training does without
        )

        values = session.config.to_mapping()
        diverged = divergence_of(str(values["out"]))
        return {
            **({"diverged": diverged} if diverged else {}),
            "experiment": values["experiment"],
            "series": values["series"],
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            **{name: values[name] for name in PARAMETERS},
            "total_steps": steps,
            "n_dead_tokens": len(session.inputs.dead.indices),
            "final_loss": loss if loss is not None and math.isfinite(loss) else None,
            "total_epochs": session.place.epoch,
            "device": str(session.device),
            **_rest(finals, steps),
            "data_shapes": _shapes(session, steps),
            "notes": values["notes"],
        }

    assert set(PARAMETERS) <= set(rules())
    return describe


def _rest(finals: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """The Fimbulwinter check in two numbers; null and the whole run when nothing ever moved."""
    last = int(np.max(finals["last_motion_step"]))
    return {"global_last_motion": last if last > 0 else None, "fimbulwinter_duration": steps - max(last, 0)}


def _shapes(session: Session, steps: int) -> dict[str, list[int]]:
    count, hidden, vocabulary = (
        len(session.inputs.dead.indices), session.config.hidden_dim, session.config.vocab_size,
    )  # fmt: skip
    return {
        "W": [steps + 1, count, hidden],
        "delta_W_prime": [steps, count, hidden],
        "centroid": [steps + 1, hidden],
        "loss": [steps + 1],
        "last_motion_step": [count],
        "dead_mask": [vocabulary],
        "dead_indices": [count],
    }
