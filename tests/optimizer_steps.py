"""A plain recorder of optimizer steps, for the tests of the push: own loop, torch's own optimizers, no crucible."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr

from analysis import lattice
from analysis.optimizers.push_arithmetic import bits_rounded_up
from analysis.optimizers.update_rules import MADE_OF

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
OPTIMIZERS = {
    "adamw": (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0}),
    "adamw foreach": (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0, "foreach": True}),
    "adamw decay": (torch.optim.AdamW, {"lr": 2e-3, "weight_decay": 0.1}),
    "adamw amsgrad": (torch.optim.AdamW, {"lr": 1e-3, "betas": (0.8, 0.95), "amsgrad": True}),
    "adam": (torch.optim.Adam, {"lr": 3e-3, "maximize": True}),
    "adam decay": (torch.optim.Adam, {"lr": 1e-3, "weight_decay": 0.1, "foreach": True}),
    "adam amsgrad": (torch.optim.Adam, {"lr": 1e-3, "eps": 1e-3, "amsgrad": True}),
    "adam huge lr": (torch.optim.Adam, {"lr": 30}),
    "adam decoupled": (torch.optim.Adam, {"lr": 1e-3, "weight_decay": 0.01, "decoupled_weight_decay": True}),
    "sgd": (torch.optim.SGD, {"lr": 0.3}),
    "sgd decay": (torch.optim.SGD, {"lr": 0.7, "weight_decay": 0.013, "maximize": True}),
    "sgd momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "sgd foreach": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.87, "foreach": True}),
    "sgd nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.87, "nesterov": True}),
    "sgd nesterov foreach": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.87, "nesterov": True, "foreach": True}),
    "sgd nesterov decay": (
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True},
    ),
}
"""One optimizer of each arithmetic. In float16 an eps of 1e-8 is 0, so a larger one is taken there."""


def adds_with_one_rounding(dtype):
    """Whether torch rounds a + alpha b once on this machine; a product of two such numbers is exact in float32."""
    a, b = (torch.linspace(low, high, 4096, dtype=dtype) for low, high in ((-1, 1), (0.1, 0.9)))
    alpha = torch.tensor(-0.51, dtype=dtype).float()
    return torch.equal(torch.add(a, b, alpha=-0.51), (a.float() + alpha * b.float()).to(dtype))


ROUNDS_ONCE = all(map(adds_with_one_rounding, DTYPES.values()))
exact_sgd = pytest.mark.skipif(
    not ROUNDS_ONCE, reason="torch adds with two roundings on this machine, so that no push of SGD is exact here"
)
"""Of tests that need torch's SGD to round once."""


def sgd_is_exact(*values):
    """A case for `pytest.mark.parametrize`, named after its values; that of an SGD has the mark `exact_sgd`."""
    is_sgd = str(values[0]).startswith("sgd")
    return pytest.param(*values, id="-".join(map(str, values)), marks=exact_sgd if is_sgd else ())


@dataclass
class Step:
    """What a plain recorder saw of one step, as bits; and the numbers of the step as the numpy functions take them."""

    before: np.ndarray
    after: np.ndarray
    m: np.ndarray
    v: np.ndarray | None
    gradient: np.ndarray
    numbers: dict


def bits(tensor):
    tensor = tensor.detach().clone()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def make(name, parameter, **changes):
    cls, options = OPTIMIZERS[name]
    small = {"eps": 1e-4} if parameter.dtype == torch.float16 and cls is not torch.optim.SGD else {}
    return cls([parameter], **(small | options | changes))


