"""All ways of writing, measured beside each other, each deed in a process of its own."""

import json
import os
import platform
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from measuring import ROOT, folder_bytes, measure

PACKAGES = ("crucible-trajectory", "numpy", "zarr", "h5py", "safetensors", "tensorstore", "acquire-zarr", "icechunk",
            "blosc2", "tiledb")  # fmt: skip
HEADS = ("", "append ms, median", "99th percentile", "processor ms a step", "memory MB", "raw / stored", "one token ms",
         "one step ms", "full pass s", "last motion s", "after kills: right rows kept", "wrong rows shown",
         "does not open", "read while written", "opened by")  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How long the runs are, and how often they are killed."""

    steps: int
    kills: int


def made_states(path, steps=600, tokens=512, hidden=32, seed=0):
    """States like those of the experiment, where no real run is at hand: all move, then fewer and fewer."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.02, (tokens, hidden)).astype(np.float32)
    states = np.empty((steps + 1, tokens, hidden), np.uint16)
    for step in range(steps + 1):
        states[step] = weights.view(np.uint32) >> 16
        moving = rng.random(tokens) < np.exp(-4 * step / steps)
        weights[moving] *= 1 + rng.normal(0, 0.01, (int(moving.sum()), hidden)).astype(np.float32)
    np.save(path, states)
    return path


def measured(ways, states, folder, size):
    """The rows of the table, as numbers: first all that is timed, way beside way, then what kills leave."""
    rows = {way: timed(way, states, folder / str(n), size) for n, way in enumerate(ways)}
    return {way: row | left_by_kills(way, states, folder / "killed", size) for way, row in rows.items()}


def timed(way, states, folder, size):
    """What it costs to write and to read, and who else opens it."""
    out = folder / "whole"
    row = deed(way, "write", out, states, size)
    stored = folder_bytes(out) if out.is_dir() else out.stat().st_size
    shape = np.load(states, mmap_mode="r").shape
    raw = (size.steps + 1) * shape[1] * shape[2] * 2 + size.steps * shape[1] * shape[2] * 4
    row |= {"ratio": raw / stored, "while_written": while_written(way, states, folder, size)}
    for name in ("token", "step", "full_pass", "last_motion"):
        row[name] = deed(way, name, out, states, size)
    done = measure(sys.executable, "-W", "ignore", "-m", "peers.elsewhere", out, states, PYTHONPATH=paths())
    row["opened_by"] = json.loads(done.out.strip().splitlines()[-1])
    shutil.rmtree(folder)
    return row


def left_by_kills(way, states, out, size):
    """Right rows, wrong rows, and runs that do not open after a kill at each of some steps."""
    killed = [ended(way, states, out, step) for step in kill_steps(size)]
    return {
        "kills": size.kills,
        "kept": sorted(found["right"] / (at + 1) for at, found in killed if found),
        "wrong": max((found["wrong"] for _, found in killed if found), default=0),
        "closed": sum(found is None for _, found in killed),
    }


def kill_steps(size):
    """When the writer is killed: anywhere, the same for all ways."""
    chosen = random.Random(20)
    return [chosen.randrange(1, size.steps) for _ in range(size.kills)]


def paths():
    """Where the children find the project and these modules."""
    return f"{ROOT}:{ROOT / 'tests'}"


def command(way, name, out, states):
    return (sys.executable, "-W", "ignore", "-m", "peers.run", way, name, str(out), str(states))


def deed(way, name, out, states, size, **environment):
    """What a child says of one deed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = measure(*command(way, name, out, states), PYTHONPATH=paths(), STEPS=str(size.steps), **environment)
    return json.loads(done.out.strip().splitlines()[-1])


def ended(way, states, out, step):
    """What a kill -9 after a step leaves; None where it does not open."""
    out.parent.mkdir(parents=True, exist_ok=True)
    environment = {"PYTHONPATH": paths(), "KILL_AT": str(step)}
    measure(*command(way, "write", out, states), code=-9, **environment)
    found = looked_at(way, states, out)
    shutil.rmtree(out, ignore_errors=True)
    out.unlink(missing_ok=True)
    return step, found


def looked_at(way, states, out):
    """Right and wrong rows that another process finds, or None."""
    environment = os.environ | {"PYTHONPATH": paths()}
    done = subprocess.run(
        command(way, "rows", out, states), capture_output=True, text=True, env=environment, cwd=ROOT, check=False,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None


def while_written(way, states, folder, size):
    """What another process reads while the writer holds at two thirds of the steps, everything written by then."""
    out, at = folder / "held", size.steps * 2 // 3
    environment = os.environ | {"PYTHONPATH": paths(), "HOLD_AT": str(at)}
    with subprocess.Popen(
        command(way, "write", out, states), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment, cwd=ROOT,
    ) as child:  # fmt: skip
        assert "held\n" in child.stdout, way  # reads line by line, until it is there
        found = looked_at(way, states, out)
        child.kill()
    return found and {**found, "of": at + 1}


def cells(name, row):
    """The row as words."""
    live, kept = row["while_written"], row["kept"]
    return [
        name, f"{row['median_ms']:.2f}", f"{row['p99_ms']:.1f}", f"{row['cpu_ms']:.2f}", f"{row['memory_mb']:,.0f}",
        f"{row['ratio']:.1f}", f"{row['token']['ms']:.0f}", f"{row['step']['ms']:.1f}", f"{row['full_pass']['s']:.2f}",
        f"{row['last_motion']['s']:.2f}" + ("" if row["last_motion"]["right"] else " (wrong)"),
        f"{kept[len(kept) // 2]:.0%}" if kept else "none", f"{row['wrong']:,}", f"{row['closed']} of {row['kills']}",
        "no" if live is None else f"{live['right']} of {live['of']} rows, {live['wrong']:,} wrong",
        ", ".join(row["opened_by"]) or "its own library",
    ]  # fmt: skip


def circumstances(source):
    """Machine, versions and date, for whoever reads the table later."""
    there = []
    for name in PACKAGES:
        try:
            there.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {source}; {os.cpu_count()} cores ({platform.machine()}), "
        f"{platform.system()}, Python {platform.python_version()}, {', '.join(there)}."
    )


def page(rows, source, size):
    """The page of the documentation, made of the table."""
    lines = [list(HEADS), ["---"] * len(HEADS), *(cells(name, row) for name, row in rows.items())]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    text = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    return text.format(circumstances=circumstances(source), table=table, steps=f"{size.steps:,}", kills=size.kills)
