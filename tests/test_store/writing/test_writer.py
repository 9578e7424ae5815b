import json
import os
import sys
import threading

import numpy as np
import pytest
import store_cases
import tiny_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_until

import store
from store.errors import DifferenceError, LockedError, NotATrajectoryError, RowError, RunExistsError, WriterError
from store.format import chunking
from store.format.schema import Channel
from store.run.commit import read_commit


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(chunking, "BLOCK_STEPS", 8)


@pytest.mark.parametrize("steps", [0, 1, 7, 8, 9, 40])
def test_what_was_appended_is_what_is_read(tmp_path, steps):
    states = tiny_runs.weights(steps)
    run = tiny_runs.record(tmp_path / "run", states)
    tiny_runs.assert_holds(run, states)
    ds = store.open_trajectory(run)
    assert ds.attrs["completed"] is True
    assert ds.attrs["committed_steps"] == steps
    assert ds.attrs["motion_threshold"] == 0.1
    assert ds.token.values.tolist() == [0, 2, 4, 6, 8]
    assert ds.dead_mask.values.tolist() == [True, False] * 5
    np.testing.assert_array_equal(ds.largest.values, np.nanmax(ds["size"].values, axis=0, initial=0))
    assert json.loads((run / "metadata.json").read_text()) == {"largest": float(ds.largest.max())}


@pytest.mark.parametrize("cut", [False, True])
def test_the_words_of_an_end_are_not_those_of_a_run_that_went_on_from_it(tmp_path, cut):
    states = tiny_runs.weights(9)
    run = tiny_runs.record(tmp_path / "run", states[:7])
    with tiny_runs.resume(run) as writer:
        writer.complete()  # at the same end: the words stay true
    assert "metadata.json" in read_commit(run).sha256
    with tiny_runs.resume(run, **({"from_step": 4, "cut": True} if cut else {})) as writer:
        tiny_runs.fill(writer, states, stop=7 if cut else 10)
        writer.complete()
    assert "metadata.json" not in read_commit(run).sha256
    assert store.open_trajectory(run).completed


def test_what_is_told_of_a_run_is_there_from_the_next_commit_on_and_stays(tmp_path):
    states = tiny_runs.weights(9)
    with tiny_runs.create(tmp_path / "run", states) as writer:
        writer.tell({"before": 1, "motion_threshold": 0.2})
        tiny_runs.fill(writer, states, stop=3)
        writer.commit()
        first = store.open_trajectory(tmp_path / "run").attrs
        writer.tell({"told": 1})
        writer.tell({"told": 2})
        assert (writer.attributes["told"], "told" in first) == (2, False)
        tiny_runs.fill(writer, states, stop=5)
        writer.commit()
        assert store.open_trajectory(tmp_path / "run").attrs["told"] == 2
        for no_json in ({"x": float("nan")}, {"x": object()}):
            with pytest.raises((TypeError, ValueError)):
                writer.tell(no_json)
        writer.tell({"last": 3})  # and no row after it
    with tiny_runs.resume(tmp_path / "run", from_step=2) as writer:
        assert writer.attributes["last"] == 3
        writer.tell({"of the second": 4})
        tiny_runs.fill(writer, states)
    ds = store.open_trajectory(tmp_path / "run")
    told = [ds.attrs[name] for name in ("before", "motion_threshold", "told", "last", "of the second")]
    assert told == [1, 0.2, 2, 3, 4]
    tiny_runs.assert_holds(tmp_path / "run", states)
    with pytest.raises(WriterError, match="closed"):
        writer.tell({"too late": 5})


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(
    steps=st.integers(1, 30),
    seed=st.integers(0, 3),
    events=st.lists(st.tuples(st.sampled_from(["commit", "resume", "go back"]), st.floats(0, 1)), max_size=6),
)
def test_bytes_do_not_depend_on_commits_and_interruptions(tmp_path_factory, steps, seed, events):
    folder = tmp_path_factory.mktemp("runs")
    states = tiny_runs.weights(steps, seed=seed)
    unbroken = tiny_runs.record(folder / "unbroken", states)
    writer = tiny_runs.create(folder / "broken", states)
    for event, share in sorted(events, key=lambda pair: pair[1]):
        tiny_runs.fill(writer, states, stop=1 + round(share * steps))
        if event == "commit":
            writer.commit()
        else:
            writer.close()
            at = None if event == "resume" else round(share * writer.steps)
            writer = tiny_runs.resume(folder / "broken", from_step=at)
    tiny_runs.fill(writer, states)
    writer.complete()
    assert writer.difference is None
    assert tiny_runs.files(folder / "broken") == tiny_runs.files(unbroken)


