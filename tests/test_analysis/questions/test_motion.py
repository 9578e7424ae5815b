import numpy as np
import pytest
from analysis_oracles import SOURCES, Trajectory, cut, lower_median, trajectories
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis

thresholds = st.sampled_from([1e-60, 0.1, 0.5, 0.6, 1.0, 1.5, 8.0, 1e30, float("inf")])
norms = st.sampled_from(["l1", "l2", "linf"])


@pytest.mark.slow
@given(trajectories(), st.data(), thresholds, norms)
@settings(max_examples=25, deadline=None)
def test_last_motion_is_the_loop(known, data, threshold, norm):
    ds = data.draw(cut(known.dataset(stored=data.draw(st.sampled_from(SOURCES)), junk=99)))
    found = analysis.last_motion(ds, threshold=threshold, norm=norm)
    assert found.last_motion.values.tolist() == [known.last(i, norm, threshold) for i in range(len(known.tokens))]
    assert found.token.values.tolist() == known.tokens
    assert (int(found.nonfinite), int(found.first_nonfinite)) == known.nonfinite()
    moved = analysis.moved(ds, threshold=threshold, norm=norm)
    assert (moved.step.values.tolist(), moved.token.values.tolist()) == (known.steps, known.tokens)
    tokens = range(len(known.tokens))
    assert moved.values.tolist() == [[known.moved(step, i, norm, threshold) for i in tokens] for step in known.steps]


@pytest.mark.slow
@given(trajectories(), st.data())
@settings(max_examples=20, deadline=None)
def test_freeze_times_and_winter_are_the_loop(known, data):
    ds = data.draw(cut(known.dataset(junk=99)))
    last = [known.last(i) for i in range(len(known.tokens))]
    quantile = data.draw(st.floats(0, 1))
    times = analysis.freeze_times(ds, quantiles=[quantile, 0.5]).compute()
    assert int(times["earliest"]) == min(last)
    assert int(times["median_freeze"]) == lower_median(last) == int(times.at_quantile.sel(q=0.5).values.ravel()[0])
    assert int(times["latest"]) == max(last)
    assert int(times.at_quantile[0]) == sorted(last)[int(quantile * (len(last) - 1))]
    survival = [sum(x > step for x in last) / len(last) for step in known.steps]
    assert times.survival.values.tolist() == pytest.approx(survival, abs=1e-12)
    if max(last) >= 0 or len(known.moves) == 0:
        winter = analysis.fimbulwinter(ds).compute()
    else:
        with pytest.warns(UserWarning, match="no token moved"):
            winter = analysis.fimbulwinter(ds).compute()
    quiet = len(known.moves) if max(last) < 0 else known.steps[-1] - max(last)
    assert int(winter.global_last_motion) == max(last)
    assert int(winter.fimbulwinter_duration) == quiet
    assert int(winter.never_moved) == last.count(-1) == int(times.never_moved)
    if known.moves:
        assert float(winter.fimbulwinter_fraction) == quiet / len(known.moves)
    else:
        assert np.isnan(float(winter.fimbulwinter_fraction))


@pytest.mark.slow
@given(trajectories(min_steps=4), st.data())
@settings(max_examples=20, deadline=None)
def test_a_slice_is_asked_about_its_own_moves_with_labels_unchanged(known, data):
    whole = data.draw(cut(known.dataset()))
    first = data.draw(st.integers(0, len(known.steps) - 1))
    last = data.draw(st.integers(first, len(known.steps) - 1))
    tokens = data.draw(st.lists(st.sampled_from(known.tokens), min_size=1, unique=True))
    chosen = [known.tokens.index(token) for token in tokens]
    part = Trajectory(known.bits[first : last + 1][:, chosen], known.steps[first], tokens)
    ds = whole.sel(step=slice(known.steps[first], known.steps[last]), token=tokens)
    found = analysis.last_motion(ds)
    assert found.last_motion.values.tolist() == [part.last(i) for i in range(len(tokens))]
    assert found.token.values.tolist() == tokens
    assert (int(found.nonfinite), int(found.first_nonfinite)) == part.nonfinite()
    if part.moves and int(found.last_motion.max()) >= 0:
        winter = analysis.fimbulwinter(ds)
        assert int(winter.fimbulwinter_duration) == known.steps[last] - int(found.last_motion.max())
        assert float(winter.fimbulwinter_fraction) == int(winter.fimbulwinter_duration) / (last - first)


