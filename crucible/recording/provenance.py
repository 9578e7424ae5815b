"""What made this run: software, machine, dtypes, hashes of the inputs. No names of people or hosts."""

from __future__ import annotations

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
    """Where the arithmetic runs; another answer may mean other bits."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
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
    """What ran then and runs now, where the two differ: one line each, for saying aloud."""
    lines = []
    for section in ("software", "machine"):
        then, here = stored.get(section, {}), now.get(section, {})
        for key in sorted({*then, *here}):
            if then.get(key) != here.get(key):
                lines.append(f"{key}: {then.get(key)} then, {here.get(key)} now")
    return lines


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
