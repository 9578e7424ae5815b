"""The push against torch's own optimizers: every new weight bit for bit, and what moves exactly where it says."""

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from optimizer_steps import (
    DTYPES,
    OPTIMIZERS,
    ROUNDS_ONCE,
    adds_with_one_rounding,
    bits,
    exact_sgd,
    make,
    sgd_is_exact,
    strange,
    take_step,
    train,
)

from analysis import lattice
from analysis.optimizers.push_arithmetic import bits_rounded_up
from crucible.channels.push import Arithmetic, Refused, arithmetic_of
from crucible.channels.push_rows import Pushes, PushesOnHost, pushes_of
from crucible.channels.push_source import PushOf
from crucible.channels.sources import Moment
from crucible.channels.tensors import one_thread

PAIRS = [sgd_is_exact(name, dtype) for name in OPTIMIZERS for dtype in DTYPES]
EVERY = pytest.mark.parametrize(("name", "dtype"), PAIRS)


def check(step):
    """Predict a step from what was stored after it, and hold it against the weights that torch left."""
    sums = lattice.proposed(step.before, step.m, step.v, gradient=step.gradient, **step.numbers)
    old, new = lattice.as_float32(step.before), lattice.as_float32(step.after)
    told = lattice.rounded(sums, step.before.dtype)
    same = (lattice.patterns_of(told) == lattice.patterns_of(step.after)) | (
        np.isnan(lattice.as_float32(told)) & np.isnan(new)
    )
    assert same.all(), f"{np.count_nonzero(~same)} new weights of {same.size} are not those of torch"
    known = np.isfinite(old) & ~np.isnan(new)
    moves = lattice.moves_weight(step.before, lattice.half_cells(step.before, sums))
    assert ((moves == (old != new)) | ~known).all()
    return known.sum(), (moves & known).sum()


@EVERY
def test_a_training_moves_exactly_what_the_push_says(name, dtype):
    seen = [check(step) for step, *_ in train(name, DTYPES[dtype], steps=12)]
    known, moved = np.sum(seen, axis=0)
    assert known == 12 * 96 * 64
    assert moved


@pytest.mark.default_cases(15)
@EVERY
@pytest.mark.parametrize("seed", range(2))
def test_weights_and_gradients_of_every_size_move_exactly_as_the_push_says(name, dtype, seed):
    known, moved = np.sum([check(step) for step, *_ in strange(name, DTYPES[dtype], 6, seed=seed)], axis=0)
    assert known > 50_000
    assert moved


@pytest.mark.slow
@EVERY
def test_millions_of_elements(name, dtype):
    known, _ = np.sum([check(step) for step, *_ in strange(name, DTYPES[dtype], 10, 1 << 20, seed=11)], axis=0)
    assert known > 2_000_000


@pytest.mark.slow
@EVERY
def test_a_long_training(name, dtype):
    known, _ = np.sum([check(step) for step, *_ in train(name, DTYPES[dtype], steps=1500)], axis=0)
    assert known == 1500 * 96 * 64


@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_decay_just_below_the_bound_moves_nothing_by_itself(dtype):
    bound = 2.0**-9 if dtype == "bfloat16" else 2.0**-12
    below = float(np.nextafter(bound, 0))
    for step, *_ in strange("adamw decay", DTYPES[dtype], 4, lr=1.0, weight_decay=below):
        check(step)
    with pytest.raises(ValueError, match="weight decay alone can move a weight"):
        lattice.push(step.before, step.m, step.v, **(step.numbers | {"weight_decay": bound}))


@pytest.mark.parametrize("name", [sgd_is_exact(name) for name in ["adamw decay", "adam", "sgd", "sgd momentum"]])
def test_a_learning_rate_that_is_a_tensor_is_followed_in_its_precision(name):
    rate = torch.tensor(OPTIMIZERS[name][1]["lr"])
    for step, optimizer, weights in strange(name, torch.bfloat16, 4, lr=rate):
        found = arithmetic_of(optimizer, weights)
        assert found.exact
        assert type(found.step_taken(optimizer, weights).update.lr) is np.float32
        check(step_with(step, lr=np.float32(rate.item())))


