"""Ways to record something false in silence: each is recorded rightly, told, or ends in a clear error."""

import contextlib
import copy
import gc
import re
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from optimizers_of_others import Lookahead, OfBase, Sam, Together, WithoutHooks, WithoutRate, ZeroesItsGradient
from torch import nn
from torch.optim import swa_utils

import analysis
import crucible
from crucible.channels.sources import Recorded, hidden_mean
from crucible.channels.table import ADAM_M, ADAM_V, GRADIENT, LEARNING_RATE, LOSS, OPTIMIZER_STEP, PUSH, W
from store.format.schema import Channel
from store.reading.reader import open_trajectory

ROWS, HIDDEN = 20, 4


class Loop:
    """A small loop that remembers the weights."""

    def __init__(self, make=lambda p: torch.optim.AdamW(p, lr=1e-2), dtype=torch.float32, **options):
        torch.manual_seed(0)
        self.embedding = nn.Embedding(ROWS, HIDDEN, **options).to(dtype)
        self.head = nn.Linear(HIDDEN, ROWS).to(dtype)
        self.optimizer = make([*self.embedding.parameters(), *self.head.parameters()])
        self.said, self.states = [], [self.weights()]

    def attach(self, run, optimizer=None, **options):
        options = {"channels": (W,), "say": self.said.append} | options
        return crucible.attach(self.embedding, optimizer or self.optimizer, run, **options)

    def backward(self):
        self.optimizer.zero_grad()
        self.head(self.embedding(torch.arange(ROWS))).square().mean().backward()

    def step(self, after=lambda: None):
        self.backward()
        self.optimizer.step()
        self.states.append(self.weights())
        after()

    def weights(self):
        return self.embedding.weight.detach().clone().float().numpy()


def recorded(run):
    return open_trajectory(run).W.values


def same(run, states):
    np.testing.assert_array_equal(recorded(run), np.stack(states))


# ---- whose step it is


@pytest.mark.parametrize("attach_to", ["SAM", "the base"])
@pytest.mark.parametrize("way", ["two steps", "closure"])
def test_sam_is_recorded_once_an_update(way, attach_to, tmp_path):
    loop = Loop(lambda p: Sam(p, torch.optim.SGD, lr=0.1))
    sam = loop.optimizer
    with loop.attach(tmp_path / "run", sam if attach_to == "SAM" else sam.base_optimizer):
        for _ in range(4):
            loop.backward()
            if way == "closure":
                sam.step(loop.backward)
            else:
                sam.first_step()
                loop.backward()
                sam.second_step()
            loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states)
    assert loop.said == []


def test_lookahead_is_recorded_behind_its_own_step(tmp_path):
    loop = Loop(lambda p: Lookahead(torch.optim.SGD(p, lr=0.1)))
    with loop.attach(tmp_path / "run"):
        for _ in range(3):
            loop.step()
    same(tmp_path / "run", loop.states)
    assert loop.said == []


def test_the_optimizer_inside_lookahead_is_said_to_be_the_wrong_one(tmp_path):
    loop = Loop(lambda p: Lookahead(torch.optim.SGD(p, lr=0.1)))
    with loop.attach(tmp_path / "run", loop.optimizer.inner):
        for _ in range(3):
            loop.step()
    assert "the Lookahead that calls this SGD writes to the parameter after the SGD's step" in loop.said[0]


def test_several_optimizers_behind_one_step_are_looked_through(tmp_path):
    loop = Loop(lambda p: Together([torch.optim.SGD(p[:1], lr=0.1), torch.optim.SGD(p[1:], lr=0.1)]))
    with loop.attach(tmp_path / "run"):
        for _ in range(3):
            loop.step()
    same(tmp_path / "run", loop.states)


def test_an_optimizer_whose_steps_cannot_be_seen_is_refused(tmp_path):
    loop = Loop(WithoutHooks)
    with pytest.raises(TypeError, match=r"this WithoutHooks calls no hooks.*attach\(target, None, run\)"):
        loop.attach(tmp_path / "run")


def test_a_subclass_that_calls_its_base_makes_one_update_a_step(tmp_path):
    torch.optim.SGD([torch.zeros(1)])  # torch hooks the step of a class when it first makes one of it
    loop = Loop(lambda p: OfBase(p, lr=0.1))
    with loop.attach(tmp_path / "run"):
        for _ in range(3):
            loop.step()
    same(tmp_path / "run", loop.states)


def test_a_step_that_fails_does_not_end_the_counting(tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1))

    def fail():
        raise ZeroDivisionError

    with loop.attach(tmp_path / "run"):
        loop.step()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                loop.optimizer.step(fail)
        loop.step()
    same(tmp_path / "run", loop.states)


def test_two_steps_a_batch_are_two_updates(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        loop.step()
        loop.optimizer.step()
        loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_a_compiled_step_is_recorded(tmp_path):
    loop = Loop()
    compiled = torch.compile(loop.optimizer.step, backend="eager")
    with loop.attach(tmp_path / "run"):
        for _ in range(3):
            loop.backward()
            compiled()
            loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states)


def test_a_scheduler_and_a_reloaded_optimizer_change_nothing(tmp_path):
    loop = Loop()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(loop.optimizer, 0.5)
    with loop.attach(tmp_path / "run", channels=(W, LEARNING_RATE)):
        for step in range(4):
            loop.step()
            scheduler.step()
            if step == 1:
                loop.optimizer.load_state_dict(copy.deepcopy(loop.optimizer.state_dict()))
    same(tmp_path / "run", loop.states)
    rates = open_trajectory(tmp_path / "run").learning_rate.values[1:]
    np.testing.assert_allclose(rates, [1e-2 * 0.5**k for k in range(4)], rtol=1e-6)


