"""The recorder: the only seam between torch and the store. Tensors in, one append out.

`crucible.attach` hooks one behind an optimizer's step. There is nothing to call in the loop; what the loop alone knows,
such as the loss, is handed over by `Recorder.log`.
"""

from __future__ import annotations

import atexit
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from crucible.recording import sources
from crucible.recording.sources import Moment, Recorded

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
        say: Callable[[str], None] = warnings.warn,
    ) -> None:
        self.writer = writer
        self._say, self._told = say, False
        self._began = time.perf_counter()
        self._parameter, self._optimizer, self._rows = parameter, optimizer, rows
        self._recorded = tuple(recorded)
        self._logged: dict[str, list[Tensor | float]] = {}
        self._handles: list[RemovableHandle] = [optimizer.register_step_post_hook(self._after_step)]
        self._handles += [each.begin() for each in recorded if each.begin]
        self._open = True
        atexit.register(writer.close)  # closing again does nothing

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
            self._logged.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)

    def forget(self) -> None:
        """Drop what was gathered for an update that was skipped, so that it does not count for the next one."""
        self._logged.clear()
        self._forget(self._recorded)

    def begin(self) -> Self:
        """Record step 0, the state at this moment. Where that fails, let go of the run and of the optimizer."""
        try:
            self.record(0)
        except BaseException:
            self.close()
            raise
        return self

    def record(self, step: int) -> None:
        """Append the rows of a step: what each channel's source says of this moment."""
        logged = {name: sources.mean_of(values) for name, values in self._logged.items()}
        self._logged.clear()
        moment = Moment(step, self._parameter, self._rows, self._optimizer, logged)
        due = [recorded for recorded in self._recorded if recorded.channel.records(step)]
        self._forget(each for each in self._recorded if each not in due)
        values = {recorded.channel.name: recorded.source(moment) for recorded in due}
        rows = sources.to_host(values, {recorded.channel.name: recorded.channel for recorded in due})
        self.writer.append(**rows)
        self._tell_of_waiting()

    def checkpoint(self, step: int, files: Mapping[str, bytes]) -> None:
        """Hand over the training state after `step`."""
        self.writer.checkpoint(step, files)

    def complete(self, describe: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None) -> None:
        """End the run: final arrays, metadata.json from `describe`, and close."""
        self._detach()
        self.writer.complete(describe)

    def close(self) -> None:
        """Commit, and let go of the run and of the optimizer. It can be resumed."""
        self._detach()
        self.writer.close()

    def _forget(self, recorded: Iterable[Recorded]) -> None:
        """Drop what these have gathered for an update whose rows they do not keep."""
        for each in recorded:
            if each.forget:
                each.forget()

    def _tell_of_waiting(self) -> None:
        waited_s, elapsed_s = self.writer.waited_s, time.perf_counter() - self._began
        if not self._told and waited_s > max(LONG_WAIT_S, LONG_WAIT_SHARE * elapsed_s):
            self._told = True
            self._say(
                f"recording is slower than training here: the loop has waited {waited_s:.1f} s of {elapsed_s:.0f} s "
                "for the disk or the encoder; nothing is lost"
            )

    def _detach(self) -> None:
        self._open = False
        atexit.unregister(self.writer.close)
        while self._handles:
            self._handles.pop().remove()

    def _after_step(self, optimizer: Optimizer, *_: object) -> None:
        # a fused optimizer under a gradient scaler is called, and does nothing, where gradients overflowed
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is None or not found_inf.item():
            self.record(self.step + 1)
        else:
            self.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._open:
            return
        if kind is None:
            self.complete()
        else:
            self.close()


class NoRecorder:
    """Takes what a recorder takes and keeps nothing: the bare loop, for measuring what recording costs."""

    def log(self, **values: Tensor | float) -> None:
        """Keep nothing."""

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