@pytest.mark.parametrize("rate", [1e-3, torch.tensor(1e-3), torch.tensor(1e-3, dtype=torch.float64), np.float32(1e-3)])
def test_the_scalars_are_those_of_torchs_python(rate):
    weights = parameter()
    optimizer = torch.optim.AdamW([weights], lr=rate, betas=(0.87, 0.997))
    for count in (*range(1, 200), 10_000, 1_000_000):
        optimizer.state[weights] = {"step": torch.tensor(float(count))}
        step_size, correction = arithmetic_of(optimizer, weights).numbers(optimizer, weights).scalars()
        # as torch/optim/adam.py writes them
        assert float(step_size) == float(rate / (1 - 0.87 ** float(count)))
        assert correction == (1 - 0.997 ** float(count)) ** 0.5


@pytest.mark.parametrize("foreach", [False, True])
def test_a_learning_rate_of_numpys_float32_is_followed_in_its_precision(foreach):
    """As ``group["lr"] = schedule[step]`` has it: Python's division keeps float32 then."""
    for step, optimizer, weights in strange("adam", torch.bfloat16, 12, lr=np.float32(0.7), foreach=foreach):
        found = arithmetic_of(optimizer, weights)
        assert found.exact
        assert type(found.step_taken(optimizer, weights).update.lr) is np.float32
        assert found.attributes(optimizer, weights)["lr_is_float32"] is True
        check(step)


def step_with(step, **numbers):
    changed = copy.copy(step)
    changed.numbers = step.numbers | numbers
    return changed


@pytest.mark.default_cases(15)
@EVERY
@pytest.mark.parametrize("way", [Pushes, PushesOnHost])  # that of other devices is tried here, too
def test_the_push_of_rows_is_numpys_to_the_bit(name, dtype, way):
    for steps in (train(name, DTYPES[dtype], 6), strange(name, DTYPES[dtype], 3)):
        pushes = None
        for step, optimizer, weights in steps:
            if pushes is None:
                pushes = way(as_tensor(step.before))
            found = arithmetic_of(optimizer, weights)
            assert (found.variant, found.exact) == (step.numbers["variant"], True)
            told = pushes.of(found.step_taken(optimizer, weights))
            true = lattice.push(step.before, step.m, step.v, gradient=step.gradient, **step.numbers)
            np.testing.assert_array_equal(bits(told), bits_rounded_up(true))
            pushes.keep(weights)


@pytest.mark.parametrize("way", [Pushes, PushesOnHost])
def test_an_interrupt_while_the_weights_are_looked_at_leaves_nothing_half_made(way, monkeypatch):
    pushes = None
    for step, optimizer, weights in strange("adamw", torch.bfloat16, 3):
        if pushes is None:
            pushes = way(torch.zeros_like(weights))
        with monkeypatch.context() as patched:
            patched.setattr(torch, "div", interrupt)
            with pytest.raises(KeyboardInterrupt):
                pushes.keep(as_tensor(step.before))
        pushes.keep(as_tensor(step.before))
        told = pushes.of(arithmetic_of(optimizer, weights).step_taken(optimizer, weights))
        true = lattice.push(step.before, step.m, step.v, **step.numbers)
        np.testing.assert_array_equal(bits(told), bits_rounded_up(true))


def interrupt(*_, **__):
    raise KeyboardInterrupt


def as_tensor(array):
    return torch.from_numpy(array).view(torch.bfloat16) if array.dtype == np.uint16 else torch.from_numpy(array)


def test_rows_that_are_picked_have_the_push_that_they_have_among_all():
    rows = torch.tensor([3, 17, 40, 41, 95])
    everything = picked = None
    for step, optimizer, table in train("adamw", torch.bfloat16, 5):
        everything = everything or pushes_of(as_tensor(step.before))
        picked = picked or pushes_of(as_tensor(step.before), rows)
        found = arithmetic_of(optimizer, table)
        taken = found.step_taken(optimizer, table)
        assert torch.equal(picked.of(taken), everything.of(taken)[rows])
        everything.keep(table)
        picked.keep(table)


def test_a_row_whose_push_is_at_most_1_does_not_move_unless_it_is_a_tie():
    for step, optimizer, table in train("adamw", torch.bfloat16, 30):
        told = pushes_of(as_tensor(step.before)).of(arithmetic_of(optimizer, table).step_taken(optimizer, table))
        moved = (step.before != step.after).any(axis=1)
        assert not moved[(told < 1).numpy()].any()
        assert moved[(told > 1).numpy()].mean() > 0.99  # not all: rounded up