@pytest.mark.parametrize("tile", [1, 2, 5])
def test_tokens_are_cut_into_tiles(tmp_path, monkeypatch, tile):
    monkeypatch.setattr(chunking, "CHUNK_BYTES", tile * 3 * 2 * 8)
    states = tiny_runs.weights(20)
    run = tiny_runs.record(tmp_path / "run", states)
    assert store.open_trajectory(run).W.data.chunksize == (8, tile, 3)
    tiny_runs.assert_holds(run, states)
    assert store.check(run, derive=tiny_runs.derive, finish=tiny_runs.finish, agree=tiny_runs.agree).is_whole


def test_a_row_may_be_made_where_it_is_kept(tmp_path):
    states = tiny_runs.weights(40)
    run = tiny_runs.record(tmp_path / "run", states)
    writer = tiny_runs.create(tmp_path / "made there", states)
    assert writer.room("no such channel") is None
    for step, rows in enumerate(states):
        room = writer.room("W")
        room[...] = 0xFFFF  # a row that was begun and given up
        room = writer.room("W")
        room[...] = rows
        if step == 5:
            with pytest.raises(RowError):
                writer.append(W=room)
        writer.append(**{**tiny_runs.row(states, step), "W": room})
        assert np.shares_memory(writer.last_row("W"), room)
    writer.complete()
    assert tiny_runs.files(tmp_path / "made there") == tiny_runs.files(run)


@pytest.mark.parametrize("why", ["a forked child cannot write", "the writer is closed"])
def test_a_writer_that_takes_no_rows_has_no_room_for_one(tmp_path, monkeypatch, why):
    """A child of a fork would wait for ever for the writer's thread, which it does not have."""
    with tiny_runs.create(tmp_path / "run", tiny_runs.weights(3)) as writer:
        if "fork" in why:
            monkeypatch.setattr(os, "getpid", lambda: -1)
        else:
            writer.close()
        with pytest.raises(WriterError, match=why):
            writer.room("W")
        monkeypatch.undo()


def test_repeated_steps_are_compared_and_a_difference_replaces_what_follows(tmp_path):
    states, other = tiny_runs.weights(30), tiny_runs.weights(30)
    other[20:] += 1
    run = tiny_runs.record(tmp_path / "run", states)
    early = store.open_trajectory(run)
    options = {"from_step": 10}
    writer = tiny_runs.resume(run, on_difference="raise", **options)
    tiny_runs.fill(writer, other, stop=24)
    with pytest.raises(DifferenceError, match="step 20: "):
        writer.commit()
    tiny_runs.assert_holds(run, states)
    with tiny_runs.resume(run, **options) as writer:
        tiny_runs.fill(writer, other, stop=15)
        assert writer.committed_steps == 30
        tiny_runs.fill(writer, other)
        writer.complete()
    assert "step 20: " in writer.difference
    tiny_runs.assert_holds(run, other)
    assert tiny_runs.files(run) == tiny_runs.files(tiny_runs.record(tmp_path / "unbroken", other))
    with pytest.raises(store.errors.StaleHandleError, match="open it again"):
        early.W.values  # noqa: B018 - reading is the point


