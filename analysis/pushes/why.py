"""Why a token moved, or did not, in one update: what was measured, beside what the optimizer's numbers make of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import xarray as xr

from analysis import lattice
from analysis.answers import AnswerDataset
from analysis.engine import inputs
from analysis.engine.question import Answer
from analysis.engine.trajectory import OF_A_RUN, Trajectory, trajectory_of
from analysis.lattice import Array, Floats
from analysis.optimizers.update_rules import NO_PUSH, VARIANTS, Update, update_of
from analysis.pushes.source import COUNT, MOMENTS, NAME, RATE
from analysis.told_numbers import at_most, beside, percent

_HIDDEN = ("hidden",)
MEASURED = {
    "before": Answer(_HIDDEN, "float32", "weight before the update"),
    "after": Answer(_HIDDEN, "float32", "weight after the update"),
    "measured": Answer(_HIDDEN, "float32", "how far the weight moved"),
    "displacement": Answer(_HIDDEN, "float32", "the same in cells", "cell"),
    "crossed": Answer(_HIDDEN, "int64", "numbers of the format between before and after, and after itself"),
    "moved": Answer(_HIDDEN, "bool", "the weight moved"),
    "gradient": Answer(_HIDDEN, "float32", "gradient of the update, as recorded"),
}
COMPUTED = {
    "computed": Answer(_HIDDEN, "float32", "what the optimizer added to the weight, before it was rounded"),
    "gradient_part": Answer(_HIDDEN, "float32", "the part of it that is this update's gradient"),
    "momentum_part": Answer(_HIDDEN, "float32", "the part of it that is the momentum of earlier ones"),
    "push": Answer(_HIDDEN, "float32", "what was added, in half cells in its direction", "half cell"),
    "push_before": Answer(_HIDDEN, "float32", "the same in the update before", "half cell"),
    "predicted": Answer(_HIDDEN, "bool", "the push says that the weight moves"),
}
DELTA = "delta_W_prime"
NOT_ONE = (
    " What the optimizer did is not told: the labels of steps, or the move that was stored, say that these two states "
    "are not those before and after one recorded update."
)
RECORDED = {
    "token_push": Answer((), "float64", "push of the token in the update, as recorded", "half cell"),
    "token_push_before": Answer((), "float64", "the same in the update before", "half cell"),
}


def why(ds: xr.Dataset, token: int, step: int) -> xr.Dataset:
    """Why a token moved in an update, or did not: the measured beside the computed update.

    Parameters
    ----------
    ds : Dataset
        With W; what else was recorded of the update tells more: adam_m, adam_v, learning_rate and optimizer_step what
        the optimizer computed, gradient or the adam_m before its two parts, push how near it came.
    token, step : int
        Labels. Update t leads from the state t - 1 to the state t.

    Returns
    -------
    Dataset
        In memory, along hidden: ``before``, ``after``, ``measured`` and ``displacement`` (in cells), ``crossed``, how
        many numbers of the format the weight went, and ``moved``. Where gradients were recorded: ``gradient``.
        Where both moments were, in bfloat16 or float16: ``computed``, what the optimizer added before the sum was
        rounded, ``push`` (in half cells) and ``push_before``, that of the update before, ``predicted``, whether the
        push says that the weight moves, and ``gradient_part`` + ``momentum_part``, which together are ``computed`` but
        for the rounding of the sum. Where the push was recorded: ``token_push``, ``token_push_before``, of the
        whole row. NaN where a number is not known; nothing computed where another optimizer went on with the run, or
        the recorder knew no push. The attribute ``sentence`` says it in words. Where the two states
        are not those of one recorded update, as states that were numbered anew, what was recorded of it is left out.

    Raises
    ------
    ValueError
        For a token or step that is not there or no whole number, the first state, which no update leads to, and without
        W.
    TypeError
        For what is no Dataset.

    Notes
    -----
    A row of each array at two or three steps is read. With beta1 the decay of the first moment m, lr' and d as in
    `analysis.lattice.push`: the gradient's part is -lr' (1 - beta1) g / d, the momentum's -lr' beta1 m[t - 1] / d.
    Here g is what went into m: with ``maximize`` the gradient with the other sign, and in Adam (not AdamW) with the
    weight decay, weight_decay x the weight before.

    Examples
    --------
    >>> from analysis import simulate
    >>> told = why(simulate.trajectory([[[3, 0]], [[0, 1]]]), token=0, step=2)
    >>> told.moved.values, told.crossed.values
    (array([False,  True]), array([0, 1]))
    >>> told.attrs["sentence"]
    'Update 2 moved 1 of 2 weights of token 0, by at most 1 cell.'
    """
    asked, token, step = trajectory_of(ds), _label("token", token), _label("step", step)
    update = _Update(asked, token, step)
    before, after = update.states()
    told: dict[str, Any] = _measured(before, after, asked.is_projected)
    is_one = update.is_one(told["displacement"])
    told |= _recorded(update, before) if is_one else {}
    declared = MEASURED | COMPUTED | RECORDED
    answer: xr.Dataset = AnswerDataset(
        {name: (declared[name].dims, told[name], declared[name].attributes) for name in told}
    )
    said = _sentence(told, token, step)
    return answer.assign_attrs(token=token, step=step, sentence=said if is_one else said + NOT_ONE)


def _label(name: str, given: Any) -> int:  # noqa: ANN401 - whatever was given for it
    """A label, also one that was taken from a Dataset or an answer."""
    found = np.asarray(given)
    if found.ndim or found.dtype.kind not in "iuf" or found != np.floor(found):
        raise ValueError(f"{name} must be one label, a whole number, not {found}")
    return int(found)


def _recorded(update: _Update, before: Array) -> dict[str, Any]:
    """What the optimizer did, as far as it was recorded."""
    gradient = update.row("gradient", update.step)
    told: dict[str, Any] = {} if gradient is None else {"gradient": lattice.as_float32(gradient)}
    told |= update.computed(before, gradient) or {}
    for name, label in (("token_push", update.step), ("token_push_before", update.step - 1)):
        if (found := update.row(NAME, label)) is not None and label > update.asked.span.first:
            told[name] = float(lattice.as_float32(found))
    return told


def _measured(before: Array, after: Array, projected: bool) -> dict[str, Array]:
    """The row before and after, and the move between them, on the lattice that moves are measured on."""
    floats = lattice.as_float32(before), lattice.as_float32(after)
    if projected:
        before, after = (lattice.float32_to_bits(row) for row in floats)
    crossed = lattice.hops(before, after)
    with np.errstate(all="ignore"):
        measured = floats[1] - floats[0]
    return {
        "before": floats[0],
        "after": floats[1],
        "measured": measured,
        "displacement": lattice.displacement(before, after),
        "crossed": crossed,
        "moved": crossed != 0,
    }


@dataclass(frozen=True, slots=True)
class _Update:
    """What was recorded of one token around one update."""

    asked: Trajectory
    token: int
    step: int

    def __post_init__(self) -> None:
        for name, label, labels in (("token", self.token, self.asked.tokens), ("step", self.step, self.asked.steps)):
            if label not in labels:
                span = f", {labels[0]} to {labels[-1]}" if len(labels) else ""
                raise ValueError(f"{name} {label} is not among the {len(labels)} here{span}")
        if self.step == self.asked.span.first:
            raise ValueError(f"step {self.step} is the first state here, to which no update leads; ask for a later one")
        if self.step - 1 not in self.asked.steps:
            raise ValueError(f"step {self.step} is among the {len(self.asked.steps)} here, but not step "
                             f"{self.step - 1}, from which its update leads; select both")  # fmt: skip

    def states(self) -> tuple[Array, Array]:
        """The token's row of W before and after the update, as recorded."""
        inputs.recorded_weights(self.asked)  # refuses what is no W
        return self.row("W", self.step - 1), self.row("W", self.step)

    def is_one(self, displacement: Floats) -> bool:
        """Whether one recorded update led from the state before: labels say so, or its move as it was stored does."""
        stored = self.row(DELTA, self.step)
        if stored is not None and not np.array_equal(stored, displacement, equal_nan=True):
            return False
        if self.asked.has_recorded_labels or OF_A_RUN.isdisjoint(self.asked.attributes):
            return True
        return stored is not None and bool(displacement.any())

    def row(self, name: str, step: int) -> Any:  # noqa: ANN401 - an array or a number
        """The token's row of an array at a step; None where it was not recorded."""
        array = self.asked.variables.get(name)
        along = next((dim for dim in ("step", f"step_{name}") if array is not None and dim in array.dims), None)
        if array is None or along is None:
            return None
        labels = self.asked.steps if along == "step" else self.asked.coords[along].values
        if not (at := np.flatnonzero(labels == step)).size:
            return None
        place = {along: int(at[0])}
        if "token" in array.dims:
            place["token"] = int(np.flatnonzero(self.asked.tokens == self.token)[0])
        return array.isel(place).values

    def numbers(self, step: int) -> Update | None:
        """Those of the optimizer at a step; None where they are not known, or another one went on with the run."""
        known = {} if self.asked.attributes.get(NO_PUSH) else update_of(self.asked.attributes)
        rate, count = self.row(RATE, step), self.row(COUNT, step)
        count = float(step if count is None else count)
        if known.get("variant") not in ("adam", "adamw") or rate is None or math.isnan(rate) or not count >= 1:
            return None
        names = {each.name for each in fields(Update)}
        lr = np.float32(rate) if known.get("lr_is_float32") else float(rate)
        return Update(**{k: v for k, v in known.items() if k in names}, lr=lr, optimizer_step=count)

    def pushes(self, before: Array, step: int) -> tuple[Floats, Floats] | None:
        """What the optimizer made of the weights before, and that in half cells; None where it is not known."""
        m, v = (self.row(name, step) for name in MOMENTS)
        numbers = self.numbers(step)
        if m is None or v is None or numbers is None or before.dtype not in (np.uint16, np.float16):
            return None
        if numbers.refusal(lattice.lattice_of(before.dtype).mantissa_bits):
            return None
        sums = lattice.proposed(before, m, v, **asdict(numbers))
        push, recorded = lattice.half_cells(before, sums), self.row(NAME, step)
        is_lost = recorded is not None and np.isnan(lattice.as_float32(recorded)) and not np.isnan(push).any()
        return None if is_lost else (sums, push)  # lost: the recorder saw that the optimizer is another one by then

    def computed(self, before: Array, gradient: Array | None) -> dict[str, Array] | None:
        """The update by the optimizer's numbers, its parts, and how near it came; None where they are not known."""
        found = self.pushes(before, self.step)
        if found is None:
            return None
        sums, push = found
        with np.errstate(all="ignore"):
            computed = sums - lattice.as_float32(before)
        told = {"computed": computed, "push": push, "predicted": lattice.moves_weight(before, push)}
        earlier = self.row("W", self.step - 2)
        if earlier is not None and (there := self.pushes(earlier, self.step - 1)):
            told["push_before"] = there[1]
        return told | self._parts(computed, before, gradient)

    def _parts(self, computed: Floats, before: Array, gradient: Array | None) -> dict[str, Array]:
        """The parts of the gradient and of the momentum, by the recorded gradient or else by the moment before."""
        m, m_before, numbers = self.row(MOMENTS[0], self.step), self.row(MOMENTS[0], self.step - 1), None
        numbers = self.numbers(self.step)
        assert numbers is not None
        now = lattice.as_float32(m).astype(np.float64)
        if gradient is not None:
            fresh = (1 - numbers.beta1) * _gone_into_m(gradient, before, numbers)
            kept = now - fresh
        elif m_before is not None:
            kept = numbers.beta1 * lattice.as_float32(m_before).astype(np.float64)
            fresh = now - kept
        else:
            return {}
        with np.errstate(all="ignore"):
            per_moment = np.where(now != 0, computed / now, 0)
        return {"gradient_part": (fresh * per_moment).astype(np.float32),
                "momentum_part": (kept * per_moment).astype(np.float32)}  # fmt: skip


