"""What a recorder does at each update: look at the parameter, tell what is to be told, append a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, NoReturn

import numpy as np
from torch import Tensor
from torch.amp import GradScaler
from torch.cuda import is_current_stream_capturing
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from crucible.channels.push_source import PushOf
from crucible.channels.sources import OptimizerState, Recorded
from crucible.channels.table import GRADIENT, W
from crucible.ranks.part import Part
from crucible.recording.gathering import Gathering
from crucible.recording.intake import Intake
from crucible.recording.on_signal import CommitOnSignal
from crucible.recording.seam import LateWriter, Writer
from crucible.updates import scaling, telling
from crucible.updates.handed import Closure
from crucible.updates.numbers import News, Numbers, compiled
from crucible.updates.steps import Steps
from crucible.updates.subject import Find, Subject
from crucible.updates.telling import Once
from crucible.updates.watching import Watching

After = Literal["step", "record"]
LONG_WAIT_S, LONG_WAIT_SHARE = 1.0, 0.05
"""A loop that has waited longer for the disk or the encoder, and for more of its time, is told so once."""


class Updating:
    """Follows the updates of a parameter, from `listen` to `let_go`; the words are those of `Recorder`.

    Parameters
    ----------
    tell : Once
        Takes notices.
    release : callable
        Closes the recorder: an error is on its way.
    on_signal : CommitOnSignal, optional
        Asked after each row.

    Attributes
    ----------
    subject, intake
        The parameter, and what the loop has logged.
    kind : str or None
        What kind of optimizer makes the updates.
    """

    def __init__(
        self,
        writer: Writer,
        parameter: Tensor,
        optimizers: Sequence[Optimizer],
        rows: Tensor | None,
        recorded: Sequence[Recorded],
        *,
        tell: Once,
        release: Callable[[], None],
        find: Find | None,
        axis: int,
        after: After,
        part: Part,
        first_step: int,
        scalars: bool,
        others: Collection[str],
        on_signal: CommitOnSignal | None,
    ) -> None:
        self._writer, self._tell, self._release, self._part = writer, tell, release, part
        self._writes = part.writes
        self._began, self._on_signal = time.perf_counter(), on_signal
        self._optimizer = optimizers[-1] if optimizers else None
        self.kind = None if self._optimizer is None else type(self._optimizer).__name__
        self._after: After = after if optimizers else "record"
        self.subject = Subject(parameter, self._optimizer, find)
        names = [each.channel.name for each in recorded]
        self._numbers = None if self._optimizer is None else Numbers(self._optimizer, parameter, axis, names)
        self._gathering = Gathering(parameter, self._optimizer, rows, recorded, axis=axis, part=part, first=first_step)
        self._watching = Watching(self.subject, self._differs, self._differ_at_a_glance, tell)
        # of a parameter that lies on several ranks the others do not look just then
        self._knows_last = self._gathering.keeps_weights and part.gather is None
        self._pushes = [each.source for each in recorded if isinstance(each.source, PushOf)]
        self._keeps_gradient = GRADIENT.name in self._gathering.channels
        self._states = [each for each in recorded if part.looks and isinstance(each.source, OptimizerState)]
        self.intake = Intake(recorded, tell, others=others, scalars=scalars)
        self._handed, self._takes_any = self.intake.handed, scalars
        self._scale, self._updates_before, self._is_under_way = 1.0, 0, False
        self._was_compiled = False
        self._first_step = self._update = self._step = first_step
        self._steps = Steps(parameter, optimizers, self) if optimizers else None
        self._handles: list[RemovableHandle] = []

    def listen(self) -> None:
        """Follow the updates from now on. Where that fails, `let_go` takes back what was done of it."""
        if self._steps is not None:
            self._steps.listen()
        scaling.listen(self)
        for each in self._gathering.recorded:
            if each.begin and self._part.looks:
                self._handles.append(each.begin())
        if self._steps is not None:
            self._steps.go_last(self._handles)

    def begin(self) -> None:
        """Record the state at this moment."""
        self._append(self._first_step)

    def record(self) -> None:
        """Take the row of the update that was just made, where the loop says when."""
        if self._after == "step":
            raise RuntimeError(
                "recorder.record() has nothing to do: a row is taken behind each optimizer.step(); to take it later, "
                "attach(..., after='record')"
            )
        if self._optimizer is not None and not self._gathering.is_holding:
            self.forget()
            self._tell("record", telling.nothing_to_record(self._step))
            return
        was_under_way, self._is_under_way = self._is_under_way, True
        self._refuse_changes()
        if self._optimizer is None:
            self._before_row_by_hand(was_under_way=was_under_way)
        else:
            self._look_at_what_was_logged("recorder.record()")
        self._append(self._step + 1)
        self._is_under_way = False
        self.subject.note_state()

    def _before_row_by_hand(self, *, was_under_way: bool) -> None:
        """In a loop without an optimizer: whether the row before was lost to an interrupt, and what is written to."""
        if was_under_way and self._writer.steps == self._step and self.subject.was_written():
            self._tell("broken", telling.broken_off(self._step + 1))
        self._step = self._writer.steps  # an interrupt may have come between a row and its count here
        self._watching.by_hand(self._step + 1, keeps_gradient=self._keeps_gradient)
        self.subject.note_state()  # where this row is lost, what is written from now on is another update

    def forget(self) -> None:
        """Drop what was gathered for an update that was skipped."""
        self._handed.clear()
        self._gathering.drop()

    def let_go(self) -> None:
        """Listen no longer."""
        scaling.let_go(self)
        self.subject.arrivals.let_go()
        if self._steps is not None:
            self._steps.let_go()
        while self._handles:
            self._handles.pop().remove()

    def tell_of_the_end(self) -> None:
        """Say what cannot have been recorded."""
        if self._gathering.is_holding and self._after == "record":
            self._tell("end", telling.not_called_last(self._step + 1))
        else:
            self._watching.end(self._step, self._first_step, telling.nothing_came(self._step, self.kind))
            if self._part.writes:
                for name in self._handed.surplus():
                    self._tell("end", self._handed.words_of_rest(name, self._step))

    def before_step(self, optimizer: Optimizer) -> None:
        """An update begins (a hook)."""
        self._step = self._writer.steps  # an interrupt may have come between a row and its count here
        self._update = update = self._step + 1
        weights = self.subject.parameter
        if (weights.shape, weights.dtype, weights.device) != self.subject.kind:
            # ended before the step, which may write beyond moments of the old shape
            self._end(f"update {update}: {self.subject.change_of_kind()}")
        if weights.is_cuda and is_current_stream_capturing():
            self._end(telling.captured(update))
        was_under_way, self._is_under_way = self._is_under_way, True
        is_broken = was_under_way and self._tells_of_a_broken_one(update)
        if was_under_way:
            self._gathering.let_go()
            self._handed.forget_closure()
        elif self._after == "record" and self._gathering.is_holding:
            self._end(telling.not_called(update))
        if name := self._gathering.written_since():
            self._tell(f"other {name}", telling.other_written(name, self._step))
        is_wrapped = self._steps is not None and optimizer is not self._steps.optimizers[0]
        self._watching.before(update, update - self._first_step, is_expected=is_wrapped or is_broken)

    def moved(self, optimizer: Optimizer) -> None:
        """An update has been made, and hooks of others come before `after_step` (a hook)."""
        if not scaling.found_overflow(optimizer):
            self._refuse_changes()
            self._watching.moved(self._update, keeps_gradient=self._keeps_gradient)
            self._gathering.hold_of_optimizer(self._update)

    def after_step(self, optimizer: Optimizer) -> None:
        """An update has been made (a hook)."""
        if scaling.found_overflow(optimizer):
            self.forget()
            self._is_under_way = False
            return
        self._refuse_changes()
        if self._states and self.subject.parameter.grad is not None:
            self._refuse_unfit_states()
        self._watching.after(self._update, keeps_gradient=self._keeps_gradient)
        if self._optimizer is not None and self._numbers is not None:
            group = self._optimizer.param_groups[self.subject.place[0]]
            if self._numbers.have_changed(group):
                self._tell_of_numbers(self._numbers.news(self._update, group, self._writer.attributes))
        if self._after == "record":
            self._gathering.hold(self._update, self._handed.values())
        else:
            self._look_at_what_was_logged("optimizer.step()")
            self._append(self._update)
        self._is_under_way = False
        if self._steps is not None and self._steps.is_compiled and not self._was_compiled:
            self._was_compiled = True
            self._writer.tell(compiled(self._writer.attributes))
        for source in self._pushes:
            if source.lost:
                self._tell("push", telling.push_lost(self._update, source.lost))

    def stranger_stepped(self, optimizer: Optimizer) -> None:
        """Another optimizer has updated the parameter (a hook)."""
        self._end(telling.stranger(self._step + 1, type(optimizer).__name__, str(self.kind)))

    def wrapper_stepped(self, optimizer: Optimizer) -> None:
        """An optimizer around this one has made its step (a hook)."""
        if self.subject.was_written() and self._differs() in (None, True):
            words = telling.written_by_wrapper(type(optimizer).__name__, str(self.kind))
            self._tell("wrapper", words)

    def hear_closure(self, closure: Closure) -> Closure:
        """A step's closure: what its first call logs and makes counts, and what it writes to is told (a hook)."""
        heard = self._handed.first_call_of(closure)
        return self._watching.first_call_of(heard, self._update, self._look_again, self._is_called_again)

    def _look_again(self) -> None:
        """The weights were written to since the step began, and before the optimizer moved them."""
        for source in self._pushes:
            source.keep()

    def _is_called_again(self) -> None:
        """The optimizer calls the closure a second time, mostly at other weights (LBFGS)."""
        self._gathering.hold_of_first_call(self._update)
        if self._keeps_gradient:
            self._tell("gradient", telling.gradient_of_first_call(str(self.kind)))

    def scaler_begins(self, optimizer: Optimizer, scaler: GradScaler) -> None:
        """A gradient scaler has been asked for a step (a hook)."""
        if self._steps is not None and self._steps.has(optimizer):
            self._updates_before = self._steps.updates
            self._scale = scaler.get_scale() if self._writes and self._handed.is_compared else 1.0

    def scaler_ended(self, optimizer: Optimizer) -> None:
        """A gradient scaler has called the optimizer, or left it out (a hook)."""
        if self._steps is not None and self._steps.has(optimizer) and self._steps.updates == self._updates_before:
            self.forget()

    def _look_at_what_was_logged(self, end: str) -> None:
        """Say so where a loss seems to be another one; `end` is the call with which the loop ends an update."""
        if self._writes:
            self.intake.look(self._update - self._first_step, self._update, self._scale, end)

    def _begin_scalars(self) -> None:
        """At the first update: make the run with what the loop has logged for it, where any name is taken."""
        self._takes_any = False
        is_late = isinstance(self._writer, LateWriter) and self._writer.is_begun
        found = self.intake.undeclared(is_late=is_late)
        if isinstance(self._writer, LateWriter):
            self._writer.begin(each.channel for each in found)
        self._gathering.add(found)

    def _append(self, step: int) -> None:
        """Append the rows of a step: what each channel's source says of this moment."""
        if self._takes_any and step > self._first_step:
            self._begin_scalars()
        logged = self._handed.values()
        self._handed.clear()
        self._writer.append(**self._gathering.rows(step, logged, self._writer.room, self._writer.last_row))
        self._step = step
        if self._gathering.unseen is not None:
            self._tell("unseen", telling.no_pass(self._gathering.unseen, step))
        self._tell_of_waiting()
        if self._on_signal is not None:
            self._on_signal.after_step()

    def _tell_of_numbers(self, news: Iterator[News]) -> None:
        """Say, and have in the run, which of the optimizer's numbers are no longer those that it tells of."""
        for key, words, attributes in news:
            self._writer.tell(attributes)
            self._tell(key, words)

    def _differs(self) -> bool | None:
        """Whether the weights are others than those of the last row; None where that cannot be told."""
        last = self._writer.last_row(W.name) if self._knows_last else None
        if last is None:
            return None
        return bool(self._gathering.row_of(W.name).tobytes() != np.asarray(last).tobytes())

    def _differ_at_a_glance(self) -> bool:
        """Whether a few of the weights are others than those of the last row, where they lie on the host."""
        if not self._knows_last or not self._gathering.can_glance:
            return False
        last = self._writer.last_row(W.name)
        return last is not None and self._gathering.differ_at_a_glance(last)

    def _tells_of_a_broken_one(self, update: int) -> bool:
        """Whether the update before this one ended with an exception, and no row holds what it did: that is told."""
        differs = self._differs()
        is_lost = self.subject.was_written() if differs is None else differs
        if is_lost:
            self._tell("broken", telling.broken_off(update))
        return is_lost

    def _refuse_changes(self) -> None:
        """End the recording where the parameter is no longer the one that is trained."""
        if change := self.subject.change():
            self._end(f"update {self._step + 1}: {change}")

    def _refuse_unfit_states(self) -> None:
        """After the first update that made the optimizer's state: end, unless it keeps what the channels say."""
        try:
            while self._states:
                each = self._states.pop()
                assert isinstance(each.source, OptimizerState)
                assert self._optimizer is not None
                each.source.refuse_unfit(each.channel, self._optimizer, self.subject.parameter)
        except ValueError:
            self._release()
            raise

    def _end(self, words: str) -> NoReturn:
        """Close the run, and say why."""
        step = self._step
        self._release()
        raise RuntimeError(f"{words}. {telling.closed_with(step)}")

    def _tell_of_waiting(self) -> None:
        if (waited_s := self._writer.waited_s) <= LONG_WAIT_S:
            return
        elapsed_s = time.perf_counter() - self._began
        if waited_s > LONG_WAIT_SHARE * elapsed_s:
            self._tell("waiting", telling.slow(waited_s, elapsed_s))