def test_weights_of_any_shape():
    for shape in [(5,), (3, 2, 4), (1, 64), (7, 3)]:
        weights = torch.nn.Parameter(torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape).bfloat16())
        optimizer = torch.optim.AdamW([weights], lr=1e-3)
        pushes = pushes_of(weights)
        weights.grad = torch.ones_like(weights)
        step = take_step(optimizer, weights)
        flat = [array.reshape(shape[0], -1) for array in (step.before, step.m, step.v)]
        told = pushes.of(arithmetic_of(optimizer, weights).step_taken(optimizer, weights))
        np.testing.assert_array_equal(bits(told), bits_rounded_up(lattice.push(*flat, **step.numbers)))


def test_a_schedule_is_followed_step_by_step():
    table = torch.nn.Parameter(torch.randn(8, 64, generator=torch.Generator().manual_seed(1)).bfloat16())
    optimizer = torch.optim.AdamW([table], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    seen = []
    for k in range(5):
        table.grad = torch.full_like(table, 1e-3 * (-1) ** k)
        step = take_step(optimizer, table)
        seen.append(arithmetic_of(optimizer, table).step_taken(optimizer, table).update.lr)
        assert seen[-1] == step.numbers["lr"]
        check(step)
        schedule.step()
    assert len(set(seen)) == 5


def parameter(*shape, dtype=torch.bfloat16):
    return torch.nn.Parameter(torch.ones(shape or (8, 64), dtype=dtype))


def reason(optimizer, weights):
    found = arithmetic_of(optimizer, weights)
    assert isinstance(found, Refused)
    return found.reason


class Subclass(torch.optim.AdamW):
    """May compute anything."""


@pytest.mark.parametrize("cls", [Subclass, torch.optim.Adamax, torch.optim.RMSprop, torch.optim.NAdam])
def test_other_optimizers_are_refused_and_named(cls):
    weights = parameter()
    assert cls.__name__ in reason(cls([weights], lr=1e-3), weights)


def test_what_has_no_push_is_refused_with_the_reason():
    weights = parameter()
    assert "lr x weight_decay = 0.002" in reason(torch.optim.AdamW([weights], lr=2e-2, weight_decay=0.1), weights)
    assert "does not hold this parameter" in reason(torch.optim.AdamW([parameter()]), weights)
    assert "issue 191763" in reason(torch.optim.SGD([weights], fused=True), weights)
    for dtype in (torch.float32, torch.float64):
        wide = parameter(dtype=dtype)
        assert "add up" in reason(torch.optim.AdamW([wide]), wide)
    optimizer = torch.optim.AdamW([weights])
    optimizer.state[weights]["exp_avg"] = torch.zeros(8, 64)
    assert "exp_avg is torch.float32" in reason(optimizer, weights)
    weights = parameter()
    weights.grad_dtype = None
    weights.grad = torch.ones(8, 64)
    assert "the gradient is torch.float32" in reason(torch.optim.SGD([weights]), weights)


@pytest.mark.parametrize(
    ("cls", "options", "why"),
    [
        (torch.optim.AdamW, {"fused": True}, "fused=True"),
        (torch.optim.AdamW, {"differentiable": True}, "differentiable=True"),
        (torch.optim.AdamW, {"capturable": True}, "capturable=True"),
        (torch.optim.Adam, {"betas": (torch.tensor(0.9), torch.tensor(0.999))}, "betas"),
        (torch.optim.SGD, {"lr": torch.tensor(0.1, dtype=torch.bfloat16)}, "learning rate"),
        (torch.optim.AdamW, {"lr": np.float16(0.1)}, "NumPy's float16"),
    ],
)
def test_what_is_computed_otherwise_is_marked(cls, options, why):
    weights = parameter()
    found = arithmetic_of(cls([weights], **options), weights)
    assert isinstance(found, Arithmetic)
    assert not found.exact
    assert why in found.inexact


def test_a_fused_adamw_is_nearly_told():
    for decay in (0.0, 0.5, 2.5):  # the last is above the bound, but a fused kernel adds it to the step
        wrong = seen = 0
        for step, optimizer, table in train("adamw", torch.bfloat16, 20, fused=True, weight_decay=decay):
            found = arithmetic_of(optimizer, table)
            assert not found.exact
            sums = lattice.proposed(step.before, step.m, step.v, **step.numbers, fused=True)
            moves = lattice.moves_weight(step.before, lattice.half_cells(step.before, sums))
            wrong += np.count_nonzero(moves != (step.before != step.after))
            seen += moves.size
            told = pushes_of(as_tensor(step.before)).of(found.step_taken(optimizer, table)).float().numpy()
            true = np.abs(lattice.half_cells(step.before, sums)).max(axis=1)
            np.testing.assert_allclose(told, true, rtol=2**-7)
        assert wrong < 1e-3 * seen


@exact_sgd
def test_sgd_is_exact_where_every_thread_adds_whole_vectors():
    """torch adds the last elements of a thread's share one by one, and rounds the product of those first."""
    for shape, exact in [((8, 64), True), ((8, 63), False), ((1, 64), True), ((1, 3), False)]:
        weights = parameter(*shape)
        assert arithmetic_of(torch.optim.SGD([weights]), weights).exact is exact
        assert arithmetic_of(torch.optim.AdamW([weights]), weights).exact
    odd = torch.nn.Parameter(torch.ones(2, 64, 64, dtype=torch.bfloat16).transpose(1, 2))
    assert "one" not in arithmetic_of(torch.optim.AdamW([odd]), odd).inexact
    assert not arithmetic_of(torch.optim.SGD([odd]), odd).exact


@exact_sgd
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_sgd_is_not_exact_with_a_gradient_that_is_not_contiguous_nor_with_the_momentum_that_is_made_of_it(options):
    """As `torch.autograd.grad` gives it of a transposed product; torch adds it one by one."""
    weights = parameter(64, 64)
    optimizer = torch.optim.SGD([weights], lr=0.5137, **options)
    assert arithmetic_of(optimizer, weights).exact
    weights.grad = torch.randn(64, 64).bfloat16().t()
    optimizer.step()
    assert "gradient is not contiguous" in arithmetic_of(optimizer, weights).inexact
    weights.grad = weights.grad.contiguous()
    optimizer.step()
    assert arithmetic_of(optimizer, weights).exact is not bool(options)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_sgd_is_called_exact_where_torch_adds_with_one_rounding_and_else_its_machine_is_named(dtype):
    weights = parameter(dtype=dtype)
    found = arithmetic_of(torch.optim.SGD([weights]), weights)
    assert found.exact is adds_with_one_rounding(dtype)
    if not found.exact:
        capability = torch.backends.cpu.get_cpu_capability()
        assert found.inexact == f"on a CPU like this one ({capability}) torch rounds the updates of SGD once more"


@pytest.mark.slow
@pytest.mark.skipif(not ROUNDS_ONCE, reason="it is asked of this machine itself")
def test_sgd_without_the_vectors_of_this_machine_is_not_called_exact():
    name = test_sgd_is_called_exact_where_torch_adds_with_one_rounding_and_else_its_machine_is_named.__name__
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    told = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        f"{__file__}::{name}",
        "--override-ini=addopts=--import-mode=importlib",
    ]
    assert subprocess.run(told, env=environment, check=False).returncode == 0


