"""Runs of the trainer that are interrupted at a step of choice, and what of a run must be equal to another's."""

import json
import signal
from pathlib import Path

import shards

from crucible.experiment import trainer
from store.run.commit import read_commit


def quiet(_line):
    """Says nothing."""


def interrupt_at(step, monkeypatch, signum=signal.SIGINT):
    """A signal during the nth step of this process: Ctrl-C, or another."""
    true = trainer.loss_of
    calls = iter(range(1, 10_000))

    def loss_of(*arguments):
        if next(calls) == step:
            signal.raise_signal(signum)
        return true(*arguments)

    monkeypatch.setattr(trainer, "loss_of", loss_of)


def files_of(run):
    """Everything that must be equal: all but the lock, the paths, the date, who wrote it, and the older checkpoint."""
    run = Path(run)
    newest = f"checkpoint/{read_commit(run).checkpoint}/"
    found = {path.relative_to(run).as_posix(): shards.content(path) for path in run.rglob("*") if path.is_file()}
    named = {"LOCK", "config.json", "metadata.json", "trajectory.zarr/zarr.json", "commit.json"}
    metadata = json.loads(found["metadata.json"])
    del metadata["date"], metadata["out"]
    kept = {n: d for n, d in found.items() if n not in named and (n.startswith(newest) or "checkpoint/" not in n)}
    return kept | {"words": repr(metadata).encode()}
