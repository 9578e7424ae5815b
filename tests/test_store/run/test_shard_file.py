import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from format2_cases import WRITER, file_bytes, layout_of, padded, random_values, same_bits, values_of, write_array
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import ChecksumError, DamageError, LabelError, MissingError, StaleHandleError
from store.format.writers import Standing, Writers
from store.run import shard_file
from store.run.shard_file import forget, open_shard, read_chunk, read_committed_chunk


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "trajectory.zarr"


def path_of(folder, layout, block):
    return folder / layout.name / layout.key(block)


@pytest.mark.parametrize(
    "name", ["W", "moment", "half", "norm_tiled", "loss", "probe", "dead_mask", "last_motion_step"]
)
def test_every_chunk_is_read_with_the_label_of_its_file(folder, name):
    layout, values = write_array(folder, name), values_of(name)
    for block in range(layout.blocks):
        for index in layout.indices(block):
            data, label = read_chunk(path_of(folder, layout, block), layout, index)
            assert same_bits(layout.decode(data, "here"), padded(layout, values, index))
            assert label.last == {"static": -1, "final": 8}.get(layout.role, layout.last(block))


def test_every_bit_of_a_file_counts(folder):
    """Whichever bit is flipped, some chunk is refused, and the others are read as they were."""
    layout, values = write_array(folder, "norm_tiled"), values_of("norm_tiled")
    path = path_of(folder, layout, 2)
    wanted = {index: padded(layout, values, index).tobytes() for index in layout.indices(2)}
    with path.open("r+b", buffering=0) as file:
        whole = file.read()
        for position, bit in itertools.product(range(len(whole)), range(8)):
            file.seek(position)
            file.write(bytes([whole[position] ^ 1 << bit]))
            forget(path)
            assert refused(path, layout, wanted)
            file.seek(position)
            file.write(whole[position : position + 1])
    forget(path)
    assert not refused(path, layout, wanted)


def refused(path, layout, wanted):
    """How many chunks are refused; the others are what they were."""
    count = 0
    for index, content in wanted.items():
        try:
            data, label = read_chunk(path, layout, index)
            assert layout.decode(data, "here").tobytes() == content
            assert label.last == 8
        except DamageError as error:
            assert str(path) in str(error)  # noqa: PT017 - some chunks are read, some are refused
            count += 1
    return count


@settings(max_examples=50, deadline=None)
@given(name=st.sampled_from(["W", "moment", "loss", "dead_mask"]), data=st.data())
def test_bytes_changed_anywhere_are_refused(tmp_path_factory, name, data):
    values = values_of(name)
    layout = layout_of(name, values)
    folder = tmp_path_factory.mktemp("run") / "trajectory.zarr" / name
    folder.mkdir(parents=True)
    whole = bytearray(file_bytes(layout, values, 0))
    start = data.draw(st.integers(0, len(whole) - 1))
    burst = data.draw(st.binary(min_size=1, max_size=4))[: len(whole) - start]
    is_same = whole[start : start + len(burst)] == burst
    whole[start : start + len(burst)] = burst
    path = folder / layout.key(0)
    path.write_bytes(whole)
    try:
        for index in layout.indices(0):
            read_chunk(path, layout, index)
    except DamageError:
        assert not is_same
    else:
        assert is_same


def test_a_damaged_chunk_is_named(folder):
    layout = write_array(folder, "W")
    path = path_of(folder, layout, 1)
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ChecksumError, match=r"run: W\[step 4..7, token positions 0..3, hidden 0..2\] \(.*c.1.0.0\): the checksum"
    ):
        read_chunk(path, layout, (1, 0, 0))
    read_chunk(path, layout, (1, 1, 0))


def test_a_whole_chunk_of_another_file_in_place_of_one_is_refused(folder):
    """It has a right checksum of its own, and the right length."""
    layout = write_array(folder, "dead_mask")
    path = path_of(folder, layout, 0)
    one = path.read_bytes()
    other = file_bytes(layout, random_values("bool", (21,), seed=5), 0)
    size = len(one) - 48
    assert len(one) == len(other)
    assert one[:size] != other[:size]
    path.write_bytes(other[:size] + one[size:])
    with pytest.raises(ChecksumError, match="the checksum does not match"):
        read_chunk(path, layout, (0,))


@pytest.mark.parametrize("other", ["delta/c.0.0.0", "W/c.1.0.0", "w/c.0.0.0", "parameters/head/W/c.0.0.0"])
def test_the_file_of_another_array_or_block_is_refused(folder, other):
    layout = write_array(folder, "W")
    path = path_of(folder, layout, 0)
    path.write_bytes(file_bytes(layout, values_of("W"), 0, name=other))
    with pytest.raises(LabelError, match=r"run: W\[step 0..3\] .*: it is the file of another array or block"):
        read_chunk(path, layout, (0, 0, 0))


