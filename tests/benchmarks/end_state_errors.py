"""How often is the verdict wrong? Asked at every step of simulated and of real runs.

    python tests/benchmarks/end_state_errors.py --write docs/explanation/end-state.md

measures the simulated runs and the large real one and puts the tables between the page's markers; without --write it
prints them. Recorded runs are asked with --runs FOLDER (every run in it); --fresh NUMBER trains so many there first,
with the demo's settings and new seeds, for 6,000 steps whatever the verdict. What is in the folder already is kept.
A verdict is wrong if it says frozen at some step, and something moves at a later one.
"""

import argparse
import os
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.episodes import Rule, frozen_from, moments, p_value

sys.path.insert(0, str(Path(__file__).parents[1]))
from moving_processes import FAMILIES

STEPS = 5000
RULES = {
    "as it is": Rule(),
    "memory 20": Rule(memory=20),
    "memory 30": Rule(memory=30),
    "20 gaps": Rule(gaps=20),
    "at least 8 gaps": Rule(fewest=8),
    "level 0.05": Rule(level=0.05),
    "level 0.001": Rule(level=0.001),
}
GROUPS = {
    "never ends, up to 1/t": ("constant", "1/t"),
    "t^-1.5": ("t^-1.5",),
    "faster": ("t^-2", "t^-3", "exponential"),
    "bursts": ("bursts",),
    "own lives": ("tokens with own lives",),
}


def judge(moving, later, rule, steps=STEPS):
    """One run, asked at every step: (was it ever wrong, is it rightly frozen at the end, how long that took)."""
    if not len(moving):
        return False, False, np.nan
    known = moments(moving, rule=rule)
    said = p_value(known, np.append(known.motion[1:] - 1, steps), rule=rule) <= rule.level  # NaN says nothing
    wrong = said[:-1].any() or (said[-1] and later)
    took = frozen_from(known, rule=rule)[-1] / known.motion[-1]
    return wrong, said[-1] and not later, took if said[-1] and not later else np.nan


def row(runs, rule):
    """Over (moving steps, moves later) pairs: percent wrong, percent over, percent of these frozen, median of T / g."""
    told = np.array([judge(moving, later, rule) for moving, later in runs], dtype=float)
    over = np.array([not later for _, later in runs])
    frozen = 100 * told[over, 1].mean() if over.any() else np.nan
    took = np.nanmedian(told[:, 2]) if np.isfinite(told[:, 2]).any() else np.nan
    return 100 * told[:, 0].mean(), 100 * over.mean(), frozen, took


def simulated(runs, seed):
    """For each process of the table: its runs."""
    for index, process in enumerate(FAMILIES):
        moved, later = process.draw(np.random.default_rng([seed, index]), runs, STEPS)
        yield process, [(np.flatnonzero(m) + 1, bool(x)) for m, x in zip(moved, later, strict=True)]


def subsets(moved, runs, seed):
    """Random subsets of a real run's tokens, as runs of their own; what comes after its end nobody knows: no motion."""
    for size in (size for size in (1, 3, 10, 30, 100, 300, 1000) if size <= moved.shape[1]):
        rng = np.random.default_rng([seed, size])
        picks = (rng.choice(moved.shape[1], size, replace=False) for _ in range(runs))
        yield size, [(np.flatnonzero(moved[:, pick].any(axis=1)) + 1, False) for pick in picks]


def real_motion():
    """(step, token) bool of the large real run, any value changed; None where it is not at hand."""
    here = Path(__file__).parents[2] / ".." / "shared" / "data" / "real-run.zarr"
    path = Path(os.environ.get("CRUCIBLE_REAL_RUN", here))
    if not path.exists():
        return None
    import zarr

    bits = zarr.open_group(path, mode="r")["W"]
    moved = np.zeros((bits.shape[0] - 1, bits.shape[1]), bool)
    for first in range(0, bits.shape[1], bits.chunks[1]):
        tile = bits[:, first : first + bits.chunks[1]]
        tile[tile == 0x8000] = 0  # -0 and 0 are one value
        moved[:, first : first + bits.chunks[1]] = (tile[1:] != tile[:-1]).any(axis=2)
    return moved


def recorded(folder):
    """Every run in a folder: (name, moved (step, token), T)."""
    import store

    for path in sorted(p for p in Path(folder).iterdir() if (p / "trajectory.zarr").exists()):
        ds = store.open_trajectory(path)
        moved = (ds.displacement_l2 >= np.float32(ds.attrs["motion_threshold"])).values[1:]
        yield path.name, moved, len(moved)


