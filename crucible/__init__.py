"""Crucible: record every optimizer step of an embedding's rows, and ask whether they have come to rest.

The names below are imported on first use, so that ``import crucible`` costs milliseconds.

Examples
--------
>>> import crucible
>>> sorted(crucible.__all__)[:3]
['Config', 'CrucibleCallback', 'attach']
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crucible.attaching import attach
    from crucible.config import Config
    from crucible.huggingface import CrucibleCallback
    from crucible.interchange.exporting import export_run
    from crucible.interchange.importing import import_run
    from crucible.tensors import to_torch
    from crucible.verify import check
    from crucible.viewer.show import view

_WHERE = {
    "Config": "crucible.config",
    "CrucibleCallback": "crucible.huggingface",
    "attach": "crucible.attaching",
    "check": "crucible.verify",
    "export_run": "crucible.interchange.exporting",
    "import_run": "crucible.interchange.importing",
    "to_torch": "crucible.tensors",
    "view": "crucible.viewer.show",
}
__all__ = [
    "Config", "CrucibleCallback", "attach", "check", "export_run", "import_run", "to_torch", "view",
]  # fmt: skip


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


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    """Import on first use."""
    if name not in _WHERE:
        raise AttributeError(f"module 'crucible' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
