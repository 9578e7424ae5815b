import pytest

from store.format.chunking import choose, project, ring_slots, row_bytes
from store.format.schema import Channel

W = Channel("W", ("token", "hidden"), "uint16")
DELTA = Channel("delta", ("token", "hidden"), "float32", role="derived")
NORM = Channel("norm", ("token",), "float32", role="derived")
LOSS = Channel("loss", (), "float32")


def test_full_size_has_the_chunks_of_the_format():
    sizes = {"token": 3699, "hidden": 64}
    cut = choose([W, DELTA, NORM, LOSS], sizes)
    assert cut.chunk_shape(W, sizes) == cut.chunk_shape(DELTA, sizes) == (128, 256, 64)
    assert cut.chunk_shape(NORM, sizes) == (128, 3699)
    assert cut.chunk_shape(LOSS, sizes) == (65_536,)


@pytest.mark.parametrize("tokens", [1, 7, 2048, 50_000])
@pytest.mark.parametrize("hidden", [1, 32, 128, 4096])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_open_block_stays_small(tokens, hidden, dtype):
    wide = Channel("W", ("token", "hidden"), dtype)
    sizes = {"token": tokens, "hidden": hidden}
    cut = choose([wide], sizes)
    assert 8 <= cut.block_steps <= 128
    assert cut.block_steps & (cut.block_steps - 1) == 0
    assert cut.block_steps == 8 or cut.block_steps * row_bytes(wide, sizes) <= 64 << 20
    assert 1 <= cut.token_tile <= tokens
    row = hidden * (2 if dtype == "uint16" else 4)
    assert cut.token_tile == 1 or cut.token_tile * row * cut.block_steps <= 4 << 20


def test_the_projection_counts_rows_files_and_bytes():
    sizes = {"token": 3699, "hidden": 64}
    seen = project([W, DELTA, LOSS], sizes, 5001)
    assert seen.raw_bytes == 5001 * (3699 * 64 * (2 + 4) + 4)
    assert seen.files == 2 * (1 + 40) + 1 + 1 + 4
    assert seen.memory_bytes < 128 << 20
    assert project([W, DELTA, LOSS], sizes, 5_000_001).memory_bytes == seen.memory_bytes
    assert project([W, DELTA, LOSS], sizes, 5001, ratio=100).disk_bytes == -(-seen.raw_bytes // 100)


def test_a_schedule_thins_the_projection():
    sizes = {"token": 10, "hidden": 4}
    sparse = Channel("m", ("token", "hidden"), "float32", every=10, until=50)
    assert project([sparse], sizes, 1001).raw_bytes == 6 * 160


def test_the_ring_holds_a_block_and_a_sixth():
    assert ring_slots(128) == 149
    assert ring_slots(4) == 6