@exact_sgd
def test_only_the_tail_of_sgd_is_told_wrong():
    generator = torch.Generator().manual_seed(2)
    weights = torch.nn.Parameter(torch.randn(1, 10_007, generator=generator).bfloat16())
    optimizer = torch.optim.SGD([weights], lr=0.5137)
    wrong = np.zeros(10_007, bool)
    for _ in range(40):
        weights.grad = torch.randn(1, 10_007, generator=generator).bfloat16()
        step = take_step(optimizer, weights)
        told = lattice.rounded(lattice.proposed(step.before, step.m, **step.numbers), np.uint16)
        wrong |= (told != step.after)[0]
    assert not wrong[: 10_007 - 10_007 % 64].any()


def test_a_step_without_its_parts_has_no_push():
    weights = parameter()
    pushes = pushes_of(weights)
    for optimizer in (torch.optim.AdamW([weights]), torch.optim.SGD([weights]), make("sgd momentum", weights)):
        step = arithmetic_of(optimizer, weights).step_taken(optimizer, weights)
        assert step is None
        assert pushes.of(step).isnan().all()
    weights.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 64).bfloat16(), (8, 64), check_invariants=True)
    optimizer = torch.optim.SGD([weights])
    assert arithmetic_of(optimizer, weights).step_taken(optimizer, weights) is None