def test_a_second_optimizer_of_other_parameters_is_nobody_to_speak_of(tmp_path):
    loop, other = Loop(), Loop()
    with loop.attach(tmp_path / "run"):
        other.step()
        loop.step()
        other.optimizer.step()
    same(tmp_path / "run", loop.states)
    assert loop.said == []


def test_a_group_that_takes_the_parameter_into_another_optimizer(tmp_path):
    loop, other = Loop(), Loop()
    loop.attach(tmp_path / "run")
    other.step()
    other.optimizer.add_param_group({"params": [loop.embedding.weight]})
    loop.backward()
    with pytest.raises(RuntimeError, match="another AdamW, and not the AdamW that was given"):
        other.optimizer.step()


def functional(loop):
    """A step as torch.func makes it: new weights from old ones, and written over these."""
    weight = loop.embedding.weight
    gradient = torch.func.grad(lambda w: torch.func.functional_call(loop.head, {}, (w,)).square().mean())(
        weight.detach()
    )
    weight.data = weight.data - 0.1 * gradient


def by_hand(loop):
    loop.backward()
    loop.embedding.weight.data.sub_(loop.embedding.weight.grad, alpha=0.1)  # which torch does not count


@pytest.mark.parametrize("update", [functional, by_hand])
@pytest.mark.parametrize("steps", [0, 2])
def test_updates_without_an_optimizer_are_said_at_the_end(steps, update, tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        for _ in range(steps):
            loop.step()
        for _ in range(3):
            update(loop)
    assert len(loop.said) == 1
    assert ("no step of this AdamW was seen" if steps == 0 else "written to after step 2") in loop.said[0]


def test_a_copy_of_the_model_that_is_trained_instead_is_said_at_the_end(tmp_path):
    loop = Loop()
    twin = copy.deepcopy(loop)
    with loop.attach(tmp_path / "run"):
        twin.step()
    assert "no step of this AdamW was seen" in loop.said[0]


class KeepsAll(torch.optim.AdamW):
    """Copied and pickled with all that it has, also the hooks that others have put on it."""

    def __getstate__(self):
        return self.__dict__


def test_a_copy_of_the_optimizer_that_was_made_with_its_hooks_makes_no_rows(tmp_path):
    loop = Loop(KeepsAll)
    with loop.attach(tmp_path / "run", channels=(W, GRADIENT, ADAM_M)):
        for _ in range(4):
            embedding, head, optimizer = copy.deepcopy((loop.embedding, loop.head, loop.optimizer))
            head(embedding(torch.arange(ROWS))).square().mean().backward()
            optimizer.step()  # a look ahead, on a copy
            loop.step()
    same(tmp_path / "run", loop.states)
    assert loop.said == []


@pytest.mark.parametrize("logs", [1, 2])
def test_a_copy_of_the_model_that_is_trained_instead_from_some_step_on_is_said_at_the_end(logs, tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run", channels=(W, LOSS)) as recorder:
        for each in (loop, loop, twin := copy.deepcopy(loop), twin):
            for _ in range(logs):
                recorder.log(loss=1.0)
            each.step()
    assert recorder.step == 2
    assert len(loop.said) == 1
    assert f"{2 * logs} values of loss were logged after step 2, the last that was recorded" in loop.said[0]
    assert "a copy of the model trained" in loop.said[0]


@pytest.mark.parametrize("end", ["forget", "step"])
def test_losses_of_an_update_that_never_came_are_nobodys_business(end, tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run", channels=(W, LOSS)) as recorder:
        for _ in range(2):
            recorder.log(loss=1.0)
            recorder.log(loss=1.0)
            loop.step()
        recorder.log(loss=1.0)  # of an accumulation that is not over
        if end == "forget":
            for _ in range(5):
                recorder.log(loss=1.0)
            recorder.forget()
    assert loop.said == []


@pytest.mark.slow
def test_an_unclosed_recorder_does_not_hold_the_model(tmp_path):
    loop = Loop()
    recorder = loop.attach(tmp_path / "run")
    loop.step()
    weight = weakref.ref(loop.embedding.weight)
    recorder.writer.close()
    del recorder, loop
    gc.collect()
    assert weight() is None


# ---- what the weights are


def scale(loop):
    with torch.no_grad():
        loop.embedding.weight.div_(loop.embedding.weight.norm(dim=1, keepdim=True))


def scale_data(loop):
    """As nGPT does: torch's count of writes does not see it."""
    loop.embedding.weight.data.copy_(nn.functional.normalize(loop.embedding.weight.data, dim=1))


@pytest.mark.parametrize("change", [scale, scale_data])
def test_weights_that_are_normalised_after_the_step_are_told_which_state_is_kept(change, tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        for _ in range(4):
            loop.step(lambda: change(loop))
    same(tmp_path / "run", loop.states)
    before, at_end = loop.said
    assert "each row holds the weights as they were right after optimizer.step()" in before
    assert "attach(..., after='record')" in before
    assert "written to after step 4" in at_end


@pytest.mark.parametrize("change", [scale, scale_data])
def test_weights_are_taken_later_where_the_loop_says_when(change, tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run", after="record", channels=(W, GRADIENT, LEARNING_RATE, ADAM_M)) as recorder:
        states, gradients = [loop.weights()], []
        for _ in range(4):
            loop.step(lambda: change(loop))
            gradients.append(loop.embedding.weight.grad.numpy().copy())
            loop.optimizer.zero_grad()
            loop.optimizer.param_groups[0]["lr"] *= 0.5
            recorder.record()
            states.append(loop.weights())
    same(tmp_path / "run", states)
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.gradient.values[1:], np.stack(gradients))
    np.testing.assert_allclose(ds.learning_rate.values[1:], [1e-2 * 0.5**k for k in range(4)], rtol=1e-6)
    assert loop.said == []


@pytest.mark.parametrize("scalars", [False, True])
def test_what_is_logged_behind_the_step_and_before_its_row_is_taken_is_of_that_update(scalars, tmp_path):
    loop = Loop()
    channels = (W, LOSS, *(() if scalars else (Channel("norm", (), "float64", belongs_to="move"),)))
    with loop.attach(tmp_path / "run", after="record", channels=channels, scalars=scalars) as recorder:
        for step in range(1, 5):
            loop.step(lambda: scale(loop))
            recorder.log(loss=float(step), norm=step / 4)
            recorder.record()
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.loss.values, [np.nan, 1, 2, 3, 4])
    np.testing.assert_array_equal(ds.norm.values, [np.nan, 0.25, 0.5, 0.75, 1])
    assert loop.said == []


def test_what_is_logged_behind_a_row_that_the_loop_takes_is_said_to_be_late(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run", after="record", channels=(W, LOSS)) as recorder:
        for step in range(1, 5):
            loop.step(recorder.record)
            recorder.log(loss=float(step))
    assert "recorder.log belongs before recorder.record()" in loop.said[0]


def test_an_update_that_was_not_recorded_is_an_error_at_the_next(tmp_path):
    loop = Loop()
    recorder = loop.attach(tmp_path / "run", after="record")
    loop.step(recorder.record)
    loop.step()
    with pytest.raises(RuntimeError, match=r"update 3 came before recorder.record\(\) was called for update 2"):
        loop.step()
    same(tmp_path / "run", loop.states[:2])


def test_a_last_update_that_was_not_recorded_is_said_at_the_end(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run", after="record") as recorder:
        loop.step(recorder.record)
        loop.step()
    assert "update 2 was made, and recorder.record() was not called for it" in loop.said[0]


def test_recording_what_a_scaler_has_skipped_records_nothing(tmp_path):
    loop, scaler = Loop(), torch.amp.GradScaler("cpu", init_scale=4.0)
    with loop.attach(tmp_path / "run", after="record") as recorder:
        for step in range(3):
            loop.optimizer.zero_grad()
            loss = loop.head(loop.embedding(torch.arange(ROWS))).square().mean()
            scaler.scale(loss * (float("inf") if step == 1 else 1.0)).backward()
            scaler.step(loop.optimizer)
            scaler.update()
            recorder.record()
            if step != 1:
                loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states)
    assert "no step of the optimizer was seen since" in loop.said[0]


def test_record_says_that_it_has_nothing_to_do(tmp_path):
    with Loop().attach(tmp_path / "run") as recorder, pytest.raises(RuntimeError, match=r"after='record'"):
        recorder.record()


@pytest.mark.parametrize("cast", ["half", "double", "bfloat16"])
@pytest.mark.parametrize("as_module", [True, False])
def test_a_cast_in_the_middle_ends_the_recording(cast, as_module, tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1))
    target = loop.embedding if as_module else loop.embedding.weight
    crucible.attach(target, loop.optimizer, tmp_path / "run", channels=(W,), say=loop.said.append)
    loop.step()
    for module in (loop.embedding, loop.head):
        getattr(module, cast)()
    with pytest.raises(RuntimeError, match=r"update 2: the parameter is (float16|float64|bfloat16) .* was float32"):
        loop.step()
    same(tmp_path / "run", loop.states[:2])


def test_a_cast_there_and_back_is_told(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        for step in range(6):
            loop.step()
            if step == 4:  # update 6 is none of those that are looked at anyway
                loop.embedding.half().float()
    same(tmp_path / "run", loop.states)
    assert "written to before update 6" in loop.said[0]


def test_weights_that_lie_elsewhere_and_are_the_same_are_nothing_to_speak_of(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        for _ in range(5):
            loop.embedding.weight.data = loop.embedding.weight.data.clone()
            loop.step()
    assert loop.said == []


def test_a_module_can_exchange_its_parameters_as_without_a_recorder(tmp_path):
    """As torch does it in `Module.to` of DTensors, and of all parameters where that is asked for."""
    loop, before = Loop(), torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with loop.attach(tmp_path / "run"):
            for _ in range(3):
                loop.step(lambda: loop.embedding.to("cpu"))
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    same(tmp_path / "run", loop.states)
    assert loop.said == []


def test_another_tie_of_the_head_changes_nothing_and_one_of_the_embedding_ends_the_recording(tmp_path):
    loop = Loop()
    recorder = loop.attach(tmp_path / "run")
    loop.step()
    loop.head.weight = loop.embedding.weight
    loop.step()
    assert recorder.step == 2
    loop.embedding.weight = nn.Parameter(loop.embedding.weight.detach().clone())
    with pytest.raises(RuntimeError, match="update 3: the parameter was replaced"):
        loop.step()


# ---- what goes with them


def average(loop):
    return swa_utils.AveragedModel(loop.embedding, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))


EMA = Channel("ema", ("token", "hidden"), "float32", meaning="average of the weights after update t")


def test_an_average_that_is_updated_after_the_step_is_said_to_be_late(tmp_path):
    loop = Loop()
    ema = average(loop)
    table = (W, Recorded(EMA, lambda _: ema.module.weight))
    with loop.attach(tmp_path / "run", channels=table):
        for _ in range(3):
            loop.step(lambda: ema.update_parameters(loop.embedding))
    assert "channel ema: its tensor was written to after the row of step 1" in loop.said[0]
    assert "recorded a step late" in loop.said[0]
    assert len(loop.said) == 1


@pytest.mark.parametrize("rows", ["all", [3, 5]])
def test_an_average_of_some_rows_is_said_to_be_late(rows, tmp_path):
    loop = Loop()
    ema = average(loop)
    table = (W, Recorded(EMA, lambda moment: moment.take(ema.module.weight)))
    with loop.attach(tmp_path / "run", rows=rows, channels=table):
        for _ in range(3):
            loop.step(lambda: ema.update_parameters(loop.embedding))
    assert "channel ema" in loop.said[0]


def test_an_average_that_is_taken_later_is_right(tmp_path):
    loop = Loop()
    ema = average(loop)
    table = (W, Recorded(EMA, lambda moment: moment.take(ema.module.weight)))
    averages = [ema.module.weight.detach().clone().numpy()]
    with loop.attach(tmp_path / "run", channels=table, after="record") as recorder:
        for _ in range(3):
            loop.step(lambda: ema.update_parameters(loop.embedding))
            recorder.record()
            averages.append(ema.module.weight.detach().clone().numpy())
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").ema.values, np.stack(averages))
    assert loop.said == []


def test_a_mean_of_a_module_that_no_pass_reaches_is_said_to_be_missing(tmp_path):
    """As it is where the model was compiled and called before, so that torch leaves hooks out that come later."""
    loop, other = Loop(), nn.Linear(HIDDEN, HIDDEN)
    table = (W, hidden_mean(loop.embedding, "mean"), hidden_mean(other, "other_mean"))
    with loop.attach(tmp_path / "run", channels=table):
        for _ in range(3):
            loop.step()
    ds = open_trajectory(tmp_path / "run")
    assert np.isnan(ds.other_mean.values).all()
    assert not np.isnan(ds["mean"].values[1:]).any()
    assert len(loop.said) == 1
    assert "channel other_mean: no forward pass of its module with gradients was seen in update 1" in loop.said[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_hooks_that_a_compiled_model_leaves_out_are_told(tmp_path):
    loop = Loop()
    own = loop.embedding
    loop.embedding = torch.compile(own, backend="eager")
    loop.backward()
    with loop.attach(tmp_path / "run", channels=(W, hidden_mean(own, "mean"))):
        loop.step()
    is_left_out = np.isnan(open_trajectory(tmp_path / "run")["mean"].values[1]).all()
    assert len(loop.said) == is_left_out
    assert not is_left_out or "attach before the first call" in loop.said[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: ZeroesItsGradient(p, lr=0.1), "dropped the gradient within its own step"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, foreach=True), "changed the gradient"),
    ],
)
def test_an_optimizer_that_does_not_leave_the_gradient_alone_is_said(make, words, tmp_path):
    loop = Loop(make)
    with loop.attach(tmp_path / "run", channels=(W, GRADIENT)):
        loop.step()
        loop.step()
    assert len(loop.said) == 1
    assert words in loop.said[0]
    quiet = Loop(make)
    with quiet.attach(tmp_path / "quiet"):
        quiet.step()
    assert quiet.said == []


def test_an_optimizer_without_a_learning_rate_records_none(tmp_path):
    loop = Loop(WithoutRate)
    with loop.attach(tmp_path / "run", channels=(W, LEARNING_RATE)):
        loop.step()
    same(tmp_path / "run", loop.states)
    assert np.isnan(open_trajectory(tmp_path / "run").learning_rate.values).all()
    assert "this WithoutRate has no learning rate (lr=None)" in loop.said[0]


def test_moments_of_an_optimizer_that_has_none_end_the_recording(tmp_path):
    loop = Loop(lambda p: OfBase(p, lr=0.1))  # a class of others: what it keeps is not known before
    loop.attach(tmp_path / "run", channels=(W, ADAM_M))
    with pytest.raises(ValueError, match="adam_m: this OfBase keeps no state of the parameter, and no exp_avg"):
        loop.step()


# ---- loops without an optimizer


def test_a_loop_without_an_optimizer_records_when_it_says_so(tmp_path):
    loop = Loop()
    with crucible.attach(loop.embedding, None, tmp_path / "run", say=loop.said.append) as recorder:
        for step in range(3):
            loop.backward()
            recorder.log(loss=float(step))
            with torch.no_grad():
                loop.embedding.weight -= 0.1 * loop.embedding.weight.grad
            recorder.record()
            loop.states.append(loop.weights())
            assert recorder.step == step + 1
    same(tmp_path / "run", loop.states)
    ds = open_trajectory(tmp_path / "run")
    assert ds.loss.values[1:].tolist() == [0, 1, 2]
    assert ds.attrs["completed"]
    assert "learning_rate" not in ds
    assert loop.said == []


@pytest.mark.parametrize("options", [{}, {"every": 1, "until": 3}, {"dtype": "float32"}])
def test_a_loop_without_an_optimizer_logs_its_learning_rate(options, tmp_path):
    loop = Loop()
    table = (W, GRADIENT, replace(LEARNING_RATE, **options))
    with crucible.attach(loop.embedding, None, tmp_path / "run", channels=table) as recorder:
        loop.backward()
        recorder.log(learning_rate=0.25)
        recorder.record()
    ds = open_trajectory(tmp_path / "run")
    assert ds.learning_rate.values[1] == 0.25
    np.testing.assert_array_equal(ds.gradient.values[1], loop.embedding.weight.grad.numpy())


def set_to_zero(parameter):
    parameter.grad.zero_()


def exchange_for_zeros(parameter):
    parameter.grad = torch.zeros_like(parameter)


def drop(parameter):
    parameter.grad = None


@pytest.mark.parametrize(
    ("clear", "words"),
    [
        (set_to_zero, "has a gradient that was set to 0 behind the backward pass when recorder.record()"),
        (exchange_for_zeros, "so that 0 is kept"),
        (drop, "has no gradient when recorder.record() is called for update 1, so that NaN is kept"),
    ],
)
def test_a_gradient_that_a_loop_without_an_optimizer_clears_before_its_row_is_told(clear, words, tmp_path):
    """As the tutorials write it: the update and the clearing stand in one block of torch.no_grad()."""
    loop, gradients = Loop(), []
    channels = (W, GRADIENT)
    for name, is_late in (("late", True), ("early", False)):
        loop.said.clear()
        gradients.clear()
        options = {"channels": channels, "say": loop.said.append}
        with crucible.attach(loop.embedding, None, tmp_path / name, **options) as recorder:
            for _ in range(4):
                loop.backward()
                gradients.append(loop.embedding.weight.grad.numpy().copy())
                with torch.no_grad():
                    loop.embedding.weight -= 0.1 * loop.embedding.weight.grad
                    if is_late:
                        clear(loop.embedding.weight)
                recorder.record()
        assert len(loop.said) == is_late
        assert not is_late or words in loop.said[0]
    np.testing.assert_array_equal(open_trajectory(tmp_path / "early").gradient.values[1:], np.stack(gradients))


@pytest.mark.parametrize("way", ["clipped", "zero"])
def test_a_gradient_that_a_loop_without_an_optimizer_clips_or_that_is_0_is_nothing_to_speak_of(way, tmp_path):
    loop = Loop()
    options = {"channels": (W, GRADIENT), "say": loop.said.append}
    with crucible.attach(loop.embedding, None, tmp_path / "run", **options) as recorder:
        for _ in range(4):
            loop.optimizer.zero_grad()
            (loop.embedding(torch.arange(ROWS)) * (way != "zero")).sum().backward()
            if way == "clipped":
                nn.utils.clip_grad_norm_(loop.embedding.parameters(), 0.1)
            with torch.no_grad():
                loop.embedding.weight.sub_(0.1)
            recorder.record()
    assert loop.said == []


def test_a_loop_without_an_optimizer_has_no_state_of_one(tmp_path):
    with pytest.raises(ValueError, match=r"adam_m is the state of an optimizer, and there is none.*Recorded\(ADAM_M"):
        crucible.attach(Loop().embedding, None, tmp_path / "run", channels=(W, ADAM_M))


def test_a_loop_that_never_says_so_is_told_at_the_end(tmp_path):
    loop = Loop()
    with crucible.attach(loop.embedding, None, tmp_path / "run", say=loop.said.append):
        loop.step()
    assert "recorder.record() was not called since recording began" in loop.said[0]


def make_anew(weights):
    """As NumPy's users write it: the name stands for another tensor afterwards, which nobody records."""
    return weights - 0.1 * torch.ones(ROWS, HIDDEN)


def write_in_place(weights):
    return weights.sub_(0.1)


def write_by_numpy(weights):
    weights.numpy()[:] -= 0.1  # which torch does not count
    return weights


def write_what_rounds_away(weights):
    return weights.sub_(1e-30)


@pytest.mark.parametrize("records", [3, 30])
def test_a_tensor_that_the_loop_makes_anew_instead_of_writing_to_it_is_told(records, tmp_path):
    weights, said = torch.randn(ROWS, HIDDEN), []
    with crucible.attach(weights, None, tmp_path / "run", say=said.append) as recorder:
        for _ in range(records):
            weights = make_anew(weights)
            recorder.record()
    assert f"in the last {min(records, 10)} updates nothing has written to the tensor" in said[-1]
    assert len([words for words in said if "nothing has written" in words]) == 1


@pytest.mark.parametrize("write", [write_in_place, write_by_numpy, write_what_rounds_away])
def test_a_tensor_that_is_written_to_is_nothing_to_speak_of_though_torch_may_not_count_it(write, tmp_path):
    weights, said = torch.randn(ROWS, HIDDEN), []
    with crucible.attach(weights, None, tmp_path / "run", say=said.append) as recorder:
        for step in range(30):
            if step != 20:  # one update that leaves it alone
                weights = write(weights)
            recorder.record()
    assert said == []  # nor of a tensor that needs no gradient


def test_what_is_said_to_give_the_numbers_of_bits_gives_them(tmp_path):
    embedding = torch.nn.Embedding(6, 4, dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(embedding.parameters())
    channels = [W, ADAM_M, ADAM_V, PUSH, OPTIMIZER_STEP]
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=channels):
        embedding(torch.arange(3)).float().square().sum().backward()
        optimizer.step()
    ds = open_trajectory(tmp_path / "run")
    of_bits = [name for name in ds.data_vars if "bits_of" in ds[name].attrs]
    assert sorted(of_bits) == ["W", "adam_m", "adam_v", "push"]
    for name in of_bits:
        said = re.fullmatch(r"bit patterns; (.*) gives the numbers", ds[name].attrs["comment"]).group(1)
        found = np.asarray(eval(said, {"analysis": analysis, "ds": ds}))
        expected = (ds[name].values.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(found[1:], expected[1:], strict=True)


# ---- writes that torch does not count


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", ["all", [1, 5, 6, 7, 19]])
def test_a_checkpoint_that_is_copied_into_data_is_told_at_any_update(dtype, rows, tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=1.0), dtype=dtype)
    begin = loop.embedding.weight.detach().clone()
    with loop.attach(tmp_path / "run", rows=rows):
        for step in range(8):
            loop.step()
            if step == 4:  # before update 6, which is no power of two
                loop.embedding.weight.data.copy_(begin)
    assert len(loop.said) == 1
    assert "the parameter was written to before update 6" in loop.said[0]


def test_weights_that_are_turned_where_they_lie_are_told_at_any_update(tmp_path):
    said, embedding = [], nn.Embedding(8, 8)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.01)
    with crucible.attach(embedding, optimizer, tmp_path / "run", say=said.append):
        for step in range(8):
            if step == 5:  # before update 6, which is no power of two
                embedding.weight.data = embedding.weight.data.t()
            embedding.weight.grad = torch.ones_like(embedding.weight)
            optimizer.step()
    assert len(said) == 1
    assert "the parameter was written to before update 6" in said[0]


def test_a_glance_finds_nothing_where_nothing_was_written(tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=1.0), dtype=torch.bfloat16)
    with loop.attach(tmp_path / "run", rows=[3]):
        for _ in range(12):
            loop.step()
    assert loop.said == []


