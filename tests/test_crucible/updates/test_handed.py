"""What a loop logs: the loss that is stored is the loss of the update, whatever way the loop accumulates it."""

import itertools
import sys
from functools import partial
from weakref import WeakSet

import numpy as np
import pytest
import torch
from torch import nn

import crucible
from crucible.channels.sources import Recorded
from crucible.channels.table import LOSS, W
from crucible.updates import handed, scaling
from store.format.schema import Channel
from store.reading.reader import open_trajectory

ROWS, HIDDEN, MICRO = 20, 4, 4


class Accumulating:
    """A loop of nanoGPT's kind: several micro-batches an update."""

    def __init__(self, make=lambda p: torch.optim.SGD(p, lr=0.1)):
        torch.manual_seed(0)
        self.embedding = nn.Embedding(ROWS, HIDDEN)
        self.head = nn.Linear(HIDDEN, ROWS)
        self.optimizer = make([*self.embedding.parameters(), *self.head.parameters()])
        self.said, self.losses = [], []

    def attach(self, run, **options):
        options = {"channels": (W, LOSS), "say": self.said.append} | options
        return crucible.attach(self.embedding, self.optimizer, run, **options)

    def loss(self):
        ids = torch.randint(0, ROWS, (8,))
        return nn.functional.cross_entropy(self.head(self.embedding(ids)), ids)

    def update(self, log, *, divide=True, scaler=None, micro=MICRO):
        losses = []
        for _ in range(micro):
            loss = self.loss()
            losses.append(loss.item())
            share = loss / micro
            log(share if divide else loss)
            whole = share if scaler is None else scaler.scale(share)
            whole.backward()
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self.optimizer.zero_grad()
        self.losses.append(np.mean(losses))


def stored(run):
    return open_trajectory(run).loss.values[1:]


