"""Looks at the parameter before and after each update, so that nothing false is recorded in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from crucible.updates import telling
from crucible.updates.handed import Closure
from crucible.updates.subject import IDLE_UPDATES, Subject, mark_of, writes_to
from crucible.updates.telling import Once


class Watching:
    """What is said of a parameter while it is recorded.

    Reading the weights again costs as much as recording them, so they are compared with the row that was recorded
    last where torch's own count says that something wrote to them, where a glance at a few of them, before every
    update, says so, and else before the updates 1, 2, 4, 8, ... alone.

    Parameters
    ----------
    subject : Subject
        The parameter.
    differs : callable
        Whether the weights are others than those recorded last, bit for bit; None where that is not known.
    glance : callable
        Whether a few of them are, as far as that is known without waiting.
    tell : Once
        Takes sentences.
    """

    def __init__(
        self, subject: Subject, differs: Callable[[], bool | None], glance: Callable[[], bool], tell: Once
    ) -> None:
        self.subject, self._differs, self._glance, self._tell = subject, differs, glance, tell
        self._is_written, self._untouched = False, 0
        self._gradient: tuple[Tensor, int] | None = None
        self._is_looked_at = False

    def before(self, update: int, ordinal: int, *, is_expected: bool) -> None:
        """Right before an update, the ordinal-th: whether the weights are those recorded last.

        Where it `is_expected` that they are not, nobody looks: a wrapper (SAM) may move them for a while.
        """
        self._note_gradient()
        self._is_looked_at = False
        if not self._is_written and not is_expected and self._was_written(ordinal):
            self._tell_of_writing(update)

    def first_call_of(
        self, closure: Closure, update: int, written: Callable[[], None], again: Callable[[], None]
    ) -> Closure:
        """A step's closure, after whose first call `written` is called if it wrote to the weights.

        In later calls the optimizer itself may have moved them. An embedding with max_norm writes where it is called.
        Before a second call, which makes another gradient, `again` is called.
        """
        calls = 0

        def watched() -> Any:  # noqa: ANN401 - whatever it gives
            nonlocal calls
            calls += 1
            if calls == 2:
                again()
            before = mark_of(self.subject.parameter)
            is_first = calls == 1
            answer = closure()
            self._note_gradient()  # which that has made
            if is_first and mark_of(self.subject.parameter) != before:
                written()
                if not self._is_written and self._differs() is not False:
                    self._tell_of_writing(update)
            return answer

        return watched

    def moved(self, update: int, *, keeps_gradient: bool) -> None:
        """Right behind the optimizer's step: whether a gradient that is recorded is still the one before it."""
        now, before, self._is_looked_at = self.subject.parameter.grad, self._gradient, True
        if keeps_gradient and before is not None and (now is not before[0] or writes_to(now) != before[1]):
            self._tell("gradient", telling.gradient_changed(update, is_gone=now is None))
        if before is None and now is not None:
            self._gradient = now, writes_to(now)

    def after(self, update: int, *, keeps_gradient: bool) -> None:
        """After an update, of whose step hooks of others may have come to know before."""
        if not self._is_looked_at:
            self.moved(update, keeps_gradient=keeps_gradient)
        self.subject.note_update(None if self._gradient is None else self._gradient[0])
        self._gradient = None
        if self.subject.idle == IDLE_UPDATES:
            self._tell("idle", self.subject.idle_words())

    def by_hand(self, update: int, *, keeps_gradient: bool) -> None:
        """Right before the row of an update that the loop has made without an optimizer."""
        gradient = self.subject.parameter.grad
        if keeps_gradient and (gradient is None or self.subject.arrivals.was_cleared(gradient)):
            self._tell("gradient", telling.gradient_cleared(update, is_gone=gradient is None))
        is_same = not self.subject.was_written() and self._differs() is False
        self._untouched = self._untouched + 1 if is_same else 0
        if self._untouched == IDLE_UPDATES:
            self._tell("untouched", telling.untouched(self._untouched))

    def end(self, step: int, first_step: int, never: str) -> None:
        """When recording ends: what the run cannot hold."""
        if step <= first_step:
            self._tell("end", never)
        elif change := self.subject.change():
            self._tell("end", f"after step {step}, the last that was recorded, {change}")
        elif self._ends_written():
            self._tell("end", telling.written_after(step))
        elif self._untouched > 1 or self._untouched == step - first_step:
            self._tell("untouched", telling.untouched(self._untouched))
        elif self.subject.idle > 1 or self.subject.idle == step - first_step:
            self._tell("idle", self.subject.idle_words())

    def _note_gradient(self) -> None:
        """With which gradient the optimizer begins."""
        gradient = self.subject.parameter.grad
        self._gradient = None if gradient is None else (gradient, writes_to(gradient))

    def _tell_of_writing(self, update: int) -> None:
        """Once; nobody looks before an update from then on."""
        self._is_written = True
        self._tell("written", telling.written_before(update))

    def _was_written(self, ordinal: int) -> bool:
        is_suspect = self.subject.was_written()
        if is_suspect or _is_power_of_two(ordinal) or self._glance():
            if self.subject.change():
                return False  # which the update ends with an error
            differs = self._differs()
            return is_suspect if differs is None else differs
        return False

    def _ends_written(self) -> bool:
        differs = self._differs()
        return self.subject.was_written() if differs is None else differs


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