def test_an_embedding_that_the_model_has_dropped_is_told_at_the_end(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run"):
        loop.step()
        dropped, loop.embedding = loop.embedding, nn.Embedding(ROWS, HIDDEN)
        for _ in range(3):
            loop.step()
    assert dropped.weight.grad is None
    assert "the parameter has had no gradient in the last 3 updates" in loop.said[0]


class Interrupts:
    """A channel of a user's, whose function is interrupted at the given updates."""

    def __init__(self, at):
        self.at, self.asked = set(at), 0

    def __call__(self, moment):
        self.asked += 1
        if self.asked - 1 in self.at:
            raise KeyboardInterrupt
        return moment.step

    @property
    def recorded(self):
        return Recorded(Channel("asked", (), "int64", meaning="the step", exported=False), self)


def interrupt_behind_a_row(writer, step):
    """Interrupt the writer once, as soon as it has taken the row of this step."""
    append = writer.append

    def interrupted(**rows):
        append(**rows)
        if writer.steps == step:
            raise KeyboardInterrupt

    writer.append = interrupted


def test_an_update_that_is_interrupted_after_it_moved_the_weights_is_told_however_few_rows_it_moves(tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1))
    with loop.attach(tmp_path / "run", channels=(W, Interrupts([6]).recorded)):
        for step in range(12):
            loop.optimizer.zero_grad()
            loop.embedding(torch.tensor([1 + step % 5])).sum().backward()  # rows that no glance is cast at
            try:
                loop.optimizer.step()
            except KeyboardInterrupt:
                continue
            loop.states.append(loop.weights())
    assert len(loop.said) == 1
    assert "the update before update 6 was broken off" in loop.said[0]
    same(tmp_path / "run", loop.states)


