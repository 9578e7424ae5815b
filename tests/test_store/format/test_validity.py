"""Which file counts for which commit: named scenes, and random lives of a run against a plain list of its rows."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import LabelError, StaleHandleError
from store.format.label import STATIC, Label
from store.format.validity import STATIC_NEED, Need, final_need, fits, judge
from store.format.writers import REFUSES_ALL, Standing, Writers

A, B, C, FORK = 0xA, 0xB, 0xC, 0xF


def label(writer, last):
    return Label(writer, last, 0, ())


def run_of(*listed):
    return Writers(((A, -1), *listed))


# what happened, writers, the file's label, what the commit needs, whether the file counts
SCENES = {
    "as written": (run_of(), label(A, 9), Need(9), True),
    "ahead of the commit: written, not committed yet": (run_of(), label(A, 12), Need(9), True),
    "behind the commit: an old copy": (run_of(), label(A, 5), Need(9), False),
    "resumed, an old block untouched": (run_of((B, 9)), label(A, 9), Need(9), True),
    "resumed, rewritten longer": (run_of((B, 9)), label(B, 12), Need(12), True),
    "crashed between renames and commit, then resumed": (run_of((B, 9)), label(A, 12), Need(9), True),
    "the crashed writer's longer file in place of the later one": (run_of((B, 9)), label(A, 12), Need(12), False),
    "a stale writer renames after the next one came": (run_of((B, 9)), label(A, 20), Need(11), False),
    "cut back, the block is still the old one": (run_of((B, 6)), label(A, 9), Need(6), True),
    "cut back and gone on, a file of before the cut": (run_of((B, 6)), label(A, 9), Need(9), False),
    "cut twice, the earlier one counts on": (run_of((B, 4), (C, 6)), label(A, 9), Need(5), False),
    "resumed, then cut before it": (run_of((B, 9), (C, 3)), label(B, 12), Need(4), False),
    "cut to before the first step": (run_of((B, -1)), label(A, 9), Need(0), False),
    "compacted": (run_of((B, -2)), label(B, 9), Need(9), True),
    "compacted, a file of before": (run_of((B, -2)), label(A, 9), Need(9), False),
    "compacted, then a damaged block cut off": (run_of((B, -2), (C, 6)), label(B, 9), Need(6), True),
    "a file of a fork that went on by itself": (run_of((B, 9)), label(FORK, 12), Need(9), False),
    "a file of before the fork": (run_of((B, 9)), label(A, 9), Need(9), True),
    "a file of another run": (Writers(((B, -1),)), label(A, 9), Need(9), False),
    "static": (run_of((B, 9), (C, 3)), label(A, STATIC), STATIC_NEED, True),
    "static, cut to before the first step": (run_of((B, -1)), label(A, STATIC), STATIC_NEED, True),
    "static, of another run": (run_of(), label(B, STATIC), STATIC_NEED, False),
    "static, compacted": (run_of((B, -2)), label(A, STATIC), STATIC_NEED, False),
    "static, of the compaction": (run_of((B, -2)), label(B, STATIC), STATIC_NEED, True),
    "final": (run_of((B, 4)), label(B, 9), final_need(9), True),
    "final, resumed at the end without a further step": (run_of((B, 9)), label(A, 9), final_need(9), True),
    "final, of an earlier end": (run_of((B, 9)), label(A, 9), final_need(12), False),
    "final, of a later end than the cut": (run_of((B, 9)), label(A, 12), final_need(9), False),
    "final, compacted": (run_of((B, -2)), label(A, 9), final_need(9), False),
}


@pytest.mark.parametrize(("writers", "file", "need", "counts"), SCENES.values(), ids=SCENES)
def test_which_file_counts(writers, file, need, counts):
    assert fits(file, need, writers) is counts


BLOCK = 4


@dataclass(frozen=True)
class File:
    label: Label
    block: int | None  # None for the final array
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Commit:
    writers: Writers
    rows: tuple[int, ...]
    completed: bool = False


@dataclass
class Run:
    """A run that never computes the same row twice, so that any mixture is seen; and all it ever put on disk."""

    writer: int
    commit: Commit
    made: list = field(default_factory=list)
    commits: list = field(default_factory=list)
    disk: dict = field(default_factory=dict)

    def put(self, block, rows, last):
        self.disk[block] = File(label(self.writer, last), block, tuple(rows))
        self.made.append(self.disk[block])

    def publish(self, **changes):
        self.commit = replace(self.commit, **changes)
        self.commits.append((self.commit, dict(self.disk)))

    def write(self, new, *, crash):
        """Append rows, rename the files, commit unless a crash comes first."""
        rows = (*self.commit.rows, *new)
        for block in range(len(self.commit.rows) // BLOCK, -(-len(rows) // BLOCK)):
            inside = rows[block * BLOCK : (block + 1) * BLOCK]
            self.put(block, inside, block * BLOCK + len(inside) - 1)
        if crash:
            self.come(len(self.commit.rows) - 1)
        else:
            self.publish(rows=rows, completed=False)

    def come(self, after):
        """A new writer, by resume (after the last step), a cut (earlier) or compaction (-2)."""
        self.writer = new_writer()
        rows = self.commit.rows if after == REFUSES_ALL else self.commit.rows[: after + 1]
        listed = Writers((*self.commit.writers.listed, (self.writer, after)))
        if after == REFUSES_ALL:  # the copy is whole before it takes the place of the run
            for block in range(-(-len(rows) // BLOCK)):
                inside = rows[block * BLOCK : (block + 1) * BLOCK]
                self.put(block, inside, block * BLOCK + len(inside) - 1)
            if self.commit.completed:
                self.put(None, rows, len(rows) - 1)
        is_cut = rows != self.commit.rows
        self.publish(rows=rows, writers=listed, completed=self.commit.completed and not is_cut)

    def complete(self):
        self.put(None, self.commit.rows, len(self.commit.rows) - 1)
        self.publish(completed=True)

    def fork(self):
        """A copy of the folder, in which another writer goes on."""
        copied = Run(self.writer, self.commit, self.made, self.commits, dict(self.disk))
        copied.come(len(self.commit.rows) - 1)
        return copied


_writers = iter(range(1, 1 << 60))


def new_writer():
    return next(_writers)


def needed(commit, block):
    if block is None:
        return final_need(len(commit.rows) - 1)
    return Need(min(len(commit.rows), (block + 1) * BLOCK) - 1)


def holds(commit, file):
    """Whether the file has the very rows that the commit means, as far as the commit goes."""
    if file.block is None:
        return file.rows == commit.rows
    wanted = commit.rows[file.block * BLOCK : (file.block + 1) * BLOCK]
    return file.rows[: len(wanted)] == wanted


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "crash", "resume", "cut", "compact", "complete", "fork"]),
              st.integers(0, 100), st.integers(0, 3)),
    max_size=14,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(ACTIONS)
def test_a_file_that_counts_holds_the_rows_of_the_commit(actions):
    """Any file that any writer of any fork made, put in any commit's folder, is refused or right."""
    first = new_writer()
    run = Run(first, Commit(Writers(((first, -1),)), ()))
    runs, value = [run], iter(range(10**9))
    for action, number, which in actions:
        run = runs[which % len(runs)]
        if action in ("write", "crash"):
            run.write([next(value) for _ in range(number % 6 + 1)], crash=action == "crash" and bool(run.commit.rows))
        elif run.commit.rows:
            steps = len(run.commit.rows) - 1
            if action == "resume":
                run.come(steps)
            elif action == "cut":
                run.come(number % (steps + 1))
            elif action == "compact":
                run.come(REFUSES_ALL)
            elif action == "complete":
                run.complete()
            elif len(runs) < 4:
                runs.append(run.fork())
    for commit, disk in run.commits:
        for file in run.made:
            start = 0 if file.block is None else file.block * BLOCK
            if start < len(commit.rows) and fits(file.label, needed(commit, file.block), commit.writers):
                assert holds(commit, file), (commit, file)
        for block in [*range(-(-len(commit.rows) // BLOCK)), *([None] if commit.completed else [])]:
            assert fits(disk[block].label, needed(commit, block), commit.writers), (commit, disk[block])


def standing(*listed, run_id="one", generation=0, steps=9):
    return Standing(run_id, generation, steps, run_of(*listed))


THEN = standing()
OPEN = {  # the file's label, what is needed, the commit on disk now
    "as it was": (label(A, 9), Need(9), standing()),
    "a later writer went on": (label(B, 14), Need(9), standing((B, 9), steps=14)),
    "a later writer compacted, the file is an old one": (label(A, 9), Need(9), standing((B, -2), generation=1)),
}
STALE = {
    "removed": (label(B, 9), Need(9), None, "removed or replaced"),
    "made anew": (label(B, 9), Need(9), Standing("other", 0, 9, Writers(((B, -1),))), "removed or replaced"),
    "cut back": (label(B, 9), Need(9), standing((B, 6), generation=1), "cut back or compacted"),
    "compacted": (label(B, 9), Need(9), standing((B, -2), generation=1), "cut back or compacted"),
    "replaced by a fork": (label(C, 9), Need(9), standing((C, 6)), "replaced by a copy"),
    "completed anew": (label(B, 14), final_need(9), standing((B, 9), steps=14), "went on to step 14"),
}
WRONG = {
    "behind": (label(A, 6), Need(9), standing(), "is older than the commit: it counts up to step 6, and step 9"),
    "unknown": (label(FORK, 9), Need(9), standing((B, 9)), "written by 000000000000000f, no writer of this run"),
    "final of an earlier end": (label(A, 6), final_need(9), standing(), "was written for step 6"),
    "static, unknown": (label(FORK, STATIC), STATIC_NEED, standing(), "no writer of this run"),
}


@pytest.mark.parametrize(("file", "need", "now"), OPEN.values(), ids=OPEN)
def test_a_reader_goes_on(file, need, now):
    judge(file, need, THEN, now, "W/c.0")


@pytest.mark.parametrize(("file", "need", "now", "message"), STALE.values(), ids=STALE)
def test_a_reader_is_told_to_open_again(file, need, now, message):
    with pytest.raises(StaleHandleError, match=f"W/c.0: the run .*{message}"):
        judge(file, need, THEN, now, "W/c.0")


@pytest.mark.parametrize(("file", "need", "now", "message"), WRONG.values(), ids=WRONG)
def test_a_reader_is_told_which_file_is_wrong(file, need, now, message):
    with pytest.raises(LabelError, match=f"W/c.0: .*{message}"):
        judge(file, need, THEN, now, "W/c.0")


def test_a_reader_after_a_cut_is_told_of_rows_that_were_replaced():
    then = standing((B, 6), steps=9)
    with pytest.raises(LabelError, match="holds rows that a later writer replaced: it counts up to step 6, and step 9"):
        judge(label(A, 9), Need(9), then, then, "W/c.0")


def test_a_reader_of_one_fork_is_not_given_the_rows_of_another():
    then, now = standing((B, 6)), standing((C, 6))
    with pytest.raises(StaleHandleError, match="the run was replaced by a copy"):
        judge(label(C, 9), Need(9), then, now, "W/c.0")
    judge(label(A, 6), Need(6), then, now, "W/c.0")  # from before they parted
