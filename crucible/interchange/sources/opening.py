"""Which kind of file this is, by its first bytes; and a sentence for each kind that is not taken."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from crucible.interchange.sources import hdf5, npz
from crucible.interchange.sources.checkpoints import NO_PICKLES, CheckpointFolder
from crucible.interchange.sources.hdf5 import Hdf5File
from crucible.interchange.sources.npz import NpzFile
from crucible.interchange.sources.safetensors_file import SafetensorsFile
from crucible.interchange.sources.source import Source
from store.errors import TensorFileError
from store.format.files import local_path
from store.tensorfile.header import HEADER_CAP

KNOWN = "expected safetensors, HDF5, .npz, or a folder of checkpoints"
PICKLE = f"this is a pickle, which is never read. {NO_PICKLES}"
NOT_TAKEN = {
    b"version https://git-lfs": "this is a Git LFS pointer, which stands for the file; fetch that with git lfs pull",
    b"\x93NUMPY": "this is a .npy file, one array without a name; save it as numpy.savez(FILE, W=array)",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), PICKLE),
    b"\x1f\x8b": "this is a gzip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "this is a zstd archive; unpack it first",
    b"PK\x05\x06": "this is an empty zip archive",
}
"""First bytes of what is no file of arrays here, and what to do about it."""


def open_source(path: str | os.PathLike[str], *, skip: Collection[str] = (), parameter: str | None = None) -> Source:
    """The file, its header checked: by its first bytes HDF5, .npz or safetensors; a folder is one of checkpoints.

    Raises
    ------
    TensorFileError
        It is broken, hostile, or of a kind that is not taken; the message says what it is and what to do.
    """
    file = local_path(os.fspath(path))
    if file.is_dir():
        return CheckpointFolder(file, parameter)
    if parameter is not None:
        raise TensorFileError(f"{file}: --parameter names an array of a folder of checkpoints, and this is no folder")
    start = b""
    if file.is_file():
        with file.open("rb") as opened:
            start = opened.read(24)
    if start.startswith(hdf5.MAGIC):
        return Hdf5File(file, skip=skip)
    if start.startswith(npz.MAGIC):
        return _archive(file)
    if int.from_bytes(start[:8], "little") > HEADER_CAP:  # else it may be the length of a safetensors header
        for magic, sentence in NOT_TAKEN.items():
            if start.startswith(magic):
                raise TensorFileError(f"{file}: {sentence}")
        if all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in start):
            raise TensorFileError(f"{file}: this is a text that begins with {start.decode()!r}; {KNOWN}")
    return SafetensorsFile(file)


def _archive(file: Path) -> Source:
    """A zip archive: of arrays, or what torch.save makes."""
    opened = NpzFile(file)
    if opened.tensors or opened.words or any(why != npz.NO_ARRAY for why in opened.others.values()):
        return opened
    opened.close()
    is_torch = any(name.endswith("data.pkl") for name in opened.others)
    what = f"this is a file of torch.save, which is never read. {NO_PICKLES}" if is_torch else (
        "this is a zip archive without a .npy array in it, which is never read"
    )  # fmt: skip
    raise TensorFileError(f"{file}: {what}")
