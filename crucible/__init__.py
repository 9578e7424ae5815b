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

try:
    from typing import Any

    import lazy_loader

    from crucible.shadows import refuse_shadows

    _face, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
except KeyboardInterrupt:
    if sys.argv[0] != "-m" and not sys.argv[0].endswith("crucible"):
        raise  # somebody imports us
    raise SystemExit(130) from None  # Ctrl-C right after a command began


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever bears the name
    if name in __all__:
        refuse_shadows()
    return _face(name)
