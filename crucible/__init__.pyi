from .channels.sources import ChannelLike, Recorded, hidden_mean
from .channels.table import ADAM_M, ADAM_V, CENTROID, GRADIENT, LEARNING_RATE, LOSS, NOTEBOOK, W, derive
from .channels.tensors import to_torch
from .channels.vocabulary import by_count, describe
from .experiment.plan import Budget, Plan, plan
from .experiment.run import resume, train
from .huggingface import CrucibleCallback
from .inputs.config import Config
from .inputs.prepare import prepare
from .inspection.analyze import analyze
from .inspection.check import check, repair
from .inspection.compare import compare
from .inspection.info import info
from .inspection.report import report
from .inspection.runs import open_runs
from .inspection.watch import watch
from .interchange.exporter import export_run
from .interchange.importing.importer import import_run, import_runs
from .interchange.matching import list_file
from .lightning import LightningCallback
from .recording.attach import attach
from .trajectories import Channel, compact, open_trajectory, upgrade
from .version import __version__
from .viewer.show import view

__all__ = [
    "ADAM_M",
    "ADAM_V",
    "CENTROID",
    "GRADIENT",
    "LEARNING_RATE",
    "LOSS",
    "NOTEBOOK",
    "Budget",
    "Channel",
    "ChannelLike",
    "Config",
    "CrucibleCallback",
    "LightningCallback",
    "Plan",
    "Recorded",
    "W",
    "__version__",
    "analyze",
    "attach",
    "by_count",
    "check",
    "compact",
    "compare",
    "derive",
    "describe",
    "export_run",
    "hidden_mean",
    "import_run",
    "import_runs",
    "info",
    "list_file",
    "open_runs",
    "open_trajectory",
    "plan",
    "prepare",
    "repair",
    "report",
    "resume",
    "to_torch",
    "train",
    "upgrade",
    "view",
    "watch",
]