@pytest.mark.parametrize("optimizer", [True, False])
def test_a_row_that_is_lost_to_an_interrupt_where_the_loop_takes_it_is_told(optimizer, tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1))
    options = {"after": "record", "say": loop.said.append, "channels": (W, Interrupts([4]).recorded)}
    given = loop.optimizer if optimizer else None
    with crucible.attach(loop.embedding, given, tmp_path / "run", **options) as recorder:
        for _ in range(8):
            loop.backward()
            loop.optimizer.step()
            with contextlib.suppress(KeyboardInterrupt):
                recorder.record()
            loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states[:4] + loop.states[5:])
    assert len(loop.said) == 1
    assert "the update before update 4 was broken off" in loop.said[0]


@pytest.mark.parametrize("optimizer", [True, False])
def test_a_row_that_is_asked_for_again_after_an_interrupt_is_there(optimizer, tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1))
    options = {"after": "record", "say": loop.said.append, "channels": (W, Interrupts([4]).recorded)}
    given = loop.optimizer if optimizer else None
    with crucible.attach(loop.embedding, given, tmp_path / "run", **options) as recorder:
        for step in range(8):
            loop.backward()
            loop.optimizer.step()
            if step == 3:
                with pytest.raises(KeyboardInterrupt):
                    recorder.record()
            recorder.record()
            loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states)
    assert loop.said == []


