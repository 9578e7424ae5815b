"""The recorder against a writer that only remembers: order, closing, waiting."""

import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer

import crucible
from crucible.channels.sources import SOURCES, Logged, Recorded, logged
from crucible.channels.table import CENTROID, LOSS, W, in_dtype
from crucible.recording.recorder import Recorder
from crucible.recording.seam import NoRecorder
from store.errors import WriterError
from store.format.schema import Channel


class Memory:
    """A writer in memory."""

    def __init__(self):
        self.rows, self.files, self.told, self.made_here = [], {}, [], []
        self.slot = np.empty((2, 3), np.float32)
        self.waited_s = 0.0

    @property
    def steps(self):
        return len(self.rows) - 1

    @property
    def committed_steps(self):
        return self.steps

    def append(self, **rows):
        self.made_here.append("W" in rows and np.shares_memory(rows["W"], self.slot))
        self.rows.append({name: np.array(value) for name, value in rows.items()})

    def last_row(self, name):
        return self.rows[-1][name]

    def room(self, name):
        return self.slot if name == "W" else None

    def checkpoint(self, step, files):
        self.files[step] = files

    def commit(self):
        self.told.append("commit")

    def complete(self, describe=None):  # noqa: ARG002 - as the writer's
        self.told.append("complete")

    def close(self):
        self.told.append("close")


@pytest.fixture
def parts():
    embedding = nn.Embedding(5, 3)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    memory = Memory()
    channels = [in_dtype(W, "float32"), CENTROID, LOSS]
    recorded = [Recorded(channel, SOURCES.get(channel.name, logged(channel.name))) for channel in channels]
    said = []
    recorder = Recorder(memory, embedding.weight, [optimizer], torch.tensor([1, 4]), recorded, say=said.append)
    recorder.begin()
    return embedding, optimizer, memory, recorder, said


def update(embedding, optimizer):
    optimizer.zero_grad()
    embedding(torch.tensor([1, 2, 4])).square().sum().backward()
    optimizer.step()


def test_a_row_follows_each_step_and_is_no_view(parts):
    embedding, optimizer, memory, recorder, _ = parts
    for _ in range(3):
        update(embedding, optimizer)
    assert recorder.step == 3
    states = [rows["W"] for rows in memory.rows]
    assert not np.array_equal(states[0], states[1])
    np.testing.assert_array_equal(states[3], embedding.weight.detach()[[1, 4]].numpy())
    expected = embedding.weight.detach()[[1, 4]].mean(dim=0)
    np.testing.assert_array_equal(memory.rows[3]["centroid"], expected.numpy())


def test_weights_are_made_where_the_writer_keeps_them(parts):
    embedding, optimizer, memory, *_ = parts
    update(embedding, optimizer)
    assert memory.made_here == [True, True]


class Size(Logged):
    """A source of the user's that is made of one of ours, and keeps what it sees."""

    def __call__(self, moment):
        seen.append(moment.weights)
        return float(moment.weights.abs().max())


def size(moment):
    seen.append(moment.weights)
    return float(moment.weights.abs().max())


seen = []


@pytest.mark.parametrize("source", [size, Size("size")])
def test_weights_that_a_function_of_yours_sees_stay_as_they_are(parts, source):
    embedding, optimizer, memory, recorder, _ = parts
    recorder.close()
    seen.clear()
    mine = Recorded(Channel("size", (), "float32", "max(|W|)"), source)
    recorder = Recorder(
        memory,
        embedding.weight,
        [optimizer],
        torch.tensor([1, 4]),
        [Recorded(in_dtype(W, "float32"), SOURCES["W"]), mine],
    )
    recorder.begin()
    first = embedding.weight.detach()[[1, 4]].clone()
    update(embedding, optimizer)
    recorder.close()
    assert memory.made_here[1:] == [False, False]
    assert torch.equal(seen[0], first)
    assert not torch.equal(seen[1], first)


def test_leaving_completes_and_an_exception_only_closes(parts):
    embedding, optimizer, memory, recorder, _ = parts
    with recorder:
        update(embedding, optimizer)
    assert memory.told == ["complete"]
    update(embedding, optimizer)
    assert len(memory.rows) == 2


def test_closing_in_the_block_is_not_undone(parts):
    *_, memory, recorder, _ = parts
    with recorder:
        recorder.close()
    assert memory.told == ["close"]


def test_what_is_logged_once_the_recorder_is_closed_is_told_and_kept_by_nobody(parts):
    embedding, optimizer, _, recorder, said = parts
    update(embedding, optimizer)
    recorder.close()
    for _ in range(5):
        recorder.log(loss=2.0)
        update(embedding, optimizer)
    assert len(said) == 1
    assert "this recorder is closed, and recorder.log was called: nothing is recorded" in said[0]
    assert "closed with step 1" in said[0]
    assert recorder._updating.intake.handed.names == frozenset()