def test_a_cut_drops_what_is_newer_at_once(tmp_path):
    states = tiny_runs.weights(30)
    run = tiny_runs.record(tmp_path / "run", states)
    tiny_runs.resume(run, from_step=11, cut=True).close()
    tiny_runs.assert_holds(run, states[:12])
    assert "largest" not in store.open_trajectory(run)
    assert store.open_trajectory(run).attrs["completed"] is False


def test_steps_out_of_the_commit_cannot_be_gone_on_from(tmp_path):
    run = tiny_runs.record(tmp_path / "run", tiny_runs.weights(5))
    for step, cut in ((-2, False), (6, False), (-1, True)):
        with pytest.raises(ValueError, match="committed up to 5"):
            tiny_runs.resume(run, from_step=step, cut=cut)


@pytest.mark.parametrize("stop", [21, 31])
def test_a_finished_run_whose_steps_came_again_is_as_it_was(tmp_path, stop):
    states = tiny_runs.weights(30)
    run = tiny_runs.record(tmp_path / "run", states)
    before = store_cases.files(run)
    with tiny_runs.resume(run, from_step=10) as writer:
        tiny_runs.fill(writer, states, stop=stop)
        writer.commit()
        assert writer.committed_steps == 30
    assert store.open_trajectory(run).attrs["completed"]
    assert store_cases.files(run) == before  # but for the writer that came


def test_all_steps_can_be_compared_again(tmp_path):
    states = tiny_runs.weights(30)
    run = tiny_runs.record(tmp_path / "run", states[:21])
    with tiny_runs.resume(run, from_step=-1, on_difference="raise") as writer:
        tiny_runs.fill(writer, states)
        writer.complete(lambda _: {})
    tiny_runs.assert_holds(run, states)


def test_channels_with_a_schedule_have_an_axis_of_their_own(tmp_path):
    table = (
        Channel("W", ("token", "hidden"), "uint16"),
        Channel("m", ("token", "hidden"), "float32", every=3),
        Channel("early", (), "float32", until=9, belongs_to="move"),
    )
    run, states = tmp_path / "run", tiny_runs.weights(40, tokens=4, hidden=2)

    def rows(step):
        row = {"W": states[step]}
        if step % 3 == 0:
            row["m"] = np.full((4, 2), step, np.float32)
        if step <= 9:
            row["early"] = step or None
        return row

    def create(folder):
        return store.TrajectoryWriter.create(
            folder, channels=table, tokens=np.arange(4), hidden=2, disk=tiny_runs.QUICK
        )

    with create(run) as writer:
        for step in range(26):
            writer.append(**rows(step))
    with tiny_runs.resume(run, from_step=14) as writer:
        with pytest.raises(RowError, match="step 15 needs a row of m"):
            writer.append(W=states[15])
        for step in range(15, 41):
            writer.append(**rows(step))
    assert writer.difference is None
    ds = store.open_trajectory(run)
    assert ds.step_m.values.tolist() == list(range(0, 41, 3))
    assert ds.m.dims == ("step_m", "token", "hidden")
    assert (ds.m.values[:, 0, 0] == ds.step_m.values).all()
    np.testing.assert_array_equal(ds.early.values, [np.nan, *range(1, 10)])
    np.testing.assert_array_equal(ds.W.values, states)
    assert store.check(run).is_whole
    with create(tmp_path / "unbroken") as writer:
        for step in range(41):
            writer.append(**rows(step))
    assert tiny_runs.files(run) == tiny_runs.files(tmp_path / "unbroken")


def test_rows_that_do_not_fit_are_refused_and_nothing_is_recorded(tmp_path):
    states = tiny_runs.weights(3)
    good = tiny_runs.row(states, 0)
    with tiny_runs.create(tmp_path / "run", states) as writer:
        for bad, message in [
            ({"W": states[0].astype(np.int32)}, "W is int32"),
            ({"W": states[0][:2]}, "expected uint16"),
            ({"centroid": 3.0}, "centroid is float64"),
            ({"loss": [1.0, 2.0]}, r"loss is float32\[2\]"),
            ({"extra": 1}, "no extra"),
        ]:
            with pytest.raises(RowError, match=message):
                writer.append(**(good | bad))
        with pytest.raises(RowError, match="needs a row of loss"):
            writer.append(W=good["W"], centroid=good["centroid"])
        assert writer.steps == -1
        tiny_runs.fill(writer, states)
    tiny_runs.assert_holds(tmp_path / "run", states)


