import io
import itertools
import os
import struct

import pytest
from format2_cases import flips
from hypothesis import given
from hypothesis import strategies as st

from store.errors import ChecksumError
from store.format import shard
from store.format.codec import crc32c
from store.format.label import Label, encode_label, label_bytes, name_crc
from store.format.shard import ShardWriter, parse_tail, read_at, tail_bytes

MOST = 1000


def with_crc(content):
    return content + crc32c([content]).to_bytes(4, "little")


def written(chunks, name="W/c.0", writer=7, last=3):
    sink = io.BytesIO()
    file = ShardWriter(sink, name=name, writer=writer, last=last, count=len(chunks))
    for chunk in chunks:
        file.add([chunk])
    return sink.getvalue(), file.finish(), sink


def parsed(data, count):
    size = tail_bytes(count)
    return parse_tail(data[-size:], len(data), count, MOST, "run/W/c.0")


def forged(pairs, label=None, chunks_size=60):
    """A file whose checksums are right, with this index."""
    index = b"".join(struct.pack("<QQ", *pair) for pair in pairs)
    label = label or Label(7, 3, name_crc("W/c.0"), tuple(range(len(pairs))))
    return b"x" * chunks_size + encode_label(label, index) + with_crc(index)


chunks = st.lists(st.binary(min_size=9, max_size=60).map(with_crc), min_size=1, max_size=12)


@given(chunks, st.text(max_size=20), st.integers(0, 2**64 - 1), st.integers(-1, 2**63 - 1))
def test_a_file_is_read_back(chunks, name, writer, last):
    whole, label, sink = written(chunks, name, writer, last)
    data = sink.getvalue()
    tail = parsed(data, len(chunks))
    assert data.startswith(whole)
    assert tail.label == label == Label(writer, last, name_crc(name), tuple(map(crc32c, ([c[:-4]] for c in chunks))))
    assert [data[a:b] for a, b in itertools.pairwise(tail.bounds)] == chunks
    assert tail.bounds[-1] + tail_bytes(len(chunks)) == len(data)


@given(st.binary(min_size=9, max_size=30), st.lists(st.integers(0, 33), max_size=6))
def test_the_checksum_is_found_however_the_chunk_is_parted(content, cuts):
    whole = with_crc(content)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    sink = io.BytesIO()
    file = ShardWriter(sink, name="n", writer=0, last=0, count=1)
    file.add([memoryview(whole)[a:b] for a, b in itertools.pairwise(edges)])
    assert file.finish().chunk_crcs == (crc32c([content]),)
    assert sink.getvalue().startswith(whole)


def test_parts_go_out_as_they_come():
    class Sink:
        def __init__(self):
            self.seen = []

        def write(self, data):
            self.seen.append(data)

    sink = Sink()
    file = ShardWriter(sink, name="n", writer=0, last=0, count=2)
    parts = [b"the content ", with_crc(b"the content ")[-4:]]
    file.add(parts)
    assert all(one is other for one, other in zip(sink.seen, parts, strict=True))


def test_no_file_without_all_of_its_chunks():
    file = ShardWriter(io.BytesIO(), name="W/c.0", writer=0, last=0, count=1)
    with pytest.raises(ValueError, match=r"W/c.0: 0 of 1 chunks"):
        file.finish()
    file.add([with_crc(b"the content")])
    with pytest.raises(ValueError, match=r"W/c.0: more than 1 chunks"):
        file.add([with_crc(b"the content")])


def test_every_bit_behind_the_chunks_counts():
    data = written([with_crc(bytes([i] * 9)) for i in range(3)])[2].getvalue()
    start = len(data) - tail_bytes(3)
    for garbled in flips(data[start:]):
        with pytest.raises(ChecksumError, match=r"run/W/c.0: the (label|index) does not match its checksum"):
            parsed(data[:start] + garbled, 3)


@given(chunks, st.integers(1, 200))
def test_a_file_cut_short_or_grown_is_refused(chunks, by):
    data = written(chunks)[2].getvalue()
    for other in (data[:-by], data + b"\0" * by, data[by:], b"\0" * by + data):
        with pytest.raises(ChecksumError, match=r"run/W/c.0: "):
            parsed(other, len(chunks))


def test_a_label_is_bound_to_the_index_of_its_file():
    """Torn copies: the label of one state of a file with the index of another."""
    one = written([with_crc(b"a" * 20), with_crc(b"b" * 30)])[2].getvalue()
    other = written([with_crc(b"a" * 30), with_crc(b"b" * 20)])[2].getvalue()
    size = tail_bytes(2) - label_bytes(2)
    assert len(one) == len(other)
    with pytest.raises(ChecksumError, match="the label does not match"):
        parsed(one[:-size] + other[-size:], 2)


HUGE = 2**64 - 1
HOSTILE = {
    "missing": [(0, 30), (HUGE, HUGE)],
    "sum wraps around to the end": [(0, 30), (30, 2**64 - 30)],
    "offset wraps around to the end": [(HUGE - 29, 30), (0, 30)],
    "sizes that together wrap around": [(0, 2**63), (2**63, 2**63 + 60)],
    "one chunk twice": [(0, 30), (0, 30)],
    "overlap": [(0, 40), (30, 30)],
    "gap": [(0, 20), (30, 30)],
    "order": [(30, 30), (0, 30)],
    "empty": [(0, 0), (0, 60)],
    "too short": [(0, 12), (12, 48)],
    "longer than any chunk": [(0, 30), (30, 1001)],
    "into the label": [(0, 30), (30, 31)],
    "behind the end": [(0, 30), (30, 900)],
    "too early an end": [(0, 30), (30, 29)],
}


@pytest.mark.parametrize("pairs", HOSTILE.values(), ids=HOSTILE)
def test_an_index_that_names_what_cannot_be_is_refused(pairs):
    with pytest.raises(ChecksumError, match=r"run/W/c.0: the (index says that chunk \d|chunks end at byte \d)"):
        parsed(forged(pairs), 2)


def test_an_index_whose_checksums_are_right_is_taken():
    assert parsed(forged([(0, 30), (30, 30)]), 2).bounds == (0, 30, 60)


def test_a_chunk_may_be_long_where_the_array_says_so():
    data = forged([(0, 30), (30, 1001)], chunks_size=1031)
    assert parse_tail(data[-tail_bytes(2) :], len(data), 2, 1001, "f").bounds[-1] == 1031


@pytest.mark.parametrize("pread", [getattr(os, "pread", None), shard._seek_and_read])
def test_reading_at_a_place_with_and_without_pread(tmp_path, monkeypatch, pread):
    if pread is None:
        pytest.skip("this system has no pread")
    monkeypatch.setattr(shard, "_pread", lambda fd, size, offset: pread(fd, min(size, 3), offset))
    path = tmp_path / "f"
    path.write_bytes(bytes(range(20)))
    with path.open("rb") as file:
        assert read_at(file.fileno(), 10, 5) == bytes(range(5, 15))
        assert read_at(file.fileno(), 10, 15) == bytes(range(15, 20))
        assert read_at(file.fileno(), 10, 99) == read_at(file.fileno(), 0, 0) == b""
