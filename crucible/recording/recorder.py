"""The recorder: the only seam between torch and the store. Tensors in, one append out.

`crucible.attach` hooks one behind an optimizer's step. There is nothing to call in the loop; what the loop alone knows,
such as the loss, is handed over by `Recorder.log`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from torch import Tensor
from torch.optim import Optimizer

from crucible.channels.sources import Recorded
from crucible.ranks.part import ALONE, Part
from crucible.recording import live
from crucible.recording.live import Live
from crucible.recording.on_signal import CommitOnSignal
from crucible.recording.seam import Writer
from crucible.recording.updating import After, Updating
from crucible.updates import telling
from crucible.updates.handed import Reduce
from crucible.updates.subject import Find
from crucible.updates.telling import Once, Say
from store.errors import WriterError


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
        self.writer = writer
        self._open, self._tell = True, Once(say)
        self._on_signal = CommitOnSignal(writer.commit) if commits_on_signal else None
        if self._on_signal is not None:
            weakref.finalize(self, self._on_signal.let_go)
        first_step = max(first_step, writer.steps)
        self._updating = Updating(
            writer, parameter, optimizers, rows, recorded, tell=self._tell, release=self._release, find=find, axis=axis,
            after=after, part=part, first_step=first_step, scalars=scalars, others=others, on_signal=self._on_signal,
        )  # fmt: skip
        self._live = Live(self, writer, self._updating.kind, first_step, say)
        live.enter(self._live)
        try:
            self._updating.listen()
        except BaseException:
            self._release()
            raise

    @property
    def step(self) -> int:
        """Label of the last recorded step."""
        return self.writer.steps

    def log(self, *, reduce: Reduce = "mean", **values: Tensor | float) -> None:
        """Log values for the next step of the optimizer; with ``after="record"`` for the next row that `record` takes.

        A tensor is kept on its device, without waiting for it; one of one element is a number. A name that is not
        logged before an update gives NaN. What is logged in a step's closure counts at its first call. Once the
        recorder is closed nothing is kept, which is told.

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
        if not self._open:
            self._tell("closed", self._closed_before("recorder.log was called"))
            return
        for name, value in values.items():
            self._updating.intake.take(name, value, reduce)

    def record(self) -> None:
        """Take the row of the update that was just made: in a loop without an optimizer, and with ``after="record"``.

        Raises
        ------
        RuntimeError
            The optimizer's step records already, or the parameter was replaced.
        WriterError
            The recorder is closed.
        """
        if not self._open:
            raise WriterError(self._closed_before("recorder.record was called"))
        self._updating.record()

    def watch(self, find: Find) -> None:
        """Look at every step for the parameter where the model has it: one that was replaced there ends the recording.

        An embedding given to `crucible.attach` is looked at without this.

        Examples
        --------
        >>> recorder.watch(lambda: model.lm_head.weight)  # doctest: +SKIP
        """
        self._updating.subject.finds.append(find)

    def forget(self) -> None:
        """Drop what was gathered for an update that was skipped, so that it does not count for the next one.

        torch's GradScaler is seen, and needs no call of this.
        """
        self._updating.forget()

    def begin(self) -> Self:
        """Record the first step, the state at this moment. Where that fails, let go of the run and of the optimizer."""
        try:
            self._updating.begin()
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
        if was_open:
            self._updating.tell_of_the_end()
        self._hand_on_signals()

    def close(self) -> None:
        """Commit, and let go of the run and of the optimizer. It can be resumed."""
        was_open = self._detach()
        self.writer.close()
        if was_open:
            self._updating.tell_of_the_end()
        self._hand_on_signals()

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
        """Let go of the optimizer; returns whether it was held."""
        was_open, self._open = self._open, False
        live.leave(self._live)
        self._updating.let_go()
        if self._on_signal is not None:
            self._on_signal.let_go()
        return was_open

    def _closed_before(self, event: str) -> str:
        """That this happened when the recorder was closed already."""
        return f"this recorder is closed, and {event}: nothing is recorded. {telling.closed_with(self.writer.steps)}"

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
        if not self._open:
            raise WriterError(self._closed_before("a block was entered with it"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._open:
            return
        if kind is None:
            self.complete()
        else:
            self._release()