def test_the_sum_of_shares_is_the_loss(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        for _ in range(3):
            loop.update(lambda loss: recorder.log(loss=loss, reduce="sum"))
    np.testing.assert_allclose(stored(tmp_path / "run"), loop.losses, rtol=1e-6)
    assert loop.said == []


def test_the_mean_of_whole_losses_is_the_loss(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        for _ in range(3):
            loop.update(lambda loss: recorder.log(loss=loss), divide=False)
    np.testing.assert_allclose(stored(tmp_path / "run"), loop.losses, rtol=1e-6)
    assert loop.said == []


@pytest.mark.parametrize("odd", [float("inf"), float("nan")])
@pytest.mark.parametrize("divide", [True, False])
def test_of_a_loss_that_is_no_finite_number_no_other_is_said_to_be_right(odd, divide, tmp_path):
    loop = Accumulating()
    loss_of = loop.loss
    with loop.attach(tmp_path / "run") as recorder:
        loop.loss = lambda: loss_of() * odd
        loop.update(lambda loss: recorder.log(loss=loss, reduce="sum" if divide else "mean"), divide=divide)
    np.testing.assert_array_equal(stored(tmp_path / "run"), loop.losses)
    assert loop.said == []


def scaler():
    return torch.amp.GradScaler("cpu", init_scale=1024.0)


@pytest.mark.parametrize("make", [lambda: None, scaler], ids=["plain", "scaled"])
def test_the_mean_of_shares_is_said_to_be_too_small(make, tmp_path):
    loop, scaled = Accumulating(), make()
    with loop.attach(tmp_path / "run") as recorder:
        for _ in range(5):
            loop.update(lambda loss: recorder.log(loss=loss), scaler=scaled)
    assert len(loop.said) == 1
    mean, total = loop.losses[0] / MICRO, loop.losses[0]
    assert f"4 values of loss were logged before an update, and their mean, {mean:.4g}" in loop.said[0]
    assert f"log(loss=..., reduce='sum') records {total:.4g}" in loop.said[0]


@pytest.mark.parametrize("make", [lambda: None, scaler], ids=["plain", "scaled"])
def test_the_sum_of_whole_losses_is_said_to_be_too_large(make, tmp_path):
    loop, scaled = Accumulating(), make()
    with loop.attach(tmp_path / "run") as recorder:
        for _ in range(2):
            loop.update(lambda loss: recorder.log(loss=loss, reduce="sum"), divide=False, scaler=scaled)
    assert len(loop.said) == 1
    assert f"and their sum, {MICRO * loop.losses[0]:.4g}, is recorded" in loop.said[0]
    assert f"adds up to {loop.losses[0]:.4g}" in loop.said[0]
    assert "or loss without reduce='sum'" in loop.said[0]


def test_losses_of_micro_batches_that_weigh_differently_are_told(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        for _ in range(2):
            whole = 0.0
            for weight in (0.9, 0.1):
                loss = loop.loss() * (3 - weight)  # far from one another
                recorder.log(loss=loss)
                (weight * loss).backward()
                whole += weight * loss.item()
            loop.optimizer.step()
    assert len(loop.said) == 1
    assert "each value times its share, adds up to" in loop.said[0]


def test_a_loss_of_two_terms_is_nobodys_business(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        for _ in range(2):
            for _ in range(2):
                loss = loop.loss()
                recorder.log(loss=loss)
                (0.3 * loss).backward()
            loop.optimizer.step()
    assert loop.said == []


def test_an_evaluation_that_is_averaged_into_the_loss_is_told(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        with torch.no_grad():
            recorder.log(loss=loop.loss())
        loop.update(lambda loss: recorder.log(loss=loss), micro=1)
    assert len(loop.said) == 1
    assert "2 values of loss were logged before an update, and 1 of them have no gradient" in loop.said[0]


def test_a_loss_that_is_divided_in_place_after_it_was_logged_is_whole(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        whole = []
        for _ in range(MICRO):
            loss = loop.loss()
            whole.append(loss.item())
            recorder.log(loss=loss)
            loss /= MICRO
            loss.backward()
        loop.optimizer.step()
    np.testing.assert_allclose(stored(tmp_path / "run"), np.mean(whole), rtol=1e-6)
    assert loop.said == []


def test_one_loss_an_update_is_never_doubted(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        for _ in range(4):
            loop.update(lambda loss: recorder.log(loss=7 * loss), micro=1)
    assert loop.said == []


def test_looking_at_what_backward_is_called_on_ends_after_a_few_updates(tmp_path):
    loop, hooked = Accumulating(), []
    with loop.attach(tmp_path / "run") as recorder:
        for _ in range(5):

            def log(loss):
                recorder.log(loss=loss)
                hooked.append(bool(loss._backward_hooks))

            loop.update(log, divide=False, micro=1)
    assert hooked == [True] * 3 + [False] * 2


@pytest.mark.parametrize(
    "number",
    [
        torch.tensor([2.5]),
        torch.tensor([[2.5]]),
        np.float32(2.5),
        np.array([2.5]),
        torch.tensor(2.5, dtype=torch.float64),
    ],
    ids=["(1,)", "(1, 1)", "numpy", "array", "float64"],
)
def test_one_element_is_a_number(number, tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        recorder.log(loss=number)
        loop.update(lambda _: None)
        recorder.log(loss=number)
        recorder.log(loss=3.5)
        loop.update(lambda _: None)
    assert stored(tmp_path / "run").tolist() == [2.5, 3.0]


def test_a_source_may_give_one_element_for_a_number(tmp_path):
    loop = Accumulating()
    norm = Recorded(Channel("norm", (), "float32"), lambda moment: moment.weights.norm().reshape(1))
    with loop.attach(tmp_path / "run", channels=(W, norm)):
        loop.update(lambda _: None)
    assert open_trajectory(tmp_path / "run").norm.shape == (2,)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (torch.ones(8), ValueError, r"loss is one number, and this tensor has the shape \(8,\).*mean\(\)"),
        ("4.19", TypeError, "a number or a tensor, not a str"),
        (None, TypeError, "a number or a tensor, not None"),
        ([1.0], TypeError, "not a list"),
        (torch.tensor(1 + 2j), TypeError, "takes real numbers, not complex64"),
        (np.array([1 + 2j]), TypeError, "takes real numbers, not complex128"),
        (np.complex64(1 + 2j), TypeError, "not a complex64"),
    ],
)
def test_what_is_no_number_is_refused_where_it_is_logged(value, kind, words, tmp_path):
    loop = Accumulating()
    recorder = loop.attach(tmp_path / "run")
    with pytest.raises(kind, match=words):
        recorder.log(loss=value)
    loop.update(lambda loss: recorder.log(loss=loss), micro=1)  # nothing of it was kept
    recorder.close()
    assert stored(tmp_path / "run").shape == (1,)


def test_two_ways_to_make_one_number_in_one_update_are_refused(tmp_path):
    with Accumulating().attach(tmp_path / "run") as recorder:
        recorder.log(loss=1.0)
        with pytest.raises(ValueError, match="reduce='sum' now, and 'mean' earlier"):
            recorder.log(loss=1.0, reduce="sum")
        with pytest.raises(ValueError, match="'mean' or 'sum'"):
            recorder.log(loss=1.0, reduce="max")


def test_a_closure_that_is_called_often_counts_at_its_first_call(tmp_path):
    loop = Accumulating(lambda p: torch.optim.LBFGS(p, max_iter=5))
    first = []
    with loop.attach(tmp_path / "run") as recorder:
        for step in range(3):
            ids, called = torch.arange(ROWS), []

            def closure(ids=ids, called=called):
                loop.optimizer.zero_grad()
                loss = nn.functional.cross_entropy(loop.head(loop.embedding(ids)), ids)
                recorder.log(loss=loss)
                loss.backward()
                called.append(loss.item())
                return loss

            if step < 2:
                loop.optimizer.step(closure)
            else:
                loop.optimizer.step(closure=closure)
            first.append(called[0])
            assert len(called) > 1
    np.testing.assert_array_equal(stored(tmp_path / "run"), np.array(first, np.float32))


def test_what_is_accumulated_in_a_closure_is_averaged(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:

        def closure():
            recorder.log(loss=1.0)
            recorder.log(loss=2.0)
            loop.loss().backward()

        loop.optimizer.step(closure)
    assert stored(tmp_path / "run").tolist() == [1.5]


def test_what_is_logged_before_the_step_leaves_its_closure_to_be_heard(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run", scalars=True) as recorder:

        def closure():
            recorder.log(loss=2.0, tokens=9)
            loop.loss().backward()

        for _ in range(2):
            recorder.log(tokens=5)  # of the update; what the closure says of it comes too late
            loop.optimizer.step(closure)
    assert stored(tmp_path / "run").tolist() == [2.0, 2.0]
    assert open_trajectory(tmp_path / "run").tokens.values[1:].tolist() == [5, 5]


def test_what_a_closure_logged_that_failed_is_not_the_loss_of_the_next_update(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:

        def closure(loss, *, fails=False):
            recorder.log(loss=loss)
            if fails:
                raise ZeroDivisionError
            loop.loss().backward()

        with pytest.raises(ZeroDivisionError):
            loop.optimizer.step(partial(closure, 1.0, fails=True))
        loop.optimizer.step(partial(closure, 3.0))
    assert stored(tmp_path / "run").tolist() == [3.0]
    assert loop.said == []


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.1, max_iter=4)


@pytest.mark.parametrize(("make", "where"), [(lbfgs, "third call"), (torch.optim.SGD, "hook"), (lbfgs, "hook")])
def test_what_the_closure_of_a_broken_step_logged_is_not_the_loss_of_the_next_update(make, where, tmp_path):
    loop, calls = Accumulating(make), []

    def closure(value):
        calls.append(value)
        if where == "third call" and calls[-3:] == [2.0, 2.0, 2.0]:
            raise ZeroDivisionError
        loop.optimizer.zero_grad()
        loss = loop.loss()
        recorder.log(loss=value)
        loss.backward()
        return loss

    def hook(*_):
        if where == "hook" and calls[-1] == 2.0:
            raise ZeroDivisionError

    loop.optimizer.register_step_post_hook(hook)
    with loop.attach(tmp_path / "run") as recorder:
        loop.optimizer.step(partial(closure, 1.0))
        with pytest.raises(ZeroDivisionError):
            loop.optimizer.step(partial(closure, 2.0))
        recorder.log(loss=3.0)  # in the place of what the next closure logs
        loop.optimizer.step(partial(closure, 4.0))
        loop.optimizer.step(partial(closure, 5.0))
    assert stored(tmp_path / "run").tolist() == [1.0, 3.0, 5.0]


def interrupted(at, call):
    """Call this with an interrupt where its at-th line of code begins; whether it got so far."""
    lines = iter(range(at))

    def trace(frame, event, _):
        if frame.f_code.co_filename == handed.__file__ and event == "line" and next(lines, None) is None:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_wherever_an_interrupt_comes_what_was_logged_is_whole_or_gone():
    for end in ("clear", "forget_closure"):
        for at in itertools.count():
            logged = handed.Handed(["loss", "other"])
            logged.take("other", 2.0, "sum")
            logged.first_call_of(lambda logged=logged: logged.take("loss", 1.0, "mean"))()
            logged.take("loss", 3.0, "mean")
            came = interrupted(at, getattr(logged, end))
            after = {} if end == "clear" else {"other": 2.0, "loss": 3.0}
            assert logged.values() in ({"other": 2.0, "loss": 2.0}, after)
            logged.forget_closure()  # as the next step does after an interrupt
            logged.clear()
            assert logged.values() == {}
            if not came:
                break


def test_wherever_an_interrupt_comes_in_a_closure_the_next_steps_is_heard():
    for at in itertools.count():
        logged = handed.Handed(["loss", "other"])
        logged.take("other", 2.0, "mean")
        first, second = (logged.first_call_of(partial(logged.take, "loss", loss, "mean")) for loss in (1.0, 3.0))
        came = interrupted(at, first)
        logged.take("other", 4.0, "mean")  # by the loop, for the next step
        if came:
            logged.forget_closure()  # as the next step does after an interrupt
            second()
        assert logged.values() == {"other": 3.0, "loss": 3.0 if came else 1.0}
        if not came:
            break


@pytest.fixture
def spread():
    """Makes tensors of several processes, of which there is this one alone."""
    from torch.distributed.tensor import DTensor

    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    yield lambda local, placement: DTensor.from_local(local, mesh, [placement])
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("are_plain", [True, False])
def test_a_loss_of_several_processes_is_a_number_where_each_has_all_of_it(are_plain, spread):
    """As tensor parallelism gives it; where each has a part, adding up takes all of them."""
    from torch.distributed.tensor import Partial, Replicate

    logged = handed.Handed(["loss"], are_plain=are_plain)
    weight = torch.ones(1, requires_grad=True)
    for factor in (2.0, 4.0):
        loss = spread((weight * factor).sum(), Replicate())
        logged.take("loss", loss, "mean")
        (loss / 2).backward()
    assert type(logged.values()["loss"]) in (torch.Tensor, float)
    assert float(logged.values()["loss"]) == 3.0
    assert logged.disagreements(1.0) == []
    with pytest.raises(TypeError, match=r"this DTensor lies in parts .*Partial.*log its full_tensor"):
        logged.take("loss", spread(torch.ones(()), Partial()), "mean")


@pytest.mark.parametrize("make", [torch.optim.SGD, lambda p: torch.optim.AdamW(p, fused=True)], ids=["plain", "fused"])
def test_what_a_scaler_skips_is_forgotten_by_itself(make, tmp_path):
    loop, scaled = Accumulating(make), scaler()
    with loop.attach(tmp_path / "run") as recorder:
        for step in range(4):
            loss = loop.loss() * (float("inf") if step in (0, 2) else 1.0)
            scaled.scale(loss).backward()
            recorder.log(loss=float(step))
            scaled.step(loop.optimizer)
            scaled.update()
            loop.optimizer.zero_grad()
    assert stored(tmp_path / "run").tolist() == [1.0, 3.0]


def test_a_scaler_of_another_optimizer_says_nothing_of_this_one(tmp_path):
    loop, other, scaled = Accumulating(), Accumulating(), scaler()
    with loop.attach(tmp_path / "run") as recorder:
        recorder.log(loss=5.0)
        scaled.scale(other.loss() * float("inf")).backward()
        scaled.step(other.optimizer)
        scaled.update()
        loop.update(lambda _: None)
    assert stored(tmp_path / "run").tolist() == [5.0]


def test_a_scaler_is_given_back_as_it_was(tmp_path, monkeypatch):
    own = scaling._own
    monkeypatch.setattr(scaling, "_listeners", WeakSet())  # recorders of other tests may be open still
    monkeypatch.setattr(torch.amp.GradScaler, "step", own)
    loop = Accumulating()
    first, second = loop.attach(tmp_path / "one"), loop.attach(tmp_path / "two")
    assert torch.amp.GradScaler.step is not own
    first.close()
    assert torch.amp.GradScaler.step is not own
    second.close()
    assert torch.amp.GradScaler.step is own
    assert not scaling._listeners


def test_an_update_that_was_broken_off_after_its_log_is_told(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        recorder.log(loss=loop.loss())  # and an interrupt
        loop.update(lambda loss: recorder.log(loss=loss), micro=1)
    assert len(loop.said) == 1
    assert "2 values of loss were logged before an update, and backward was not called on 1 of them" in loop.said[0]


@pytest.mark.parametrize("as_number", [True, False], ids=["number", "tensor"])
def test_more_values_than_before_any_earlier_update_are_told(as_number, tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:

        def log(loss):
            recorder.log(loss=loss.item() if as_number else loss)

        for step in range(8):
            if step == 6:
                log(loop.loss())  # and an interrupt
            loop.update(log, micro=1)
    assert len(loop.said) == 1
    assert "update 7: 2 values of loss were logged, more than before any earlier update" in loop.said[0]


@pytest.mark.parametrize("later", [None, 4, 6])
def test_more_values_of_the_first_update_than_of_those_behind_it_are_told(later, tmp_path):
    """The loop is begun, interrupted in its first step and begun again; numbers tell nothing of what was optimised."""
    loop, steps = Accumulating(), 9
    with loop.attach(tmp_path / "run") as recorder:
        for step in range(steps):
            if step in (0, later):
                recorder.log(loss=1.0)  # and an interrupt
            loop.update(lambda loss: recorder.log(loss=loss.item()), micro=1)
    assert len(loop.said) == 1
    assert "update 1: 2 values of loss were logged, more than for each of the two updates behind it" in loop.said[0]


@pytest.mark.parametrize("counts", [(4, 1, 4, 1), (4, 4, 1, 1), (1, 1, 1, 1), (4,), (4, 1)])
@pytest.mark.parametrize("as_number", [True, False], ids=["number", "tensor"])
def test_an_epoch_of_few_updates_is_nobodys_business(as_number, counts, tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        for micro in counts:
            loop.update(lambda loss: recorder.log(loss=loss.item() if as_number else loss), divide=False, micro=micro)
    assert loop.said == []


def test_fewer_micro_batches_at_the_end_of_an_epoch_are_nobodys_business(tmp_path):
    loop = Accumulating()
    with loop.attach(tmp_path / "run") as recorder:
        for micro in (4, 4, 1, 4, 3, 4):
            loop.update(lambda loss: recorder.log(loss=loss), divide=False, micro=micro)
    assert loop.said == []
