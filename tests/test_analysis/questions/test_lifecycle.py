import math

import numpy as np
import pytest
from analysis_oracles import SOURCES, Trajectory, cut, lower_median, trajectories
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
from analysis.questions.lifecycle import NormRule


def exits_by_loop(known, norm, bound):
    found = []
    for i in range(len(known.tokens)):
        last = -1
        for step in known.moves:
            if known.norms[norm][step][i] > bound:
                last = step
        found.append(last)
    return found


def kind_by_hand(l1, l2, linf, hidden):
    if l2 > np.float32(math.sqrt(hidden)):
        return "teleporting"
    if linf > 1:
        return "multi-cell"
    if l1 > 1:
        return "neighbour"
    if l1 == 1:
        return "face"
    if l1 > 0:
        return "less than a cell"
    return "none"


@pytest.mark.slow
@given(trajectories(), st.data())
@settings(max_examples=25, deadline=None)
def test_exits_are_the_last_steps_of_the_conditions(known, data):
    ds = data.draw(cut(known.dataset(stored=data.draw(st.sampled_from(SOURCES)), junk=99)))
    root = np.float32(math.sqrt(known.bits.shape[2]))
    found = analysis.lifecycle(ds).compute()
    expected = {
        "supernova": exits_by_loop(known, "l2", root),
        "cooling": exits_by_loop(known, "linf", 1),
        "stumbling": exits_by_loop(known, "linf", 0),
    }
    assert found.phase.values.tolist() == list(expected)
    for phase, exits in expected.items():
        assert found.exit.sel(phase=phase).values.tolist() == exits
        assert int(found.median_exit.sel(phase=phase)) == lower_median(exits)
    assert (int(found.nonfinite), int(found.first_nonfinite)) == known.nonfinite()


@pytest.mark.slow
@given(trajectories(), st.data())
@settings(max_examples=25, deadline=None)
def test_every_move_is_counted_once(known, data):
    ds = data.draw(cut(known.dataset(stored=data.draw(st.sampled_from(SOURCES)), junk=99)))
    found = analysis.census(ds).compute()
    hidden = known.bits.shape[2]
    totals = dict.fromkeys(found.kind.values.tolist(), 0)
    for step in known.steps:
        expected = dict.fromkeys(totals, 0)
        for i in range(len(known.tokens)):
            if step in known.moves:
                kind = kind_by_hand(*(known.norms[norm][step][i] for norm in ("l1", "l2", "linf")), hidden)
                expected[kind] += 1
                totals[kind] += 1
        assert dict(zip(totals, found.tokens.sel(step=step).values.tolist(), strict=True)) == expected
    for kind, count in totals.items():
        share = float(found.fraction.sel(kind=kind))
        assert share == count / sum(totals.values()) if known.moves else math.isnan(share)


def test_another_table_of_phases():
    bits = np.array([[[0x3F80]], [[0x3F85]], [[0x3F86]], [[0x3F88]]], np.uint16)  # moves of 5, 1, 2 cells
    ds = Trajectory(bits).dataset(stored=("W",))
    found = analysis.lifecycle(ds, phases=[("wild", "l1", 2), NormRule("tame", "l1", 2, inclusive=True)])
    assert found.exit.values.tolist() == [[1, 3]]
    assert found.median_exit.sel(phase="tame").values == 3
    counted = analysis.census(ds, kinds=[("far", "linf", 2), ("one", "linf", 1.0, True)])
    assert counted.kind.values.tolist() == ["far", "one", "none"]
    assert counted.tokens.values.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_a_run_that_goes_on_says_so_far():
    known = Trajectory(np.zeros((2, 1, 1), np.uint16))
    assert analysis.lifecycle(known.dataset(completed=False)).attrs["so_far"]
    assert not analysis.lifecycle(known.dataset(completed=True)).attrs["so_far"]
    assert not analysis.lifecycle(known.dataset()).attrs["so_far"]


def test_tables_that_cannot_be_read_are_refused():
    ds = Trajectory(np.zeros((2, 1, 1), np.uint16)).dataset()
    with pytest.raises(ValueError, match="at least one"):
        analysis.lifecycle(ds, phases=[])
    with pytest.raises(ValueError, match="different names"):
        analysis.census(ds, kinds=[("a", "l1", 1), ("a", "l2", 1)])
    with pytest.raises(ValueError, match="l1, l2, linf"):
        analysis.census(ds, kinds=[("a", "max", 1)])
    for bound in ("sqrt(D)", "3.0", math.nan):
        with pytest.raises(ValueError, match="bound must be a number of cells or 'sqrt"):
            analysis.census(ds, kinds=[("a", "l1", bound)])
    with pytest.raises(ValueError, match="hidden"):
        analysis.lifecycle(ds.drop_vars(["W", "delta_W_prime"]))


def test_a_kind_is_not_called_as_that_of_no_rule():
    ds = analysis.simulate.with_last_motion([1], total_steps=2)
    with pytest.raises(ValueError, match="'none' is the kind of moves for which no rule holds"):
        analysis.census(ds, kinds=[("none", "l2", 1.0)])
    for question in (analysis.census, lambda ds, kinds: analysis.lifecycle(ds, phases=kinds)):
        for kinds in (["far"], [("far", "l2")]):
            with pytest.raises(ValueError, match=r"a rule is \(name, norm, bound\), as in \('far', 'l2', 2.0\)"):
                question(ds, kinds=kinds)


def test_a_number_of_columns_or_steps_is_whole():
    ds = analysis.simulate.with_last_motion([1], total_steps=9)
    with pytest.raises(ValueError, match=r"columns must be a whole number, not 2.5"):
        analysis.stratigraphy(ds, columns=2.5)
    with pytest.raises(ValueError, match=r"every must be a whole number of steps, not 2.5"):
        analysis.verdicts(ds, every=2.5)
