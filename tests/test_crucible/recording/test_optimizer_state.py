"""What an optimizer keeps of a parameter: recorded where it is what the channel says, refused where it is not."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import crucible
from crucible.channels.selection import STATES, _will_keep
from crucible.channels.sources import OptimizerState, Recorded
from crucible.channels.table import ADAM_M, ADAM_V, W
from store.format.schema import Channel
from store.reading.reader import open_trajectory

ROWS, HIDDEN = 12, 4


class EightBit(torch.optim.SGD):
    """Keeps its state as 8-bit optimizers do: codes under other names."""

    def step(self, closure=None):
        for group in self.param_groups:
            for each in group["params"]:
                self.state[each] |= {"state1": each.detach().to(torch.uint8), "qmap1": torch.zeros(256)}
        return super().step(closure)


class Half(torch.optim.SGD):
    """Keeps moments under Adam's names, in a dtype or a shape of its own."""

    def __init__(self, params, kept):
        super().__init__(params, lr=0.1)
        self.kept = kept

    def step(self, closure=None):
        for group in self.param_groups:
            for each in group["params"]:
                self.state[each] |= {"exp_avg": self.kept(each.detach())}
        return super().step(closure)


def attach(run, make, channels, *, embedding=None, dtype=torch.float32):
    embedding = embedding or nn.Embedding(ROWS, HIDDEN).to(dtype)
    optimizer = make(embedding.parameters())
    recorder = crucible.attach(embedding, optimizer, run, channels=channels, say=lambda _: None)
    return embedding, optimizer, recorder


def update(embedding, optimizer):
    optimizer.zero_grad()
    embedding(torch.arange(ROWS)).square().sum().backward()
    optimizer.step()


TORCHS = [
    (lambda p: torch.optim.SGD(p, lr=0.1), ADAM_M, "no state"),
    (torch.optim.Adagrad, ADAM_M, "sum"),  # makes its state when it is made itself
    (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), ADAM_M, "momentum_buffer"),
    (torch.optim.RMSprop, ADAM_V, "square_avg"),
    (torch.optim.Adamax, ADAM_V, "exp_avg, exp_inf"),
    (torch.optim.Adafactor, ADAM_V, "col_var, row_var"),
]
FOREIGN = [
    (lambda p: EightBit(p, lr=0.1), ADAM_M, "qmap1, state1"),
    (lambda p: Half(p, lambda w: w.mean(dim=1)), ADAM_M, r"\(12,\)"),
    (lambda p: Half(p, lambda w: w.to(torch.uint8)), ADAM_M, "uint8"),
]


@pytest.mark.parametrize(("make", "channel", "names"), FOREIGN)
@pytest.mark.parametrize("every", [1, 7])
def test_an_optimizer_without_the_moment_ends_the_recording_at_its_first_update(make, channel, names, every, tmp_path):
    embedding, optimizer, _ = attach(tmp_path / "run", make, (W, replace(channel, every=every)))
    with pytest.raises(ValueError, match=f"{channel.name}: .*{names}"):
        update(embedding, optimizer)
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == 0


@pytest.mark.parametrize(("make", "channel", "names"), [*FOREIGN, *TORCHS[1:]])
def test_where_the_state_is_there_already_nothing_is_written(make, channel, names, tmp_path):
    embedding = nn.Embedding(ROWS, HIDDEN)
    optimizer = make(embedding.parameters())
    update(embedding, optimizer)
    with pytest.raises(ValueError, match=f"{channel.name}: .*{names}"):
        crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W, channel))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("make", "channel", "names"), TORCHS)
def test_an_optimizer_of_torch_that_keeps_no_such_moment_is_refused_at_once(make, channel, names, tmp_path):
    with pytest.raises(ValueError, match=f"{channel.name}: .*{names}"):
        attach(tmp_path / "run", make, (W, channel))
    assert not (tmp_path / "run").exists()


OPTIONS = [{}, {"momentum": 0.9}, {"centered": True}, {"amsgrad": True}]


