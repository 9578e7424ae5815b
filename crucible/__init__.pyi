from .huggingface import CrucibleCallback
from .inputs.config import Config
from .inspection.check import check
from .interchange.exporter import export_run
from .interchange.importer import import_run
from .recording.attach import attach
from .recording.tensors import to_torch

__all__ = [
    "Config",
    "CrucibleCallback",
    "attach",
    "check",
    "export_run",
    "import_run",
    "to_torch",
]