def _gone_into_m(gradient: Array, before: Array, numbers: Update) -> Array:
    """What Adam mixes into its first moment: the gradient with its sign, and weight decay where it is not decoupled."""
    taken = lattice.as_float32(gradient).astype(np.float64) * (-1 if numbers.maximize else 1)
    if VARIANTS[numbers.variant].decays_weights:
        return taken
    return taken + numbers.weight_decay * lattice.as_float32(before).astype(np.float64)


def _sentence(told: Mapping[str, Any], token: int, step: int) -> str:
    finite = np.isfinite(told["before"]) & np.isfinite(told["after"])
    moved = int(np.count_nonzero(told["moved"] & finite))
    largest = float(np.max(np.abs(told["displacement"][finite]), initial=0))
    far = f", by at most {at_most(largest, 4)} {'cell' if largest == 1 else 'cells'}" if moved else ""
    said = f"Update {step} moved {moved} of {len(finite)} weights of token {token}{far}."
    if not finite.all():
        said += f" {_told_of_nonfinite(told)}"
    if "push" in told:
        said += _by_computed(told, finite & ~np.isnan(told["push"]))
    elif not math.isnan(told.get("token_push", math.nan)):
        said += f" The optimizer's strongest push on the token was {_beside_1(told['token_push'])}."
    return said + (_by_parts(told, finite & told["moved"]) if "gradient_part" in told else "")


