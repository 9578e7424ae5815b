"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import Tensor

from crucible.experiment.checkpoint import Progress, capture
from crucible.experiment.metadata import describer
from crucible.experiment.model import loss_of
from crucible.experiment.outcome import Outcome
from crucible.experiment.session import Session
from crucible.progress import Progress as ShowProgress
from crucible.progress import silent
from crucible.recording.recorder import Recorder
from crucible.recording.seam import NoRecorder
from crucible.signals import Interruption

SHOW_EVERY_S = 0.5


def train_steps(
    session: Session,
    recorder: Recorder | NoRecorder,
    *,
    after: Progress | None = None,
    until: Callable[[int], bool] = lambda _: False,
    progress: ShowProgress = silent,
) -> Outcome:
    """Train to `total_steps`, recording every step.

    Parameters
    ----------
    session : Session
        The model and where it is.
    recorder : Recorder
        Attached to the session's optimizer; closed when this returns.
    after : Progress
        Where a restored checkpoint was.
    until : callable
        Asked after each step, with its label; True ends the run there, completed.
    progress : callable
        Called with (step, steps in all, loss and epoch), a few times a second.

    Ctrl-C, or another signal of `crucible.signals.ENDING`, finishes the step, writes a checkpoint, commits and returns.
    A handler that the program had for it is called then.
    """
    config, model, optimizer, place = session.config, session.model, session.optimizer, session.place
    step, last = (after.step, after.loss) if after else (0, None)
    rest = range(step + 1, config.total_steps + 1)
    loss: Tensor | None = None
    started = checkpointed = shown = time.monotonic()
    with recorder, Interruption() as interruption:
        for step, ids in zip(rest, session.batches(), strict=False):
            loss = loss_of(model, ids, config.compute_dtype, config.loss_chunk)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch
            recorder.log(loss=loss)
            optimizer.step()  # the recorder's hook takes the rows here
            if progress is not silent and time.monotonic() - shown >= SHOW_EVERY_S:  # item() waits for a device
                progress(step, config.total_steps, f"loss {loss.item():.3f}, epoch {place.epoch}")
                shown = time.monotonic()
            if time.monotonic() - checkpointed >= config.checkpoint_interval:
                recorder.checkpoint(step, capture(model, optimizer, Progress(step, loss.item(), place)))
                checkpointed = time.monotonic()
            if interruption.signum or until(step):
                break
        last = last if loss is None else loss.item()
        recorder.checkpoint(step, capture(model, optimizer, Progress(step, last, place)))
        is_complete = interruption.signum is None or step == config.total_steps
        if is_complete:
            recorder.complete(describer(session, step, last))
        else:
            recorder.close()
    interruption.hand_on()
    signum = None if is_complete else interruption.signum
    return Outcome(step, last, place.epoch, time.monotonic() - started, signum)
