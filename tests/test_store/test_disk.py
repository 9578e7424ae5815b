"""What an error of the system says: the path that was to be written, and nothing else."""

import errno
import os

import pytest
from store_cases import Failing

from store.disk import LocalDisk


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("n", range(1, 12))
def test_an_error_names_the_file_that_was_to_be_written(tmp_path, n, holds):
    calls = Failing(10**9)
    disk = LocalDisk(calls).hold(tmp_path) if holds else LocalDisk(calls)
    (tmp_path / "scratch").mkdir()
    calls.n = calls.count + n
    try:
        disk.put(tmp_path / "file", [b"x"], tmp_path / "scratch")
    except OSError as error:
        said = str(error)
        assert said == f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: {str(tmp_path / 'file')!r}"
