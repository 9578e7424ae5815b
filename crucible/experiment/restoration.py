"""Where a resumed run starts: at its newest checkpoint, at the one before it where that is damaged, or at step 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crucible.experiment.checkpoint import CheckpointError, Progress, restore
from crucible.experiment.session import Session
from store.errors import DamageError
from store.run import training_state
from store.run.commit import Commit

SMALL_PARTS = 64 << 20
"""Bytes that a file of training state may hold beside tensors of the size of the model's."""
TENSORS_OF_A_MODEL = 8
"""Times the model's own bytes: AdamW keeps two moments, in float32 at most."""


def restored(session: Session, run: Path, commit: Commit, *, say: Callable[[str], None]) -> Progress | None:
    """Put the newest whole checkpoint of a commit into a session; None where the commit names none.

    What is damaged of a newer one is said.

    Raises
    ------
    DamageError
        Every checkpoint of the commit is damaged.
    CheckpointError
        A checkpoint is whole and belongs to another model.
    """
    damage: list[DamageError] = []
    for name in training_state.named(commit):
        try:
            files = training_state.read(run, commit, name, _most_bytes(session))
        except DamageError as error:
            damage.append(error)
            continue
        after = _restored(files, session, name, run)
        for each in damage:
            say(
                f"note: {each}; going on from the training state of step {after.step:,} instead: the steps after it "
                "are computed again and compared with the stored ones"
            )
        session.place = after.place
        return after
    if damage:
        raise type(damage[0])(
            f"{damage[0]}; no other training state is left, but no step is lost: `crucible resume {run} --from-start` "
            "computes all of them again and compares them with the stored ones"
        )
    return None


def _restored(files: dict[str, bytes], session: Session, name: str, run: Path) -> Progress:
    try:
        after = restore(files, session.model, session.optimizer)
        if after.step != training_state.step_of(name):
            raise CheckpointError(f"{name} holds the training state of step {after.step:,}")
        batches = len(session.inputs.sequences) // session.config.batch_size
        if after.place.drawn > batches:
            raise CheckpointError(f"{name}: {after.place.drawn:,} batches were drawn in an epoch of {batches:,}")
    except CheckpointError as error:
        raise CheckpointError(
            f"{run}: {error}; `crucible resume {run} --from-start` needs no training state"
        ) from error
    return after


def _most_bytes(session: Session) -> int:
    state = session.model.state_dict().values()
    return SMALL_PARTS + TENSORS_OF_A_MODEL * sum(int(tensor.nbytes) for tensor in state)
