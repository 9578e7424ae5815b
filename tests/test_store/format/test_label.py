import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import ChecksumError
from store.format.codec import crc32c
from store.format.label import Label, decode_label, encode_label, label_bytes, name_crc

u32 = st.integers(0, 2**32 - 1)
labels = st.builds(
    Label,
    writer=st.integers(0, 2**64 - 1),
    last=st.integers(-(2**63), 2**63 - 1),
    name_crc=u32,
    chunk_crcs=st.lists(u32, max_size=20).map(tuple),
)


@given(labels, st.binary(max_size=64))
def test_a_label_is_read_back(label, pairs):
    data = encode_label(label, pairs)
    assert len(data) == label_bytes(len(label.chunk_crcs))
    assert decode_label(data, pairs, "f") == label


@pytest.mark.slow
@given(labels, st.binary(min_size=1, max_size=64), st.data())
def test_a_flipped_bit_in_label_or_index_is_refused(label, pairs, data):
    whole = encode_label(label, pairs) + pairs
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    garbled = bytearray(whole)
    garbled[bit // 8] ^= 1 << bit % 8
    size = label_bytes(len(label.chunk_crcs))
    with pytest.raises(ChecksumError, match="there: the label does not match its checksum"):
        decode_label(bytes(garbled[:size]), bytes(garbled[size:]), "there")


def test_the_bytes_are_those_of_the_format():
    label = Label(writer=1, last=-1, name_crc=name_crc("W/c.0.0.0"), chunk_crcs=(7, 8))
    body = struct.pack("<QqIII", 1, -1, crc32c([b"W/c.0.0.0"]), 7, 8)
    assert encode_label(label, b"pairs") == body + struct.pack("<I", crc32c([body + b"pairs"]))


def test_why_no_checksum_covers_another_checksum_of_the_same_bytes():
    """The CRC of bytes and their own CRC is one constant; behind other bytes it depends on those alone."""

    def with_crc(data):
        return data + crc32c([data]).to_bytes(4, "little")

    assert len({crc32c([with_crc(os.urandom(n))]) for n in (1, 20, 300)}) == 1
    assert len({crc32c([b"a label", with_crc(os.urandom(32))]) for _ in range(9)}) == 1
