"""From channels to the commit of a run of no rows, and back to channels and rings: arithmetic, no files."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from store.errors import RowError
from store.format import chunking, writers
from store.format.codec import Array, Compression
from store.format.layout import array_metadata
from store.format.parameters import PARAMETERS, of_one_folder
from store.format.schema import Channel
from store.format.step_labels import LARGEST_LABEL, StepLabels
from store.run.commit import Commit
from store.writing.ring import Ring

TOKEN = Channel("token", ("token",), "int64", role="static", long_name="token id")


def plan(
    channels: Sequence[Channel], tokens: Array, hidden: int, *, labels: ArrayLike | None = None, first_step: int = 0,
    sizes: Mapping[str, int], statics: Mapping[str, Array], attributes: Mapping[str, Any],
) -> tuple[Commit, dict[str, Array]]:  # fmt: skip
    """The commit of a run of no rows, and its static arrays.

    Raises
    ------
    RowError
        Channels, sizes and static arrays do not fit together.
    """
    table = {channel.name: channel for channel in [TOKEN, *channels]}
    if not np.array_equal(ids := np.asarray(tokens, np.int64), np.asarray(tokens)):
        raise RowError("create: token ids must be whole numbers")
    arrays = {"token": ids} | {name: np.asarray(value) for name, value in statics.items()}
    sizes = {"token": len(tokens), "hidden": hidden} | dict(sizes)
    for name, channel in table.items():
        if channel.role == "static":
            arrays[name] = _checked_static(channel, arrays.get(name), sizes)
    _check_table(channels, arrays.keys(), sizes)
    cut = chunking.choose(channels, sizes)
    steps = _checked_labels(channels, labels, first_step)
    for channel in channels:
        if channel.has_steps and channel.axis not in table:
            table[channel.axis] = _labels(channel, steps)
    metadata = {}
    for name, channel in table.items():
        shape = [sizes[dim] for dim in channel.dims]
        chunk = cut.chunk_shape(channel, sizes)
        shape = [0, *shape] if channel.has_steps else shape
        metadata[name] = array_metadata(channel, shape, chunk, Compression(channel.codec))
    pending = {name: metadata.pop(name) for name, channel in table.items() if channel.role == "final"}
    commit = Commit(metadata, attributes, committed_steps=-1, pending=pending)
    return replace(commit, **writers.create(commit.state, uuid.uuid4(), writers.new_writer())), arrays


def _labels(channel: Channel, steps: StepLabels) -> Channel:
    """The coordinate of a channel's step axis."""
    kept = steps.to_attributes()
    if channel.on_own_axis:
        first = -(-steps.label(0) // channel.every) * channel.every
        kept = StepLabels(((first, channel.every, None),)).to_attributes() if first else {}
    return Channel(
        channel.axis, (), "int64", long_name="optimizer step", every=channel.every, until=channel.until,
        attributes={"axis": True, **kept},
    )  # fmt: skip


def _checked_labels(channels: Sequence[Channel], labels: ArrayLike | None, first_step: int) -> StepLabels:
    """The step labels of a run of these channels."""
    if labels is None:
        if not 0 <= first_step <= LARGEST_LABEL // 2:
            raise RowError(f"create: first_step={first_step:,} is no step from 0 to {LARGEST_LABEL // 2:,}")
        return StepLabels(((first_step, 1, None),))
    if first_step:
        raise RowError(f"create: first_step={first_step:,} and labels= both name the first step; give one of them")
    try:
        steps = StepLabels.of(labels)
    except ValueError as error:
        raise RowError(f"create: the step labels: {error}") from None
    scheduled = [channel.name for channel in channels if channel.on_own_axis]
    if scheduled and not steps.is_plain:
        raise RowError(
            f"create: {', '.join(scheduled)} follow a schedule, which takes steps 0, 1, 2, ... and no others"
        )
    return steps


def _checked_static(channel: Channel, values: Array | None, sizes: dict[str, int]) -> Array:
    if values is None:
        raise RowError(f"create: the static channel {channel.name} was given no array")
    found = dict(zip(channel.dims, values.shape, strict=False))
    if values.ndim != len(channel.dims) or any(sizes.setdefault(dim, size) != size for dim, size in found.items()):
        raise RowError(f"create: {channel.name} has the shape {values.shape}, which does not fit {channel.dims}")
    if values.dtype != channel.dtype:
        raise RowError(f"create: {channel.name} is {values.dtype}, its channel says {channel.dtype}")
    return values


def _check_table(channels: Sequence[Channel], statics: Any, sizes: Mapping[str, int]) -> None:  # noqa: ANN401
    names = [channel.name for channel in channels]
    reserved = {"step", "token", PARAMETERS} | {channel.axis for channel in channels if channel.has_steps}
    if len(set(names)) < len(names) or reserved & set(names):
        raise RowError(f"create: channel names must be unique and none of {', '.join(sorted(reserved))}: {names}")
    _refuse_one_folder([*reserved, *names])
    unknown = {dim for channel in channels for dim in channel.dims} - sizes.keys()
    if unknown:
        raise RowError(f"create: no size is given for {', '.join(sorted(unknown))}")
    if set(statics) - {"token"} - {channel.name for channel in channels if channel.role == "static"}:
        raise RowError(f"create: a static array without a static channel among {names}")
    stepping = [channel for channel in channels if channel.has_steps]
    if stepping and all(channel.on_own_axis for channel in stepping):
        scheduled = ", ".join(channel.name for channel in stepping)
        raise RowError(
            f"create: {scheduled} follow a schedule, and nothing is kept of every step; a run needs one channel "
            "without every= and until=, such as the loss"
        )
    for channel in channels:
        if channel.role == "derived" and channel.dims[:1] != ("token",):
            raise RowError(f"create: the derived channel {channel.name} needs a token axis, since tiles are derived")


def _refuse_one_folder(names: Sequence[str]) -> None:
    """Raise where a disk that does not tell upper case from lower would make one folder of two arrays."""
    if (both := of_one_folder(names)) is not None:
        raise RowError(
            f"create: {both[0]!r} and {both[1]!r} differ in upper and lower case alone, so they would be one folder on "
            "disks that do not tell these apart; rename one"
        )


def channels_of(commit: Commit) -> list[Channel]:
    """The channels of a commit, read back from its arrays' metadata; the coordinates of step axes among them."""
    metadata = {**commit.arrays, **commit.pending}
    return [Channel.from_array(name, array) for name, array in metadata.items()]


def make_rings(commit: Commit) -> dict[str, Ring]:
    """A ring for each step axis of a commit, empty; "step" is among them."""
    sizes = {
        dim: size
        for metadata in commit.arrays.values()
        for dim, size in zip(metadata["dimension_names"], metadata["shape"], strict=True)
    }
    given = [channel for channel in channels_of(commit) if channel.role == "given"]
    axes = [channel.name for channel in given if channel.attributes.get("axis")]
    return {
        axis: Ring(
            axis,
            [c for c in given if c.axis == axis and c.name not in axes],
            sizes,
            chunking.block_steps(commit.arrays, axis),
            begins_run=commit.labels(axis).label(0) == commit.labels().label(0),
        )
        for axis in axes
    }
