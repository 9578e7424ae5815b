"""The whole story with no input and no network: text that every Python ships, trained until it is frozen."""

from __future__ import annotations

import io
import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from analysis.optimizers.expected_moves import expected_moves
from analysis.questions.endstate import verdict
from crucible.channels.push_source import PushOf
from crucible.experiment.outcome import Outcome, tell_end
from crucible.experiment.plan import Plan, plan_run
from crucible.experiment.run import train
from crucible.experiment.session import Session
from crucible.inputs.config import Config
from crucible.inputs.prepare import prepare
from crucible.inputs.stdlib_text import docstring_text, topic_text
from crucible.interchange.exporter import export_run
from crucible.progress import Progress, silent
from crucible.units import size_text
from store.errors import RunExistsError
from store.format.files import TRAJECTORY, folder_bytes, local_path
from store.placed_file import place

Say = Callable[[str], None]
FOLDER = "crucible-demo"
VOCABULARY = 4096
MOST_STEPS = 4000
PICTURE_DPI = 150
ASK_EVERY = 16
"""Steps between two looks at the verdict; looking costs some tenths of a millisecond."""


def run_demo(out: str | None, say: Say, progress: Progress = silent) -> int:
    """Prepare, train until the verdict is frozen, tell, draw, export; returns the exit code."""
    folder = free_folder() if out is None else local_path(out)
    if folder.exists():
        raise RunExistsError(f"{folder}: is there already; name another folder with --out")
    folder.mkdir(parents=True)
    config = make_inputs(folder, say)
    asked: list[UntilFrozen] = []

    def until(session: Session) -> Callable[[int], bool]:
        rows = torch.from_numpy(session.inputs.dead.indices)
        asked.append(UntilFrozen(session.model.token_embedding.weight, rows, session.optimizer, session.push))
        return asked[0]

    say("")
    outcome = train(config, until=until, say=say, progress=progress)
    code = tell_end(outcome, config.out, say)
    if outcome.is_complete:
        tell_cost(outcome, plan_run(config, asked[0].tokens), folder, say)
        made = export_run(str(config.out), folder / "trajectory.safetensors")
        say(f"file: {made.path}, {size_text(made.file_bytes)}, as the notebook writes it")
        show(folder, say)
    return code


def free_folder() -> Path:
    """The demo's folder, or the first of its numbered ones that is not there yet."""
    folder, number = Path(FOLDER), 1
    while folder.exists():
        number += 1
        folder = Path(f"{FOLDER}-{number}")
    return folder


def make_inputs(folder: Path, say: Say) -> Config:
    """Two texts, a tokenizer trained on both, the ids that never occur in the narrow one."""
    narrow, wide = folder / "topics.txt", folder / "docstrings.txt"
    place(narrow, topic_text().encode())
    place(wide, docstring_text().encode())
    made = prepare([narrow, wide], narrow, VOCABULARY, folder)
    say(f"text: Python's help topics ({size_text(narrow.stat().st_size)}), and beside them for the tokenizer the")
    say(f"      docstrings of its standard library ({size_text(wide.stat().st_size)})")
    say(f"tokens: {made.vocab_size:,}, of which {made.dead:,} never occur in the topics")
    return Config(
        corpus=str(narrow),
        tokenizer=str(made.tokenizer),
        dead_mask=str(made.dead_mask),
        out=str(folder / "run"),
        total_steps=MOST_STEPS,
        vocab_size=VOCABULARY,
        hidden_dim=32,
        seq_len=64,
        batch_size=8,
        learning_rate=3e-3,
        compute_dtype="float32",
        device="cpu",
        experiment="Crucible demo",
        notes="ends when the end-state verdict is frozen, by the silence (p <= 0.05) and by the push (E <= 0.01)",
    )


@dataclass(slots=True)
class UntilFrozen:
    """Asked after each step: has the cloud of tokens come to rest permanently?

    Keeps the labels of the moving steps and the strongest push of each, as the recorder has just computed it. A
    displacement that is not 0 is at least half a cell, so at the threshold of 0.1 cells "moved" means that any value
    changed.
    """

    weight: Tensor
    rows: Tensor
    optimizer: torch.optim.Optimizer
    push: PushOf | None = None
    moving: list[int] = field(default_factory=list)
    strongest: list[float] = field(default_factory=list)
    _before: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._before = self.weight.detach().index_select(0, self.rows)

    @property
    def tokens(self) -> int:
        """How many tokens are watched."""
        return len(self.rows)

    def __call__(self, step: int) -> bool:
        """Whether the verdict is frozen after this step."""
        now = self.weight.detach().index_select(0, self.rows)
        pushes = None if self.push is None else self.push.last
        self.strongest.append(math.nan if pushes is None else float(pushes.max()))
        if not torch.equal(now, self._before):
            self.moving.append(step)
            self._before = now
            return False
        return step % ASK_EVERY == 0 and self._is_frozen(step)

    def _is_frozen(self, step: int) -> bool:
        """The verdict by silence and push together."""
        group = self.optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        outlook = expected_moves(
            self.strongest, np.full(step, group["lr"]), np.arange(1, step + 1), beta1=beta1, beta2=beta2,
            last_motion=self.moving[-1] if self.moving else 0,
        )  # fmt: skip
        return bool(verdict(self.moving, last_step=step, outlook=outlook)["frozen"])


def tell_cost(outcome: Outcome, plan: Plan, folder: Path, say: Say) -> None:
    """What recording took, against the notebook's preallocation for the planned steps."""
    stored = folder_bytes(folder / "run" / TRAJECTORY)
    say("Cost")
    say(f"  memory of the recorder: {size_text(plan.recording_bytes)} by the plan, whatever the length of the run")
    say(f"  on disk: {size_text(stored)}; the notebook would preallocate {size_text(plan.notebook_bytes)} of memory")
    say(f"  {outcome.elapsed_s / max(1, outcome.steps) * 1e3:.1f} ms a step, recording included")
    say("")


def show(folder: Path, say: Say) -> None:
    """Write the report and the cooling curve, and tell where they are and how to open the page."""
    from analysis import plots
    from crucible.inspection.report import report
    from store.reading.reader import open_trajectory

    run, path, buffer = folder / "run", folder / "cooling.png", io.BytesIO()
    written = report(run, folder / "report.html")
    plots.save(plots.cooling(open_trajectory(run)), buffer, dpi=PICTURE_DPI)
    place(path, buffer.getvalue())
    say(f"report: {written}")
    say(f"picture: {path}")
    say(f"page: {shlex.join(['crucible', 'view', str(run)])}")