def test_an_interrupt_behind_a_row_that_the_loop_takes_lets_the_count_go_on(tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1))
    options = {"say": loop.said.append, "channels": (W, Interrupts([]).recorded)}
    with crucible.attach(loop.embedding, None, tmp_path / "run", **options) as recorder:
        interrupt_behind_a_row(recorder.writer, 3)
        for _ in range(8):
            loop.backward()
            loop.optimizer.step()
            with contextlib.suppress(KeyboardInterrupt):
                recorder.record()
            loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states)
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").asked, np.arange(9))
    assert loop.said == []


def test_an_update_that_fails_before_it_moves_anything_is_nobodys_business(tmp_path):
    loop = Loop()

    def fails():
        raise KeyboardInterrupt

    with loop.attach(tmp_path / "run"):
        for step in range(8):
            loop.step()
            if step == 3:
                with pytest.raises(KeyboardInterrupt):
                    loop.optimizer.step(fails)
    same(tmp_path / "run", loop.states)
    assert loop.said == []


def test_an_interrupt_behind_a_row_lets_the_count_go_on(tmp_path):
    loop = Loop()
    with loop.attach(tmp_path / "run", channels=(W, Interrupts([]).recorded)) as recorder:
        interrupt_behind_a_row(recorder.writer, 3)
        for _ in range(8):
            loop.backward()
            with contextlib.suppress(KeyboardInterrupt):
                loop.optimizer.step()
            loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states)
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").asked, np.arange(9))
    assert loop.said == []


