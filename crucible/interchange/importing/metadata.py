"""metadata.json of a run that was imported: the file's own words, or what can be told of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from crucible.channels.table import DEAD_MASK
from crucible.interchange.importing.plan import ImportPlan
from crucible.interchange.words import threshold_of

Array = NDArray[Any]


def words_of(
    plan: ImportPlan, finals: Mapping[str, Array], loss: float | None, diverged: Mapping[str, Any] | None
) -> dict[str, Any]:
    """metadata.json: that of the file as it is, but what follows from another threshold; or one that is made."""
    if not plan.words:
        return _describe(plan, finals, loss, diverged)
    if plan.threshold == threshold_of(None, plan.source.words | plan.words)[0]:
        return plan.words
    found = {name: value for name, value in _last_motion(plan, finals).items() if name in plan.words}
    return plan.words | found | {"motion_threshold": plan.threshold}


def _last_motion(plan: ImportPlan, finals: Mapping[str, Array]) -> dict[str, int | None]:
    """The Fimbulwinter check in two numbers; null and all moves when nothing ever moved."""
    last = int(finals["last_motion_step"].max())
    since = last if last > 0 else plan.first_step
    return {"global_last_motion": last if last > 0 else None, "fimbulwinter_duration": plan.last_step - since}


def _dead(plan: ImportPlan) -> dict[str, int]:
    """How many tokens are dead, where the file says which: its rows may be others."""
    mask, listed = plan.statics.get(DEAD_MASK.name), plan.sizes.get("dead")
    count = listed if mask is None else int(mask.sum())
    return {} if count is None else {"n_dead_tokens": count}


def _describe(
    plan: ImportPlan, finals: Mapping[str, Array], loss: float | None, diverged: Mapping[str, Any] | None
) -> dict[str, Any]:
    """metadata.json of a file that came without one; of a run that diverged it begins with that."""
    steps, apart = plan.last_step, plan.resolution_steps
    gaps = {} if apart == 1 else {"recorded_states": plan.sizes["step"], "resolution_steps": apart}
    return {
        **({"diverged": diverged} if diverged else {}),
        **plan.parameters,
        "total_steps": steps,
        **gaps,
        "hidden_dim": plan.sizes["hidden"],
        **_dead(plan),
        "motion_threshold": plan.threshold,
        "final_loss": loss if loss is not None and math.isfinite(loss) else None,
        **_last_motion(plan, finals),
        "data_shapes": {name: list(tensor.shape) for name, tensor in plan.source.raw.items()},
        "notes": f"imported from {plan.source.path.name}, which had no metadata.json",
    }
