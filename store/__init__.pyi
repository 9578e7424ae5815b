from . import errors
from .errors import (
    BudgetError,
    ChecksumError,
    DamageError,
    DifferenceError,
    LabelError,
    LinkError,
    LockedError,
    MetadataError,
    MissingError,
    NewerFormatError,
    NotATrajectoryError,
    RowError,
    RunExistsError,
    StaleHandleError,
    StoreError,
    TensorFileError,
    WriterError,
)
from .format.schema import Channel
from .reading.reader import open_trajectory
from .upkeep.check import check
from .upkeep.repair import repair
from .writing.writer import TrajectoryWriter

__all__ = [
    "BudgetError",
    "Channel",
    "ChecksumError",
    "DamageError",
    "DifferenceError",
    "LabelError",
    "LinkError",
    "LockedError",
    "MetadataError",
    "MissingError",
    "NewerFormatError",
    "NotATrajectoryError",
    "RowError",
    "RunExistsError",
    "StaleHandleError",
    "StoreError",
    "TensorFileError",
    "TrajectoryWriter",
    "WriterError",
    "check",
    "errors",
    "open_trajectory",
    "repair",
]
