"""Crucible: record every optimizer step of an embedding's rows, and ask whether they have come to rest.

* Record: `attach` in a loop of your own, `CrucibleCallback` with Hugging Face, `LightningCallback` with Lightning;
  `prepare`, `plan`, `train` and `resume` for the experiment that this was built for.
* Ask: `analyze`, `report`, `view`, `watch`, `compare`, `info`, `check`; `open_trajectory` (of `store`) and what
  `analysis` has, for questions of your own.
* In and out: `import_run`, `export_run`, `compact`, `to_torch`.

All names are imported on first use, so that ``import crucible`` costs milliseconds.

Examples
--------
>>> import crucible
>>> "attach" in dir(crucible)
True
"""

import sys  # is there already; reading any other file here would be a moment at which Ctrl-C shows a traceback

try:
    from typing import Any

    import lazy_loader

    from crucible.shadows import refuse_shadows

    _face, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
except (KeyboardInterrupt, RuntimeError) as error:
    # Python 3.11 makes a RuntimeError of an interrupt that comes while a class is made
    if KeyboardInterrupt not in (type(error), type(error.__cause__)):
        raise
    if sys.argv[0] != "-m" and not sys.argv[0].endswith("crucible"):
        raise  # somebody imports us
    raise SystemExit(130) from None  # Ctrl-C right after a command began


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever bears the name
    if name in __all__:
        refuse_shadows()
    return _face(name)
