"""Decoupled weight decay moves weights by itself from lr x weight_decay = 2^-9 on: no answer reaches beyond that."""

import numpy as np
import pytest

import analysis
from analysis import simulate
from analysis.answers import plain
from analysis.questions.endstate import no_verdict, sentence

MOVING, TOTAL, DECAY, RATE = [20, 40, 60, 80, 100, 120], 3_000, 0.1, 1e-3
BOUND = 2.0**-9 / DECAY


def far_below(**update):
    random = np.random.default_rng(2)
    pushes = np.exp(random.normal(np.log(0.005), 0.05, (TOTAL, 1)))
    pushes[[step - 1 for step in MOVING]] = 1.5
    ds = simulate.with_pushes(pushes, learning_rate=RATE).load()
    return ds.assign_attrs(optimizer_update=ds.attrs["optimizer_update"] | {"weight_decay": DECAY} | update)


def test_the_headroom_ends_where_weight_decay_moves_weights():
    ds = far_below()
    told = plain(analysis.end_state(ds))
    assert told["frozen"] is True
    assert told["push"] == pytest.approx(0.006, abs=0.001)
    assert told["headroom"] == pytest.approx(BOUND / RATE)
    assert analysis.headroom(ds).headroom.values == pytest.approx([BOUND / RATE])


def test_at_a_learning_rate_whose_decay_moves_weights_there_is_no_verdict():
    answer = analysis.end_state(far_below(), reference_learning_rate=0.05)
    assert plain(answer)["E"] is None
    assert plain(answer)["frozen"] is False
    assert no_verdict(answer).startswith("at a learning rate of 0.05 weight decay alone can move a weight")
    assert sentence(answer).startswith("No verdict")
    assert plain(analysis.end_state(far_below(), reference_learning_rate=0.019))["frozen"] is True


@pytest.mark.parametrize("update", [{"weight_decay": 0.0}, {"variant": "adam"}, {"fused": True}])
def test_where_decay_is_none_or_part_of_the_push_it_bounds_nothing(update):
    told = plain(analysis.end_state(far_below(**update)))
    assert told["headroom"] == pytest.approx(1 / told["push"])
    assert plain(analysis.end_state(far_below(**update), reference_learning_rate=0.05))["frozen"] is True


def test_the_bound_of_float16_is_lower():
    ds = far_below()
    ds = ds.assign(W=(ds.W.dims, np.ones(ds.W.shape, np.float16)))
    assert plain(analysis.end_state(ds))["headroom"] == pytest.approx(BOUND / 8 / RATE)


def test_steps_without_a_learning_rate_say_nothing_of_the_headroom():
    pushes = np.full((300, 1), 0.5)
    pushes[100:] = 0
    rates = np.where(np.arange(300) < 100, 1e-3, 0.0)
    ds = simulate.with_pushes(pushes, learning_rate=rates)
    assert np.isnan(analysis.headroom(ds).headroom.values).all()
    assert analysis.headroom(ds.sel(step=slice(0, 250))).headroom.values == pytest.approx([2.0])