def test_weights_that_are_written_to_in_the_steps_closure_are_told_and_the_push_starts_from_them(tmp_path):
    torch.manual_seed(0)
    said, embedding = [], nn.Embedding(ROWS, 64, dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=1e-3)
    with crucible.attach(embedding, optimizer, tmp_path / "run", say=said.append):
        for step in range(6):

            def closure(step=step):
                if step == 2:
                    with torch.no_grad():
                        embedding.weight.mul_(1e6)
                optimizer.zero_grad()
                embedding(torch.arange(ROWS)).float().sum().backward()

            optimizer.step(closure)
    assert len(said) == 1
    assert "written to before update 3" in said[0]
    ds = open_trajectory(tmp_path / "run")
    push = analysis.lattice.bits_to_float32(ds.push.values)
    assert (push[1:3] > 1).all()
    assert (push[3:] < 1).all(), "a million times as large, the weights stand still under the same gradient"


def test_an_embedding_with_a_largest_norm_is_told_where_its_forward_pass_is_in_the_closure(tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=1e-2), max_norm=0.5)
    with loop.attach(tmp_path / "run"):
        for _ in range(4):
            loop.optimizer.step(loop.backward)
            loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states)
    assert len(loop.said) == 1
    assert "max_norm" in loop.said[0]


