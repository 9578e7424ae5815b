"""reference/variables.md, from the tables of channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from crucible.channels import push, rows, sources
from crucible.channels import table as channels
from pages_from_code.tables import table
from store.format.schema import Channel

OPENING = """\
# Variables of a run

What a run may hold, as `store.open_trajectory` gives it. `crucible train` records the [first table](#what-the-experiment-records);
[channels](../how-to/own-loop.md#choose-what-is-kept) add to it. Each variable says the same of itself in its attributes. How it lies on
disk is under [format](format.md).

A row of the step axis belongs to the step that is its label. *State*: the row describes the weights after that update. *Move*: it
describes the update itself, and row 0 is NaN, since no update led to the first state. *Given* rows come with each step, *derived*
ones follow from given ones, *final* arrays are made when the run ends, *static* ones are there from the beginning.

"""
CLOSING = """
## Coordinates

| name | dims | meaning |
| --- | --- | --- |
| `step` | step | labels of the updates, 0 before the first |
| `token` | token | ids of the recorded rows, ascending |
| `population` | token | name of the group that each token belongs to, where [populations](../how-to/own-loop.md#populations-texts-and-counts) were given |
| `token_text`, `token_piece` | token | what each token decodes to, and the tokenizer's own name of it |
| `step_<name>` | step_<name> | labels of a channel with a schedule of its own |
"""
HEADER = ("name", "dims", "dtype", "kind", "unit", "row t", "exported unasked")


def page() -> str:
    """What the experiment records, and what else there is."""
    experiment = {channel.name for channel in channels.EXPERIMENT}
    known = {channel.name: channel for part in (channels, push, sources, rows) for channel in _channels(vars(part))}
    first = [_row(channel) for channel in channels.EXPERIMENT]
    others = [_row(channel) for name, channel in sorted(known.items()) if name not in experiment]
    parts = [OPENING, "## What the experiment records\n\n", table(HEADER, first), "\n## What else there is\n\n"]
    return "".join([*parts, table(HEADER, others), CLOSING])


def _channels(value: Any) -> Iterator[Channel]:  # noqa: ANN401 - whatever a module holds
    """All channels in a module's values, also in its tables and in what is recorded by a function."""
    if isinstance(value, Channel):
        yield value
    elif isinstance(value, sources.Recorded):
        yield value.channel
    elif isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _channels(item)


def _row(channel: Channel) -> tuple[str, ...]:
    dims = ", ".join((*(("step",) if channel.has_steps else ()), *channel.dims)) or "none"
    kind = f"{channel.role}, {channel.belongs_to}" if channel.has_steps else channel.role
    meaning = channel.meaning or channel.long_name or channel.name.replace("_", " ")
    unit = "" if channel.units == "1" else channel.units
    dtype = f"{channel.dtype}, bits of {channel.bits_of}" if channel.bits_of else channel.dtype
    return (f"`{channel.name}`", dims, dtype, kind, unit, meaning, "yes" if channel.exported else "no")
