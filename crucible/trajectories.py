"""The names of the store that `crucible` exports too."""

from __future__ import annotations

from store.format.schema import Channel
from store.reading.reader import open_trajectory
from store.upkeep.compact import compact
from store.upkeep.upgrade import upgrade

__all__ = ["Channel", "compact", "open_trajectory", "upgrade"]