@pytest.mark.parametrize("kind", STATES, ids=lambda kind: kind.__name__)
def test_what_torchs_optimizers_keep_is_known_before_they_keep_it(kind):
    taken = [each for each in OPTIONS if each.keys() <= inspect.signature(kind).parameters.keys()]
    for options in taken:
        parameter = nn.Parameter(torch.ones(4, 3))
        optimizer = kind([parameter], lr=0.1, **options)
        known = _will_keep(optimizer, parameter)
        gradient = torch.ones(4, 3)
        parameter.grad = gradient.to_sparse() if kind is torch.optim.SparseAdam else gradient
        optimizer.step()
        kept = {name for name, each in optimizer.state[parameter].items() if getattr(each, "ndim", 0)}
        assert known == kept, options


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "NAdam", "RAdam"])
def test_adams_relatives_are_recorded(kind, tmp_path):
    embedding, optimizer, recorder = attach(tmp_path / "run", getattr(torch.optim, kind), (W, ADAM_M, ADAM_V))
    with recorder:
        update(embedding, optimizer)
    ds = open_trajectory(tmp_path / "run")
    state = optimizer.state[embedding.weight]
    np.testing.assert_array_equal(ds.adam_m.values, np.stack([np.zeros((ROWS, HIDDEN)), state["exp_avg"].numpy()]))
    np.testing.assert_array_equal(ds.adam_v.values[1], state["exp_avg_sq"].numpy())


def test_a_run_goes_on_only_with_the_state_that_it_keeps(tmp_path):
    embedding, optimizer, recorder = attach(tmp_path / "run", torch.optim.AdamW, (W, ADAM_M, replace(ADAM_V, every=2)))
    update(embedding, optimizer)
    update(embedding, optimizer)
    recorder.close()
    how = {"channels": (W, ADAM_M, replace(ADAM_V, every=2)), "resume": 2}
    anew = torch.optim.AdamW(embedding.parameters())
    with pytest.raises(ValueError, match="adam_m, a state of the optimizer, is not where the run was at step 2"):
        crucible.attach(embedding, anew, tmp_path / "run", **how)
    anew.load_state_dict(optimizer.state_dict())
    with crucible.attach(embedding, anew, tmp_path / "run", **how):
        update(embedding, anew)
    assert open_trajectory(tmp_path / "run").attrs["committed_steps"] == 3


def test_a_parameter_that_had_no_gradient_yet_has_moments_of_zero(tmp_path):
    embedding, optimizer, recorder = attach(tmp_path / "run", torch.optim.AdamW, (W, ADAM_M))
    with recorder:
        optimizer.step()
        update(embedding, optimizer)
    moments = open_trajectory(tmp_path / "run").adam_m.values
    assert not moments[:2].any()
    assert moments[2].all()


def test_moments_are_never_narrowed(tmp_path):
    def make(params):
        return Half(params, lambda w: w.float())

    embedding, optimizer, _ = attach(tmp_path / "run", make, (W, ADAM_M), dtype=torch.float16)
    with pytest.raises(ValueError, match=r"float32.*float16"):
        update(embedding, optimizer)


def test_other_state_is_recorded_by_its_name(tmp_path):
    own = Recorded(Channel("momentum", ("token", "hidden"), "float32"), OptimizerState("momentum_buffer"))
    make = TORCHS[2][0]
    embedding, optimizer, recorder = attach(tmp_path / "run", make, (W, own))
    with recorder:
        update(embedding, optimizer)
    expected = optimizer.state[embedding.weight]["momentum_buffer"].numpy()
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").momentum.values[1], expected)


def test_the_second_moment_of_an_optimizer_without_one_is_not_warned_of(tmp_path):
    class Lion(torch.optim.SGD):
        """Has betas, and no second moment."""

        def __init__(self, params):
            super().__init__(params, lr=1e-2)
            self.param_groups[0]["betas"] = (0.9, 0.999)

    said = []
    embedding = nn.Embedding(ROWS, HIDDEN).bfloat16()
    optimizer = Lion(embedding.parameters())
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,), say=said.append):
        update(embedding, optimizer)
    assert said == []
    state = json.loads(open_trajectory(tmp_path / "run").attrs["provenance"])["dtypes"]["optimizer_state"]
    assert state == "none yet"
