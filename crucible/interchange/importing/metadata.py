"""metadata.json of a run that was imported: the file's own words, or what can be told of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from crucible.channels.table import DEAD_MASK
from crucible.interchange.importing.plan import ImportPlan
from crucible.interchange.words import PARAMETERS, threshold_of

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


def contradictions(plan: ImportPlan, finals: Mapping[str, Array], loss: float | None) -> tuple[str, ...]:
    """A sentence where what is said of a file in words is not true of its arrays: the words may be of another run.

    Parameters
    ----------
    plan : ImportPlan
    finals : mapping of str to array
        ``last_motion_step`` (token), computed anew.
    loss : float or None
        The last one.
    """
    said = plan.source.words | plan.words
    told = [
        f"{name} {_shown(said[name])}, and the arrays give {_shown(there)}"
        for name, there in _told_by_arrays(plan, said, finals, loss).items()
        if _is_number(said.get(name)) and not _agree(said[name], there)
    ]
    told += [
        f"{name} {_shown(plan.words[name])}, and the file itself {_shown(plan.source.words[name])}"
        for name in sorted(PARAMETERS & plan.words.keys() & plan.source.words.keys())
        if not _alike(plan.words[name], plan.source.words[name])
    ]
    if not told:
        return ()
    where = "metadata.json" if plan.words else "the file"
    return (f"{where} says {'; '.join(told)}; is it that of another run? What it says is kept",)


def _told_by_arrays(
    plan: ImportPlan, said: Mapping[str, Any], finals: Mapping[str, Array], loss: float | None
) -> dict[str, Any]:
    """What is said of a file in words as its own arrays tell it, as far as they do."""
    found: dict[str, Any] = {"hidden_dim": plan.sizes["hidden"], **_dead(plan)}
    if "vocabulary" in plan.sizes:
        found["vocab_size"] = plan.sizes["vocabulary"]
    if "exported" not in said:  # the words of a part keep the parameters of the whole run
        found["total_steps"] = plan.last_step
    if not plan.source.lossy and plan.threshold == threshold_of(None, said)[0]:
        found["global_last_motion"] = _last_motion(plan, finals)["global_last_motion"]
    return found if loss is None else found | {"final_loss": loss}


def _agree(said: float, there: Any) -> bool:  # noqa: ANN401 - a number, or None
    """Whether two numbers are the same; a float that was rounded when it was written, too."""
    return there is not None and (
        said == there or (isinstance(there, float) and math.isclose(said, there, rel_tol=1e-3))
    )


def _alike(one: Any, other: Any) -> bool:  # noqa: ANN401 - JSON values
    """Whether two parameters are the same, as files keep them: a float as float32, a truth as a text."""
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=1e-6)
    return str(one).lower() == str(other).lower()


def _is_number(value: Any) -> bool:  # noqa: ANN401 - a JSON value
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)[:40]


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