@pytest.mark.slow
def test_weights_that_are_not_finite_are_found_wherever_they_are():
    for step in range(5):
        for pattern in (0x7F80, 0xFF80, 0x7FC0):
            for lasting in (False, True):
                bits = np.full((5, 2, 3), 0x3F80, np.uint16)
                bits[step : None if lasting else step + 1, 1, 2] = pattern
                known = Trajectory(bits, first=10)
                for chunks in ({"step": 1}, {"step": 2, "token": 1}, {}):
                    found = analysis.last_motion(known.dataset().chunk(chunks)).compute()
                    assert (int(found.nonfinite), int(found.first_nonfinite)) == known.nonfinite()
                    assert int(found.first_nonfinite) == 10 + step


def test_an_overflow_is_motion_and_no_infinite_weight():
    bits = np.array([[[0]], [[0x3F80]], [[0x3F80]]], np.uint16)
    found = analysis.last_motion(Trajectory(bits).dataset(stored=("W",)))
    assert int(found.last_motion[0]) == 1
    assert int(found.nonfinite) == 0


def test_without_weights_a_nan_norm_counts_once():
    bits = np.full((4, 2, 3), 0x3F80, np.uint16)
    bits[2:, 1] = 0x7FC0
    found = analysis.last_motion(Trajectory(bits).dataset(stored=("l2",)))
    assert (int(found.nonfinite), int(found.first_nonfinite)) == (2, 2)


def test_a_norm_that_equals_the_threshold_is_motion():
    ds = Trajectory(np.array([[[0x3F80]], [[0x3F81]]], np.uint16)).dataset()
    for norm in ("l1", "l2", "linf"):
        assert analysis.last_motion(ds, threshold=1, norm=norm).last_motion.values.tolist() == [1]
        assert analysis.last_motion(ds, threshold=1.001, norm=norm).last_motion.values.tolist() == [-1]


def test_defaults_come_from_the_run_and_are_told():
    ds = Trajectory(np.array([[[0x3F80] * 2], [[0x3F81] * 2], [[0x3F82] * 2]], np.uint16)).dataset(
        motion_threshold=1.42
    )
    found = analysis.last_motion(ds)
    assert found.last_motion.values.tolist() == [-1], "L2 is 1.414"
    assert found.attrs["threshold"] == np.float32(1.42)
    assert found.last_motion.attrs["missing_value"] == -1
    assert analysis.last_motion(ds, norm="l1").last_motion.values.tolist() == [2]
    del ds.attrs["motion_threshold"]
    assert analysis.last_motion(ds).attrs["threshold"] == np.float32(0.1)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"threshold": 0}, "above 0"), ({"threshold": float("nan")}, "above 0"), ({"norm": "l3"}, "l1, l2, linf")],
)
def test_options_that_make_no_sense_are_refused(options, says):
    ds = Trajectory(np.zeros((2, 1, 1), np.uint16)).dataset()
    for name in ("last_motion", "moved", "stillness", "token_stillness", "fimbulwinter", "freeze_times"):
        with pytest.raises(ValueError, match=says):
            getattr(analysis, name)(ds, **options)
    with pytest.raises(ValueError, match="quantiles"):
        analysis.freeze_times(ds, quantiles=[1.5])


def test_no_tokens_and_answers_that_do_not_exist_are_null():
    ds = Trajectory(np.zeros((3, 0, 2), np.uint16)).dataset()
    times = analysis.plain(analysis.freeze_times(ds))
    assert times["earliest"] is times["median_freeze"] is times["latest"] is None
    assert times["survival"] == [None] * 3
    with pytest.warns(UserWarning, match="steps 1 to 2"):
        winter = analysis.plain(analysis.fimbulwinter(ds))
    assert winter == {
        "global_last_motion": None,
        "fimbulwinter_duration": 2,
        "fimbulwinter_fraction": 1.0,
        "never_moved": 0,
        "nonfinite": 0,
        "first_nonfinite": None,
    }


def test_by_a_threshold_that_misses_moves_it_is_not_warned_that_no_token_moved():
    ds = analysis.simulate.with_moving_steps([5, 9], total_steps=12)
    with pytest.warns(UserWarning, match=r"no token moved by 1\.5 cells or more at steps 1 to 12, .* misses moves$"):
        analysis.fimbulwinter(ds, threshold=1.5, norm="linf").compute()
