"""Crucible: record every optimizer step of an embedding's rows, and ask whether they have come to rest.

The names below are imported on first use, so that ``import crucible`` costs milliseconds.

Examples
--------
>>> import crucible
>>> "attach" in dir(crucible)
True
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import lazy_loader


def _refuse_shadows() -> None:
    """`store` and `analysis` are plain names: say so when another file took one of them."""
    home = Path(__file__).resolve().parent.parent
    for name in ("store", "analysis"):
        loaded = sys.modules.get(name)
        spec = loaded.__spec__ if loaded is not None else find_spec(name)
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve() != home / name / "__init__.py":
            found = origin or (str(next(iter(spec.submodule_search_locations or ["?"]))) if spec else "nothing")
            raise ImportError(
                f"crucible needs its own package {name!r} from {home / name}, but Python finds {found}: "
                f"rename that file, or start Python from another folder"
            )


_refuse_shadows()


__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
