"""`store` and `analysis` are plain names: say so when another file took one of them."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def refuse_shadows() -> None:
    """Raise where `store` or `analysis` is not the package that crucible needs.

    Asked when a name of crucible is used and not when crucible is imported: xarray imports it, too, while it looks
    for its engines, and a file of somebody who does not use Crucible just then is nobody's business.

    Raises
    ------
    ImportError
        With the file or folder that Python finds in the package's place.
    """
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
