"""What made this run: software, machine, dtypes, hashes of the inputs. No names of people or hosts.

A run that goes on with another optimizer, with other software or on another machine tells under ``resumed`` what is
another from which step on.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch.optim import Optimizer

from crucible.channels.tensors import dtype_name
from crucible.updates.precision import makes_state_alike

RESUMED, AFTER_STEP = "resumed", "after_step"
SECTIONS = ("software", "machine")
DTYPES = "dtypes"
"""Of the optimizer's state they are known after its first step, so that they differ where nothing else does."""
PACKAGES = ("crucible-trajectory", "torch", "numpy", "zarr", "numcodecs", "tokenizers", "safetensors")


def software(*more: str) -> dict[str, str]:
    """Versions of Python and of what the numbers went through, and of more packages."""
    versions = {package: version_of(package) for package in (*PACKAGES, *more)}
    return {"python": platform.python_version(), **versions}


def version_of(package: str) -> str:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def machine(device: torch.device) -> dict[str, Any]:
    """Where and how the arithmetic runs; another answer may mean other bits."""
    is_cuda = device.type == "cuda"
    products = torch.backends.cuda.matmul if is_cuda else torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # torch
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if is_cuda else _processor(),
        **({"cuda": torch.version.cuda} if is_cuda else {}),
        "float32_matmul_precision": products.fp32_precision,  # "none" where nobody has set it
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
    }


def dtypes(model_dtypes: Iterable[torch.dtype], compute: str, optimizer: Optimizer | None) -> dict[str, str]:
    """Dtypes of parameters, of the arithmetic, and of the optimizer's state (after its first step)."""
    names = sorted({dtype_name(dtype) for dtype in model_dtypes})
    if optimizer is None:
        return {"parameters": ", ".join(names), "compute": compute, "optimizer_state": "none"}
    state = {
        dtype_name(value.dtype)
        for entries in optimizer.state.values()
        for name, value in entries.items()
        if isinstance(value, torch.Tensor) and name != "step"
    }
    # before the first step there is no state to look at
    state_names = sorted(state) or (names if makes_state_alike(optimizer) else ["none yet"])
    return {"parameters": ", ".join(names), "compute": compute, "optimizer_state": ", ".join(state_names)}


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What ran then and runs now, where the two differ: one line each, for saying aloud.

    What a run does not tell, one of an earlier version, is no difference.
    """
    lines = []
    for section in SECTIONS:
        then, here = stored.get(section, {}), now.get(section, {})
        lines += [f"{key}: {then[key]} then, {here[key]} now" for key in sorted(then.keys() & here.keys())
                  if then[key] != here[key]]  # fmt: skip
    return lines


def gone_on(stored: Mapping[str, Any], now: Mapping[str, Any], step: int, *, kept_until: int) -> dict[str, Any]:
    """The provenance of a run that goes on behind a step; of `now` what is another than what made its last steps.

    Parameters
    ----------
    stored, now : mapping
        What the run tells; and what a new run would, of which what it does not name is not missed.
    step : int
        From which on `now` makes the steps.
    kept_until : int
        The last step that is left of those that are recorded: what is told of later ones is told no more.

    Examples
    --------
    >>> gone_on({"machine": {"device": "cpu"}}, {"machine": {"device": "cuda"}}, 300, kept_until=300)
    {'machine': {'device': 'cpu'}, 'resumed': [{'after_step': 300, 'machine': {'device': 'cuda'}}]}
    """
    told = [each for each in stored.get(RESUMED, []) if each[AFTER_STEP] < kept_until]
    before = latest({**stored, RESUMED: told})
    plain = {name: value for name, value in json.loads(json.dumps(now)).items() if name not in (DTYPES, RESUMED)}
    if others := _others(before, plain):
        told.append({AFTER_STEP: step, **others})
    first = {name: value for name, value in stored.items() if name != RESUMED}
    return {**first, RESUMED: told} if told else first


def latest(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What made the last steps of a run, as a provenance without ``resumed``."""
    known = {name: value for name, value in stored.items() if name != RESUMED}
    for each in stored.get(RESUMED, []):
        known = _with(known, {name: value for name, value in each.items() if name != AFTER_STEP})
    return known


def _with(known: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The one, with what the other says in its place; what are mappings in both are put together."""
    together = dict(known)
    for name, value in more.items():
        are_mappings = isinstance(value, Mapping) and isinstance(known.get(name), Mapping)
        together[name] = _with(known[name], value) if are_mappings else value
    return together


def _others(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What now has another value than before; of mappings in both what is another in them."""
    found = {}
    for name, value in now.items():
        then = before.get(name)
        if isinstance(value, Mapping) and isinstance(then, Mapping):
            if inner := _others(then, value):
                found[name] = inner
        elif name not in before or then != value:
            found[name] = value
    return found


def _processor() -> str:
    """The processor's model, as far as the system says."""
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a device file
                for line in file:
                    if line.startswith("model name"):
                        return line.split(":", 1)[1].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()
