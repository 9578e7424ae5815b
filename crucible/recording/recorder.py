"""The recorder: the only seam between torch and the store. Tensors in, one append out.

`crucible.attach` hooks one behind an optimizer's step. There is nothing to call in the loop; what the loop alone knows,
such as the loss, is handed over by `Recorder.log`.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from crucible.channels import sources
from crucible.channels.sources import Moment, OptimizerState, Recorded
from crucible.channels.table import LOSS
from crucible.recording import telling
from crucible.recording.ranks import ALONE, Part
from crucible.recording.telling import Once, Say
from crucible.updates.subject import IDLE_UPDATES, Find, Subject

LONG_WAIT_S, LONG_WAIT_SHARE = 1.0, 0.05
"""A loop that has waited longer for the disk or the encoder, and for more of its time, is told so once."""


class Writer(Protocol):
    """What a recorder needs of a store; `store.TrajectoryWriter` is one."""

    @property
    def steps(self) -> int:
        """Label of the last appended step."""

    @property
    def committed_steps(self) -> int:
        """Label of the last committed step."""

    @property
    def waited_s(self) -> float:
        """Seconds that `append` has waited for the disk or the encoder."""

    def append(self, **rows: Any) -> None:  # noqa: ANN401 - arrays and numbers
        """Take the next step's rows."""

    def checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Take the training state after `step`."""

    def commit(self) -> None:
        """Return when all appended steps are durable."""

    def complete(self, describe: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None) -> None:
        """End the run."""

    def close(self) -> None:
        """Commit what waits and let go of the run."""


class Recorder:
    """Records after every update of an optimizer, until it is closed. `crucible.attach` makes one.

    A context manager: leaving it commits and closes the run, also on an exception; without one the run is completed.
    A recorder that is neither left nor closed is closed when the process ends.
    """

    def __init__(
        self,
        writer: Writer,
        parameter: Tensor,
        optimizer: Optimizer,
        rows: Tensor | None,
        recorded: Sequence[Recorded],
        *,
        find: Find | None = None,
        part: Part = ALONE,
        say: Say = telling.log_notice,
    ) -> None:
        self.writer, self._part = writer, part
        self._tell = Once(say)
        self._began = time.perf_counter()
        self._subject, self._rows = Subject(parameter, optimizer, find), rows
        self._recorded = tuple(recorded)
        self._states = [each for each in recorded if isinstance(each.source, OptimizerState)]
        self._logged: dict[str, list[Tensor | float]] = {}
        self._taken = sources.names_taken(recorded)
        self._first_logged: frozenset[str] = frozenset()
        self._handles: list[RemovableHandle] = [optimizer.register_step_pre_hook(self._before_step)]
        self._handles += [optimizer.register_step_post_hook(self._after_step)]
        self._handles += [each.begin() for each in recorded if each.begin and part.looks]
        self._open = True
        self._first_step = max(0, writer.steps)
        kind = type(optimizer).__name__  # what a process that ends holds on to: no tensors
        self._at_exit = partial(_close_forgotten, writer, self._first_step, kind, say)
        atexit.register(self._at_exit)

    @property
    def step(self) -> int:
        """Label of the last recorded step."""
        return self.writer.steps

    def log(self, **values: Tensor | float) -> None:
        """Hand over what the loop alone knows. It belongs to the next optimizer step.

        Several values of one name before an update are averaged; a name that is not logged gives NaN. A tensor is
        kept on its device, without waiting for it. Where a gradient scaler skips an update, call `forget`.
        """
        for name, value in values.items():
            # a copy, since the loop may write on in its tensor before the step
            self._logged.setdefault(name, []).append(value.detach().clone() if isinstance(value, Tensor) else value)
            if self._taken is not None and name not in self._taken | {LOSS.name}:  # a table without a loss is meant
                self._tell(f"log {name}", telling.not_taken(name, self._taken))

    def watch(self, find: Find) -> None:
        """Look at every step for the parameter where the model has it: one that was replaced there ends the recording.

        An embedding given to `crucible.attach` is looked at without this.

        Examples
        --------
        >>> recorder.watch(lambda: model.lm_head.weight)  # doctest: +SKIP
        """
        self._subject.finds.append(find)

    def forget(self) -> None:
        """Drop what was gathered for an update that was skipped, so that it does not count for the next one."""
        self._logged.clear()
        self._forget(self._recorded)

    def begin(self) -> Self:
        """Record step 0, the state at this moment. Where that fails, let go of the run and of the optimizer."""
        try:
            self.record(0)
        except BaseException:
            self._release()
            raise
        return self

    def record(self, step: int) -> None:
        """Append the rows of a step: what each channel's source says of this moment."""
        if not self._part.looks:
            self._logged.clear()
            self.writer.append()
            return
        subject = self._subject
        logged = {name: sources.mean_of(values) for name, values in self._logged.items()}
        self._logged.clear()
        moment = Moment(step, subject.parameter, self._rows, subject.optimizer, logged, self._part.gather)
        due = [recorded for recorded in self._recorded if recorded.channel.records(step)]
        self._forget(each for each in self._recorded if each not in due)
        values = {recorded.channel.name: recorded.source(moment) for recorded in due}
        if not self._part.writes:  # what is gathered from this process was asked for
            self.writer.append()
            return
        rows = sources.to_host(values, {recorded.channel.name: recorded.channel for recorded in due})
        self.writer.append(**rows)
        self._tell_of_waiting()

    def commit(self) -> None:
        """Return when all steps until now are durable. Without it a commit comes every `commit_interval_s`."""
        self.writer.commit()

    def checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Hand over the training state after `step`."""
        self.writer.checkpoint(step, files)

    def complete(self, describe: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None) -> None:
        """End the run: final arrays, metadata.json from `describe`, and close."""
        was_open = self._detach()
        self.writer.complete(describe)
        self._tell_of_the_end(was_open=was_open)

    def close(self) -> None:
        """Commit, and let go of the run and of the optimizer. It can be resumed."""
        was_open = self._detach()
        self.writer.close()
        self._tell_of_the_end(was_open=was_open)

    def _release(self) -> None:
        """Close, and say nothing: an error is on its way that says more."""
        self._detach()
        self.writer.close()

    def _forget(self, recorded: Iterable[Recorded]) -> None:
        """Drop what these have gathered for an update whose rows they do not keep."""
        for each in recorded:
            if each.forget:
                each.forget()

    def _tell_of_waiting(self) -> None:
        waited_s, elapsed_s = self.writer.waited_s, time.perf_counter() - self._began
        if waited_s > max(LONG_WAIT_S, LONG_WAIT_SHARE * elapsed_s):
            self._tell("waiting", telling.slow(waited_s, elapsed_s))

    def _tell_of_the_end(self, *, was_open: bool) -> None:
        """Say what this recorder cannot have recorded."""
        if not was_open:
            return
        subject, step = self._subject, self.step
        if step <= self._first_step:
            self._tell("end", telling.never_stepped(step, type(subject.optimizer).__name__))
        elif change := subject.change():
            self._tell("end", f"after step {step}, the last that was recorded, {change}")
        elif subject.was_written():
            self._tell("end", telling.written_after(step))
        elif subject.idle == step - self._first_step:
            self._tell("idle", subject.idle_words())

    def _detach(self) -> bool:
        """Let go of the optimizer; answers whether it was held."""
        was_open, self._open = self._open, False
        atexit.unregister(self._at_exit)
        while self._handles:
            self._handles.pop().remove()
        return was_open

    def _before_step(self, *_: object) -> None:
        if self._subject.was_written():
            self._tell("written", telling.written_before(self.step + 1))

    def _after_step(self, optimizer: Optimizer, *_: object) -> None:
        # a fused optimizer under a gradient scaler is called, and does nothing, where gradients overflowed
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and found_inf.item():
            self.forget()
            return
        if change := self._subject.change():
            self._release()
            raise RuntimeError(
                f"update {self.step + 1}: {change}. The run was closed with step {self.step}, the last that is sure; "
                "attach again, to a new run, or with resume= where the weights are the same"
            )
        if self._states and self._subject.parameter.grad is not None:
            self._refuse_unfit_states()
        self._tell_of_late_names()
        self._subject.note_update()
        if self._subject.idle == IDLE_UPDATES:
            self._tell("idle", self._subject.idle_words())
        self.record(self.step + 1)

    def _tell_of_late_names(self) -> None:
        """Say so where the second update is the first that has a loss: it may be that of the first."""
        if self.step == self._first_step:
            self._first_logged = frozenset(self._logged)
        elif self.step == self._first_step + 1 and self._taken:
            for name in self._taken & (self._logged.keys() - self._first_logged):
                self._tell(f"late {name}", telling.late(name, self.step + 1))

    def _refuse_unfit_states(self) -> None:
        """After the first update that made the optimizer's state: end, unless it keeps what the channels say."""
        try:
            while self._states:
                each = self._states.pop()
                assert isinstance(each.source, OptimizerState)
                each.source.refuse_unfit(each.channel, self._subject.optimizer, self._subject.parameter)
        except ValueError:
            self._release()
            raise

    def __repr__(self) -> str:
        where, writer = getattr(self.writer, "run", "a run"), self.writer
        state = f"recording, step {writer.steps:,}" if self._open else f"closed with step {writer.steps:,}"
        return (
            f"<Recorder of {where}: {state}, committed {writer.committed_steps:,}, "
            f"waited {writer.waited_s:.1f} s for the disk>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._open:
            return
        if kind is None:
            self.complete()
        else:
            self._release()


def _close_forgotten(writer: Writer, first_step: int, kind: str, say: Say) -> None:
    """Close the run of a recorder that was never closed, at the end of the process."""
    writer.close()
    if writer.steps <= first_step:
        say(telling.never_stepped(writer.steps, kind))


class NoRecorder:
    """Takes what a recorder takes and keeps nothing: the bare loop, for measuring what recording costs."""

    def log(self, **values: Tensor | float) -> None:
        """Keep nothing."""

    def commit(self) -> None:
        """Nothing waits."""

    def checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Keep nothing."""

    def complete(self, describe: object = None) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""
