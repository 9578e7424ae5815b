"""Everything that can go wrong with a trajectory, as one tree.

Each error is also the builtin that a caller expects::

    StoreError
    ├── NotATrajectoryError   FileNotFoundError   no trajectory here, or none that can be read
    │   └── NewerFormatError                      written by a later version of the format
    ├── RunExistsError        FileExistsError     something is in the way, and is not replaced
    ├── LockedError           BlockingIOError     another process writes this run
    ├── DamageError           ValueError          what is on disk is not what was written
    │   ├── MissingError                          a chunk or file is not there
    │   ├── ChecksumError                         a chunk's or document's checksum does not match
    │   ├── LabelError                            a file of another array, writer or step than the commit needs
    │   └── MetadataError                         metadata that contradicts itself or the format
    ├── StaleHandleError      RuntimeError        opened before the run was cut back or compacted
    ├── WriterError           RuntimeError        the writer failed, is closed, or is used from a fork
    │   └── LinkError                             a folder or file of a run is a link, which is not followed
    ├── RowError              ValueError          a row that does not fit its channel
    ├── DifferenceError       ValueError          a repeated step differs from the stored one
    ├── BudgetError           MemoryError         more memory or disk than allowed or there is
    └── TensorFileError       ValueError          a safetensors or HDF5 file that is broken or not as expected

A message says what went wrong - where (path, array, step) - what was expected and found - what to do.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of all errors of the store."""


class NotATrajectoryError(StoreError, FileNotFoundError):
    """There is no trajectory at this path, or none that this code can read."""


class NewerFormatError(NotATrajectoryError):
    """The trajectory was written by a later version of the format."""


class RunExistsError(StoreError, FileExistsError):
    """Something is in the way and is not replaced unasked."""


class LockedError(StoreError, BlockingIOError):
    """Another process holds the writer's lock of this run, or it cannot be locked.

    Attributes
    ----------
    is_held : bool
        Whether it is another process.
    """

    is_held = False


class DamageError(StoreError, ValueError):
    """What lies on disk is not what was written."""


class MissingError(DamageError):
    """A chunk or a file that the commit names is not there."""


class ChecksumError(DamageError):
    """A checksum does not match its bytes."""


class LabelError(DamageError):
    """A file that is whole, and not the one that the commit needs: of another array, writer or step.

    Attributes
    ----------
    valid : int or None
        Up to which step label the file counts all the same; None for none of it.
    """

    valid: int | None = None


class MetadataError(DamageError):
    """Metadata that contradicts itself or the format."""


class StaleHandleError(StoreError, RuntimeError):
    """A handle opened before the run was cut back or compacted; open again."""


class WriterError(StoreError, RuntimeError):
    """The writer failed, is closed already, or is used from a forked child."""


class LinkError(WriterError):
    """A folder or file below a run's folder is a link: none is followed to write or to remove."""


class RowError(StoreError, ValueError):
    """A row that does not fit its channel: name, shape, dtype or order."""


class DifferenceError(StoreError, ValueError):
    """A step that was computed again differs from the stored one."""


class BudgetError(StoreError, MemoryError):
    """More memory or disk than is allowed, or than there is."""


class TensorFileError(StoreError, ValueError):
    """A safetensors or HDF5 file that is broken, hostile, or not of the expected shape."""
