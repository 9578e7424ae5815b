"""What a run will take, projected from plain numbers before anything runs."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crucible.channels.table import EXPERIMENT, NOTEBOOK
from crucible.inputs.config import Config, ConfigError, refuse_other_than_config
from crucible.units import counted, size_text
from store.disk import free_bytes
from store.errors import BudgetError
from store.format import chunking

PHASES = ((128, 6.0), (512, 50.0), (None, 200.0))
"""Up to which step a stored byte holds how many raw ones: measured on a real run at full size (3,644 rows x 64, 5,000
steps: 6.8, 38-82, 150-330), rounded down. Weights that never come to rest compress 6 to 7 times all the way."""
PUSH_STORED_BYTES, PUSH_KEPT_BYTES = 0.82, 24
"""What the push takes on disk of a token-step (measured on such runs), and in memory of a recorded weight."""
REFERENCE_TOKENS = 3699
"""Dead tokens of the reference run, of 10,000."""
PROCESS_BYTES = 350 << 20
"""torch, tokenizers and the store in a process that has done nothing yet."""
LOGIT_BYTES = 13
"""Of each logit at the peak of the backward pass; measured at the default size, as `STATE_BYTES`."""
STATE_BYTES = 110
"""Of each value of the hidden states, per layer, that the backward pass needs."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


