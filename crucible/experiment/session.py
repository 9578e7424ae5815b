"""Everything that training needs, made in the order that decides the first bits."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from crucible.channels.push_source import PushOf
from crucible.experiment.model import TinyLM, parameter_count, seed_everything
from crucible.inputs import data
from crucible.inputs.config import INPUTS, Config, ConfigError
from crucible.inputs.data import BatchPosition, DeadMask
from crucible.recording.provenance import dtypes, machine, software
from crucible.units import counted


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is read from disk: sequences (sequence, seq_len) int64, the mask, and SHA-256 of the three files."""

    sequences: Tensor
    dead: DeadMask
    tokenizer: Tokenizer
    sha256: dict[str, str]
    occurring: int
    """Ids of the mask that do occur in the corpus; 0 when it belongs to this corpus."""


@dataclass(slots=True)
class Session:
    """A model, its optimizer and where it is; `config` is resolved: absolute paths, the device, the arithmetic."""

    config: Config
    device: torch.device
    inputs: Inputs
    model: TinyLM
    optimizer: torch.optim.Optimizer
    place: BatchPosition
    compute_was_auto: bool = False
    push: PushOf | None = None
    """Where the recorder of a new run takes the push from; None where none is recorded."""

    def batches(self) -> Iterator[Tensor]:
        """Batches from `place` on, on the device."""
        for ids in data.batches(self.inputs.sequences, self.config.batch_size, self.place):
            yield ids.to(self.device)

    def provenance(self) -> dict[str, Any]:
        """What made this run."""
        parameters = (parameter.dtype for parameter in self.model.parameters())
        return {
            "software": software(),
            "machine": machine(self.device),
            "dtypes": dtypes(parameters, self.config.compute_dtype, self.optimizer),
            "optimizer": "AdamW",
            "compute_dtype_chosen_by": "auto" if self.compute_was_auto else "config",
            "loss_chunk": self.config.loss_chunk,
            "sha256": self.inputs.sha256,
        }


def read_inputs(config: Config, *, say: Callable[[str], None] = warnings.warn) -> Inputs:
    """Read and check the three input files. Draws no random number. What is not taken as it stands there is said."""
    config.require(*INPUTS)
    # the tokenizer first: it is what a wrong vocab_size contradicts, the mask only follows
    tokenizer = data.read_tokenizer(str(config.tokenizer), config.vocab_size, say=say)
    dead = data.read_dead_mask(str(config.dead_mask), config.vocab_size)
    sequences = data.read_sequences(
        str(config.corpus), tokenizer, config.seq_len, config.batch_size, vocab_size=config.vocab_size, say=say
    )
    occurring = int(np.count_nonzero(dead.mask[np.unique(sequences.numpy())]))
    hashes = {name: data.sha256(getattr(config, name)) for name in INPUTS}
    return Inputs(sequences, dead, tokenizer, hashes, occurring)


@contextmanager
def memory_errors() -> Iterator[None]:
    """What torch says where memory ends, as a MemoryError that names the flags which take less."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise MemoryError(
            "there is too little memory for this model and its batches; make --hidden-dim, --num-layers, --batch-size "
            "or --seq-len smaller, or set --loss-chunk; `crucible plan` projects what is needed"
        ) from error


def begin(config: Config, inputs: Inputs) -> Session:
    """Seed, build the model, move it, cast it, make its optimizer."""
    device = choose_device(config.device)
    was_auto, compute = config.compute_dtype == "auto", choose_compute(config.compute_dtype, device)
    config = replace(config.resolved(), device=str(device), compute_dtype=compute)
    seed_everything(config.random_seed)
    with memory_errors():
        model = TinyLM(config).to(device).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    return Session(config, device, inputs, model, optimizer, BatchPosition(), was_auto)


def choose_device(name: str) -> torch.device:
    """The device of that name, "auto" being cuda, then mps, then cpu.

    Raises
    ------
    ConfigError
        It is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_here in here.items() if is_here)
    device = torch.device(name)
    if not here[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        found = ", ".join(kind for kind, is_here in here.items() if is_here)
        raise ConfigError(f"device {name!r} is not available here; found {found}")
    return device


def choose_compute(name: str, device: torch.device) -> str:
    """The arithmetic; "auto" is float32 on a CPU without bfloat16 units, which is many times quicker there."""
    if name != "auto":
        return name
    return "bfloat16" if device.type != "cpu" or has_bfloat16_units() else "float32"


def has_bfloat16_units() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware, as far as torch tells."""
    if torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        tests = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, test, bool)() for test in tests)
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", bool)
    return bool(supported())


def _of_another_text(inputs: Inputs) -> str:
    """That tokens of the mask do occur, and what to do."""
    dead, verb = len(inputs.dead.indices), "is" if inputs.occurring == 1 else "are"
    return (
        f"note: {counted(inputs.occurring, 'token')} of the dead mask, of {dead:,}, {verb} in this corpus: the mask is "
        "of another text or tokenizer, and what is called dead here is trained on; `crucible prepare` makes one that "
        "fits"
    )


def opening_lines(session: Session) -> list[str]:
    """What is said before the first step, as the notebook does."""
    config, inputs = session.config, session.inputs
    dead = len(inputs.dead.indices)
    lines = [
        f"device: {session.device} ({machine(session.device)['device_name']})",
        f"compute dtype: {config.compute_dtype}{' (chosen by auto)' if session.compute_was_auto else ''}",
        f"random seed: {config.random_seed}",
        f"vocabulary: {counted(config.vocab_size, 'id')}, {counted(dead, 'dead token')}, "
        f"{counted(config.vocab_size - dead, 'live token')}",
        f"sequences: {len(inputs.sequences):,} of {config.seq_len:,} ids, batches of {config.batch_size:,}",
        f"model: {parameter_count(session.model):,} parameters, hidden {config.hidden_dim:,}, "
        f"{counted(config.num_layers, 'layer')}, {counted(config.num_heads, 'head')}",
        f"optimizer: AdamW, learning rate {config.learning_rate:g}, betas {config.beta1:g} and {config.beta2:g}, "
        f"epsilon {config.epsilon:g}, weight decay {config.weight_decay:g}",
    ]
    if inputs.occurring:
        lines.append(_of_another_text(inputs))
    if session.device.type == "cpu" and config.compute_dtype == "bfloat16" and not has_bfloat16_units():
        lines.append("note: this CPU has no bfloat16 units; --compute-dtype float32 is many times quicker")
    return lines
