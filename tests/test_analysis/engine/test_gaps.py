"""Steps that are missing between others: what is answered for those that are there, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from analysis_loops import LOOPS, assert_is_the_loop
from analysis_oracles import SOURCES, Trajectory, cut, trajectories
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
from analysis import plots, simulate
from analysis.engine.reduction import Answer, Reduction, reduce
from analysis.engine.trajectory import trajectory_of

COUNT_STEPS = ["census", "cooling", "end_state", "lifecycle", "stillness", "stratigraphy", "token_stillness"]
ANSWER = [name for name in LOOPS if name not in COUNT_STEPS]
OF_MOVES = ["fimbulwinter", "freeze_times", "last_motion", "moved"]


def a_walk(steps=60):
    rng = np.random.default_rng(8)
    moves = rng.integers(-2, 3, (steps, 3, 2)) * (rng.random((steps, 3, 1)) < 0.2)
    return Trajectory((0x3FC0 + np.cumsum(moves, axis=0)).astype(np.uint16))


def some_steps(known, at):
    """The Dataset of a whole run with these positions selected, and what the loops are asked of."""
    return known.dataset().isel(step=at), Trajectory(known.bits[at], steps=np.array(known.steps)[at].tolist())


SELECTIONS = {"every third": slice(None, None, 3), "two stretches": [*range(5, 12), *range(40, 60)]}


@pytest.mark.default_cases(6)
@pytest.mark.parametrize("at", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("name", ANSWER)
def test_of_steps_with_gaps_the_answer_is_that_of_the_states_that_are_there(name, at):
    ds, known = some_steps(a_walk(), at)
    for asked in (ds, ds.chunk(step=4, token=2)):
        answer = getattr(analysis, name)(asked).compute()
        assert_is_the_loop(name, answer, known)
        if name != "weights":
            assert answer.attrs["resolution_steps"] == np.diff(known.steps).max()


@pytest.mark.parametrize("at", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("name", COUNT_STEPS)
def test_what_counts_single_steps_refuses_gaps_with_what_can_be_asked(name, at):
    ds, known = some_steps(a_walk(), at)
    here, there = next((a, b) for a, b in zip(known.steps, known.steps[1:], strict=False) if b - a > 1)
    said = f"step {there} follows step {here}: this question counts single steps.*last_motion, freeze_times"
    for asked in (ds, ds[["W"]]):
        with pytest.raises(ValueError, match=said):
            getattr(analysis, name)(asked)


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", LOOPS)
def test_of_a_run_that_begins_in_the_middle_of_a_training_the_answer_names_its_own_steps(name):
    known = Trajectory(a_walk().bits, steps=list(range(1005, 1065)))
    for asked in (known.dataset(), known.dataset().chunk(step=7, token=2)):
        assert_is_the_loop(name, getattr(analysis, name)(asked).compute(), known)


@pytest.mark.slow
@given(trajectories(), st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_is_stored_of_moves_belongs_to_single_steps_and_is_not_taken(known, data):
    ahead = data.draw(st.lists(st.integers(1, 600), min_size=len(known.steps) - 1, max_size=len(known.steps) - 1))
    known = Trajectory(known.bits, tokens=known.tokens, steps=np.cumsum([7, *ahead]).tolist())
    ds = known.dataset(stored=data.draw(st.sampled_from(SOURCES)))
    if max(ahead, default=1) > 1:
        for name in ds.data_vars.keys() - {"W"}:
            ds[name][:] = data.draw(st.sampled_from([0, 5, np.nan]))
    found = analysis.last_motion(data.draw(cut(ds)))
    assert found.last_motion.values.tolist() == [known.last(i) for i in range(len(known.tokens))]
    assert (int(found.nonfinite), int(found.first_nonfinite)) == known.nonfinite()
    assert found.attrs["resolution_steps"] == max(ahead, default=1)


def test_a_move_between_two_states_that_are_there_is_seen_and_one_that_was_undone_is_not():
    ds = simulate.with_moving_steps([5, 9, 10], total_steps=16, size=1)  # up at 5, down at 9, up at 10
    thin = ds.isel(step=slice(None, None, 4))
    assert not thin.displacement_l2[1:].any(), "the norms stored at these steps know of nothing"
    assert analysis.last_motion(thin).last_motion.values.tolist() == [8]
    assert analysis.moved(thin).values.ravel().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("name", OF_MOVES)
def test_without_weights_moves_across_a_gap_are_refused(name):
    ds = a_walk().dataset(stored=("delta_W_prime", "l2")).isel(step=slice(None, None, 5))
    for kept in (ds, ds[["delta_W_prime"]], ds[["displacement_l2"]]):
        with pytest.raises(ValueError, match=r"belongs to single steps, .* up to 5 steps apart, and there is no W"):
            getattr(analysis, name)(kept)


def test_the_drift_of_a_centroid_needs_no_weights():
    ds = simulate.with_last_motion([9, 20], total_steps=30).isel(step=slice(None, None, 5))
    told = analysis.drift(ds.drop_vars(["W", "delta_W_prime"]))
    assert "nonfinite" not in told
    assert told.equals(analysis.drift(ds).drop_vars(["nonfinite", "first_nonfinite"]))
    assert int(told.frozen_steps) == 2  # labels 25 and 30
    assert told.attrs["resolution_steps"] == 5


@pytest.mark.parametrize("name", [name for name in LOOPS if name != "weights"])
def test_where_no_step_is_missing_the_resolution_is_one_step(name):
    ds = a_walk().dataset().isel(step=slice(3, 50))
    assert getattr(analysis, name)(ds).attrs["resolution_steps"] == 1
    assert analysis.compare(ds, ds).attrs["resolution_steps"] == 1


def test_two_runs_are_compared_at_the_labels_that_both_have_and_the_answer_says_how_far_apart_these_are():
    a, b = (simulate.with_last_motion([last], total_steps=60) for last in (30, 50))
    told = analysis.compare(a.isel(step=slice(None, None, 10)), b)
    assert (int(told.compared), int(told.equal_steps), int(told.step)) == (7, 4, 40)
    assert told.attrs["resolution_steps"] == 10


def test_a_warning_that_nothing_moved_says_what_was_seen():
    ds = simulate.with_moving_steps([], total_steps=20).isel(step=[0, 10, 20])
    with pytest.warns(UserWarning, match="no token moved at steps 1 to 20, seen up to 10 steps apart"):
        analysis.fimbulwinter(ds).compute()


def largest(block):
    d = block["delta_W_prime"][block.is_move]
    return {"largest": np.abs(d).max(initial=0)}


def larger(one, other):
    return {"largest": max(one["largest"], other["largest"])}


def as_it_is(partial, _span):
    return partial


def test_a_question_of_ones_own_says_whether_it_may_be_asked_over_gaps():
    ds = simulate.with_motion([[1]] * 5).isel(step=[0, 1, 5])  # one cell up and down in turn
    gives = {"largest": Answer((), "float32", "largest move", "cell")}
    asked = {"needs": ("delta_W_prime",), "keeps": None, "chunk": largest, "combine": larger, "finish": as_it_is}
    with pytest.raises(ValueError, match="step 5 follows step 1: this question counts single steps"):
        reduce(ds, Reduction("largest", gives=gives, **asked))
    told = reduce(ds, Reduction("largest", gives=gives, over_gaps=True, **asked))
    assert float(told.largest) == 1
    assert reduce(ds.isel(step=[1, 2]), Reduction("largest", gives=gives, over_gaps=True, **asked)).largest == 0


@pytest.mark.parametrize("picture", ["survival", "drift", "cloud"])
def test_pictures_of_what_is_answered_are_drawn(picture):
    ask = analysis.freeze_times if picture == "survival" else getattr(analysis, picture)
    getattr(plots, picture)(ask(simulate.with_last_motion([9, 20], total_steps=30).isel(step=[0, 8, 9, 30])))


def test_labels_of_a_file_with_gaps_are_those_of_the_answers():
    bits = np.array([0x3F80, 0x3F80, 0x3F81, 0x3F81], np.uint16).reshape(4, 1, 1)
    ds = xr.Dataset({"W": (("step", "token", "hidden"), bits)}, {"step": [0, 500, 1000, 1500]})
    assert int(analysis.freeze_times(ds)["latest"]) == 1000
    assert analysis.freeze_times(ds).survival.values.tolist() == [1, 1, 0, 0]
    assert analysis.plain(analysis.fimbulwinter(ds))["fimbulwinter_duration"] == 500


def as_opened(ds):
    """With labels that are a range, as a run has them that its own reader opened."""
    step = xr.Variable("step", pd.RangeIndex(ds.sizes["step"]), ds.step.attrs)
    return ds.assign_coords(step=step).assign_attrs(run="runs/mine")


RENUMBERED = {
    "other labels": lambda thin: thin.assign_coords(step=range(thin.sizes["step"])),
    "no labels": lambda thin: thin.drop_vars("step"),
    "computed labels": lambda thin: thin.assign_coords(step=thin.step // 4),
    "no attributes": lambda thin: thin.assign_coords(step=thin.step // 4).drop_attrs(),
}


@pytest.mark.parametrize("renumbered", RENUMBERED.values(), ids=RENUMBERED)
def test_of_states_that_were_selected_and_numbered_anew_the_moves_are_those_between_them(renumbered):
    ds = as_opened(simulate.with_moving_steps([2, 7, 14], total_steps=16, size=1))
    asked = renumbered(ds.isel(step=slice(None, None, 4)))
    assert analysis.moved(asked).values.ravel().tolist() == [False, True, True, False, True]
    assert analysis.stillness(asked).run_count == 1
    assert analysis.last_motion(asked).last_motion.values.tolist() == [4]


AS_BEFORE = {
    "thinned": lambda ds: ds.isel(step=slice(None, None, 4)),
    "in another order": lambda ds: ds.isel(step=[0, *range(17, 0, -1)]),
    "from the end": lambda ds: ds.isel(step=slice(None, 0, -1)),
    "with an early part left out": lambda ds: ds.isel(step=[0, *range(7, 17)]),
}


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("selected", AS_BEFORE.values(), ids=AS_BEFORE)
def test_states_that_got_labels_of_the_run_anew_are_not_asked_by_the_moves_of_others(selected, norm):
    ds = as_opened(simulate.with_moving_steps([2, 7, 14, 15, 17], total_steps=17, size=1))
    some = selected(ds)
    asked = some.assign_coords(step=ds.step[: some.sizes["step"]])
    for chunked in (asked, asked.chunk(step=2), asked.load()):
        with pytest.raises(ValueError, match=r"the weights before and after are . cells apart.*in ds\[\['W'\]\]"):
            analysis.last_motion(chunked, norm=norm).last_motion.load()
    analysis.last_motion(asked[["W"]], norm=norm).load()


@pytest.mark.parametrize("question", ["cooling", "census", "stillness", "moved"])
def test_norms_that_a_run_does_not_keep_are_made_of_its_weights_for_all_questions(question):
    ds = as_opened(simulate.with_moving_steps([2, 7, 14], total_steps=16, size=2))
    some = ds.isel(step=slice(3, None), token=[1])
    found, expected = (getattr(analysis, question)(each).load() for each in (some[["W"]], some))
    assert found.drop_attrs(deep=False).equals(expected.drop_attrs(deep=False))


def test_a_slice_that_is_numbered_from_its_first_state_on_keeps_its_moves():
    ds = as_opened(simulate.with_moving_steps([2, 7, 14], total_steps=16, size=1))
    asked = ds.isel(step=slice(5, 15)).assign_coords(step=ds.step[:10])
    assert analysis.last_motion(asked).last_motion.values.tolist() == [9]


JOINED = {"data_vars": "minimal", "coords": "minimal", "compat": "override"}
SAME = {
    "a slice": lambda ds: ds.isel(step=slice(3, 9)),
    "two halves": lambda ds: xr.concat([ds.isel(step=slice(9)), ds.isel(step=slice(9, None))], "step", **JOINED),
    "a copy in memory": lambda ds: ds.copy().load(),
    "other chunks": lambda ds: ds.chunk({"step": 3}),
    "a mask": lambda ds: ds.isel(step=(ds.step > 4).values),
}


@pytest.mark.parametrize("attribute", ["run", "run_id"])
def test_labels_that_were_read_from_a_file_are_those_of_the_recording_until_they_are_computed(attribute, tmp_path):
    ds = simulate.with_moving_steps([2, 7, 14], total_steps=16, size=1).assign_attrs({attribute: "mine"})
    ds.assign_attrs(completed=1).to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "copy.nc", engine="h5netcdf") as copy:
        for selected in (copy, *(select(copy) for select in SAME.values())):
            assert trajectory_of(selected).has_recorded_labels
        thin = copy.isel(step=slice(None, None, 4))
        computed = thin.assign_coords(step=thin.step // 4)
        assert not trajectory_of(computed).has_recorded_labels
        assert analysis.moved(computed).values.ravel().tolist() == [False, True, True, False, True]


def test_the_last_move_is_not_made_again_where_the_last_step_of_a_run_is_repeated(tmp_path):
    ds = simulate.with_moving_steps([2, 7, 16], total_steps=16, size=1).assign_attrs(run_id="mine", completed=1)
    ds.to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "copy.nc", engine="h5netcdf") as copy:
        longer = copy.reindex(step=range(20), method="ffill")
        assert analysis.last_motion(longer).last_motion.values.tolist() == [16]
        assert analysis.stillness(longer).longest.values[:4].tolist() == [8, 4, 3, 1]


REPEATED = {
    "behind the end": lambda ds: ds.isel(step=slice(10)).reindex(step=range(12), method="ffill"),
    "within": lambda ds: ds.isel(step=[0, 1, 2, 3, 4, 7, 8]).reindex(step=range(9), method="ffill"),
    "an array of labels": lambda ds: ds.isel(step=[0, 4, 9]).reindex(step=np.arange(10), method="ffill"),
    "from its first state on": lambda ds: ds.isel(step=[4, 9]).reindex(step=range(4, 12), method="ffill"),
    "of one step a chunk": lambda ds: ds.isel(step=slice(10)).reindex(step=range(12), method="ffill").chunk(step=1),
}


@pytest.mark.parametrize("repeated", REPEATED.values(), ids=REPEATED)
def test_a_state_that_was_repeated_with_its_move_does_not_move_again(repeated, tmp_path):
    """Labels of a range, and those that plain xarray read from a file, stay those of the recording then."""
    ds = simulate.with_moving_steps([2, 4, 9], total_steps=20, size=2).assign_attrs(run="runs/mine")
    ds.assign_attrs(completed=1).to_netcdf(tmp_path / "copy.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "copy.nc", engine="h5netcdf") as copy:
        for opened in (copy, as_opened(ds)):
            asked = repeated(opened)
            bits = asked.W.values
            last = int(asked.step.values[1:][(bits[1:] != bits[:-1]).any(axis=(1, 2))].max())
            try:
                assert analysis.last_motion(asked).last_motion.values.max() == last
            except ValueError as error:
                assert "the weights before and after are" in str(error)  # noqa: PT017 - what it says is not asked
            assert analysis.last_motion(asked[["W"]]).last_motion.values.max() == last


def test_a_move_of_the_same_size_as_the_one_before_is_a_move():
    ds = simulate.with_moving_steps([2, 3, 4, 7, 8], total_steps=12, size=2).assign_attrs(run="runs/mine")
    for asked in (ds, ds.chunk(step=1), ds.chunk(step=5), ds.isel(step=slice(3, None))):
        assert analysis.stillness(asked.load()).any_motion.values[-9:].nonzero()[0].tolist() == [0, 3, 4]


def test_pushes_of_single_steps_do_not_judge_states_that_were_numbered_anew():
    pushes = np.full((4_000, 1), 0.1)
    pushes[[step - 1 for step in (20, 40, 60, 80, 100, 120)]] = 1.5
    ds = simulate.with_pushes(pushes)
    assert not analysis.end_state(ds).attrs["no_push"]
    tenths = ds.isel(step=slice(None, None, 10))
    told = analysis.end_state(tenths.assign_coords(step=range(tenths.sizes["step"])))
    assert "the labels of steps have lost their attributes" in told.attrs["no_push"]
    assert np.isnan(told.E)


def test_without_w_stored_norms_are_taken_whatever_the_labels():
    ds = simulate.with_moving_steps([2, 3], total_steps=4, size=1).drop_vars(["W", "delta_W_prime"])
    assert analysis.last_motion(ds.assign_coords(step=range(5))).last_motion.values.tolist() == [3]


@pytest.mark.parametrize("selected", SAME.values(), ids=SAME)
def test_selections_without_a_gap_go_on_with_what_is_stored_of_moves(selected):
    asked = trajectory_of(selected(as_opened(simulate.with_moving_steps([2, 7, 14], total_steps=16, size=1))))
    assert asked.has_recorded_labels