def train_fresh(folder, count, first_seed=101, steps=6000):
    """Runs with the demo's settings and new seeds, which do not stop at the verdict."""
    from crucible.experiment.demo import make_inputs
    from crucible.experiment.run import train

    seeds = [seed for seed in range(first_seed, first_seed + count) if not (folder / f"seed-{seed}").exists()]
    with tempfile.TemporaryDirectory() as inputs:
        config = make_inputs(Path(inputs), print)
        for seed in seeds:
            out = folder / f"seed-{seed}"
            train(replace(config, random_seed=seed, out=str(out), total_steps=steps), say=lambda _: None)
            print(f"{out}: {steps} steps", flush=True)


def number(value, digits=1):
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def table(head, rows):
    lines = [" | ".join(head), " | ".join(["---"] * len(head)), *(" | ".join(r) for r in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def family_tables(runs, seed):
    """The table of families, and the one that compares rules on them."""
    rows, wrong, ended = [], {}, {}
    for process, drawn in simulated(runs, seed):
        told = {name: row(drawn, rule) for name, rule in RULES.items()}
        group = next((g for g, families in GROUPS.items() if process.family in families), None)
        for name, numbers in told.items():
            if group:
                wrong.setdefault((name, group), []).append(numbers[0])
            else:
                ended.setdefault(name, []).append(numbers[2:])
        bad, over, frozen, took = told["as it is"]
        rows.append([process.family, process.says, number(bad), number(over), number(frozen), number(took, 2)])
    head = ["process", "numbers", "wrong, %", "over by then, %", "of these frozen, %", "T / g when frozen"]
    compared = [
        [name, *(number(max(wrong[name, group])) for group in GROUPS), *map(number, np.nanmean(ended[name], axis=0))]
        for name in RULES
    ]
    heads = ["rule", *(f"{group}, %" for group in GROUPS), "ended: frozen, %", "T / g"]
    return table(head, rows), table(heads, compared)


def real_table(runs, seed):
    moved = real_motion()
    if moved is None:
        return "(the large real run is not at hand; set CRUCIBLE_REAL_RUN)"
    whole = ("all", [(np.flatnonzero(moved.any(axis=1)) + 1, False)])
    rows = []
    for size, drawn in [*subsets(moved, runs, seed), whole]:
        told = {name: row(drawn, RULES[name]) for name in ("as it is", "memory 30", "level 0.05")}
        rows.append([str(size), str(len(drawn)), *(number(n) for t in told.values() for n in (t[0], t[2]))])
    names = ["as it is", "memory 30", "level 0.05"]
    return table(["tokens", "runs", *(f"{n}: {what}, %" for n in names for what in ("wrong", "frozen at 5,000"))], rows)


def recorded_table(folder, runs, seed):
    """Each recorded run as a whole, and random subsets of its tokens as runs of their own."""
    rows = []
    for name, moved, steps in recorded(folder):
        moving = np.flatnonzero(moved.any(axis=1)) + 1
        known = moments(moving)
        said = p_value(known, np.append(known.motion[1:] - 1, steps)) <= Rule().level
        first = int(frozen_from(known)[np.flatnonzero(said)[0]]) if said.any() else None
        verdict = "**wrong**" if said[:-1].any() else "right" if first else "-"
        parts = [judge(*run, Rule(), steps)[0] for _, drawn in subsets(moved, runs, seed) for run in drawn]
        cells = [f"{moving[-1]:,}", f"{first:,}" if first else "never", verdict, number(100 * np.mean(parts))]
        rows.append([name, f"{steps:,}", *cells])
    head = ["run", "steps", "last motion", "called frozen at", "verdict", "subsets wrong, %"]
    return table(head, rows)


def measure(runs=2000, seed=1, folder=None):
    """All tables, by the name of their markers in the page."""
    families, rules = family_tables(runs, seed)
    tables = {"families": families, "rules": rules, "subsets": real_table(runs // 4, seed)}
    return tables | ({"recorded": recorded_table(folder, 40, seed)} if folder else {})


def write(page, tables):
    """Put each table between <!-- name --> and <!-- /name --> of the page."""
    text = Path(page).read_text(encoding="utf-8")
    for name, body in tables.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marks.search(text):
            raise SystemExit(f"{page} has no <!-- {name} --> ... <!-- /{name} -->")
        text = marks.sub(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", text)
    Path(page).write_text(text, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulated", type=int, default=2000, metavar="RUNS", help="runs of each process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="recorded runs to ask as well")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the tables of this page")
    parser.add_argument("--fresh", type=int, default=0, metavar="NUMBER", help="train so many into --runs first")
    options = parser.parse_args(arguments)
    if options.fresh and not options.runs:
        parser.error("--fresh needs --runs, the folder to train into")
    if options.fresh:
        train_fresh(options.runs, options.fresh)
    tables = measure(options.simulated, options.seed, options.runs)
    if options.write:
        write(options.write, tables)
    else:
        print("\n\n".join(tables.values()))


if __name__ == "__main__":
    sys.exit(main())