def test_a_closure_that_writes_what_is_there_already_is_nobodys_business(tmp_path):
    loop = Loop(lambda p: torch.optim.LBFGS(p, lr=1e-2))

    def closure():
        loop.optimizer.zero_grad()
        with torch.no_grad():
            loop.embedding.weight.mul_(1)
        loss = loop.head(loop.embedding(torch.arange(ROWS))).square().mean()
        loss.backward()
        return loss

    with loop.attach(tmp_path / "run"):
        for _ in range(4):
            loop.optimizer.step(closure)
            loop.states.append(loop.weights())
    same(tmp_path / "run", loop.states)
    assert loop.said == []


def test_weights_that_were_made_in_inference_mode_are_recorded(tmp_path):
    with torch.inference_mode():
        weights = torch.ones(ROWS, HIDDEN)
    states = [weights.numpy().copy()]
    with crucible.attach(weights, None, tmp_path / "run", channels=(W,)) as recorder:
        for _ in range(4):
            with torch.inference_mode():
                weights.mul_(1.1)
            recorder.record()
            states.append(weights.numpy().copy())
    same(tmp_path / "run", states)


def test_a_channel_of_yours_may_be_made_in_inference_mode(tmp_path):
    loop = Loop()

    @torch.inference_mode()
    def doubled(moment):
        return moment.parameter * 2

    twice = Recorded(Channel("twice", ("token", "hidden"), "float32", meaning="W twice", exported=False), doubled)
    with loop.attach(tmp_path / "run", channels=(W, twice)):
        for _ in range(4):
            loop.step()
    same(tmp_path / "run", loop.states)
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").twice, 2 * np.stack(loop.states))


def test_the_default_device_is_that_of_the_loop_and_not_of_the_recorder(tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=1e-2), dtype=torch.bfloat16)
    with torch.device("meta"), loop.attach(tmp_path / "run", channels=(W, PUSH, crucible.LOSS)) as recorder:
        for _ in range(4):
            recorder.log(loss=1.0)
            recorder.log(loss=torch.tensor(2.0, device="cpu"))
            loop.optimizer.zero_grad()
            loop.embedding(torch.arange(ROWS, device="cpu")).sum().backward()
            loop.optimizer.step()
            loop.states.append(loop.weights())
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.loss[1:], np.full(4, 1.5))
    np.testing.assert_array_equal(analysis.lattice.bits_to_float32(ds.W.values), np.stack(loop.states))


def test_an_average_that_is_left_in_the_weights_once_is_told_though_it_was_taken_out_again_every_time_before(tmp_path):
    loop = Loop(lambda p: torch.optim.SGD(p, lr=0.1))
    average = loop.embedding.weight.detach().clone()
    with loop.attach(tmp_path / "run"):
        for step in range(12):
            loop.optimizer.zero_grad()
            loop.embedding(torch.tensor([1 + step % 5])).sum().backward()  # rows that no glance is cast at
            loop.optimizer.step()
            kept = loop.embedding.weight.detach().clone()
            loop.states.append(kept.numpy())
            with torch.no_grad():
                average.lerp_(kept, 0.1)
                loop.embedding.weight.copy_(average)
                if step != 10:
                    loop.embedding.weight.copy_(kept)
    same(tmp_path / "run", loop.states)
    assert len(loop.said) == 1
    assert "written to before update 12" in loop.said[0]


