"""The files of a run that are no chunks, against the commit: documents, and the arrays' own metadata."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from store.errors import DamageError, MissingError, StoreError
from store.format.files import CONFIG, DOCUMENT, SECOND_COPY, TRAJECTORY, is_alone, trajectory_of
from store.run.commit import Commit, read_commit, read_second_copy
from store.run.config_file import differing
from store.run.document import document_digest, read_document
from store.upkeep.findings import Damage, Report


def check_documents(report: Report, commit: Commit, config_paths: Collection[str] = ()) -> None:
    """Digests of the documents that a commit names: config.json, metadata.json, training state."""
    for name, digests in {} if is_alone(report.run) else commit.sha256.items():
        try:
            if document_digest(report.run / name) not in digests.split():
                if name == CONFIG:
                    _check_config(report, commit, config_paths)
                else:
                    report.damage.append(Damage(name, "its SHA-256 is not the one in the commit"))
        except (StoreError, OSError) as error:
            report.damage.append(Damage(name, f"cannot be read: {error}"))


def check_commit_file(report: Report, commit: Commit) -> None:
    """The file of the commit itself, as another program left it, and its second copy."""
    if commit.changed:
        what = f"was rewritten by another program: {commit.changed}; `crucible check --repair` writes it anew"
        report.damage.append(Damage(f"{TRAJECTORY}/{DOCUMENT}", what))
    if (report.run / SECOND_COPY).exists():
        copy = read_second_copy(report.run)
        if copy is None:  # a power cut may leave that, and the first copy counts
            report.leftovers.append(f"{SECOND_COPY} (cannot be read; the next commit writes it anew)")
        elif copy.run_id != commit.run_id:
            report.damage.append(Damage(SECOND_COPY, "is no copy of a commit of this run"))
        elif _is_ahead(copy, commit) and read_commit(report.run) == commit:
            report.leftovers.append(
                f"{SECOND_COPY} (of step {copy.committed_steps}, and {TRAJECTORY}/{DOCUMENT} is an older one: this is "
                "a copy of a run that was being written, or the older file was put back, which hides the later steps; "
                f"put {SECOND_COPY} in its place to see them, before a resume or a repair removes them)"
            )


def _is_ahead(copy: Commit, commit: Commit) -> bool:
    """Whether the second copy is of a later commit, which no writer leaves so: it writes the first copy before."""
    return (copy.generation, copy.committed_steps) > (commit.generation, commit.committed_steps)


def _check_config(report: Report, commit: Commit, paths: Collection[str]) -> None:
    """Which values of config.json are not those of the commit."""
    try:
        differences = differing(read_document(report.run / CONFIG), commit)
    except DamageError as error:
        report.damage.append(Damage(CONFIG, str(error)))
        return
    wrong = [each for each in differences if not each.is_moved_path(paths)]
    if wrong:
        report.damage.append(Damage(CONFIG, "; ".join(map(str, wrong))))
    else:
        moved = " and ".join(each.key for each in differences)
        what = f"names another {moved} than the commit: files may be moved" if moved else "as committed, in other words"
        report.leftovers.append(f"{CONFIG} ({what})")


def check_own_metadata(report: Report, commit: Commit, read_before: Mapping[str, Any]) -> None:
    """The arrays' own metadata, where it was not read before, against its copy in the commit."""
    for name, metadata in commit.arrays.items():
        path = f"{TRAJECTORY}/{name}/{DOCUMENT}"
        own = read_before[name] if name in read_before else own_metadata(report.run, name)
        if isinstance(own, Exception):
            report.damage.append(Damage(path, f"cannot be read: {own}"))
        elif own != metadata:
            if _is_behind(own, metadata):
                report.leftovers.append(f"{path} (behind the commit; the next writer brings it up)")
            else:
                report.damage.append(Damage(path, "differs from its copy in the commit"))


def own_metadata(run: Path, name: str) -> Any:  # noqa: ANN401 - any JSON
    """An array's own zarr.json, or the error that reading it gave."""
    try:
        return json.loads(read_document(trajectory_of(run) / name / DOCUMENT))
    except FileNotFoundError:
        return MissingError("it is not there, or no plain file")
    except (StoreError, OSError, ValueError) as error:
        return error


def has_steps(metadata: Mapping[str, Any]) -> bool:
    """Whether an array grows with each step."""
    return metadata["attributes"]["role"] in ("given", "derived")


def _is_behind(own: Any, metadata: Mapping[str, Any]) -> bool:  # noqa: ANN401 - any JSON
    """Whether an array's own zarr.json is that of an earlier commit: the same, but for fewer rows of steps."""
    try:
        length = own["shape"][0]
        same = {**own, "shape": metadata["shape"]} == metadata and own["shape"][1:] == metadata["shape"][1:]
        return bool(same and has_steps(metadata) and 0 <= length < metadata["shape"][0])
    except (KeyError, TypeError, IndexError):
        return False
