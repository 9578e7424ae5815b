"""The recorder: the only seam between torch and the store. Tensors in, one append out.

`crucible.attach` hooks one behind an optimizer's step. There is nothing to call in the loop; what the loop alone knows,
such as the loss, is handed over by `Recorder.log`.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

import numpy as np
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from crucible.channels.sources import OptimizerState, Recorded
from crucible.channels.table import GRADIENT, W
from crucible.ranks.part import ALONE, Part
from crucible.recording import live, telling
from crucible.recording.gathering import Gathering
from crucible.recording.intake import Intake
from crucible.recording.live import Live
from crucible.recording.on_signal import CommitOnSignal
from crucible.recording.seam import LateWriter, Writer
from crucible.recording.telling import Once, Say
from crucible.recording.watching import Watching
from crucible.updates import scaling
from crucible.updates.handed import Closure, Reduce
from crucible.updates.steps import Steps
from crucible.updates.subject import Find, Subject

After = Literal["step", "record"]
LONG_WAIT_S, LONG_WAIT_SHARE = 1.0, 0.05
"""A loop that has waited longer for the disk or the encoder, and for more of its time, is told so once."""


class Recorder:
    """Records after every update of a parameter, until it is closed. `crucible.attach` makes one.

    A context manager: leaving it commits and closes the run, also on an exception; without one the run is completed.
    A recorder that is neither left nor closed is closed when the process ends, which is told.

    Parameters
    ----------
    writer : Writer
        Takes the rows.
    parameter : Tensor
        What is recorded.
    optimizers : sequence of Optimizer
        Those that update it together, the one that has its state last; none in a loop that calls `record`.
    rows : Tensor or None
        Ids of the recorded rows on the parameter's device; None when all are.
    recorded : sequence of Recorded
        The given channels.
    find : callable, optional
        Says what stands in the parameter's place in the model now.
    axis : int
        Where the parameter's rows are counted.
    after : {"step", "record"}
        Whether a row is taken right behind the optimizer's step, or when the loop calls `record`.
    part : Part
        What this process has to do with the run, where several train together.
    first_step : int
        Label of the state with which the run begins.
    scalars : bool
        Take any name that the loop logs for the first update; the writer is a `LateWriter` then.
    commits_on_signal : bool
        Take the signals that end a training, and commit first; see `CommitOnSignal`.
    others : collection of str
        Names of arrays that the run has beside the given ones.
    say : callable
        Takes notices.
    """

    def __init__(
        self,
        writer: Writer,
        parameter: Tensor,
        optimizers: Sequence[Optimizer],
        rows: Tensor | None,
        recorded: Sequence[Recorded],
        *,
        find: Find | None = None,
        axis: int = 0,
        after: After = "step",
        part: Part = ALONE,
        first_step: int = 0,
        scalars: bool = False,
        commits_on_signal: bool = False,
        others: Collection[str] = (),
        say: Say = telling.log_notice,
    ) -> None:
        self.writer, self._part = writer, part
        self._tell = Once(say)
        self._began = time.perf_counter()
        self._optimizer = optimizers[-1] if optimizers else None
        self._after: After = after if optimizers else "record"
        self._subject = Subject(parameter, self._optimizer, find)
        self._gathering = Gathering(parameter, self._optimizer, rows, recorded, axis=axis, part=part, first=first_step)
        self._watching = Watching(self._subject, self._differs, self._tell)
        self._states = [each for each in recorded if part.looks and isinstance(each.source, OptimizerState)]
        self._intake = Intake(recorded, self._tell, others=others, scalars=scalars)
        self._handed, self._takes_any = self._intake.handed, scalars
        self._scale, self._updates_before = 1.0, 0
        self._steps = Steps(parameter, optimizers, self) if optimizers else None
        scaling.listen(self)
        self._handles: list[RemovableHandle] = [each.begin() for each in recorded if each.begin and part.looks]
        self._open = True
        self._first_step = self._update = max(first_step, writer.steps)
        self._on_signal = CommitOnSignal(writer.commit) if commits_on_signal else None
        if self._on_signal is not None:
            weakref.finalize(self, self._on_signal.let_go)
        self._live = Live(self, writer, _kind(self._optimizer), self._first_step, say)
        live.enter(self._live)

    @property
    def step(self) -> int:
        """Label of the last recorded step."""
        return self.writer.steps

    def log(self, *, reduce: Reduce = "mean", **values: Tensor | float) -> None:
        """Hand over what the loop alone knows. It belongs to the next optimizer step.

        A tensor is kept on its device, without waiting for it; one of one element is a number. A name that is not
        logged before an update gives NaN. What is logged in a step's closure counts at its first call.

        Parameters
        ----------
        reduce : {"mean", "sum"}
            What becomes of several values of a name before an update: their mean, as of the losses of micro-batches;
            or their sum, as of shares of one loss (``loss / accumulation_steps``).
        **values : number or tensor
            By the name of the channel that takes them.

        Raises
        ------
        ValueError
            No channel takes the name.
        TypeError
            A value is no number and no tensor.
        """
        for name, value in values.items():
            self._intake.take(name, value, reduce)

    def record(self) -> None:
        """Take the row of the update that was just made: in a loop without an optimizer, and with ``after="record"``.

        Raises
        ------
        RuntimeError
            The optimizer's step records already, or the parameter was replaced.
        """
        if self._after == "step":
            raise RuntimeError(
                "recorder.record() has nothing to do: a row is taken behind each optimizer.step(); to take it later, "
                "attach(..., after='record')"
            )
        if self._optimizer is not None and not self._gathering.is_holding:
            self.forget()
            self._tell("record", telling.nothing_to_record(self.step))
            return
        self._refuse_changes()
        self._append(self.step + 1)
        self._subject.note_state()

    def watch(self, find: Find) -> None:
        """Look at every step for the parameter where the model has it: one that was replaced there ends the recording.

        An embedding given to `crucible.attach` is looked at without this.

        Examples
        --------
        >>> recorder.watch(lambda: model.lm_head.weight)  # doctest: +SKIP
        """
        self._subject.finds.append(find)

    def forget(self) -> None:
        """Drop what was gathered for an update that was skipped, so that it does not count for the next one.

        torch's GradScaler is seen, and needs no call of this.
        """
        self._handed.clear()
        self._gathering.drop()

    def begin(self) -> Self:
        """Record the first step, the state at this moment. Where that fails, let go of the run and of the optimizer."""
        try:
            self._append(self._first_step)
        except BaseException:
            self._release()
            raise
        return self

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
        self._hand_on_signals()

    def close(self) -> None:
        """Commit, and let go of the run and of the optimizer. It can be resumed."""
        was_open = self._detach()
        self.writer.close()
        self._tell_of_the_end(was_open=was_open)
        self._hand_on_signals()

    def before_step(self, optimizer: Optimizer) -> None:
        """An update begins (a hook)."""
        self._update = update = self.step + 1
        if self._gathering.is_holding:
            self._end(telling.not_called(update))
        if name := self._gathering.written_since():
            self._tell(f"other {name}", telling.other_written(name, self.step))
        is_wrapped = self._steps is not None and optimizer is not self._steps.optimizers[0]
        self._watching.before(update, update - self._first_step, is_wrapped=is_wrapped)

    def after_step(self, optimizer: Optimizer) -> None:
        """An update has been made (a hook)."""
        if scaling.found_overflow(optimizer):
            self.forget()
            return
        self._refuse_changes()
        if self._states and self._subject.parameter.grad is not None:
            self._refuse_unfit_states()
        if self._part.writes:
            self._intake.look(self._update - self._first_step, self._update, self._scale)
        self._watching.after(self._update, keeps_gradient=GRADIENT.name in self._gathering.channels)
        if self._after == "record":
            self._begin_scalars()
            self._gathering.hold(self._update, self._handed.values())
            self._handed.clear()
        else:
            self._append(self._update)

    def stranger_stepped(self, optimizer: Optimizer) -> None:
        """Another optimizer has updated the parameter (a hook)."""
        self._end(telling.stranger(self.step + 1, type(optimizer).__name__, type(self._optimizer).__name__))

    def wrapper_stepped(self, optimizer: Optimizer) -> None:
        """An optimizer around this one has made its step (a hook)."""
        if self._subject.was_written() and self._differs() in (None, True):
            words = telling.written_by_wrapper(type(optimizer).__name__, type(self._optimizer).__name__)
            self._tell("wrapper", words)

    def hear_closure(self, closure: Closure) -> Closure:
        """The closure of a step: what is logged in its first call counts (a hook)."""
        return self._handed.first_call_of(closure)

    def scaler_begins(self, optimizer: Optimizer, scaler: GradScaler) -> None:
        """A gradient scaler has been asked for a step (a hook)."""
        if self._steps is not None and self._steps.has(optimizer):
            self._updates_before = self._steps.updates
            self._scale = scaler.get_scale() if self._part.writes and self._handed.is_compared else 1.0

    def scaler_ended(self, optimizer: Optimizer) -> None:
        """A gradient scaler has called the optimizer, or left it out (a hook)."""
        if self._steps is not None and self._steps.has(optimizer) and self._steps.updates == self._updates_before:
            self.forget()

    def _begin_scalars(self) -> None:
        """At the first update: make the run with what the loop has logged for it, where any name is taken."""
        if self._takes_any:
            self._takes_any = False
            is_late = isinstance(self.writer, LateWriter) and self.writer.is_begun
            found = self._intake.undeclared(is_late=is_late)
            if isinstance(self.writer, LateWriter):
                self.writer.begin(each.channel for each in found)
            self._gathering.add(found)

    def _append(self, step: int) -> None:
        """Append the rows of a step: what each channel's source says of this moment."""
        if step > self._first_step:
            self._begin_scalars()
        logged = self._handed.values()
        self._handed.clear()
        self.writer.append(**self._gathering.rows(step, logged))
        self._tell_of_waiting()
        if self._on_signal is not None:
            self._on_signal.after_step()

    def _differs(self) -> bool | None:
        """Whether the weights are others than those of the last row; None where that cannot be told."""
        is_known = self._gathering.keeps_weights and self._part.gather is None  # the others do not look just now
        last = self.writer.last_row(W.name) if is_known else None
        if last is None:
            return None
        return bool(self._gathering.row_of(W.name).tobytes() != np.asarray(last).tobytes())

    def _refuse_changes(self) -> None:
        """End the recording where the parameter is no longer the one that is trained."""
        if change := self._subject.change():
            self._end(f"update {self.step + 1}: {change}")

    def _refuse_unfit_states(self) -> None:
        """After the first update that made the optimizer's state: end, unless it keeps what the channels say."""
        try:
            while self._states:
                each = self._states.pop()
                assert isinstance(each.source, OptimizerState)
                assert self._optimizer is not None
                each.source.refuse_unfit(each.channel, self._optimizer, self._subject.parameter)
        except ValueError:
            self._release()
            raise

    def _end(self, words: str) -> NoReturn:
        """Close the run, and say why."""
        step = self.step
        self._release()
        raise RuntimeError(f"{words}. {telling.closed_with(step)}")

    def _tell_of_waiting(self) -> None:
        waited_s, elapsed_s = self.writer.waited_s, time.perf_counter() - self._began
        if waited_s > max(LONG_WAIT_S, LONG_WAIT_SHARE * elapsed_s):
            self._tell("waiting", telling.slow(waited_s, elapsed_s))

    def _tell_of_the_end(self, *, was_open: bool) -> None:
        """Say what this recorder cannot have recorded."""
        if not was_open:
            return
        if self._gathering.is_holding:
            self._tell("end", telling.not_called_last(self.step + 1))
        else:
            self._watching.end(self.step, self._first_step, telling.nothing_came(self.step, _kind(self._optimizer)))

    def _release(self) -> None:
        """Close, and say nothing: an error is on its way that says more."""
        self._detach()
        self.writer.close()
        self._hand_on_signals()

    def _hand_on_signals(self) -> None:
        """With the run closed: let a signal that came since the last step do what it does."""
        if self._on_signal is not None:
            self._on_signal.hand_on()

    def _detach(self) -> bool:
        """Let go of the optimizer; answers whether it was held."""
        was_open, self._open = self._open, False
        live.leave(self._live)
        scaling.let_go(self)
        if self._steps is not None:
            self._steps.let_go()
        while self._handles:
            self._handles.pop().remove()
        if self._on_signal is not None:
            self._on_signal.let_go()
        return was_open

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        """Itself: a module that keeps its recorder can be copied, and the copy records nothing of its own."""
        return self

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


def _kind(optimizer: Optimizer | None) -> str | None:
    return None if optimizer is None else type(optimizer).__name__
