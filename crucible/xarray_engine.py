"""xarray's own door to a run: ``xr.open_dataset(run, engine="crucible")``.

xarray loads this module whenever it looks for its engines, also for people who do not use Crucible just then. So it
loads no torch, claims no file by itself, and says what stands in the way only when a run is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import xarray as xr
from xarray.backends import BackendEntrypoint


class CrucibleBackend(BackendEntrypoint):
    """Opens a run as `crucible.open_trajectory` does: lazy, clamped to its last commit, and strict."""

    description = "Open a run that Crucible recorded, lazily, at its last commit"

    def open_dataset(
        self,
        filename_or_obj: object,
        *,
        drop_variables: str | Iterable[str] | None = None,
    ) -> xr.Dataset:
        """The run at a path, without the variables to drop; ``chunks={}`` gives dask arrays in the run's own chunks.

        Raises
        ------
        TypeError
            What is to be opened is no path.
        ImportError
            Another file took the name of a package of Crucible's.
        StoreError
            As `crucible.open_trajectory`.
        """
        from crucible import open_trajectory

        if not isinstance(filename_or_obj, str | Path):
            raise TypeError(f"the engine crucible opens the path of a run, not a {type(filename_or_obj).__name__}")
        ds = open_trajectory(filename_or_obj)
        for variable in ds.variables.values():
            if variable.chunks:
                variable.encoding["preferred_chunks"] = {dim: sizes[0] for dim, sizes in variable.chunksizes.items()}
        return ds.drop_vars([drop_variables] if isinstance(drop_variables, str) else drop_variables or [])

    def guess_can_open(self, filename_or_obj: object) -> bool:  # noqa: ARG002 - xarray's signature
        """False: a run is opened by this engine only where it is named."""
        return False
