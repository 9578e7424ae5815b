"""Processor time a step of deriving displacement and norms, over a whole real run, as the writer's thread does it."""

import time

import numpy as np
import pytest
import zarr

from analysis.moves import moves, norms_of_moves

BLOCK, TILE = 128, 256
PHASES = [(0, 200, "all move"), (200, 1000, "most move"), (1000, 2500, "few move"), (2500, 5001, "hardly any moves")]


@pytest.fixture
def weights(real_run):
    return zarr.open_group(real_run, mode="r")["W"]


def blocks(weights):
    """Blocks in the writer's memory order (token, hidden, step), each with the state before it."""
    last = weights[0]
    for start in range(0, weights.shape[0], BLOCK):
        rows = np.ascontiguousarray(weights[start : start + BLOCK].transpose(1, 2, 0)).transpose(2, 0, 1)
        yield start, last, rows
        last = rows[-1].copy()


@pytest.mark.benchmark
@pytest.mark.parametrize("function", [moves, norms_of_moves])
def test_processor_time_of_moves(weights, function):
    spent = np.zeros(weights.shape[0])
    for start, last, rows in blocks(weights):
        begin = time.thread_time()
        for token in range(0, rows.shape[1], TILE):
            function(last[token : token + TILE], rows[:, token : token + TILE])
        spent[start : start + len(rows)] = (time.thread_time() - begin) / len(rows)
    print(f"\n{function.__name__}: {1e3 * spent.mean():.2f} ms a step of {weights.shape[1]} x {weights.shape[2]}")
    for first, end, words in PHASES:
        print(f"  steps {first}-{end}, {words}: {1e3 * spent[first:end].mean():.2f} ms")
