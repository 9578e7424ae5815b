"""The end state of a Dataset: the verdict on its moving steps, whatever the chunks, slice, threshold or norm."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from real_run_moving import real_run_moving_steps

import analysis
from analysis import simulate
from analysis.answers import plain
from analysis.episodes import Rule
from analysis.questions.endstate import end_state, sentence, verdict

MOVING = [20, 40, 60, 80, 100, 120]
steps_and_length = st.lists(st.integers(1, 25), max_size=15).map(lambda gaps: np.cumsum(gaps).tolist())


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(steps_and_length, st.integers(1, 80), st.integers(1, 50), st.integers(1, 3), st.integers(0, 30))
def test_it_is_the_verdict_on_the_moving_steps_of_the_slice(moving, after, steps, tokens, first):
    total = (moving[-1] if moving else 0) + after
    first = min(first, total - 1)
    ds = simulate.with_moving_steps(moving, total_steps=total, chunks={"step": steps, "token": tokens})
    told = plain(end_state(ds.sel(step=slice(first, None))))
    expected = verdict([t for t in moving if t > first], last_step=total, first_step=first + 1)
    for name, value in told.items():
        if name not in ("nonfinite", "first_nonfinite"):
            assert value == (pytest.approx(expected[name]) if isinstance(value, float) else expected[name]), name


def test_the_real_runs_moving_steps_as_a_dataset():
    ds = simulate.with_moving_steps(real_run_moving_steps().tolist(), total_steps=5000, hidden=1)
    told = plain(end_state(ds))
    assert (told["last_motion"], told["since"], told["looks"], told["frozen"]) == (3517, 2318, 35, False)
    assert told["p"] == pytest.approx(0.0768, abs=5e-5)
    assert told["confidence"] == 1 - told["p"]
    assert "step 5950" in sentence(end_state(ds))


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("bad", [0x7F80, 0x7FC0])
def test_weights_that_are_not_finite_keep_it_from_being_frozen(bad):
    ds = simulate.with_moving_steps(MOVING, total_steps=20_000, size=2, hidden=1)
    assert plain(end_state(ds))["frozen"] is True
    bits = ds.W.values
    bits[:, 1] = bad  # constant: no motion, or none that counts
    told = plain(end_state(ds.assign(W=(ds.W.dims, bits)).drop_vars(list(ds.data_vars.keys() - {"W"}))))
    assert (told["frozen"], told["nonfinite"], told["first_nonfinite"]) == (False, 20_001, 0)


def test_threshold_norm_and_rule_are_those_asked_for():
    cells = np.zeros((400, 1, 4), int)
    cells[[t - 1 for t in MOVING]] = 1  # L1 4, L2 2, Linf 1
    ds = simulate.trajectory(cells)
    assert plain(end_state(ds))["last_motion"] == 120
    assert plain(end_state(ds, threshold=3))["last_motion"] is None
    assert plain(end_state(ds, threshold=3, norm="l1"))["last_motion"] == 120
    assert plain(end_state(ds, threshold=2, norm="linf"))["last_motion"] is None
    assert plain(end_state(ds, rule=Rule(memory=30)))["looks"] == 1
    assert plain(end_state(ds.assign_attrs(beta1=0.99)))["looks"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_nothing_is_called_frozen_by_a_threshold_that_misses_moves_of_half_a_cell(norm):
    half = np.tile(np.array([0x3F80, 0x3F7F], np.uint16), 10_000)  # 1 and the number below it: half a cell, and a cell
    half[:121:20] = 0x3F90  # motion that the threshold sees
    ds = xr.Dataset({"W": (("step", "token", "hidden"), half[:20_001, None, None])})
    moves = plain(end_state(ds, threshold=0.5, norm=norm))
    assert (moves["last_motion"], moves["frozen"]) == (19_999, False)  # it moves at every step
    for how in ({"threshold": 1.5}, {"threshold": np.nextafter(np.float32(0.5), np.float32(1))}):
        answer = end_state(ds, norm=norm, **how)
        told = plain(answer)
        assert (told["frozen"], told["p"], told["frozen_from"]) == (False, None, None)
        assert "No verdict" in sentence(answer)
    own = end_state(ds.assign_attrs(motion_threshold=1.5), norm=norm)
    assert plain(own)["frozen"] is False
    assert "threshold of 1.5 cells" in sentence(own)


def test_the_projection_on_another_lattice_is_named():
    ds = simulate.with_moving_steps(MOVING, total_steps=16_000, hidden=1)
    wide = analysis.weights(ds).load().assign_attrs(lattice="bfloat16")
    answer = end_state(xr.Dataset({"W": wide}))
    assert plain(answer)["frozen"] is True
    assert "on the lattice of bfloat16; float32 weights may move below it" in sentence(answer)
    assert "lattice" not in sentence(end_state(ds))


def test_what_does_not_exist_is_null():
    told = plain(end_state(simulate.with_moving_steps([], total_steps=9)))
    assert (told["gap"], told["p"], told["ratio"], told["last_motion"], told["frozen"]) == (9, None, None, None, False)
    assert "nothing moved" in sentence(end_state(simulate.with_moving_steps([], total_steps=9)))
    lone = plain(end_state(simulate.with_moving_steps([1], total_steps=1).sel(step=[1])))
    assert (lone["gap"], lone["episodes"], lone["frozen"]) == (0, 0, False)


def test_it_is_lazy_and_says_what_it_assumed():
    answer = end_state(simulate.with_moving_steps(MOVING, total_steps=400))
    assert all(array.chunks is not None for array in answer.data_vars.values())
    assert (answer.attrs["memory"], answer.attrs["level"], answer.attrs["last_step"]) == (10, 0.01, 400)
    assert math.isclose(plain(answer)["p"], verdict(MOVING, last_step=400)["p"])


@pytest.mark.slow
def test_the_large_real_run_from_its_weights():
    here = Path(__file__).parents[3] / ".." / "shared" / "data" / "real-run.zarr"
    path = Path(os.environ.get("CRUCIBLE_REAL_RUN", here))
    if not path.exists():
        pytest.skip("the large real run is not at hand; set CRUCIBLE_REAL_RUN")
    ds = xr.open_zarr(path, chunks={}, consolidated=False, decode_cf=False)[["W"]]
    ds = ds.rename(dict(zip(ds.W.dims, ("step", "token", "hidden"), strict=True)))
    told = plain(end_state(ds))
    assert (told["last_motion"], told["since"], told["looks"], told["frozen"]) == (3517, 2318, 35, False)
    assert told["p"] == pytest.approx(0.0768, abs=5e-5)


def test_the_memory_is_that_of_the_momentum_also_of_sgd():
    steps = [
        20,
        40,
        60,
        80,
        100,
        120,
    ]  # silences beside a memory of 10 steps, and none beside 100
    ds = simulate.with_moving_steps(steps, total_steps=20_000, hidden=1)
    del ds.attrs["beta1"]
    assert plain(end_state(ds))["frozen_by_silence"]
    for attributes in ({"momentum": 0.99}, {"optimizer_update": {"variant": "sgd_momentum", "momentum": 0.99}}):
        told = end_state(ds.assign_attrs(attributes))
        assert told.attrs["memory"] == 100
        assert not plain(told)["frozen_by_silence"]
        assert not bool(analysis.verdicts(ds.assign_attrs(attributes)).frozen_by_silence[-1])
