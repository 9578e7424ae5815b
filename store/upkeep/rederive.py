"""Derived arrays that are damaged or gone, made again from the given rows: the same bits, so nothing is cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from store.errors import DamageError
from store.format.chunking import block_steps
from store.format.schema import Channel
from store.run.array import StoredArray
from store.run.commit import Commit
from store.upkeep.findings import Damage
from store.writing.block import StoredBlock
from store.writing.block_file import BlockFiles
from store.writing.encoder import Derive, Encoder
from store.writing.publisher import Publisher


def derived_names(commit: Commit) -> set[str]:
    """The arrays that follow from given ones."""
    return {name for name, metadata in commit.arrays.items() if metadata["attributes"]["role"] == "derived"}


def rederive(publisher: Publisher, damage: Iterable[Damage], derive: Derive) -> list[str]:
    """Write the damaged blocks of derived arrays anew.

    Parameters
    ----------
    damage : iterable of Damage
        Of derived arrays. What a cut took away meanwhile is passed over.
    derive : callable
        As the writer got it.

    Returns
    -------
    list of str
        What was done, a sentence for each array.
    """
    commit = publisher.commit
    wanted = _damaged_blocks(commit, damage)
    if not wanted:
        return []
    arrays = {name: commit.array(publisher.trajectory, name) for name in commit.arrays}
    encoder = _encoder(arrays, derive)
    publisher.come()
    done: dict[str, int] = {}
    for start, names in sorted(wanted.items()):
        try:
            _write(publisher, encoder, arrays, start, names)
        except DamageError:
            continue  # given rows are damaged, too, and no cut could take them away
        for name in names:
            done[name] = done.get(name, 0) + 1
    publisher.publish(publisher.commit)
    return [f"derived {name} again, {count} block{'s' * (count > 1)} of steps" for name, count in sorted(done.items())]


def _damaged_blocks(commit: Commit, damage: Iterable[Damage]) -> dict[int, set[str]]:
    """First row of each block that is damaged, and in which arrays."""
    size, labels = block_steps(commit.arrays, "step"), commit.labels()
    wanted: dict[int, set[str]] = {}
    for each in damage:
        if each.steps:
            first = labels.rows_until(each.steps[0] - 1)
            stop = min(labels.rows_until(each.steps[1] - 1), commit.rows)
            for start in range(first - first % size, stop, size):
                wanted.setdefault(start, set()).add(each.name)
    return wanted


def _encoder(arrays: Mapping[str, StoredArray], derive: Derive) -> Encoder:
    """Of the given channels with tokens, all that deriving takes."""
    channels = [Channel.from_array(name, array.metadata) for name, array in arrays.items()]
    on_main = [channel for channel in channels if channel.has_steps and channel.axis == "step"]
    given = [channel for channel in on_main if channel.role == "given" and channel.dims[:1] == ("token",)]
    return Encoder(given, arrays, [channel for channel in on_main if channel.role == "derived"], derive)


def _write(
    publisher: Publisher, encoder: Encoder, arrays: Mapping[str, StoredArray], start: int, names: set[str]
) -> None:
    stop = min(start + block_steps(publisher.commit.arrays, "step"), publisher.commit.rows)
    encoder.go_to(start)
    with BlockFiles(publisher.open_block) as files:
        for name, index, parts in encoder.encoded(StoredBlock(arrays, start, stop), names):
            files.add(name, index[0], arrays[name].layout.last(index[0]), parts)
