"""`crucible compact` on a terminal: the store's compaction with a progress bar."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from store.upkeep.compact import CompactReport, compact


def compact_run(run: str | Path) -> CompactReport:
    """Rewrite a finished run into long blocks; see `store.upkeep.compact.compact`."""
    with tqdm(desc="compact", unit="B", unit_scale=True, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return compact(run, progress=progress)
