"""Files outside of a run: whole and durable under their names, and nothing else in their folder is touched."""

import errno
import os
import re
import socket
from pathlib import Path

import pytest
from store_cases import Calls, Failing

from store.disk import LocalDisk
from store.errors import RunExistsError
from store.placed_file import PlacedFile, place

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Recorded(Calls):
    """Notes the calls, with the path in place of its descriptor."""

    def __init__(self):
        super().__init__()
        self.calls, self._paths = [], {}

    def __getattr__(self, name):
        call = super().__getattr__(name)

        def noted(*args, **options):
            answer = call(*args, **options)
            if name == "open":
                self._paths[answer] = Path(args[0])
            self.calls.append((name, self._paths.get(args[0], args[0])))
            return answer

        return noted


def test_the_file_is_flushed_before_it_gets_its_name_and_its_folder_after(tmp_path):
    """Without the first flush a power cut leaves a file of zeros under the name; without the second, none."""
    calls = Recorded()
    place(tmp_path / "a", b"x", disk=LocalDisk(calls))
    steps = [(name, path) for name, path in calls.calls if name in ("open", "write", "fsync", "replace")]
    (_, temporary), *_ = steps
    assert temporary.parent == tmp_path
    assert steps == [
        ("open", temporary),
        ("write", temporary),
        ("fsync", temporary),
        ("replace", temporary),
        ("open", tmp_path),
        ("fsync", tmp_path),
    ]
    assert [name for name, _ in calls.calls].count("fsync") == 2


def test_a_file_that_is_there_is_replaced_only_when_told(tmp_path):
    path = tmp_path / "a"
    path.write_text("mine")
    with pytest.raises(RunExistsError, match="--force"):
        place(path, b"x")
    assert path.read_text() == "mine"
    place(path, b"x", replace=True)
    assert path.read_bytes() == b"x"
    with pytest.raises(RunExistsError):
        place(tmp_path, b"x", replace=True)
    assert names(tmp_path) == ["a"]


def test_a_link_is_replaced_and_never_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    for target in ("mine", "nowhere"):
        (tmp_path / "a").unlink(missing_ok=True)
        (tmp_path / "a").symlink_to(tmp_path / target)
        with pytest.raises(RunExistsError):
            place(tmp_path / "a", b"x")
        place(tmp_path / "a", b"x", replace=True)
        assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "mine").read_text() == "mine"
    assert names(tmp_path) == ["a", "mine"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    file = PlacedFile(tmp_path / "a", LocalDisk())
    file.write([b"x", b"y"])
    (tmp_path / "a").write_text("mine")
    with pytest.raises(RunExistsError):
        file.publish()
    file.discard()
    assert (tmp_path / "a").read_text() == "mine"
    assert names(tmp_path) == ["a"]


def test_whatever_call_fails_the_old_file_or_the_new_one_is_there(tmp_path):
    path = tmp_path / "a"
    for n in range(1, 50):
        path.write_text("mine")
        calls, told = Failing(n), None
        try:
            place(path, b"x", replace=True, disk=LocalDisk(calls))
        except OSError as error:
            told = (error.errno, error.filename)
        assert told == ((errno.ENOSPC, str(path)) if calls.failed else None)
        assert path.read_bytes() in (b"mine", b"x")
        assert names(tmp_path) == ["a"]
        if not calls.failed:
            break
    assert 6 < n < 49


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder") as raised:
        place(tmp_path / "no" / "a", b"x")
    assert raised.value.filename == str(tmp_path / "no")


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path, monkeypatch):
    dead, living = 2**22 + 1, os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: dead)
    file = PlacedFile(tmp_path / "a", LocalDisk())
    (left,) = names(tmp_path)
    file._close()
    monkeypatch.undo()
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    place(tmp_path / "a", b"x")
    assert left in names(tmp_path), "processes of another machine are not known here"
    monkeypatch.undo()
    of_others = [left.replace(str(dead), str(living)), f".a.{dead}.partial", f".a.{dead}-00ff.partial", ".a.x.partial"]
    for name in of_others:
        (tmp_path / name).write_text("mine")
    place(tmp_path / "a", b"y", replace=True)
    assert names(tmp_path) == sorted(["a", *of_others])


def test_nothing_else_writes_files():
    """All that reaches a disk goes through store.disk or a placed file; the lock is the operating system's."""
    writes = re.compile(r"write_text|write_bytes|\bopen\([^)]*[\"'][wax]b?[\"']|os\.(rename|replace|unlink|remove)\b"
                        r"|\.unlink\(|savefig\((?!buffer)|\bsave_file\b|shutil\.(copy|move|rmtree)")  # fmt: skip
    for name, code in sources("crucible", "store"):
        assert name in DISK or not writes.search(code), f"{name}: {writes.search(code)[0]}"


def test_nothing_else_in_the_store_opens_files_or_looks_into_folders_to_change_them():
    opens = re.compile(r"\bopen\(|\bos\.(listdir|scandir)\(|\.read_text\(|path\.read_bytes\("
                       r"|\.(mkdir|rmdir|touch|symlink_to|chmod)\(|\bshutil\.")  # fmt: skip
    for name, code in sources("store"):
        assert name in DISK or not opens.search(code), f"{name}: {opens.search(code)[0]}"


DISK = {"store/disk.py", "store/held_folder.py", "store/small_file.py", "store/placed_file.py",
        "store/holding/lock.py", "store/system_calls.py"}  # fmt: skip


def sources(*packages):
    """The name of each module and its code, without docstrings and lines of text."""
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            code = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
            yield path.relative_to(ROOT).as_posix(), re.sub(r'^\s*[rf]?".*$', "", code, flags=re.MULTILINE)
