"""NumPy archives, hostile ones: no pickle, no path, no bomb; and damage is named."""

import os
import struct
import zipfile
from contextlib import closing, suppress

import lab_files as lab
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resident import run_python

import crucible
from crucible.interchange.sources import npz
from crucible.interchange.sources.npz import NpzFile
from store.errors import TensorFileError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


def npy(array, **options):
    from io import BytesIO

    buffer = BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


W = npy(np.zeros((3, 2, 2), np.uint16))


def archive(path, members, packing=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packing) as made:
        for name, data in members:
            made.writestr(name, data)


def pickles(path):
    np.savez(path, W=np.zeros((3, 2, 2), np.uint16), loss=np.array([1, "x", None], object))


def pickles_in_a_record(path):
    np.savez(path, W=np.zeros((3, 2, 2), np.uint16), loss=np.zeros(3, [("a", object)]))


def path_upwards(path):
    archive(path, [("W.npy", W), ("../../evil.npy", W)])


def absolute_path(path):
    archive(path, [("W.npy", W), ("/etc/evil.npy", W)])


def path_of_windows(path):
    archive(path, [("W.npy", W), ("..\\evil.npy", W)])


def drive(path):
    archive(path, [("W.npy", W), ("C:evil.npy", W)])


def empty_name(path):
    archive(path, [("W.npy", W), (".npy", W)])


def twice(path):
    with pytest.warns(UserWarning, match="Duplicate"):
        archive(path, [("W.npy", W), ("W.npy", W)])


def encrypted(path):
    archive(path, [("W.npy", W)])
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)


def bzip(path):
    archive(path, [("W.npy", W)], zipfile.ZIP_BZIP2)


def bomb(path):
    shape = (300, 1 << 9, 1 << 11)
    head = npy(np.zeros((0, *shape[1:]), np.uint16)).replace(b"(0, ", b"(300")  # the padding of the header gives room
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("W.npy", "w") as member:
        member.write(head)
        for _ in range(300):
            member.write(bytes(2 << 20))


def one_in_the_other(path):
    archive(path, [("W.npy", W), ("loss.npy", W)])
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 42, 4)  # the second member begins inside the first
    path.write_bytes(data)


def shape_of_more(path):
    archive(path, [("W.npy", W.replace(b"(3, 2, 2)", b"(9, 2, 2)"))])


def fortran(path):
    np.savez(path, W=np.asfortranarray(np.arange(12, dtype=np.uint16).reshape(3, 2, 2)))


def long_header(path):
    head = b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 20) + b" " * (1 << 20)
    archive(path, [("W.npy", head)])


def many(path):
    archive(path, [(f"a{i}.npy", b"") for i in range(npz.MOST_MEMBERS + 1)])


def large_directory(path):
    archive(path, [(f"a{i}.npy", b"") for i in range(3)])
    with zipfile.ZipFile(path, "a") as made:
        for i in range(20):
            made.writestr(zipfile.ZipInfo(f"b{i}"), b"")
            made.infolist()[-1].comment = b"x" * 60_000


def without_end(path):
    path.write_bytes(b"PK\x03\x04" + bytes(200))


HOSTILE = {
    pickles: "loss holds pickled Python objects, which are never read",
    pickles_in_a_record: "loss holds pickled Python objects, which are never read",
    path_upwards: "is a path, and not a name", absolute_path: "is a path", path_of_windows: "is a path",
    drive: "is a path", empty_name: "is a path", twice: "two members have one name", encrypted: "is encrypted",
    bzip: "is packed by method 12", bomb: "that unpack to 6", one_in_the_other: "lies within another",
    shape_of_more: "bytes in the archive", fortran: "W lies in Fortran order", long_header: "a header of",
    many: "1001 members", large_directory: "a list of members of", without_end: "without an end",
}  # fmt: skip


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_is_refused_and_nothing_is_written(tmp_path, make):
    make(tmp_path / "old.npz")
    with pytest.raises(TensorFileError, match=HOSTILE[make]) as raised:
        crucible.import_run(tmp_path / "old.npz", tmp_path / "run")
    assert str(tmp_path / "old.npz") in str(raised.value)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["old.npz"]


def test_other_members_are_named(tmp_path):
    archive(tmp_path / "old.npz", [("W.npy", W), ("notes.txt", b"x"), ("texts.npy", npy(np.array(["a", "b"])))])
    with pytest.raises(TensorFileError, match=r"notes\.txt, texts are not known to import"):
        crucible.import_run(tmp_path / "old.npz", tmp_path / "run")
    crucible.import_run(tmp_path / "old.npz", tmp_path / "run", skip=["notes.txt", "texts"])


def test_big_endian_numbers_and_reads_that_go_back(tmp_path):
    W = lab.weights(9, 4, 3)
    np.savez_compressed(tmp_path / "old.npz", W=W.astype(">u2"))
    with closing(NpzFile(tmp_path / "old.npz")) as file:
        for start, stop in ((0, 3), (5, 10), (2, 4), (2, 4), (0, 10)):
            assert (file.rows("W", start, stop) == W[start:stop]).all()


MEASURE = """
    import sys
    from crucible.interchange.importing.importer import import_run
    from resident import peak_bytes
    import h5py
    before = peak_bytes()
    try:
        import_run(sys.argv[1], sys.argv[2])
    except ValueError:
        print(peak_bytes() - before)
"""


@pytest.mark.slow
def test_refusing_a_bomb_costs_little(tmp_path):
    bomb(tmp_path / "old.npz")
    assert int(run_python(MEASURE, tmp_path / "old.npz", tmp_path / "run")) < 20e6


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "old.npz"
    small = lab.notebook(lab.weights(8, 5, 4))
    np.savez_compressed(path, W=small["W"], loss=small["loss"], seed=np.array(3))
    return path.read_bytes()


PIECES = st.sampled_from([b"\0", b"\xff", b"\x01", b"\xff" * 8]) | st.binary(min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(st.integers(0, 2**31), PIECES), min_size=1, max_size=5)


@given(CHANGES, st.none() | st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_fuzz_damaged_archives_are_refused_or_read(sound, tmp_path_factory, changes, cut):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npz"
    path.write_bytes(lab.damaged(sound, changes, cut))
    with suppress(TensorFileError), closing(NpzFile(path)) as file:
        for name, tensor in file.tensors.items():
            if tensor.nbytes < 1 << 20:
                assert file.read(name).shape == tensor.shape


def test_a_flipped_bit_between_sound_ones_is_found_by_the_checksum(tmp_path):
    W = lab.weights(200, 64, 8)
    np.savez(tmp_path / "old.npz", W=W)
    data = bytearray((tmp_path / "old.npz").read_bytes())
    at = data.index(W[100].tobytes())
    data[at] ^= 1
    (tmp_path / "old.npz").write_bytes(data)
    with pytest.raises(TensorFileError, match=r"W\[0:201\] is damaged: Bad CRC-32"):
        crucible.import_run(tmp_path / "old.npz", tmp_path / "run")