def _by_parts(told: Mapping[str, Any], moved: Array) -> str:
    """Of what was added to the weights that moved, how much is the gradient's; "" where that is not known."""
    sizes = [np.abs(told[part][moved]).sum(dtype=np.float64) for part in ("gradient_part", "momentum_part")]
    if not 0 < sum(sizes) < math.inf:  # NaN is not either
        return ""
    return f" Of what was added to those that moved, {percent(sizes[0] / sum(sizes), 0)} is the gradient's part."


def _told_of_nonfinite(told: Mapping[str, Any]) -> str:
    now, before = (int(np.count_nonzero(~np.isfinite(told[name]))) for name in ("after", "before"))
    if not now:
        return f"{before} of them {'was' if before == 1 else 'were'} NaN or infinite before."
    if not before:
        return f"{now} of them became NaN or infinite."
    return f"{now} of them {'is' if now == 1 else 'are'} NaN or infinite."


def _by_computed(told: Mapping[str, Any], known: Array) -> str:
    """How near the optimizer came, of the weights whose push is known: those that are NaN or infinite tell nothing."""
    if not known.any():
        return ""
    of = "them" if known.all() else "the others"
    strongest = f" The optimizer's strongest push on {of} was {_beside_1(told['push'][known].max())}"
    if "push_before" in told and not np.isnan(told["push_before"][known]).all():
        strongest += f", {_beside_1(np.nanmax(told['push_before'][known]), unit='')} in the update before"
    if wrong := int(np.count_nonzero((told["predicted"] != told["moved"]) & known)):
        return (
            f"{strongest}. {wrong} did otherwise than their push says: something else than this optimizer wrote to "
            "them, or the push is approximate here."
        )
    ties = told["moved"] & known & (told["push"] == 1)
    at_1 = ", or were pushed by 1 from a number whose last bit is odd: a tie goes to the even one" if ties.any() else ""
    return f"{strongest}. Exactly those moved that passed 1{at_1}."


def _beside_1(push: float, unit: str = " half cells") -> str:
    """A push with as many digits as it takes to show whether it is below 1, at 1 or above it."""
    return f"{beside(float(push), math.nextafter(1, 0), 1.0, digits=3)}{' half cell' if unit and push == 1 else unit}"