def test_a_number_is_stored_as_it_is_or_refused(tmp_path):
    table = (Channel("count", (), "uint8"), Channel("flag", (), "bool"), Channel("loss", (), "float32"))
    good = {"count": 255, "flag": True, "loss": 0.1}
    with store.TrajectoryWriter.create(
        tmp_path / "run", channels=table, tokens=np.arange(1), disk=tiny_runs.QUICK
    ) as writer:
        for name, bad in (("count", 256), ("count", -1), ("count", 2.5), ("count", float("nan")), ("flag", 2)):
            with pytest.raises(RowError, match=f"{name} is .* which cannot hold"):
                writer.append(**(good | {name: bad}))
        writer.append(**good)
        writer.append(**(good | {"count": np.float32(7), "flag": 0}))
    ds = store.open_trajectory(tmp_path / "run")
    assert ds["count"].values.tolist() == [255, 7]
    assert ds.flag.values.tolist() == [True, False]
    assert ds.loss.values.tolist() == [np.float32(0.1)] * 2


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        ([Channel("W", ("token",), "uint16"), Channel("W", ("token",), "uint16")], {}, "unique"),
        ([Channel("step", (), "int64")], {}, "unique"),
        ([Channel("parameters", (), "int64")], {}, "unique"),
        ([Channel("w", ("token",), "uint16"), Channel("W", ("token",), "uint16")], {}, "'w' and 'W' differ in upper"),
        ([Channel("Step", (), "int64")], {}, "'step' and 'Step' differ in upper"),
        ([Channel("W", ("feature",), "uint16")], {}, "no size"),
        ([Channel("d", ("hidden",), "float32", role="derived")], {"derive": dict}, "needs a token axis"),
        ([Channel("g", ("token",), "float32", every=2)], {}, "g follow a schedule, and nothing is kept of every step"),
        ([Channel("d", ("token",), "float32", role="derived")], {}, "no derive"),
        ([Channel("s", ("token",), "bool", role="static")], {}, "no array"),
        ([Channel("s", ("token",), "bool", role="static")], {"statics": {"s": np.zeros(9, bool)}}, "does not fit"),
        ([Channel("s", ("token",), "bool", role="static")], {"statics": {"s": np.zeros(2)}}, "float64"),
        ([], {"statics": {"s": np.zeros(2)}}, "without a static channel"),
        ([], {"tokens": [0.5, 2.0]}, "whole numbers"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, channels, options, message):
    with pytest.raises(RowError, match=message):
        store.TrajectoryWriter.create(tmp_path / "run", channels=channels, **({"tokens": np.arange(2)} | options))


def test_nothing_is_overwritten(tmp_path):
    states = tiny_runs.weights(2)
    run = tiny_runs.record(tmp_path / "run", states)
    with pytest.raises(RunExistsError, match="there is a run already"):
        tiny_runs.create(run, states)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RunExistsError, match=r"thesis\.tex"):
        tiny_runs.create(tmp_path / "other", states)
    with pytest.raises(RunExistsError, match="is a file"):
        tiny_runs.create(tmp_path / "other" / "thesis.tex", states)
    with pytest.raises(NotATrajectoryError):
        store.TrajectoryWriter.resume(tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_a_run_without_a_commit_can_be_restarted(tmp_path):
    states = tiny_runs.weights(3)
    tiny_runs.create(tmp_path / "run", states, config={"seed": 1}).close()
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 1}
    with pytest.raises(RunExistsError, match="never committed"):
        tiny_runs.create(tmp_path / "run", states)
    left = tmp_path / "run" / "checkpoint" / "step-0"  # written just before the commit that a kill prevented
    left.mkdir(parents=True)
    (left / "state.json").write_text("{}")
    with pytest.raises(RunExistsError, match="never committed"):
        tiny_runs.create(tmp_path / "run", states)
    with tiny_runs.create(tmp_path / "run", states, restart=True) as writer:
        tiny_runs.fill(writer, states)
    assert not left.exists()
    tiny_runs.assert_holds(tmp_path / "run", states)


