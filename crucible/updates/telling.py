"""What a recorder tells while it records: each thing once, in whole sentences."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from crucible.units import a_or_an

Say = Callable[[str], None]
LOGGER = logging.getLogger("crucible")


def log_notice(words: str) -> None:
    """Where notices go unless `say` is given: to the logger `crucible`, as warnings."""
    LOGGER.warning(words)


class Once:
    """Hands sentences on, one for each topic."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._told: set[str] = set()

    def __call__(self, topic: str, words: str) -> None:
        """Say this, unless something of the topic was said before."""
        if topic not in self._told:
            self._told.add(topic)
            self.say(words)


def nothing_came(step: int, optimizer: str | None) -> str:
    """At the end, where nothing was recorded but the first state."""
    if optimizer is None:
        return (
            f"recorder.record() was not called since recording began, so nothing but step {step} is recorded: with "
            "optimizer=None the loop calls it after each update"
        )
    return (
        f"no step of this {optimizer} was seen since recording began, so nothing but step {step} is recorded: was "
        "another optimizer stepped, or were the weights updated without one? For that, attach(..., optimizer=None) and "
        "call recorder.record() after each update"
    )


def left_open(run: object, step: int, *, is_garbage: bool) -> str:
    """At the end of the process: nobody closed the recorder."""
    how = "was dropped without being closed" if is_garbage else "was left open"
    return (
        f"{run}: its recorder {how}, and closed when the process ended. Every step up to {step:,} is there, but the "
        "run is not completed: leave the recorder by `with attach(...) as recorder:`, or call recorder.complete()"
    )


def folder_gone(run: object, recorder: str, committed: int) -> str:
    """A new recorder takes the place of one whose run was removed."""
    return (
        f"{run}: its folder was removed or replaced while it was recorded: {recorder} is closed with an error, and "
        f"what it had recorded, also the steps up to {committed:,} that were committed, is gone with the folder"
    )


def written_before(update: int) -> str:
    """Something else than the optimizer writes to the weights."""
    return (
        f"the parameter was written to before update {update} by something that is no step of this optimizer "
        "(normalisation, max_norm, a constraint, load_state_dict): each row holds the weights as they were right after "
        "optimizer.step(), and what that changed is recorded as part of the next update; to record the weights as they "
        "are after it, attach(..., after='record') and call recorder.record() behind it"
    )


def untouched(updates: int) -> str:
    """A loop without an optimizer records, and leaves the tensor alone."""
    return (
        f"in the last {updates} updates nothing has written to the tensor that is recorded: does the loop make a new "
        "one each time (w = w - lr * g)? Write into it, with torch.no_grad(): w -= lr * g, or weight.copy_(w), before "
        "recorder.record()"
    )


def broken_off(update: int) -> str:
    """An exception came out of an update after it had moved the weights, and the loop went on."""
    return (
        f"the update before update {update} was broken off (an interrupt, an exception in the step) after it had "
        f"changed the weights: it has no row, so that what it changed is recorded as part of update {update}, and the "
        "run has a step less than the loop from there on"
    )


def written_after(step: int) -> str:
    """At the end: the weights are not what the run holds last."""
    return (
        f"the parameter was written to after step {step}, the last that was recorded: by load_state_dict, "
        "normalisation, or other code of yours; the run does not hold that"
    )


def written_by_wrapper(kind: str, inner: str) -> str:
    """An optimizer around the recorded one goes on writing after its step."""
    return (
        f"the {kind} that calls this {inner} writes to the parameter after the {inner}'s step, so that rows do not "
        f"hold what it makes of the weights: attach to the {kind} instead"
    )


def stranger(update: int, kind: str, own: str) -> str:
    """Another optimizer moves the parameter."""
    which = f"another {kind}" if kind == own else a_or_an(kind)
    return (
        f"update {update}: {which}, and not the {own} that was given to attach, has updated the parameter; its updates "
        "are not recorded (was the optimizer made anew?)"
    )


def push_lost(update: int, reason: str) -> str:
    """The optimizer has become another one than the run tells of."""
    return (
        f"update {update}: no push is recorded of an update like this one: {reason}. A run tells of one optimizer, and "
        "without a push it is not called frozen: to have it judged, begin a new run here, attach(..., first_step=)"
    )


def gradient_changed(update: int, *, is_gone: bool) -> str:
    """The optimizer does not leave the gradient as it was."""
    what = "dropped" if is_gone else "changed"
    return (
        f"the optimizer {what} the gradient within its own step (update {update}; SGD with nesterov and foreach does, "
        "and optimizers that zero gradients): the gradient is recorded as the step leaves it, "
        + ("so NaN is kept" if is_gone else "and not as the one that drove the update")
    )


def gradient_cleared(update: int, *, is_gone: bool) -> str:
    """A loop without an optimizer has let go of the gradient before its row is taken."""
    found = "has no gradient" if is_gone else "has a gradient that was set to 0 behind the backward pass"
    return (
        f"the parameter {found} when recorder.record() is called for update {update}, so that "
        f"{'NaN' if is_gone else '0'} is kept: call it before the gradients are cleared, or hand over what "
        "torch.autograd.grad gave, by Recorded(GRADIENT, lambda moment: moment.take(gradient))"
    )


def gradient_of_first_call(kind: str) -> str:
    """The optimizer asks for several gradients in a step."""
    return (
        f"the {kind} calls its closure several times in a step: the gradient that is recorded is that of the first "
        "call, at the weights with which the update begins"
    )


