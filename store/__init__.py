"""The trajectory store: named channels, step by step, in compressed Zarr chunks that survive a crash.

`open_trajectory` opens a run as a lazy xarray.Dataset, also while it is being written. `TrajectoryWriter` writes one,
`check` and `repair` look after it. All errors derive from `StoreError`.

Examples
--------
>>> import crucible, store
>>> ds = store.open_trajectory("runs/crucible-1")  # doctest: +SKIP
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