def _link(path, target):
    path.symlink_to(target)


NO_FILES = {
    "nothing": (lambda _path, _target: None, "the file is not there"),
    "a link": (_link, "must be a plain file"),
    "a pipe": (lambda path, _: os.mkfifo(path), "must be a plain file"),
    "a folder": (lambda path, _: path.mkdir(), "must be a plain file"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and pipes")
@pytest.mark.parametrize(("make", "message"), NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_plain_file_is_refused(folder, make, message):
    layout = write_array(folder, "W")
    path = path_of(folder, layout, 0)
    target = path.with_name("elsewhere")
    path.rename(target)
    make(path, target)
    with pytest.raises(MissingError, match=rf"run: W\[step 0..3\] .*{message}"):
        read_chunk(path, layout, (0, 0, 0))


def test_an_empty_file_is_refused(folder):
    layout = write_array(folder, "W")
    path = path_of(folder, layout, 0)
    path.write_bytes(b"")
    with pytest.raises(ChecksumError, match="has 0 bytes, too few for the index of 3 chunks"):
        read_chunk(path, layout, (0, 0, 0))


def reads(monkeypatch):
    """The sizes of all reads from now on."""
    seen = []
    monkeypatch.setattr(shard_file, "read_tail", lambda *args, read=shard_file.read_tail: seen.append(1) or read(*args))
    return seen


def test_label_and_index_are_read_once_for_many_chunks(folder, monkeypatch):
    layout = write_array(folder, "W")
    seen = reads(monkeypatch)
    for _ in range(3):
        for index in layout.indices(0):
            read_chunk(path_of(folder, layout, 0), layout, index)
    assert len(seen) == 1
    with open_shard(path_of(folder, layout, 0), layout, 0, keep=False) as file:
        assert len(file.tail.bounds) == 4
    assert len(seen) == 2


def test_a_file_that_was_replaced_is_read_anew(folder):
    layout = write_array(folder, "W")
    path = path_of(folder, layout, 0)
    read_chunk(path, layout, (0, 0, 0))
    values = random_values("uint16", (9, 10, 3), seed=5)
    new = path.with_name("new")
    new.write_bytes(file_bytes(layout, values, 0, last=2, writer=9))
    new.replace(path)
    data, label = read_chunk(path, layout, (0, 0, 0))
    assert (label.writer, label.last) == (9, 2)
    assert same_bits(layout.decode(data, "here"), padded(layout, values, (0, 0, 0)))


def test_a_replaced_file_of_the_same_inode_size_and_time_is_read_right(folder, monkeypatch):
    layout = write_array(folder, "moment")
    path = path_of(folder, layout, 0)
    read_chunk(path, layout, (0, 0, 0))
    before = path.stat()
    values = random_values("float32", (9, 10, 3), seed=5)
    new = file_bytes(layout, values, 0, writer=9)
    assert len(new) == before.st_size
    path.write_bytes(new)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    seen = reads(monkeypatch)
    data, label = read_chunk(path, layout, (0, 1, 0))
    assert len(seen) == 1
    assert label.writer == 9
    assert same_bits(layout.decode(data, "here"), padded(layout, values, (0, 1, 0)))


def test_a_replaced_file_with_the_same_chunk_has_its_new_label(folder):
    """A block of zeros in which a row more is filled: equal chunks, another label."""
    values = np.zeros((9, 10, 3), "uint16")
    layout = write_array(folder, "W", values)
    path = path_of(folder, layout, 2)
    assert read_chunk(path, layout, (2, 0, 0))[1].last == 8
    new = path.with_name("new")
    new.write_bytes(file_bytes(layout, values, 2, last=9))
    new.replace(path)
    assert read_chunk(path, layout, (2, 0, 0))[1].last == 9


NEXT = 0xB
THEN = Standing("one", 0, 8, Writers(((WRITER, -1),)))
RESUMED = Standing("one", 0, 9, Writers(((WRITER, -1), (NEXT, 8))))
CUT = Standing("one", 1, 6, Writers(((WRITER, -1), (NEXT, 6))))
REMADE = Standing("other", 0, 8, Writers(((NEXT, -1),)))


def put(folder, layout, block, **changes):
    """Replace the file of a block as a writer does."""
    new = folder / "new"
    new.write_bytes(file_bytes(layout, values_of(layout.name), block, **changes))
    new.replace(path_of(folder, layout, block))


def committed(folder, layout, now, index=(2, 0, 0)):
    """Read for the commit THEN, while `now` is on disk."""
    return read_committed_chunk(path_of(folder, layout, index[0]), layout, index, THEN, lambda: now)


def test_a_chunk_of_the_commit_is_read_without_looking_at_the_commit(folder):
    layout = write_array(folder, "W")

    def look():
        raise AssertionError("no need to look")

    for index in layout.indices(2):
        read_committed_chunk(path_of(folder, layout, 2), layout, index, THEN, look)


def test_a_reader_goes_on_while_the_run_is_resumed(folder):
    layout = write_array(folder, "W")
    put(folder, layout, 2, writer=NEXT, last=9)
    assert committed(folder, layout, RESUMED) == read_chunk(path_of(folder, layout, 2), layout, (2, 0, 0))[0]


@pytest.mark.parametrize("now", [None, CUT, REMADE])
@pytest.mark.parametrize("what", ["rewritten", "gone", "other chunks"])
def test_a_reader_of_a_run_that_was_replaced_or_cut_is_told_so(folder, now, what):
    layout = write_array(folder, "W")
    if what == "rewritten":
        put(folder, layout, 2, writer=NEXT)
    elif what == "gone":
        path_of(folder, layout, 2).unlink()
    else:
        path_of(folder, layout, 2).write_bytes(
            file_bytes(layout_of("delta", values_of("delta")), values_of("delta"), 0)
        )
    with pytest.raises(StaleHandleError, match=r"run: W\[step 8..8, .*: the run was .*open it again"):
        committed(folder, layout, now)


@pytest.mark.parametrize("changes", [{"last": 7}, {"writer": 0xF}, {"last": 7, "writer": NEXT}])
def test_a_file_that_does_not_belong_to_the_run_is_refused(folder, changes):
    layout = write_array(folder, "W")
    put(folder, layout, 2, **changes)
    for now in (THEN, RESUMED):
        with pytest.raises(LabelError, match=r"run: W\[step 8..8, token positions 0..3, hidden 0..2\]"):
            committed(folder, layout, now)


def test_damage_is_damage_while_the_run_stands(folder):
    layout = write_array(folder, "W")
    path_of(folder, layout, 2).unlink()
    with pytest.raises(MissingError):
        committed(folder, layout, RESUMED)


def test_a_label_kept_of_an_earlier_file_of_the_same_stamp_does_not_count(folder):
    values = np.zeros((9, 10, 3), "uint16")
    layout = write_array(folder, "W", values)
    path = path_of(folder, layout, 2)
    path.write_bytes(file_bytes(layout, values, 2, last=7))
    with pytest.raises(LabelError):
        committed(folder, layout, THEN)
    before = path.stat()
    path.write_bytes(file_bytes(layout, values, 2, last=8))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    committed(folder, layout, THEN)


def test_what_is_kept_stays_little(folder, monkeypatch):
    layout = write_array(folder, "W")
    monkeypatch.setattr(shard_file, "_MOST_KEPT", 2)
    for _ in range(2):
        for block in range(3):
            read_chunk(path_of(folder, layout, block), layout, (block, 0, 0))
            assert len(shard_file._kept) <= 2
    forget(path_of(folder, layout, 2))
    monkeypatch.setattr(shard_file, "_LONGEST_KEPT", 2)
    before = dict(shard_file._kept)
    read_chunk(path_of(folder, layout, 2), layout, (2, 0, 0))
    assert shard_file._kept == before


def test_a_descriptor_may_be_given_and_stays_open(folder):
    layout = write_array(folder, "W")
    path = path_of(folder, layout, 0)
    with path.open("rb") as file:
        for index in layout.indices(0):
            data, _ = read_chunk(path, layout, index, fd=file.fileno())
            assert same_bits(layout.decode(data, "here"), padded(layout, values_of("W"), index))
        assert file.read(1)


def test_no_descriptor_is_left_open(folder):
    layout = write_array(folder, "W")
    path = path_of(folder, layout, 0)
    path.write_bytes(path.read_bytes()[:-1])
    before = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0  # noqa: PTH112, PTH208
    for _ in range(3):
        with pytest.raises(ChecksumError):
            read_chunk(path, layout, (0, 0, 0))
    assert before == (len(os.listdir("/dev/fd")) if before else 0)  # noqa: PTH208


def test_a_short_block_is_the_same_chunk_with_fewer_rows(folder):
    values = values_of("W")
    short, long = layout_of("W", values[:6]), layout_of("W", values)
    (folder / "W").mkdir(parents=True)
    path = path_of(folder, long, 1)
    path.write_bytes(file_bytes(long, values, 1))
    data, label = read_chunk(path, short, (1, 0, 0))
    assert label.last == 7
    assert short.need(1, 5).last == 5
    np.testing.assert_array_equal(short.decode(data, "here")[:2], values[4:6, :4])


def test_a_training_process_loads_neither_zarr_nor_xarray():
    code = "import store.run.shard_file, sys; print({'zarr', 'xarray', 'dask', 'pandas', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "set()\n"