def take_step(optimizer, parameter):
    """Take the step, and tell what a plain loop sees of it."""
    before, gradient = bits(parameter), bits(parameter.grad)  # which some optimizers change in their step
    optimizer.step()
    group, state = optimizer.param_groups[0], optimizer.state[parameter]
    numbers = {"lr": group["lr"], "weight_decay": group["weight_decay"], "maximize": group["maximize"]}
    if isinstance(optimizer, torch.optim.SGD):
        kind = "_nesterov" if group["nesterov"] else "_momentum" if group["momentum"] else ""
        m, v = bits(state["momentum_buffer"]) if group["momentum"] else gradient, None
        numbers |= {"variant": f"sgd{kind}", "momentum": group["momentum"]}
    else:
        kind = "adamw" if group["decoupled_weight_decay"] else "adam"
        m, v = bits(state["exp_avg"]), bits(state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"])
        numbers |= {
            "variant": f"{kind}_amsgrad" if group["amsgrad"] else kind,
            "beta1": group["betas"][0],
            "beta2": group["betas"][1],
            "eps": group["eps"],
            "optimizer_step": state["step"].item(),
        }
    return Step(before, bits(parameter), m, v, gradient, numbers)


def train(name, dtype, steps, tokens=96, hidden=64, **changes):
    """Train a tiny language model whose embedding is its head, and yield its steps with the optimizer and parameter."""
    generator = torch.Generator().manual_seed(7)
    table = torch.nn.Parameter((torch.randn(tokens, hidden, generator=generator) * 0.05).to(dtype))
    optimizer = make(name, table, **changes)
    for _ in range(steps):
        ids = torch.randint(tokens // 2, (2, 24), generator=generator)
        optimizer.zero_grad()
        logits = table[ids[:, :-1]].float() @ table.float().T
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        yield take_step(optimizer, table), optimizer, table


EDGES = (0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x0100, 0x0180, 0x8100, 0x3F80, 0xBF80, 0x3F7F, 0x3C00, 0x0400,
         0x0800, 0x8400, 0x7BFF, 0x7F7F, 0xFF7F, 0x4000)  # fmt: skip


def strange(name, dtype, steps, elements=64 * 512, seed=0, **changes):
    """Steps of random bit patterns: weights and gradients of every size, powers of two, zeros, subnormals."""
    random = np.random.default_rng(seed)

    def patterns():
        drawn = random.integers(0, 65536, elements, dtype=np.uint16)
        drawn[:: 3 + random.integers(4)] = random.choice(np.array(EDGES, np.uint16))
        some = random.integers(0, elements, elements // 8)
        drawn[some] = random.choice(np.array(EDGES, np.uint16), len(some))
        return torch.nan_to_num(torch.from_numpy(drawn).view(dtype), 1.0, 2.0, -2.0)

    weights = torch.nn.Parameter(patterns().view(-1, 64))
    optimizer = make(name, weights, **changes)
    for _ in range(steps):
        weights.grad = (patterns().float().clamp(-1e4, 1e4) * 10.0 ** random.integers(-6, 1)).to(dtype).view(-1, 64)
        yield take_step(optimizer, weights), optimizer, weights


def moments_recorded(name="adamw", dtype=torch.bfloat16, count=9):
    """A Dataset of which a push can be computed, and the push of each step by a plain loop."""
    seen = [step for step, _, _ in train(name, dtype, count, tokens=12, hidden=64)]
    numbers = seen[0].numbers
    W = np.stack([seen[0].before, *(step.after for step in seen)])
    first, counts = np.zeros_like(W[:1]), [step.numbers.get("optimizer_step", np.nan) for step in seen]
    moments = {
        kept: np.concatenate([first, [getattr(step, "gradient" if kept == "gradient" else part) for step in seen]])
        for part, kept in MADE_OF[numbers["variant"]].items()
    }
    bits = {"bits_of": "bfloat16"} if W.dtype == np.uint16 else {}
    ds = xr.Dataset(
        {each: (("step", "token", "hidden"), array, bits) for each, array in {"W": W, **moments}.items()}
        | {
            "learning_rate": ("step", np.array([np.nan, *(step.numbers["lr"] for step in seen)])),
            "optimizer_step": ("step", np.array([np.nan, *counts])),
        },
        coords={"step": np.arange(len(W)), "token": np.arange(W.shape[1])},
        attrs={"optimizer_update": {k: v for k, v in numbers.items() if k not in ("lr", "optimizer_step")}
               | {"exact": True}},
    )  # fmt: skip
    pushes = [lattice.push(step.before, step.m, step.v, gradient=step.gradient, **step.numbers) for step in seen]
    return ds, lattice.bits_to_float32(bits_rounded_up(np.stack(pushes)))