def test_one_writer_at_a_time(tmp_path):
    states = tiny_runs.weights(3)
    with tiny_runs.create(tmp_path / "run", states) as writer:
        tiny_runs.fill(writer, states)
        writer.commit()
        with pytest.raises(LockedError, match=f"pid {os.getpid()} on "):
            tiny_runs.resume(tmp_path / "run")
    tiny_runs.resume(tmp_path / "run").close()


def test_a_failing_derive_is_raised_and_the_run_is_whole(tmp_path):
    states = tiny_runs.weights(30)

    def failing(previous, rows):
        if rows["W"].max(initial=0) >= states[20].max():  # the first commit may be of step 0 alone
            raise ZeroDivisionError("derive broke")
        return tiny_runs.derive(previous, rows)

    writer = store.TrajectoryWriter.create(
        tmp_path / "run", channels=tiny_runs.TABLE[:5], derive=failing, tokens=np.arange(5), hidden=3
    )
    with pytest.raises(WriterError, match="derive broke"):  # noqa: PT012 - at which append is a matter of threads
        for step in range(31):
            writer.append(**tiny_runs.row(states, step))
        writer.commit()
    with pytest.raises(WriterError):
        writer.append(**tiny_runs.row(states, 5))
    writer.close()
    assert writer.committed_steps == store.open_trajectory(tmp_path / "run").step.values[-1] >= 0


def test_commits_come_with_time(tmp_path):
    states = tiny_runs.weights(3)
    with tiny_runs.create(tmp_path / "run", states, commit_interval_s=0.01) as writer:
        tiny_runs.fill(writer, states)
        wait_until(lambda: writer.committed_steps == 3)


def test_a_checkpoint_is_named_by_the_first_commit_that_reaches_it_and_the_one_before_is_kept(tmp_path):
    states = tiny_runs.weights(40)
    folder = tmp_path / "run" / "checkpoint"
    with tiny_runs.create(tmp_path / "run", states) as writer:
        tiny_runs.fill(writer, states, stop=6)
        writer.checkpoint(5, {"state.json": b"five"})
        writer.checkpoint(12, {"state.json": b"twelve"})
        writer.commit()
        assert [path.name for path in folder.iterdir()] == ["step-5"]
        tiny_runs.fill(writer, states, stop=20)
        writer.commit()
        assert sorted(path.name for path in folder.iterdir()) == ["step-12", "step-5"]
        assert store.open_trajectory(tmp_path / "run").attrs["checkpoint"] == "step-12"
        writer.checkpoint(19, {"state.json": b"nineteen"})
    assert sorted(path.name for path in folder.iterdir()) == ["step-12", "step-19"]
    assert (folder / "step-12" / "state.json").read_bytes() == b"twelve"
    assert store.check(tmp_path / "run").is_whole
    tiny_runs.resume(tmp_path / "run", from_step=15, cut=True).close()
    assert [path.name for path in folder.iterdir()] == ["step-12"]
    assert store.open_trajectory(tmp_path / "run").attrs["checkpoint"] == "step-12"
    tiny_runs.resume(tmp_path / "run", from_step=10, cut=True).close()
    assert not list(folder.iterdir())
    assert store.check(tmp_path / "run").is_whole