def no_pass(name: str, update: int) -> str:
    """A module whose output is recorded was not called, as far as its hooks tell."""
    return (
        f"channel {name}: no forward pass of its module with gradients was seen in update {update}, so NaN is kept: is "
        "the module unused, or was the model compiled and called before attach (torch.compile then leaves new hooks "
        "out; attach before the first call)?"
    )


def other_written(name: str, step: int) -> str:
    """A tensor of the user's is updated after its row was taken."""
    return (
        f"channel {name}: its tensor was written to after the row of step {step} had been taken, right behind "
        f"optimizer.step(); an average of the weights that is updated after the step (EMA) is recorded a step late so. "
        "Take rows later: attach(..., after='record'), and recorder.record() behind the last update"
    )


def nothing_to_record(step: int) -> str:
    """`record` without an update."""
    return (
        f"recorder.record() was called after step {step}, and no step of the optimizer was seen since: it is not "
        "recorded (a gradient scaler that skips an update does so)"
    )


def not_called(update: int) -> str:
    """An update is followed by another, and its row was never taken."""
    return (
        f"update {update + 1} came before recorder.record() was called for update {update}, whose weights are gone: "
        "with after='record' call it after each optimizer.step()"
    )


def not_called_last(update: int) -> str:
    """At the end, where the last row was never taken."""
    return (
        f"update {update} was made, and recorder.record() was not called for it, so it is not recorded: with "
        "after='record' call it after each optimizer.step()"
    )


def captured(update: int) -> str:
    """An update is no update: it is being written down, to be made later."""
    return (
        f"update {update} is being captured into a CUDA graph, whose replays call no hooks, so that none of them would "
        "be recorded: capture it first, and then attach(..., optimizer=None) and call recorder.record() after each "
        "replay"
    )


def closed_with(step: int) -> str:
    """What an error says that ends the recording."""
    return (
        f"The run was closed with step {step}, the last that is sure; attach again, to a new run, or with resume= "
        "where the weights are the same"
    )


def slow(waited_s: float, elapsed_s: float) -> str:
    """The loop waits for the writer."""
    return (
        f"recording is slower than training here: the loop has waited {waited_s:.1f} s of {elapsed_s:.0f} s "
        "for the disk or the encoder; nothing is lost"
    )


def not_taken(name: str, taken: Iterable[str]) -> str:
    """A logged name that no channel is made of."""
    known = sorted(taken)
    near = get_close_matches(name, known, n=1)
    return (
        f"log({name}=...): no channel of this run takes {name!r}; it takes {', '.join(known) or 'none'}"
        + (f"; did you mean {near[0]!r}?" if near else ".")
        + f" Declare it by attach(..., channels=[..., Channel({name!r}, (), 'float32', belongs_to='move')]), or begin "
        "a new run by attach(..., scalars=True), which takes all numbers that the loop logs for its first update"
    )


def made_before(names: Iterable[str]) -> str:
    """Numbers that nobody has declared were logged for the first update of a run that was made before it."""
    return (
        f"{', '.join(names)}: logged for the first update, and not kept: the run was made before it, by a commit or a "
        "checkpoint, and keeps what it was made with; with scalars=True do both behind the first update"
    )


def late(name: str, update: int, end: str) -> str:
    """The second update has a value and the first has none: it may be that of the first."""
    return (
        f"update {update - 1} had no {name}, and update {update} has one: recorder.log belongs before {end}; called "
        f"after it, each {name} stands one step late"
    )


def other_whole(name: str, count: int, kept: str, recorded: float, whole: float, *, is_of_shares: bool) -> str:
    """That backward was called on another number than the one that is recorded, and what to log."""
    begin = f"{count} values of {name} were logged before an update, and their {kept}, {recorded:.4g}, is recorded; "
    if is_of_shares:
        return (
            f"{begin}but backward was called on each of them whole, as on shares of one (loss / {count}): "
            f"log({name}=..., reduce='sum') records {whole:.4g}"
        )
    return (
        f"{begin}but what backward was called on, each value times its share, adds up to {whole:.4g}: log what "
        "backward is called on, with reduce='sum'" + (f", or {name} without reduce='sum'" if kept == "sum" else "")
    )


def mixed(name: str, count: int, without: int) -> str:
    """That some of the values cannot have been optimised."""
    return (
        f"{count} values of {name} were logged before an update, and {without} of them have no gradient, as those of "
        f"an evaluation: what is recorded is not the {name} that was optimised; log them under a name of their own"
    )


def not_backward(name: str, count: int, without: int, kept: str) -> str:
    """That some of the values were not optimised: the loop was broken off, say."""
    return (
        f"{count} values of {name} were logged before an update, and backward was not called on {without} of them: was "
        f"an update broken off between log and step (an interrupt, a continue)? Their {kept} is recorded; "
        "recorder.forget() drops what was logged until then"
    )


def never_taken(name: str, step: int, count: int) -> str:
    """At the end, that an update was expected which none of the optimizer's steps has been."""
    return (
        f"{count} values of {name} were logged after step {step}, the last that was recorded, more than before any "
        "update, and no update came: was another optimizer stepped from there on, or a copy of the model trained "
        "(copy.deepcopy, a model that was loaded anew)? The run holds nothing of it"
    )


def more_than(others: str, name: str, update: int, count: int, kept: str) -> str:
    """That an update has more values than the others that are named."""
    return (
        f"update {update}: {count} values of {name} were logged, more than {others}: was an update broken off between "
        "log and step (an interrupt, a continue), or an evaluation logged under the same name? "
        f"Their {kept} is recorded; recorder.forget() drops what was logged until then"
    )
