"""The store against a plain list: append, commit, crash, reopen, resume, replace, cut, read, check, complete.

And what people do to a run's folder: it is removed or replaced under its writer, copied, forked.
"""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import store_cases
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from store_cases import Calls, checkpoint_files, files, patch_blocks, row

import store
from store.disk import LocalDisk
from store.errors import DamageError, DifferenceError, LabelError, RowError, StaleHandleError, WriterError
from store.format.files import TRAJECTORY
from store.run.commit import read_commit
from store.run.shard_file import forget_all

VARIANTS = st.integers(0, 1)
PLACES = st.none() | st.integers(0, 40)
"""Which step to go on from. When the thread commits is not Hypothesis's to say: no rule depends on how far it got."""


class Mortal(Calls):
    """A disk that is lost at some call, as after a kill."""

    def __init__(self):
        super().__init__()
        self.dies_at = None

    def before(self, _name, *_args):
        if self.dies_at is not None and self.count >= self.dies_at:
            raise OSError("the process is dead")


class Machine(RuleBasedStateMachine):
    """The model: `base`, the variant of each committed step when we last knew; `rows`, that of each appended one."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.run = self.folder / "run"
        self.base, self.rows, self.generation = [], [], 0
        self.writer, self.handle = None, None

    def teardown(self):
        if self.writer:
            self.calls.dies_at = None
            self.writer.close()
        shutil.rmtree(self.folder)

    # What must hold

    def difference(self):
        """The first step that was computed again and differs from the stored one, or None."""
        pairs = zip(self.base, self.rows, strict=False)
        return next((step for step, (old, new) in enumerate(pairs) if old != new), None)

    def final(self):
        """What is stored when everything appended is committed."""
        return self.base if self.rows == self.base[: len(self.rows)] else self.rows

    def found(self):
        """The committed steps' variants and the generation, after every row was compared."""
        if not (self.run / TRAJECTORY).exists():
            return [], 0
        commit, arrays = self.read()
        variants = [(int(W[0, 0]) - int(store_cases.state(step)[0, 0])) // 7 for step, W in enumerate(arrays["W"])]
        store_cases.assert_rows(commit, arrays, lambda step: variants[step])
        if not self.writer:
            store_cases.assert_documents(self.run, commit)
        return variants, commit.generation

    def read(self):
        """One commit, read in one go; once more where the run was cut back meanwhile."""
        while True:
            generation = read_commit(self.run).generation
            try:
                commit, arrays = store_cases.stored(self.run)
            except DamageError:
                if read_commit(self.run).generation == generation:
                    raise
            else:
                if read_commit(self.run).generation == generation:
                    return commit, arrays

    def look(self, at_least=0):
        """What lies on disk is one of the states that the model allows just now; answers it."""
        variants, generation = self.found()
        if generation == self.generation:
            known = min(len(variants), len(self.base))
            assert known == len(self.base)
            assert variants[:known] == self.base
            assert len(variants) == known or variants == self.rows[: len(variants)]
        else:
            assert generation == self.generation + 1
            assert self.difference() is not None
            assert len(variants) >= self.difference()
            assert variants == self.rows[: len(variants)]
        assert len(variants) >= at_least
        return variants, generation

    def settle(self, *, exactly):
        """From here on the model knows what lies on disk."""
        wanted, replaced = self.final(), self.difference() is not None
        variants, generation = self.look()
        if exactly:
            assert variants == wanted
            assert generation == self.generation + replaced
        self.base, self.generation = variants, generation

    def step(self, at):
        """The committed step that a drawn place stands for; None for the end."""
        return None if at is None or not self.base else at % len(self.base)

    # What may happen

    def disk(self):
        self.calls = Mortal()
        return LocalDisk(self.calls)

    @initialize(count=st.integers(0, 12), variant=VARIANTS)
    def begin(self, count, variant):
        self.writer = store_cases.create(self.run, disk=self.disk())
        self.append(count, variant)

    @precondition(lambda self: self.writer)
    @rule(count=st.integers(1, 9), variant=VARIANTS)
    def append(self, count, variant):
        for _ in range(count):
            self.rows.append(variant)
            self.writer.append(**row(len(self.rows) - 1, variant))
        assert self.writer.steps == len(self.rows) - 1

    @precondition(lambda self: self.writer)
    @rule()
    def append_what_does_not_fit(self):
        with pytest.raises(RowError):
            self.writer.append(**(row(len(self.rows)) | {"W": np.zeros((1, 1), np.uint16)}))
        assert self.writer.steps == len(self.rows) - 1

    @precondition(lambda self: self.writer)
    @rule(back=st.integers(0, 3))
    def checkpoint(self, back):
        if not self.rows:
            return
        step = max(0, len(self.rows) - 1 - back)
        self.writer.checkpoint(step, checkpoint_files(step))

    @precondition(lambda self: self.writer)
    @rule()
    def commit(self):
        self.writer.commit()
        self.settle(exactly=True)
        assert self.writer.committed_steps == len(self.base) - 1

    @precondition(lambda self: self.writer)
    @rule()
    def close(self):
        self.writer.close()
        self.settle(exactly=True)
        self.writer = None

    @precondition(lambda self: self.writer)
    @rule()
    def complete(self):
        if not self.rows:
            return
        self.writer.complete(lambda finals: {"largest": finals["largest"].tolist()})
        self.settle(exactly=True)
        self.writer = None
        assert store.open_trajectory(self.run).attrs["completed"]
        wanted = np.max([store_cases.state(step, v).max(axis=1) for step, v in enumerate(self.base)], axis=0)
        assert store.open_trajectory(self.run).largest.values.tolist() == wanted.tolist()

    @precondition(lambda self: self.writer)
    @rule(
        calls=st.integers(1, 400),
        count=st.integers(0, 12),
        variant=VARIANTS,
        complete=st.booleans(),
    )
    def crash(self, calls, count, variant, complete):
        self.calls.dies_at = self.calls.count + calls
        said = self.writer.committed_steps
        try:
            for _ in range(count):
                self.rows.append(variant)
                self.writer.append(**row(len(self.rows) - 1, variant))
                said = max(said, self.writer.committed_steps)
            if self.rows and complete:
                self.writer.complete()
            self.writer.close()
        except (WriterError, OSError):
            self.writer.close()
        self.writer = None
        _, generation = self.found()
        self.look(at_least=said + 1 if generation == self.generation else 0)
        self.settle(exactly=False)

    @precondition(lambda self: not self.writer)
    @rule(at=PLACES)
    def reopen(self, at):
        if not self.base:
            self.writer, self.rows = store_cases.create(self.run, disk=self.disk(), restart=True), []
            return
        step = self.step(at)
        self.writer = store_cases.resume(self.run, disk=self.disk(), from_step=step)
        self.rows = list(self.base if step is None else self.base[: step + 1])
        assert self.writer.steps == len(self.rows) - 1

    @precondition(lambda self: not self.writer)
    @rule(at=PLACES, count=st.integers(1, 12), variant=VARIANTS)
    def compute_again(self, at, count, variant):
        self.reopen(at)
        self.append(count, variant)

    @precondition(lambda self: not self.writer)
    @rule(at=PLACES)
    def cut(self, at):
        step = self.step(at)
        if step is None:
            return
        with store_cases.resume(self.run, disk=self.disk(), from_step=step, cut=True):
            self.generation += step + 1 < len(self.base)
            self.base = self.rows = self.base[: step + 1]
            assert self.look() == (self.base, self.generation)

    @precondition(lambda self: not self.writer)
    @rule(at=PLACES, variant=VARIANTS)
    def resume_and_insist(self, at, variant):
        """Steps that differ are refused, and nothing changes."""
        step = self.step(at)
        if step is None:
            return
        again = self.base[: step + 1] + [variant] * (len(self.base) - step - 1)
        writer = store_cases.resume(self.run, disk=self.disk(), from_step=step, on_difference="raise")
        try:
            for repeated in range(step + 1, len(again)):
                writer.append(**row(repeated, variant))
            writer.close()
        except DifferenceError:
            assert again != self.base
            writer.close()
        else:
            assert again == self.base
        assert self.found() == (self.base, self.generation)

    @rule()
    def read_while_it_may_be_written(self):
        self.look()

    @rule()
    def open_and_read(self):
        """An old handle gives its own rows, or says that it is stale."""
        if not (self.run / TRAJECTORY).exists():
            return
        if self.handle is not None:
            ds, opened, values = self.handle
            try:
                assert np.array_equal(ds.jump.values, values, equal_nan=True)
                assert read_commit(self.run).run_id == opened.run_id
            except StaleHandleError:
                assert self.is_another(opened)
        self.handle, opened = None, read_commit(self.run)  # before it is open: the writer's thread may commit just then
        ds = store.open_trajectory(self.run)
        try:
            self.handle = (ds, opened, ds.jump.values)
        except StaleHandleError:
            assert self.is_another(opened)

    def is_another(self, opened):
        """Whether the run was cut or replaced since it stood at this commit."""
        now = read_commit(self.run)
        return now.run_id != opened.run_id or now.generation > opened.generation

    @precondition(lambda self: self.writer)
    @rule(count=st.integers(0, 6), again=st.booleans(), variant=VARIANTS, end=st.sampled_from(["commit", "close"]))
    def remove_and_perhaps_begin_anew_under_the_writer(self, count, again, variant, end):
        """The writer says so and changes nothing; neither does it stand in the way of another."""
        old, self.writer = self.writer, None
        while self.run.exists():
            with suppress(OSError):  # the writer's thread may be at work there
                shutil.rmtree(self.run)
        self.base, self.rows, self.generation = [], [], 0
        if again:
            self.begin(count, variant)
            self.writer.close()
            self.writer = None
            self.settle(exactly=True)
        before = files(self.run)
        with suppress(WriterError):
            for _ in range(5):
                old.append(**row(old.steps + 1))
            getattr(old, end)()
            pytest.fail("the writer noticed nothing")
        old.close()
        assert not old.owns_run
        assert files(self.run) == before

    @precondition(lambda self: not self.writer)
    @rule(keep=st.booleans())
    def go_on_with_a_copy(self, keep):
        if not self.base:
            return
        copy = self.run.with_name(f"{self.run.name}-copy")
        shutil.copytree(self.run, copy)
        if not keep:
            shutil.rmtree(self.run)
        self.run, self.handle = copy, None
        assert self.found() == (self.base, self.generation)

    @precondition(lambda self: not self.writer)
    @rule(count=st.integers(1, 6), variant=VARIANTS)
    def fork(self, count, variant):
        """A fork goes on by itself; each file that it wrote is refused in the run that it came from."""
        if not self.base:
            return
        fork = self.folder / "fork"
        shutil.copytree(self.run, fork)
        with store_cases.resume(fork, disk=store_cases.fast_disk()) as writer:
            for _ in range(count):
                writer.append(**row(writer.steps + 1, variant))
        size = read_commit(self.run).array(self.run / TRAJECTORY, "W").chunk_shape[0]
        for path in sorted((self.run / TRAJECTORY / "W").glob("c.*")):
            if int(path.name.split(".")[1]) * size >= len(self.base):
                continue  # a leftover behind the commit, which nobody reads
            kept, other = path.read_bytes(), (fork / path.relative_to(self.run)).read_bytes()
            if other != kept:
                path.write_bytes(other)
                forget_all()  # where the clock does not tell two writes in a row apart, equal rows would be taken
                with pytest.raises(LabelError):
                    store.open_trajectory(self.run).W.values  # noqa: B018 - reading is the point
                path.write_bytes(kept)
        shutil.rmtree(fork)
        assert self.found() == (self.base, self.generation)

    @precondition(lambda self: not self.writer)
    @rule()
    def check(self):
        if not self.base:
            return
        report = store.check(self.run, derive=store_cases.derive, finish=store_cases.finish)
        assert report.damage == []
        assert report.committed_steps == len(self.base) - 1


@pytest.mark.parametrize("examples", [5, pytest.param(250, marks=pytest.mark.slow)])
def test_the_store_is_a_list(monkeypatch, examples):
    patch_blocks(monkeypatch.setattr)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples, stateful_step_count=16, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