def test_a_schedule_that_passes_the_bound_of_weight_decay_has_no_push_there():
    weights = parameter()
    optimizer = torch.optim.AdamW([weights], lr=1e-3, weight_decay=0.1)
    pushes, found = pushes_of(weights), arithmetic_of(optimizer, weights)
    known = []
    for rate in (1e-3, 0.1, 1e-3):
        optimizer.param_groups[0]["lr"] = rate
        weights.grad = torch.ones_like(weights)
        optimizer.step()
        known.append(not pushes.of(found.step_taken(optimizer, weights)).isnan().any())
        pushes.keep(weights)
    assert known == [True, False, True]


def test_nan_and_infinite_weights_have_no_push_and_disturb_no_other_row():
    for dtype in DTYPES.values():
        weights = torch.nn.Parameter(torch.ones(6, 4, dtype=dtype))
        with torch.no_grad():
            weights[1, 2], weights[3, 0] = torch.nan, torch.inf
            weights.view(torch.int16)[5, 1], weights.view(torch.int16)[4, 3] = 0x7FFF, -1  # NaN with every bit set
        optimizer = torch.optim.AdamW([weights], eps=1e-3)
        pushes = pushes_of(weights)
        weights.grad = torch.ones_like(weights)
        optimizer.step()
        told = pushes.of(arithmetic_of(optimizer, weights).step_taken(optimizer, weights))
        assert told.isnan().tolist() == [False, True, False, True, True, True]


@pytest.mark.parametrize("hidden", [64, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_on_the_move_are_kept_up_with(hidden, dtype):
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn(40, hidden, generator=generator).to(dtype)
    rows[::3, ::2] = 0.25  # powers of two, whose cell towards zero is narrow, come and go
    pushes = pushes_of(rows)
    weights = torch.nn.Parameter(rows.clone())
    optimizer = torch.optim.AdamW([weights])
    weights.grad = torch.randn(40, hidden, generator=generator).to(dtype)
    optimizer.step()
    step = arithmetic_of(optimizer, weights).step_taken(optimizer, weights)
    for k in range(24):
        rows = rows.clone()
        some = torch.randperm(40, generator=generator)[: (1, 2, 15, 40)[k % 4]]
        rows.view(torch.int16)[some, k % hidden] += 1 if k % 3 else -1  # by one cell
        rows[some[0], 1:3] = torch.tensor([-0.5, 0.5]).to(dtype)
        pushes.keep(rows if k % 2 else rows.t().contiguous().t())
        assert torch.equal(pushes.of(step), pushes_of(rows).of(step))


def test_rows_of_float32_are_refused():
    with pytest.raises(TypeError, match=r"not torch\.float32"):
        pushes_of(torch.ones(1, 4))


def test_flushed_subnormals_are_refused():
    torch.set_flush_denormal(True)
    try:
        with pytest.raises(FloatingPointError, match="flushes subnormal"):
            pushes_of(torch.ones(1, 4).bfloat16())
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_push_leaves_the_number_of_threads_as_it_was(threads):
    weight = torch.nn.Parameter(torch.ones(4, 64, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([weight], lr=0.001)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source = PushOf(arithmetic_of(optimizer, weight), optimizer, weight)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        moment = Moment(1, weight, None, optimizer, {})
        assert source(moment).tolist() == [pytest.approx(0.5117, rel=1e-4)] * 4
        assert torch.get_num_threads() == threads
        weight.grad = None
        weight.grad = torch.ones(4, 64, dtype=torch.bfloat16).to_sparse()  # a gradient that has no rows to take
        assert source(moment).isnan().all()
        assert torch.get_num_threads() == threads
        with pytest.raises(ZeroDivisionError), one_thread(weight):
            assert 1 // (torch.get_num_threads() - 1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