def test_a_gradient_that_is_made_in_the_closure_is_that_of_the_update(tmp_path):
    loop, gradients = Loop(lambda p: torch.optim.SGD(p, lr=0.1)), []

    def closure():
        loop.optimizer.zero_grad(set_to_none=False)
        loop.head(loop.embedding(torch.arange(ROWS))).square().mean().backward()
        gradients.append(loop.embedding.weight.grad.numpy().copy())

    with loop.attach(tmp_path / "run", channels=(W, GRADIENT)):
        for _ in range(4):
            loop.optimizer.step(closure)
    np.testing.assert_array_equal(open_trajectory(tmp_path / "run").gradient.values[1:], np.stack(gradients))
    assert loop.said == []


@pytest.mark.parametrize("after", ["step", "record"])
def test_where_a_closure_is_called_several_times_its_first_call_counts(after, tmp_path):
    loop, gradients, means = Loop(lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4)), [], []

    def closure():
        loop.optimizer.zero_grad()
        hidden = loop.embedding(torch.arange(ROWS))
        loss = loop.head(hidden).square().mean()
        loss.backward()
        gradients[-1].append(loop.embedding.weight.grad.numpy().copy())
        means[-1].append(hidden.detach().mean(dim=0).numpy())
        return loss

    channels = (W, GRADIENT, hidden_mean(loop.embedding))
    with loop.attach(tmp_path / "run", channels=channels, after=after) as recorder:
        for _ in range(3):
            gradients.append([])
            means.append([])
            loop.optimizer.step(closure)
            if after == "record":
                recorder.record()
    assert min(len(each) for each in gradients) > 1
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.gradient.values[1:], np.stack([each[0] for each in gradients]))
    np.testing.assert_allclose(ds.h_mean.values[1:], np.stack([each[0] for each in means]), rtol=1e-5)
    assert len(loop.said) == 1
    assert "LBFGS calls its closure several times in a step" in loop.said[0]


# ---- hooks of others, before and behind the recorder's


def halve_the_rate(loop):
    loop.optimizer.param_groups[0]["lr"] *= 0.5


def clear_the_gradients(loop):
    loop.optimizer.zero_grad()


def hooked(loop, when, change):
    """A hook of the loop's, of which torch takes no answer."""

    def hook(*_):
        change(loop)

    getattr(loop.optimizer, f"register_step_{when}_hook")(hook)


TABLE = (W, GRADIENT, LEARNING_RATE, PUSH, OPTIMIZER_STEP)
NARROW = {"dtype": torch.bfloat16}


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.99), weight_decay=0)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-2)


@pytest.mark.parametrize("make", [adam, sgd])
@pytest.mark.parametrize("after", ["step", "record"])
@pytest.mark.parametrize("change", [halve_the_rate, clear_the_gradients])
def test_what_a_hook_changes_behind_the_step_is_recorded_as_the_step_had_it(change, after, make, tmp_path):
    """The hook was there before the recorder's: a scheduler that is stepped there, say."""
    plain = Loop(make, **NARROW)
    with plain.attach(tmp_path / "plain", channels=TABLE):
        for _ in range(5):
            plain.step(lambda: change(plain))
    loop = Loop(make, **NARROW)
    hooked(loop, "post", change)
    with loop.attach(tmp_path / "run", channels=TABLE, after=after) as recorder:
        for _ in range(5):
            loop.step(recorder.record if after == "record" else lambda: None)
    assert open_trajectory(tmp_path / "run").equals(open_trajectory(tmp_path / "plain"))
    assert loop.said == []


def shrink(loop):
    loop.embedding.weight.data.mul_(0.9)


def test_weights_that_a_later_hook_writes_to_before_the_step_are_told_and_the_push_starts_from_them(tmp_path):
    early, loop = Loop(adam, **NARROW), Loop(adam, **NARROW)
    hooked(early, "pre", shrink)
    with early.attach(tmp_path / "early", channels=TABLE), loop.attach(tmp_path / "run", channels=TABLE):
        hooked(loop, "pre", shrink)
        for _ in range(12):
            early.step()
            loop.step()
    assert open_trajectory(tmp_path / "run").equals(open_trajectory(tmp_path / "early"))
    assert len(loop.said) == 1
    assert "written to before update 1" in loop.said[0]


def test_several_recorders_of_one_optimizer_each_keep_what_the_step_had(tmp_path):
    loop = Loop(adam, **NARROW)
    with loop.attach(tmp_path / "before", channels=TABLE):
        hooked(loop, "post", halve_the_rate)
        with loop.attach(tmp_path / "behind", channels=TABLE):
            hooked(loop, "pre", shrink)
            for _ in range(6):
                loop.step()
    before, behind = (open_trajectory(tmp_path / name) for name in ("before", "behind"))
    assert before.equals(behind)
    assert before.learning_rate.values[1:].tolist() == [1e-2 * 0.5**k for k in range(6)]


def test_a_hook_that_fails_behind_the_step_leaves_nothing_of_its_update_behind(tmp_path):
    loop = Loop(adam, **NARROW)

    def fail(loop):
        halve_the_rate(loop)
        if loop.optimizer.param_groups[0]["lr"] == 1e-2 * 0.5**3:
            raise ZeroDivisionError

    hooked(loop, "post", fail)
    with loop.attach(tmp_path / "run", channels=TABLE):
        for _ in range(6):
            with contextlib.suppress(ZeroDivisionError):
                loop.step()
    rates = open_trajectory(tmp_path / "run").learning_rate.values[1:].tolist()
    assert rates == [1e-2 * 0.5**k for k in (0, 1, 3, 4, 5)]
    assert len(loop.said) == 1
    assert "the update before update 3 was broken off" in loop.said[0]
