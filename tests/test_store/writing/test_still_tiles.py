"""Work that is not done twice: tiles in which nothing moved, and labels that are read for every block."""

from dataclasses import replace

import numpy as np
import pytest
import store_cases

from store.format.files import TRAJECTORY
from store.format.schema import Channel
from store.run.array import StoredArray
from store.run.commit import read_commit
from store.writing import encoder
from store.writing.completion import stored_blocks
from store.writing.encoder import Encoder
from store.writing.ring import Ring, words


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    store_cases.patch_blocks(monkeypatch.setattr)
    monkeypatch.setattr(encoder, "LEAST_RATIO", 0)


def still_and_moving(step):
    """Tokens 0 and 1 never move; 2 and 3 only now and then; the last one always: uint16 (5, 2)."""
    moves = np.array([0, 0, step // 9, step // 9, step])[:, None]
    return (1000 + moves * [1, 2]).astype(np.uint16)


def write(run, steps, state=still_and_moving, **options):
    with store_cases.create(run, disk=store_cases.fast_disk(), **options) as writer:
        for step in range(steps):
            writer.append(**store_cases.row(step) | {"W": state(step)})
            if step % 11 == 5:
                writer.commit()
    return store_cases.files(run)


def test_a_tile_in_which_nothing_moved_has_the_bytes_of_any_other(tmp_path, monkeypatch):
    used_again = []
    monkeypatch.setattr(encoder, "replace", lambda still, **to: used_again.append(1) or replace(still, **to))
    files = write(tmp_path / "with", 42)
    assert len(used_again) >= 8
    monkeypatch.setattr(Encoder, "_is_still", lambda *_: False)
    assert write(tmp_path / "without", 42) == files


def test_a_move_that_ends_where_it_began_is_seen(tmp_path, monkeypatch):
    def back_and_forth(step):
        return np.full((5, 2), 1000 + 7 * (step == 13), np.uint16)

    files = write(tmp_path / "with", 24, back_and_forth)
    monkeypatch.setattr(Encoder, "_is_still", lambda *_: False)
    assert write(tmp_path / "without", 24, back_and_forth) == files


@pytest.mark.parametrize("dtype", ["bool", "uint16", "float32", "int8", "float64"])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 5, 4), (2, 5, 7), (2, 0, 3)])
def test_words_are_the_same_memory(dtype, shape):
    values = np.random.default_rng(0).random(shape).astype(dtype)
    assert words(values).tobytes() == values.tobytes()
    assert words(values).shape[:-1] == values.shape[:-1]


def test_each_chunk_of_labels_is_unpacked_once_when_a_run_completes(tmp_path, monkeypatch):
    write(tmp_path / "run", 41)
    commit, read, decode = read_commit(tmp_path / "run"), [], StoredArray.decode
    monkeypatch.setattr(StoredArray, "decode", lambda self, *rest: read.append(self.name) or decode(self, *rest))
    labels = [labels for labels, _ in stored_blocks(commit, tmp_path / "run" / TRAJECTORY)("W")]
    assert np.concatenate(labels).tolist() == list(range(41))
    assert read.count("step") == 6


def ring_of(rows):
    dims = ("token", "hidden", "part")[: rows.ndim - 1]
    ring = Ring("step", [Channel("W", dims, str(rows.dtype))], dict(zip(dims, rows.shape[1:], strict=True)), 128)
    for label, row in enumerate(rows):
        if ring.is_full:
            ring.free_block()
        ring.put(label, {"W": row})
        ring.advance()
    return ring


@pytest.mark.parametrize("steps", [128, 170])
@pytest.mark.parametrize("moving", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(("dtype", "inner"), [("uint16", (6,)), ("float32", (3,)), ("uint16", (2, 3)), ("float32", ())])
def test_tokens_that_rest_are_turned_as_all_others(steps, moving, dtype, inner):
    """The others move at one step alone, in one number of their row, some from 0 to -0 or NaN."""
    rng, tokens = np.random.default_rng(3), 20
    rows = np.repeat(rng.integers(0, 3, (1, tokens, *inner)).astype(dtype), steps, axis=0)
    for token in np.flatnonzero(rng.random(tokens) < moving):
        at = (rng.integers(1, steps), token, *(rng.integers(size) for size in inner))
        rows[at] = rng.choice([7, *([np.nan, -0.0] if dtype == "float32" else [])])
    ring, some = ring_of(rows), slice(3, tokens - 1)
    room = np.moveaxis(np.empty((tokens - 4, *inner, 128), dtype), -1, 0)
    turned = ring.open_block(steps).tile("W", some, room)
    assert turned.tobytes() == rows[ring.start :, some].tobytes()
