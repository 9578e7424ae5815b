"""A callback for the Trainer of transformers; that library is never imported here, only met."""

# The Trainer's arguments have types that only its own library, which is not imported here, could name.
# ruff: noqa: ANN401, ARG002

from __future__ import annotations

import atexit
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from crucible.attaching import attach
from crucible.recorder import Recorder
from crucible.rows import Rows

KEY = "crucible"
"""Where the Trainer's state keeps the label of the last recorded step."""


class CrucibleCallback:
    """Records rows of a model's input embedding after every optimizer step of a Trainer.

    The loss is taken where the model computes it, in a forward hook: the Trainer logs it one step late. With
    gradient accumulation it is the loss of the whole update. Training that goes on from a checkpoint cuts the
    trajectory back to the checkpoint's step.

    Parameters
    ----------
    run : path
        Folder of the run.
    rows : "all" or ids
        What to record.
    parameter : str
        Name of another parameter of the model, e.g. ``"transformer.wpe.weight"``.
    **options
        As of `crucible.attach`: channels, populations, statics, lattice, ...

    Examples
    --------
    >>> trainer = Trainer(model=model, args=args, callbacks=[CrucibleCallback("runs/gpt2")])  # doctest: +SKIP
    """

    def __init__(self, run: str | Path, *, rows: Rows = "all", parameter: str | None = None, **options: Any) -> None:
        self.run, self.rows, self.parameter, self.options = run, rows, parameter, options
        self.recorder: Recorder | None = None
        self._losses = _Losses()
        self._handles: list[RemovableHandle] = []

    def on_train_begin(
        self, args: Any, state: Any, control: Any, *, model: nn.Module, optimizer: Optimizer, **_: Any
    ) -> None:
        """Attach, or go on from the step that the Trainer's checkpoint stands at."""
        self.close()
        optimizer = getattr(optimizer, "optimizer", optimizer)
        self.recorder = attach(
            self._target(model),
            optimizer,
            self.run,
            rows=self.rows,
            provenance=_provenance(args, model),
            resume=_stored_step(state) if state.global_step else None,
            **self.options,
        )
        self._handles = [
            model.register_forward_hook(self._losses.take, with_kwargs=True),
            optimizer.register_step_pre_hook(self._hand_over_loss),
        ]
        atexit.register(self.close)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the Trainer saves: make the steps durable, and tell its state which one is the last."""
        if self._losses.total() is not None and self.recorder is not None:
            self.recorder.forget()  # losses that no update took: a gradient scaler skipped it
        if self.recorder is not None:
            state.stateful_callbacks[KEY] = {"step": self.recorder.step}
            if control.should_save:
                self.recorder.writer.commit()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Complete the run."""
        if self.recorder is not None:
            self.recorder.complete()
        self.close()

    def close(self) -> None:
        """Commit and let go; also called when the process ends. A completed run is closed already."""
        while self._handles:
            self._handles.pop().remove()
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.close()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Events of the Trainer that mean nothing here."""
        if name.startswith("on_"):
            return lambda *_, **__: None
        raise AttributeError(f"CrucibleCallback has no attribute {name!r}")

    def _target(self, model: nn.Module) -> nn.Module | Tensor:
        if self.parameter is None:
            embedding: nn.Module = model.get_input_embeddings()  # type: ignore[operator] # of every transformers model
            return embedding
        known = dict(model.named_parameters())
        if self.parameter not in known:
            raise ValueError(
                f"the model has no parameter {self.parameter!r}; it has {', '.join(list(known)[:10])}, ..."
            )
        return known[self.parameter]

    def _hand_over_loss(self, *_: object) -> None:
        loss = self._losses.total()
        if loss is not None and self.recorder is not None:
            self.recorder.log(loss=loss)


class _Losses:
    """The losses of the micro-batches of one update, and what the update's own loss is."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._are_shares = False

    def take(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """A forward hook; evaluation does not count."""
        loss = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if module.training and loss is not None:
            # given the number of items of all micro-batches, the model divides by it: its losses are shares of a sum
            self._are_shares = kwargs.get("num_items_in_batch") is not None
            self._values.append(loss.detach().float().mean())

    def total(self) -> Tensor | None:
        """The update's loss; begins the next update."""
        values, self._values = self._values, []
        if not values:
            return None
        whole = sum(values[1:], values[0])
        return whole if self._are_shares else whole / len(values)


def _stored_step(state: Any) -> int:
    """The label of the last step recorded before the checkpoint; updates that a scaler skipped are not counted."""
    stored = state.stateful_callbacks.get(KEY, {})
    return int(stored.get("step", state.global_step))


def _provenance(args: Any, model: nn.Module) -> dict[str, Any]:
    """What the Trainer knows of the run."""
    autocast = "bfloat16" if args.bf16 else "float16" if args.fp16 else None
    own = str(next(model.parameters()).dtype).removeprefix("torch.")
    return {
        "model": type(model).__name__,
        "compute": f"{own}, autocast to {autocast}" if autocast else own,
        "seed": args.seed,
        "data_seed": args.data_seed,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
    }