@dataclass(frozen=True, slots=True)
class Budget:
    """The most bytes that a plan may take; None is no limit."""

    memory_bytes: int | None = None
    disk_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The projection of one run.

    Parameters
    ----------
    recording_bytes, training_bytes : int
        Memory of the recorder, and of the rest of the process.
    disk_bytes, most_disk_bytes : int
        What is to be expected on disk, and what the disk takes if nothing compresses.
    notebook_bytes : int
        What the notebook would hold in memory.
    """

    steps: int
    tokens: int
    hidden: int
    recording_bytes: int
    training_bytes: int
    disk_bytes: int
    most_disk_bytes: int
    notebook_bytes: int
    files: int

    @property
    def memory_bytes(self) -> int:
        """Of the whole process."""
        return self.recording_bytes + self.training_bytes

    def to_mapping(self) -> dict[str, int]:
        """Plain numbers."""
        return {**asdict(self), "memory_bytes": self.memory_bytes}

    def line(self) -> str:
        """The plan in one line."""
        return (
            f"planned: {size_text(self.recording_bytes)} of memory for recording (the notebook: "
            f"{size_text(self.notebook_bytes)}) beside about {size_text(self.training_bytes)} for training; on disk "
            f"about {size_text(self.disk_bytes)} in {counted(self.files, 'file')}, at most "
            f"{size_text(self.most_disk_bytes)}"
        )

    def lines(self) -> list[str]:
        """The plan, a line for each figure."""
        figures = {
            "rows": f"{counted(self.steps + 1, 'state')} x {counted(self.tokens, 'token')} x {self.hidden}",
            "memory": f"{size_text(self.memory_bytes)}, {size_text(self.recording_bytes)} of it for recording",
            "disk": f"about {size_text(self.disk_bytes)}, at most {size_text(self.most_disk_bytes)}",
            "files": f"{self.files:,}",
            "notebook": f"{size_text(self.notebook_bytes)} of memory for the same arrays",
        }
        return [f"{name + ':':10}{text}" for name, text in figures.items()]

    def refuse_beyond(self, budget: Budget, out: Path | None) -> None:
        """Raise when the plan takes more than is allowed, or than the disk of `out` has.

        Raises
        ------
        BudgetError
            With the figures.
        """
        if budget.memory_bytes is not None and self.memory_bytes > budget.memory_bytes:
            raise BudgetError(
                f"--max-memory {size_text(budget.memory_bytes)} is less than the projected "
                f"{size_text(self.memory_bytes)} ({size_text(self.recording_bytes)} recording, "
                f"{size_text(self.training_bytes)} training); see --batch-size, --loss-chunk"
            )
        if budget.disk_bytes is not None and self.disk_bytes > budget.disk_bytes:
            raise BudgetError(
                f"--max-disk {size_text(budget.disk_bytes)} is less than the projected {size_text(self.disk_bytes)} "
                f"(at most {size_text(self.most_disk_bytes)}); see --total-steps"
            )
        if out is not None and self.disk_bytes > (free := free_bytes(out.absolute())):
            raise BudgetError(f"{out}: {size_text(free)} are free, projected are {size_text(self.disk_bytes)} of disk")


def plan(config: Config, *, tokens: int | None = None) -> Plan:
    """Project the memory, disk and files of a run, before anything runs.

    Parameters
    ----------
    config : Config
    tokens : int, optional
        Recorded rows; otherwise counted in the config's dead mask, or assumed as in the reference run.

    Returns
    -------
    Plan
        ``plan.refuse_beyond(Budget(...))`` raises `BudgetError` where it takes more than is allowed.

    Raises
    ------
    ConfigError, InputError
        As `train` does: of a device that is not here, a tokenizer or mask that does not fit, and, where both are named,
        of a corpus of which the tokenizer makes less than a batch. Inputs that are not named are not asked for.
    """
    refuse_other_than_config(config)
    _refuse_unfit(config)
    return plan_run(config, count_tokens(config, tokens))


def _refuse_unfit(config: Config) -> None:
    """Raise where a training would, of what is named in the config; torch is loaded for what needs it alone."""
    if config.device.partition(":")[0] in ("cuda", "mps"):
        from crucible.experiment.session import choose_device

        choose_device(config.device)
    if config.tokenizer is not None:
        from crucible.inputs.data import read_tokenizer, refuse_less_than_a_batch

        tokenizer = read_tokenizer(config.tokenizer, config.vocab_size, say=lambda _: None)
        if config.corpus is not None:
            refuse_less_than_a_batch(config.corpus, tokenizer, config.seq_len, config.batch_size)


def plan_run(config: Config, tokens: int, *, push: bool = True) -> Plan:
    """Project a run of this config that records so many tokens, with or without the push.

    Examples
    --------
    >>> plan = plan_run(Config(), 3699)
    >>> round(plan.notebook_bytes / 1e9, 2)
    7.1
    """
    steps, hidden, vocabulary = config.total_steps, config.hidden_dim, config.vocab_size
    sizes = {"token": tokens, "hidden": hidden, "vocabulary": vocabulary}
    projected = chunking.project(EXPERIMENT if push else NOTEBOOK, sizes, steps + 1)
    usual = chunking.project(NOTEBOOK, sizes, steps + 1)
    exported = (channel for channel in NOTEBOOK if channel.exported)
    notebook = chunking.project(exported, sizes, steps + 1).raw_bytes - tokens * hidden * 4
    return Plan(
        steps, tokens, hidden,
        recording_bytes=projected.memory_bytes + push * PUSH_KEPT_BYTES * tokens * hidden,
        training_bytes=_training_bytes(config),
        disk_bytes=round(usual.raw_bytes / expected_ratio(steps) + push * PUSH_STORED_BYTES * steps * tokens),
        most_disk_bytes=projected.raw_bytes,
        notebook_bytes=notebook,
        files=projected.files,
    )  # fmt: skip


def expected_ratio(steps: int) -> float:
    """Raw bytes of a stored byte after so many steps of the experiment.

    Examples
    --------
    >>> round(expected_ratio(100)), round(expected_ratio(5000))
    (6, 97)
    """
    stored, begun = 0.0, 0
    for until, ratio in PHASES:
        end = steps if until is None else min(steps, until)
        stored += max(0, end - begun) / ratio
        begun = max(begun, end)
    return steps / stored


def parse_size(text: str) -> int:
    """Bytes of "500MB", "1.5 GiB" or a plain number.

    Examples
    --------
    >>> parse_size("500MB"), parse_size("1.5 GiB")
    (500000000, 1610612736)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if not found or found[2] not in _UNITS:
        raise ConfigError(f"{text!r} is no size; write for example 500MB or 1.5GiB")
    return round(float(found[1]) * _UNITS[found[2]])


def _training_bytes(config: Config) -> int:
    positions = config.batch_size * config.seq_len
    logits = (min(config.loss_chunk, positions) or positions) * config.vocab_size
    states = positions * config.hidden_dim * config.num_layers
    return PROCESS_BYTES + logits * LOGIT_BYTES + states * STATE_BYTES


def plan_mapping(plan: Plan, config: Config) -> dict[str, Any]:
    """What `crucible plan --json` prints."""
    return {**plan.to_mapping(), "config": config.to_mapping()}


def count_tokens(config: Config, tokens: int | None) -> int:
    """Recorded rows: as given, else of the dead mask, else those of the reference run."""
    if tokens is not None:
        if not 0 < tokens <= config.vocab_size:
            raise ConfigError(f"--tokens must lie between 1 and vocab_size {config.vocab_size:,}, not {tokens:,}")
        return tokens
    if config.dead_mask is None:
        return min(REFERENCE_TOKENS, config.vocab_size)
    from crucible.inputs.data import read_dead_mask

    return len(read_dead_mask(config.dead_mask, config.vocab_size).indices)