@pytest.mark.parametrize("given", [True, False])
def test_a_row_that_is_asked_for_once_the_recorder_is_closed_is_refused(given, tmp_path):
    embedding, said = nn.Embedding(5, 3), []
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    how = {"after": "record", "say": said.append}
    recorder = crucible.attach(embedding, optimizer if given else None, tmp_path / "run", **how)
    update(embedding, optimizer)
    recorder.record()
    recorder.close()
    update(embedding, optimizer)
    with pytest.raises(WriterError, match=r"this recorder is closed, and recorder.record was called.*with step 1,"):
        recorder.record()
    assert said == []


@pytest.mark.parametrize("how", ["close", "complete", "leave"])
def test_a_block_that_is_entered_with_a_closed_recorder_is_refused(how, parts):
    """In a notebook: the cell with the block is run again, and the one that attaches is not."""
    embedding, optimizer, _, recorder, _ = parts
    with recorder:
        update(embedding, optimizer)
        if how != "leave":
            getattr(recorder, how)()
    with pytest.raises(WriterError, match="this recorder is closed, and a block was entered with it"), recorder:
        update(embedding, optimizer)


def test_waiting_is_said_once_when_it_is_much(parts, monkeypatch):
    embedding, optimizer, memory, recorder, said = parts
    began = recorder._updating._began
    for elapsed, memory.waited_s in [(10, 0.9), (30, 1.4), (40, 2.5), (41, 3.5)]:
        clock = SimpleNamespace(perf_counter=lambda elapsed=elapsed: began + elapsed)
        monkeypatch.setattr("crucible.recording.updating.time", clock)
        update(embedding, optimizer)
        assert len(said) == (elapsed >= 40)
    assert "waited 2.5 s of 40 s for the disk" in said[0]


def test_a_name_that_no_channel_takes_is_refused_with_the_list(parts):
    _, _, memory, recorder, _ = parts
    with pytest.raises(ValueError, match=r"log\(los=...\): no channel .* it takes loss; did you mean 'loss'\?"):
        recorder.log(los=2.0)
    with pytest.raises(ValueError, match=r"Channel\('accuracy', \(\), 'float32', belongs_to='move'\).*scalars=True"):
        recorder.log(accuracy=0.5)
    assert memory.told == []


def test_a_source_of_yours_may_take_any_name():
    embedding, memory, said = nn.Embedding(5, 3), Memory(), []
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    doubled = Recorded(LOSS, lambda moment: 2 * moment.logged.get("half", 0.0))
    recorder = Recorder(memory, embedding.weight, [optimizer], None, [doubled], say=said.append).begin()
    recorder.log(half=4.0)
    update(embedding, optimizer)
    assert memory.rows[1]["loss"] == 8.0
    assert said == []


def test_a_loss_that_is_logged_behind_the_step_is_said(parts):
    embedding, optimizer, _, recorder, said = parts
    for _ in range(4):
        update(embedding, optimizer)
        recorder.log(loss=1.0)
    assert len(said) == 1
    assert "before optimizer.step()" in said[0]


def test_what_was_logged_is_kept_when_the_loop_writes_on_in_its_tensor(parts):
    embedding, optimizer, memory, recorder, _ = parts
    loss = torch.tensor(4.0)
    recorder.log(loss=loss)
    loss /= 2
    update(embedding, optimizer)
    assert memory.rows[1]["loss"] == 4.0


def test_a_failing_writer_stops_the_loop(parts):
    embedding, optimizer, memory, _, _ = parts

    def fail(**_rows):
        raise OSError("disk full")

    memory.append = fail
    with pytest.raises(OSError, match="disk full"):
        update(embedding, optimizer)


def test_no_recorder_takes_all_that_a_recorder_takes():
    with NoRecorder() as nothing:
        nothing.log(loss=1.0)
        nothing.checkpoint(1, {})
        nothing.complete()
        nothing.close()


def test_a_commit_is_the_writers_and_the_repr_says_where_it_is(parts):
    embedding, optimizer, memory, recorder, _ = parts
    update(embedding, optimizer)
    recorder.commit()
    assert memory.told == ["commit"]
    memory.run, memory.waited_s = "runs/one", 2.25
    assert repr(recorder) == ("<Recorder of runs/one: recording, step 1, committed 1, waited 2.2 s for the disk>")
    recorder.close()
    assert "closed with step 1" in repr(recorder)


CALLS_AN_UPDATE = 70
"""Most calls of functions of ours in an update of a small loop, which cost most of what recording costs there."""


def test_an_update_takes_few_calls(parts, monkeypatch):
    embedding, optimizer, _, recorder, _ = parts
    for when in ("pre", "post"):  # without those of recorders that other tests have left open
        hooks = getattr(torch_optimizer, name := f"_global_optimizer_{when}_hooks")
        monkeypatch.setattr(torch_optimizer, name, OrderedDict(list(hooks.items())[-1:]))
    ours, calls = str(Path(crucible.__file__).parent), []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(ours):
            calls.append(frame.f_code.co_qualname)

    def update():
        embedding.weight.grad = torch.ones_like(embedding.weight)
        recorder.log(loss=torch.tensor(2.0))
        optimizer.step()

    for _ in range(4):  # what is looked at in the first updates alone
        update()
    profile = sys.getprofile()
    sys.setprofile(note)
    try:
        update()
    finally:
        sys.setprofile(profile)
    assert 0 < len(calls) <= CALLS_AN_UPDATE, " ".join(calls)
