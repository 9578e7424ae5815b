"""A callback for the Trainer of Lightning; that library is never imported here, only met."""

# Lightning's arguments have types that only its own library, which is not imported here, could name.
# ruff: noqa: ANN401, ARG002

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from crucible.channels.rows import Rows
from crucible.channels.sources import group_of
from crucible.ranks.company import Company, loss_of_all
from crucible.recording.attach import attach
from crucible.recording.provenance import software
from crucible.recording.recorder import Recorder
from crucible.updates.telling import log_notice
from crucible.updates.trainings import Place, Trainings
from store.format.files import run_folder

PACKAGES = ("lightning", "pytorch-lightning")


class LightningCallback:
    """Records rows of a parameter of a LightningModule after every optimizer step of `Trainer.fit`.

    The recorded loss is what `backward` is called on: of all micro-batches of an update, and over all processes. A
    checkpoint of Lightning keeps the last recorded step; ``fit(ckpt_path=...)`` cuts the run back to it and goes on. A
    run that was not recorded until the checkpoint begins at its step. After an exception the run is closed with the
    steps until then.

    Parameters
    ----------
    run : path
        Folder of the run.
    parameter : str, optional
        Name of the parameter in the module, e.g. ``"model.embedding.weight"``; not needed where the module has one
        `nn.Embedding`.
    rows : "all" or ids
        What to record.
    **options
        As of `crucible.attach`: channels, populations, store_as, overwrite, ...

    Examples
    --------
    >>> trainer = Trainer(callbacks=[LightningCallback("runs/one", "embedding.weight")])  # doctest: +SKIP
    """

    def __init__(self, run: str | Path, parameter: str | None = None, *, rows: Rows = "all", **options: Any) -> None:
        self.parameter, self.rows, self.options = parameter, rows, options
        options["channels"] = None if options.get("channels") is None else tuple(options["channels"])
        self.folder = run_folder(run)
        self.recorder: Recorder | None = None
        self._trainings = Trainings(self.folder, overwrite=bool(options.get("overwrite")))
        self._kept: dict[str, Any] | None = None
        self._losses: list[Tensor] = []
        self._company, self._device = Company.of_one(), torch.device("cpu")
        self._optimizer: Optimizer | None = None

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the state of this callback."""
        return f"CrucibleCallback{{'parameter': {self.parameter!r}}}"

    _legacy_state_key = state_key

    def on_train_start(self, trainer: Any, module: nn.Module) -> None:
        """Attach, or go on from the step that a checkpoint stands at."""
        self.close()
        name = self.parameter or _only_embedding(module)
        optimizer = _holder(trainer.optimizers, module, name)
        place = self._place_of(trainer)
        options = self.options | place.options
        self.recorder = attach(
            module, optimizer, place.folder, parameter=name, rows=self.rows, provenance=_provenance(trainer, module),
            **options,
        )  # fmt: skip
        self.folder, self._losses = place.folder, []
        if place.notice:
            (self.options.get("say") or log_notice)(place.notice)
        self._company, self._optimizer = Company(), optimizer
        self._device = module.get_parameter(name).device

    def on_before_backward(self, trainer: Any, module: nn.Module, loss: Tensor) -> None:
        """Take a micro-batch's share of the update's loss: Lightning has divided it by their number."""
        if self.recorder is not None:
            scale = getattr(getattr(trainer.precision_plugin, "scaler", None), "_scale", None)
            share = loss.detach().float().mean()
            self._losses.append(share if scale is None else share / scale)

    def on_before_optimizer_step(self, trainer: Any, module: nn.Module, optimizer: Any) -> None:
        """Hand over the loss; what was gathered before the step of another optimizer belongs to that."""
        losses, self._losses = self._losses, []
        if self.recorder is None or getattr(optimizer, "optimizer", optimizer) is not self._optimizer:
            return
        loss = sum(losses[1:], losses[0]) if losses else None
        if not self._company.is_alone and self._company.is_complete:
            loss = loss_of_all(loss, self._device, is_share=False)
        if loss is not None:
            self.recorder.log(loss=loss)

    def on_save_checkpoint(self, trainer: Any, module: nn.Module, checkpoint: dict[str, Any]) -> None:
        """Make the steps durable that the checkpoint is of."""
        if self.recorder is not None:
            self.recorder.commit()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the last recorded step, and which folder."""
        if self.recorder is not None:
            self._kept = self._trainings.kept(self.recorder.step)
        return dict(self._kept or {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what a checkpoint kept."""
        self._kept = dict(state) or None

    def on_train_end(self, trainer: Any, module: nn.Module) -> None:
        """Complete the run."""
        self.state_dict()
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.complete()

    def on_exception(self, trainer: Any, module: nn.Module, exception: BaseException) -> None:
        """Close the run with the steps until now."""
        self.close()

    def close(self) -> None:
        """Commit and let go of the run, which can be resumed then. Closing again does nothing."""
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.close()

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Events of the Trainer that mean nothing here."""
        if name.startswith("on_") or name in ("setup", "teardown"):
            return lambda *_, **__: None
        raise AttributeError(f"LightningCallback has no attribute {name!r}")

    def _place_of(self, trainer: Any) -> Place:
        if trainer.global_step:
            return self._trainings.resumed(self._kept, trainer.global_step)
        return self._trainings.next(None, may_shrink=False)


def _only_embedding(module: nn.Module) -> str:
    """Name of the weight of the one embedding in a module."""
    found = [f"{name}.weight" for name, each in module.named_modules() if isinstance(each, nn.Embedding)]
    if len(found) != 1:
        known = ", ".join(found or [name for name, each in module.named_parameters() if each.ndim == 2][:10])
        raise ValueError(
            f"this {type(module).__name__} has {len(found)} embeddings: name the parameter to record, "
            f"LightningCallback(run, parameter=...); there are {known or 'none of two dimensions'}"
        )
    return found[0]


def _holder(optimizers: list[Optimizer], module: nn.Module, name: str) -> Optimizer:
    """The optimizer that updates the parameter; the first where none does, for `attach` to say so."""
    parameter = dict(module.named_parameters(remove_duplicate=False)).get(name)
    inner = [getattr(each, "optimizer", each) for each in optimizers]
    return next((each for each in inner if parameter is not None and group_of(each, parameter)), inner[0])


def _provenance(trainer: Any, module: nn.Module) -> dict[str, Any]:
    """What Lightning knows of the run."""
    return {
        "software": software(*PACKAGES),
        "model": type(module).__name__,
        "compute": str(trainer.precision),
        "gradient_accumulation_steps": trainer.accumulate_grad_batches,
    }
