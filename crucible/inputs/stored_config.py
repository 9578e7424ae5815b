"""The config of a run that is resumed: config.json, trusted only where it agrees with the commit."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crucible.inputs.config import PATHS, Config
from store.errors import ChecksumError, DamageError, MetadataError, NotATrajectoryError
from store.format.files import CONFIG
from store.run.commit import Commit, read_commit
from store.run.config_file import differing
from store.run.document import digest
from store.run.whereabouts import is_there
from store.small_file import read_small

HASHES, OWN = "sha256", "config"
"""Where config.json keeps the SHA-256 of the input files; among them, that of the parameters themselves."""
PUSH = "push"
"""There and false in config.json where the run was begun with --no-push."""
FLAGS = ("total_steps", "device")
"""What `crucible resume` can be told to do otherwise."""


def as_stored(config: Config, inputs: Mapping[str, str], *, push: bool = True) -> dict[str, Any]:
    """The content of config.json: every parameter, and the hashes of the three inputs and of the parameters.

    Where no push is recorded since nobody wants it, it says so: a run that is killed before its first commit begins
    again by this file alone.
    """
    unwanted = {} if push else {PUSH: False}
    return {**config.to_mapping(), **unwanted, HASHES: {**inputs, OWN: config_digest(config)}}


def wants_push(run: Path) -> bool:
    """Whether the push of a run that has no commit yet is to be recorded, as far as it can be known."""
    stored = json.loads(read_small(run / CONFIG))
    return bool(stored.get(PUSH, True))


def config_digest(config: Config) -> str:
    """SHA-256 of every parameter that is no path. Before the first commit nothing else tells what they were."""
    values = {name: value for name, value in config.to_mapping().items() if name not in PATHS}
    return digest(json.dumps(values, sort_keys=True).encode())


def read_config(run: Path, *, say: Callable[[str], None] = warnings.warn) -> tuple[Config, dict[str, str]]:
    """The config of a run that `crucible train` made, and the hashes of its inputs.

    Its paths may be others than when it was committed, since files are moved; nothing else may. Where config.json is
    gone, the commit's copy stands for it, which is said.

    Raises
    ------
    MetadataError, ChecksumError
        config.json is damaged, or was edited.
    NotATrajectoryError
        This is no run of `crucible train`.
    """
    path = run / CONFIG
    commit = read_commit(run) if is_there(run) else None
    if commit is not None and is_trained(commit):
        if not os.path.lexists(path):
            say(f"{path}: is missing; the commit holds the same values, from which it is written anew")
            return _parsed(commit.attributes["config"], str(run))
        _refuse_other(path, commit)
    if commit is None and not os.path.lexists(path):
        read_commit(run)  # which says what is there instead
    try:
        config, hashes = _parsed(json.loads(read_small(path)), str(path))
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise NotATrajectoryError(
            f"{path}: not the config of a run of `crucible train` ({why}); an import goes on by the same `crucible "
            "import` again, a loop of your own by `crucible.attach(..., resume=step)`"
        ) from None
    if commit is None and hashes.get(OWN, config_digest(config)) != config_digest(config):
        raise ChecksumError(
            f"{path}: was damaged or edited before the run's first commit, which would tell what it was: remove the "
            "folder and train again"
        )
    return config, hashes


def _parsed(values: Any, where: str) -> tuple[Config, dict[str, str]]:  # noqa: ANN401 - any JSON
    if not isinstance(values, Mapping):
        raise TypeError("it holds no values by name")
    rest = {name: value for name, value in values.items() if name not in (HASHES, PUSH)}
    return Config.from_mapping(rest, where=where), dict(values[HASHES])


def is_trained(commit: Commit) -> bool:
    """Whether the config that the commit holds is one of `crucible train`."""
    try:
        _parsed(commit.attributes["config"], "")
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


def _refuse_other(path: Path, commit: Commit) -> None:
    """Raise where config.json says otherwise than the commit in anything but a path."""
    mend = f"`crucible check --repair {path.parent}` writes it anew from the commit"
    try:
        differences = differing(read_small(path), commit)
    except (OSError, DamageError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise MetadataError(f"{path}: {why}; {mend}") from None
    wrong = [each for each in differences if not each.is_moved_path(PATHS)]
    if wrong:
        flags = [f"--{each.key.replace('_', '-')}" for each in wrong if each.key in FLAGS]
        hint = f" (another value is given by {' and '.join(flags)})" if flags else ""
        raise MetadataError(f"{path}: {'; '.join(map(str, wrong))}: damaged or edited; {mend}{hint}")
