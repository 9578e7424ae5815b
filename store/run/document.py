"""The documents of a run, read with a bound and digested: what lies beside the chunks."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store.disk import LOCAL
from store.errors import MetadataError, MissingError, NotATrajectoryError
from store.small_file import LARGEST_DOCUMENT, read_small
from store.system_calls import Bytes


def read_document(path: Path) -> bytes:
    """A small metadata file, whole."""
    try:
        return read_small(path, LARGEST_DOCUMENT)
    except FileNotFoundError as error:
        why = "no such file" if error.strerror == os.strerror(errno.ENOENT) else error.strerror
        raise NotATrajectoryError(f"{path}: {why}, so there is no trajectory here (yet)") from None
    except NotADirectoryError:
        raise NotATrajectoryError(f"{path}: no such file, so there is no trajectory here (yet)") from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise MetadataError(f"{path}: {error.strerror}") from None
        what = error.strerror if error.errno in (errno.EINVAL, errno.ELOOP) else f"cannot be read ({error.strerror})"
        raise NotATrajectoryError(f"{path}: {what}") from None


def document_digest(path: Path) -> str:
    """SHA-256 of a document in hex, whatever its size: training state may be large.

    Raises
    ------
    MissingError
        It is not there, or no plain file.
    OSError
    """
    try:
        fd = LOCAL.open_plain(path, follow=True)
    except OSError as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else "is no plain file"
        raise MissingError(f"{path}: {what}") from None
    with os.fdopen(fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Strict JSON: no NaN, no infinity; compact unless indented."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, allow_nan=False, indent=indent, separators=separators).encode()


def digest(data: Bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
