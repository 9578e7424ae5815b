"""A callback for the Trainer of transformers; that library is never imported here, only met."""

# The Trainer's arguments have types that only its own library, which is not imported here, could name.
# ruff: noqa: ANN401, ARG002

from __future__ import annotations

import atexit
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from weakref import WeakValueDictionary

from torch import Tensor, nn
from torch.optim import Optimizer

from crucible.channels.rows import Rows
from crucible.channels.selection import DEFAULT
from crucible.channels.tensors import dtype_name
from crucible.ranks.company import Company, loss_of_all
from crucible.recording.attach import attach
from crucible.recording.provenance import software
from crucible.recording.recorder import Recorder
from crucible.updates.micro_batches import ModelOutputs, TrainingSteps, UpdateLoss
from crucible.updates.telling import log_notice
from crucible.updates.trainings import Place, Trainings, from_state
from store.format.files import run_folder

KEY = "crucible"
"""Under which name the Trainer's state keeps the label of the last recorded step, and with the name of a run behind it
that of this run: a Trainer may have a callback for each of several parameters."""


class Handle(Protocol):
    """What takes a hook out again."""

    def remove(self) -> None:
        """Listen no longer."""


class CrucibleCallback:
    """Records rows of a model's input embedding after every optimizer step of a Trainer.

    The recorded loss is the one in the model's output, taken by a forward hook; with gradient accumulation it is the
    loss of the whole update. With `trainer` it is the Trainer's own, which is another one, and the one that was
    optimised, where the Trainer computes it itself: with `label_smoothing_factor`, `compute_loss_func` or a
    `compute_loss` of yours. An update for which no loss was seen has NaN; the first is told through `say`, and so is
    another loss that was optimised, as far as the first updates show it.

    Where several processes train together, give it to the Trainer in each of them: one records, and its loss is that
    of all of them.

    Training that goes on from a checkpoint cuts the trajectory back to the checkpoint's step; where it was never
    recorded before, or in another run, the trajectory begins at that step. Each further training of the same callback
    has a folder of its own, ``<run>-2`` and so on, and each trial of a hyper-parameter search one within `run`;
    `folder` says which. One that the Trainer begins again with a smaller batch (`auto_find_batch_size`) takes the place
    of the one before.

    A run stays open until training ends. transformers does not notify callbacks of exceptions: after one, or an
    interrupt, in the Trainer the run stays open until `close` is called, the ``with`` block of the callback is left, a
    callback begins on the same run in this process, or the process ends. What was recorded until then is committed by
    each of these.

    Parameters
    ----------
    run : path
        Folder of the run.
    rows : "all" or ids
        What to record.
    parameter : str
        Name of another parameter of the model, e.g. ``"transformer.wpe.weight"``.
    trainer : Trainer
        Record the loss of its `training_step`. The callback is then made after it, and added.
    **options
        As of `crucible.attach`: channels, populations, statics, lattice, overwrite, ...

    Examples
    --------
    >>> trainer = Trainer(model=model, args=args, callbacks=[CrucibleCallback("runs/gpt2")])  # doctest: +SKIP
    >>> trainer.add_callback(CrucibleCallback("runs/smoothed", trainer=trainer))  # doctest: +SKIP
    """

    def __init__(
        self,
        run: str | Path,
        *,
        rows: Rows = "all",
        parameter: str | None = None,
        trainer: Any = None,
        **options: Any,
    ) -> None:
        self.run, self.rows, self.parameter, self.trainer, self.options = run, rows, parameter, trainer, options
        options["channels"] = None if options.get("channels") is None else tuple(options["channels"])
        self.recorder: Recorder | None = None
        self._say: Callable[[str], None] = options.get("say") or log_notice
        self._losses = UpdateLoss()
        self._handles: list[Handle] = []
        self._awaits_loss = any(getattr(each, "name", "") == "loss" for each in options["channels"] or DEFAULT)
        self._missed_loss = self._compares_losses = False
        self._company = Company.of_one()
        self.folder = run_folder(run)
        self._trainings = Trainings(self.folder, overwrite=bool(options.get("overwrite")))

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, optimizer: Optimizer, **_: Any
    ) -> None:
        """Attach, or go on from the step that the Trainer's checkpoint stands at."""
        place = self._place_of(args, state)
        self._let_go_of(place.folder)
        optimizer = getattr(optimizer, "optimizer", optimizer)
        parameter = self._known_parameter_of(model)
        self.recorder = attach(
            parameter,
            optimizer,
            place.folder,
            rows=self.rows,
            provenance=_provenance(args, model),
            **self.options | place.options,
        )
        self.folder = place.folder
        if place.notice:
            self._say(place.notice)
        self.recorder.watch(partial(self._parameter_of, model))
        self._company, self._device = Company(), parameter.device
        # a scaler multiplies what backward is called on, and processes share it out
        self._compares_losses = self._awaits_loss and self._company.is_alone and not (args.fp16 or args.deepspeed)
        self._shares_over_ranks = bool(getattr(args, "average_tokens_across_devices", False))
        _open[place.folder.resolve()] = self
        atexit.register(self.close)
        self._losses = UpdateLoss()  # an update that was broken off left some
        self._handles = [self._listen(model), optimizer.register_step_pre_hook(self._hand_over_loss)]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the Trainer saves: make the steps durable, and tell its state which one is the last."""
        if self._losses.total() is not None and self.recorder is not None:
            self.recorder.forget()  # losses that no update took: a gradient scaler skipped it
        if self.recorder is not None:
            kept = self._trainings.kept(self.recorder.step)
            state.stateful_callbacks |= {KEY: kept, self._own_key: kept}
            if control.should_save:
                self.recorder.writer.commit()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Complete the run."""
        if self.recorder is not None:
            self.recorder.complete()
        self.close()

    def close(self) -> None:
        """Commit and let go of the run, which can be resumed then. Closing again does nothing.

        For after an exception in the Trainer: a run that came to its end is closed already.
        """
        atexit.unregister(self.close)
        while self._handles:
            self._handles.pop().remove()
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Events of the Trainer that mean nothing here."""
        if name.startswith("on_"):
            return lambda *_, **__: None
        raise AttributeError(f"CrucibleCallback has no attribute {name!r}")

    def _place_of(self, args: Any, state: Any) -> Place:
        """Where the training that begins now is recorded."""
        if state.global_step:
            kept = from_state(state, self._own_key) or from_state(state, KEY)
            return self._trainings.resumed(kept, state.global_step)
        if state.is_hyper_param_search:
            return self._trainings.trial(state.trial_name)
        place = self._trainings.next(state.train_batch_size, may_shrink=args.auto_find_batch_size)
        if place.folder != self._trainings.run:
            self._say(f"{self.run}: holds an earlier training of this callback; this one is recorded in {place.folder}")
        return place

    @property
    def _own_key(self) -> str:
        return f"{KEY} {self._trainings.run.name}"

    def _let_go_of(self, folder: Path) -> None:
        """Close what holds it in this process: this callback, or one whose training was broken off."""
        self.close()
        holder = _open.pop(folder.resolve(), None)
        if holder is not None:
            holder.close()

    def _listen(self, model: nn.Module) -> Handle:
        if self.trainer is not None:
            return TrainingSteps(self.trainer, self._losses)
        return model.register_forward_hook(ModelOutputs(self._take_loss), with_kwargs=True)

    def _take_loss(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """A forward hook; evaluation does not count."""
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if module.training and loss is not None:
            # given the number of items of all micro-batches, the model divides by it: its losses are shares of a sum
            self._losses.add(loss, is_share=kwargs.get("num_items_in_batch") is not None)

    def _parameter_of(self, model: nn.Module) -> Tensor:
        """What stands in the model now; quick, since it is asked at every step."""
        if self.parameter is None:
            embedding: nn.Module = model.get_input_embeddings()  # type: ignore[operator] # of every transformers model
            return embedding.weight  # type: ignore[return-value] # a module's attribute may be anything
        found: Tensor = attrgetter(self.parameter)(model)
        return found

    def _known_parameter_of(self, model: nn.Module) -> Tensor:
        known = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        if self.parameter is not None and self.parameter not in known:
            raise ValueError(f"the model has no parameter {self.parameter!r}; it has {', '.join(known[:10])}, ...")
        return self._parameter_of(model)

    def _hand_over_loss(self, *_: object) -> None:
        if self._compares_losses and (found := self._losses.other_optimised()):
            self._compares_losses = False
            self._say(_other_loss(*found))
        loss = self._over_ranks(self._losses.total())
        if self.recorder is None:
            return
        if loss is not None:
            self.recorder.log(loss=loss)
        elif self._awaits_loss and not self._missed_loss:
            self._missed_loss = True
            self._say(
                f"update {self.recorder.step + 1} ended and no loss was seen, so NaN is recorded: the model's output "
                "has none where the Trainer computes it (label_smoothing_factor, compute_loss_func, compute_loss); "
                "trainer.add_callback(CrucibleCallback(run, trainer=trainer)) records the Trainer's own"
            )

    def _over_ranks(self, loss: Tensor | None) -> Tensor | None:
        """The loss over all processes, each of which has the callback; else that of this one."""
        if not self._awaits_loss or self._company.is_alone:
            return loss
        if not self._company.is_complete:
            self._company = Company.of_one()
            self._say(
                "only some of the processes have this callback, so the recorded loss is that of this process alone; "
                "give it to the Trainer on every rank: one of them records"
            )
            return loss
        # where the tokens of all processes are counted, each process divides by their number
        is_share = self.trainer is None and self._losses.are_shares and self._shares_over_ranks
        return loss_of_all(loss, self._device, is_share=is_share)


def _other_loss(recorded: float, optimised: float) -> str:
    """That the loss of the model's output is not the one that the Trainer optimises."""
    return (
        f"the recorded loss is that of the model's output, {recorded:.4g}, and what backward was called on makes "
        f"{optimised:.4g} of it: the Trainer optimises another loss (a compute_loss of yours, several passes of the "
        "model); trainer.add_callback(CrucibleCallback(run, trainer=trainer)) records the Trainer's own"
    )


_open: WeakValueDictionary[Path, CrucibleCallback] = WeakValueDictionary()
"""The callback that last began on each run; atexit keeps those alive that are open."""


def _provenance(args: Any, model: nn.Module) -> dict[str, Any]:
    """What the Trainer knows of the run."""
    autocast = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
    own = dtype_name(next(model.parameters()).dtype)
    return {
        "software": software("transformers", "accelerate"),
        "model": type(model).__name__,
        "compute": f"{own}, autocast to {autocast}" if autocast else own,
        "seed": args.seed,
        "data_seed": args.data_seed,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
    }
