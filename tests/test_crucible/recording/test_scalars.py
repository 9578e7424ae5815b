"""Numbers that a loop logs without having declared them: refused, or kept with `scalars=True`."""

import numpy as np
import pytest
import torch
from torch import nn

import crucible
from crucible.channels.sources import Recorded
from crucible.channels.table import LOSS, W
from store.errors import RunExistsError
from store.format.schema import Channel
from store.reading.reader import open_trajectory

ROWS = 9


class Loop:
    """A small loop."""

    def __init__(self):
        torch.manual_seed(0)
        self.embedding = nn.Embedding(ROWS, 4)
        self.optimizer = torch.optim.SGD(self.embedding.parameters(), lr=0.1)
        self.states = [self.weights()]

    def attach(self, run, **options):
        how = {"channels": (W, LOSS), "scalars": True} | options
        return crucible.attach(self.embedding, self.optimizer, run, **how)

    def step(self):
        self.optimizer.zero_grad()
        self.embedding(torch.arange(ROWS)).square().mean().backward()
        self.optimizer.step()
        self.states.append(self.weights())

    def weights(self):
        return self.embedding.weight.detach().clone().numpy()


@pytest.mark.parametrize("after", ["step", "record"])
def test_every_number_that_is_logged_for_the_first_update_is_kept(after, tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run", after=after) as recorder:
        assert (recorder.step, recorder.writer.committed_steps) == (0, -1)
        for step in range(4):
            recorder.log(loss=1.0, accuracy=torch.tensor([step / 4]))
            if step != 2:
                recorder.log(tokens=2**30 + step)
            loop.step()
            if after == "record":
                recorder.record()
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.W.values, np.stack(loop.states))
    np.testing.assert_array_equal(ds.accuracy.values, [np.nan, 0, 0.25, 0.5, 0.75])
    np.testing.assert_array_equal(ds.tokens.values, [np.nan, 2**30, 2**30 + 1, np.nan, 2**30 + 3])
    assert ds.accuracy.attrs["meaning"] == "what the loop logged as accuracy for update t"
    assert crucible.check(tmp_path / "run").is_whole


def test_they_are_kept_also_where_a_source_of_yours_may_take_any_name(tmp_path):
    loop, seen = Loop(), []

    def row_norm(moment):
        seen.append(sorted(moment.logged))
        return moment.weights.norm(dim=1)

    channels = (W, Recorded(Channel("row_norm", ("token",), "float32"), row_norm))
    with loop.attach(tmp_path / "run", channels=channels) as recorder:
        for step in range(3):
            recorder.log(accuracy=step / 4, row_norm=0.5, ids=torch.arange(3))
            loop.step()
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.accuracy.values, [np.nan, 0, 0.25, 0.5])
    assert "ids" not in ds
    assert seen == [[], *[["accuracy", "ids", "row_norm"]] * 3]


def test_a_number_that_comes_later_is_refused(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run") as recorder:
        recorder.log(accuracy=1.0)
        loop.step()
        with pytest.raises(ValueError, match=r"no channel of this run takes 'val'; it takes accuracy, loss\. Declare"):
            recorder.log(val=2.0)


def test_a_resumed_run_takes_what_it_has_taken(tmp_path):
    loop = Loop()
    recorder = loop.attach(tmp_path / "run")
    recorder.log(accuracy=1.0)
    loop.step()
    recorder.close()
    with loop.attach(tmp_path / "run", resume=1) as recorder:
        recorder.log(accuracy=2.0)
        loop.step()
        with pytest.raises(ValueError, match="'val'"):
            recorder.log(val=2.0)
    assert open_trajectory(tmp_path / "run").accuracy.values[1:].tolist() == [1, 2]


@pytest.mark.parametrize("name", ["step", "W", "displacement_l2", "val/loss", "population"])
def test_a_name_that_no_array_can_have_is_refused_where_it_is_logged(name, tmp_path):
    recorder = Loop().attach(tmp_path / "run", channels=None)
    with pytest.raises(ValueError, match="log the number under another name"):
        recorder.log(**{name: 1.0})
    recorder.close()


def test_the_run_is_made_by_whatever_asks_for_it_before_the_first_update(tmp_path):
    for name, ask in (("committed", lambda r: r.commit()), ("closed", lambda r: r.close())):
        loop = Loop()
        recorder = loop.attach(tmp_path / name, say=lambda _: None)
        recorder.log(accuracy=1.0)
        ask(recorder)
        assert open_trajectory(tmp_path / name).attrs["committed_steps"] == 0
    loop, said = Loop(), []
    with loop.attach(tmp_path / "early", say=said.append) as recorder:
        recorder.commit()
        recorder.log(loss=3.0, accuracy=1.0)
        loop.step()
    ds = open_trajectory(tmp_path / "early")
    assert ds.loss.values[1] == 3.0
    assert "accuracy" not in ds
    assert len(said) == 1
    assert "accuracy: logged for the first update, and not kept: the run was made before it" in said[0]


def test_a_run_that_was_closed_before_its_first_update_is_not_said_to_take_numbers_when_asked_again(tmp_path):
    loop = Loop()
    loop.attach(tmp_path / "run", say=lambda _: None).close()
    with loop.attach(tmp_path / "run", resume=0) as recorder:
        with pytest.raises(ValueError, match=r"or begin a new run by attach\(\.\.\., scalars=True\)"):
            recorder.log(accuracy=1.0)
        loop.step()


def test_what_is_in_the_way_is_told_at_once(tmp_path):
    Loop().attach(tmp_path / "run", scalars=False, say=lambda _: None).close()
    with pytest.raises(RunExistsError):
        Loop().attach(tmp_path / "run")
    loop = Loop()
    with loop.attach(tmp_path / "run", overwrite=True) as recorder:
        recorder.log(accuracy=1.0)
        loop.step()
    assert "accuracy" in open_trajectory(tmp_path / "run")