def test_of_several_checkpoints_a_commit_takes_the_newest_that_it_reaches(tmp_path):
    states = tiny_runs.weights(40)
    with tiny_runs.create(tmp_path / "run", states) as writer:
        tiny_runs.fill(writer, states, stop=7)
        for step in (2, 5, 4, 12):  # in whatever order they come
            writer.checkpoint(step, {"state.json": str(step).encode()})
        writer.commit()
        assert store.open_trajectory(tmp_path / "run").attrs["checkpoint"] == "step-5"
        assert (tmp_path / "run" / "checkpoint" / "step-5" / "state.json").read_bytes() == b"5"
        tiny_runs.fill(writer, states, stop=10)
        writer.commit()
        assert store.open_trajectory(tmp_path / "run").attrs["checkpoint"] == "step-5"
    assert store.check(tmp_path / "run").is_whole


def test_attributes_given_at_a_resume_are_kept_though_no_row_follows(tmp_path):
    run = tiny_runs.record(tmp_path / "run", tiny_runs.weights(5))
    before = tiny_runs.files(run)
    tiny_runs.resume(run, attributes={"motion_threshold": 0.7}).close()
    assert store.open_trajectory(run).attrs["motion_threshold"] == 0.7
    assert store.open_trajectory(run).attrs["completed"]
    assert tiny_runs.files(run) == before


def test_a_run_goes_on_past_its_end(tmp_path):
    states = tiny_runs.weights(20)
    run = tiny_runs.record(tmp_path / "run", states[:11], config={"total_steps": 10})
    options = {"derive": tiny_runs.derive, "finish": tiny_runs.finish}
    with tiny_runs.resume(run, config={"total_steps": 20}, attributes={"motion_threshold": 0.5}) as writer:
        tiny_runs.fill(writer, states, stop=13)
        writer.commit()
        assert store.open_trajectory(run).attrs["completed"] is False
        tiny_runs.fill(writer, states)
        writer.complete(lambda finals: {"largest": float(finals["largest"].max())})
    whole = tiny_runs.record(tmp_path / "whole", states, config={"total_steps": 20})
    assert tiny_runs.files(run) == tiny_runs.files(whole)
    assert (run / "config.json").read_bytes() == (whole / "config.json").read_bytes()
    assert store.open_trajectory(run).attrs["motion_threshold"] == 0.5
    assert store.check(run, **options).is_whole


def test_none_is_refused_where_no_number_could_say_it(tmp_path):
    """An integer has no NaN: a zero in its place would be taken for a count."""
    table = [store.Channel("count", (), "int64"), store.Channel("clock", (), "int64", belongs_to="move")]
    with store.TrajectoryWriter.create(tmp_path / "run", channels=table, tokens=[1, 2], hidden=1) as writer:
        writer.append(count=0, clock=None)  # no update leads to step 0
        for rows in ({"count": None, "clock": 1}, {"count": 1, "clock": None}):
            with pytest.raises(RowError, match=r"is int64, in which nothing stands for 'none'"):
                writer.append(**rows)
        writer.append(count=1, clock=1)
    assert store.open_trajectory(tmp_path / "run")["count"].values.tolist() == [0, 1]


class EveryCall:
    """Interrupts an append at its nth call or return of a function of Python's, as Ctrl-C may."""

    def __init__(self, nth):
        self.left = nth

    def __call__(self, _frame, event, _):
        if event in ("call", "return"):
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


@pytest.mark.slow
def test_an_interrupt_anywhere_in_an_append_leaves_a_writer_that_can_be_closed(tmp_path):
    states, nth, was_interrupted = tiny_runs.weights(1), 0, True
    while was_interrupted:
        nth, was_interrupted = nth + 1, False
        writer = tiny_runs.create(run := tmp_path / str(nth), states)
        sys.settrace(EveryCall(nth))
        try:
            writer.append(**tiny_runs.row(states, 0))
        except KeyboardInterrupt:
            was_interrupted = True
        finally:
            sys.settrace(None)
        closing = threading.Thread(target=writer.close, daemon=True)
        closing.start()
        closing.join(timeout=20)
        assert not closing.is_alive(), f"interrupted at {nth}"
        if writer.steps == 0:
            np.testing.assert_array_equal(store.open_trajectory(run).W.values, states[:1])
    assert nth > 5
