"""How often are the verdicts wrong, by the silence, by the push and by both? On fresh runs, and on simulated pushes.

    python tests/benchmarks/end_state_evidence.py --runs FOLDER --write docs/explanation/end-state.md

trains every run of SETTINGS that is not in the folder yet (its pushes and motions are kept there, some MB a run), asks
each token, random sets of tokens, all tokens, and coarser and finer lattices as runs of their own, and puts the tables
between the page's markers. --only NAME ... trains and asks some settings alone, --simulated NUMBER says how many runs
of each simulated kind are asked; without --write the tables are printed. One thread; some minutes a run.

A verdict is asked at every 25th step and at the last step of each silence. It is wrong if something moves later. The
verdicts that rest on the push hold for a learning rate: motion at a larger one does not count against them.
"""

import argparse
import importlib.util
import math
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.episodes import Rule, moments
from analysis.lattice import bits_to_float32
from analysis.optimizers.expected_moves import expected_moves

EVERY = 25
RULE = Rule()
VERDICTS = ("p <= 0.01", "p <= 0.05", "E <= 0.01", "both")
SIZES = (3, 10, 30, 100)
BEFORE, AFTER = 0.5, 2.0
"""Half cells: motion is a push above these on a finer and a coarser lattice."""


def constant(_step, _steps):
    return 1.0


def cosine(step, steps):
    return (1 + math.cos(math.pi * step / steps)) / 2


def warm_restart(step, steps):
    return cosine(step % (steps // 2), steps // 2)


def drop_and_back(step, steps):
    return 0.1 if 0.4 * steps < step <= 0.65 * steps else 1.0


@dataclass(frozen=True)
class Setting:
    """Fresh runs: what differs from the small base, their learning rate over time, and their seeds."""

    seeds: tuple
    changes: dict
    rate: object = constant
    other_text: bool = False


BASE = {
    "hidden_dim": 16,
    "seq_len": 32,
    "batch_size": 4,
    "learning_rate": 3e-3,
    "total_steps": 4000,
    "num_heads": 2,
    "num_layers": 1,
}
SETTINGS = {
    "learning rate 3e-3": Setting((401, 501), {}),
    "learning rate 2e-3": Setting((402, 502), {"learning_rate": 2e-3}),
    "learning rate 1e-3": Setting((403, 503), {"learning_rate": 1e-3}),
    "learning rate 5e-4": Setting((404, 504), {"learning_rate": 5e-4}),
    "batch 1": Setting((405, 505), {"batch_size": 1}),
    "batch 8": Setting((406, 506), {"batch_size": 8}),
    "beta1 0.8": Setting((407, 507), {"beta1": 0.8}),
    "hidden 32": Setting((408, 508), {"hidden_dim": 32}),
    "another text": Setting((409, 509), {}, other_text=True),
    "cosine": Setting((410, 510), {}, cosine),
    "warm restart": Setting((411, 511), {}, warm_restart),
    "drop and back": Setting((412, 512), {}, drop_and_back),
}
"""Fixed before any of them was run; seeds that nothing was tuned on. The second ones were added later, all at once."""


@dataclass(frozen=True)
class Recorded:
    """A run as the verdicts see it: push (step, token) in half cells, moved (step, token), learning rate (step)."""

    push: np.ndarray
    moved: np.ndarray
    rate: np.ndarray
    beta1: float = 0.9
    beta2: float = 0.999


def make_inputs(folder, *, other_text):
    from crucible.inputs.config import Config
    from crucible.inputs.prepare import prepare
    from crucible.inputs.stdlib_text import docstring_text, topic_text

    wide, topics = docstring_text(), topic_text()
    narrow = wide[: len(topics)] if other_text else topics
    files = {"narrow.txt": narrow, "wide.txt": wide[len(topics) :] + topics if other_text else wide}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    made = prepare([folder / name for name in files], folder / "narrow.txt", 2048, folder)
    inputs = {"corpus": str(folder / "narrow.txt"), "tokenizer": str(made.tokenizer), "dead_mask": str(made.dead_mask)}
    return Config(**inputs, vocab_size=2048, compute_dtype="float32", device="cpu")


def train(setting, seed, path):
    """Train one run and keep its pushes (as bits), motions and learning rates."""
    import torch

    from crucible.channels.push import arithmetic_of
    from crucible.channels.push_source import PushOf
    from crucible.channels.sources import Moment
    from crucible.experiment.model import loss_of
    from crucible.experiment.session import begin, read_inputs

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = make_inputs(Path(folder), other_text=setting.other_text)
        config = replace(config, **(BASE | setting.changes), random_seed=seed)
        session = begin(config, read_inputs(config, say=lambda _: None))
    weight, optimizer = session.model.token_embedding.weight, session.optimizer
    rows = torch.from_numpy(session.inputs.dead.indices)
    source = PushOf(arithmetic_of(optimizer, weight), optimizer, weight, rows)
    source.begin()
    before = weight.detach().index_select(0, rows)
    pushes, moved, rates = [], [], []
    for step, ids in zip(range(1, config.total_steps + 1), session.batches(), strict=False):
        rate = config.learning_rate * setting.rate(step - 1, config.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss_of(session.model, ids, config.compute_dtype, config.loss_chunk).backward()
        optimizer.step()
        now = weight.detach().index_select(0, rows)
        pushes.append(source(Moment(step, weight, rows, optimizer, {})).view(torch.uint16).numpy())
        moved.append((now != before).any(dim=1).numpy())
        rates.append(rate)
        before = now
    np.savez_compressed(path, push=np.stack(pushes), moved=np.packbits(np.stack(moved), axis=0), rate=rates,
                        beta1=config.beta1, beta2=config.beta2)  # fmt: skip


def read(path):
    with np.load(path) as file:
        push = bits_to_float32(file["push"])
        moved = np.unpackbits(file["moved"], axis=0, count=len(push)).astype(bool)
        return Recorded(push, moved, file["rate"], float(file["beta1"]), float(file["beta2"]))


def judge(strongest, moved, run):
    """One life, asked all along: by verdict (wrong, rightly frozen at the end, T / g when first so)."""
    steps = len(moved)
    moving = np.flatnonzero(moved) + 1
    wrong, right, took = (dict.fromkeys(VERDICTS, value) for value in (False, False, math.nan))
    if not len(moving):
        return wrong, right, took
    known = moments(moving, rule=replace(RULE, memory=max(1, round(1 / (1 - run.beta1)))))
    spans = known.span(RULE.fewest)
    ends = np.append(moving[1:] - 1, steps)
    after = np.append(moving, steps + 1)
    # at which learning rates something moves later than each motion: the smallest of them
    least_later = np.append(np.minimum.accumulate(run.rate[moving - 1][::-1])[::-1][1:], np.inf)
    for k, (g, end) in enumerate(zip(moving, ends, strict=True)):
        if end - g < 10 or (math.isnan(spans[k]) and end - g < 200):
            continue
        asks = np.unique(np.append(np.arange((g // EVERY + 1) * EVERY, end + 1, EVERY), end))
        with np.errstate(invalid="ignore"):
            p = np.minimum(1, known.looks[k] * np.exp(-known.gaps[k] * np.log1p(np.log((asks + 1) / g) / spans[k])))
        expected = np.array([_expected(strongest, run, int(last), int(g)) for last in asks])
        said = {"p <= 0.01": p <= 0.01, "p <= 0.05": p <= 0.05, "E <= 0.01": expected <= 0.01}
        said["both"] = said["p <= 0.05"] & said["E <= 0.01"]
        broken = after[k + 1] <= steps
        for name, frozen in said.items():
            by_push = name in ("E <= 0.01", "both")
            holds_for = run.rate[asks - 1] * (1 + 1e-9) if by_push else np.full(len(asks), np.inf)
            wrong[name] |= bool(broken and (frozen & (least_later[k] <= holds_for)).any())
            if not broken and frozen[-1]:
                right[name] = True
                took[name] = asks[frozen][0] / g
    return wrong, right, took


def _expected(strongest, run, last, g):
    if last - g < 20 * max(1, round(1 / (1 - run.beta1))):
        return math.nan
    return expected_moves(
        strongest[:last], run.rate[:last], np.arange(1, last + 1), last_motion=g, beta1=run.beta1, beta2=run.beta2
    ).expected


def lives(run, seed, most_tokens):
    """(kind, strongest push, moved) of each token, of sets of them, of all, and on other lattices."""
    random = np.random.default_rng(seed)
    count = run.push.shape[1]
    for token in random.permutation(count)[:most_tokens]:
        yield "single tokens", run.push[:, token], run.moved[:, token]
    for size in SIZES:
        for _ in range(10):
            pick = random.choice(count, min(size, count), replace=False)
            yield "sets of tokens", run.push[:, pick].max(axis=1), run.moved[:, pick].any(axis=1)
    yield "all tokens", run.push.max(axis=1), run.moved.any(axis=1)
    for limit in (BEFORE, AFTER):
        for token in random.permutation(count)[: most_tokens // 4]:
            yield "other lattices", run.push[:, token] / limit, run.push[:, token] > limit


def simulated(number, seed, steps=5000):
    """(kind, strongest push, moved, whether it moves later): pushes made by formulas, one life each."""
    t = np.arange(1, 3 * steps + 1)
    levels = {
        "falls for ever, like t^-1/2": lambda: -0.5 * np.log(t / 300),
        "falls, then stays just below": lambda: np.maximum(-0.001 * t, -1.0) + 0.4,
        "falls, then stays far below": lambda: np.maximum(-0.002 * t, -4.0) + 1.0,
        "falls for ever, exponentially": lambda: 1 - 0.001 * t,
        "falls, and rises again slowly": lambda: 1 - 0.002 * t + 0.0000003 * t**2,
        "far below, with rare spikes": lambda: np.maximum(-0.002 * t, -2.0) + 0.5,
    }
    for kind, level in levels.items():
        random = np.random.default_rng([seed, len(kind), kind.encode()[-1]])
        noises = random.normal(0, 1, (number, len(t)))
        for k in range(1, len(t)):  # one memory of 10 steps
            noises[:, k] = 0.9 * noises[:, k - 1] + math.sqrt(1 - 0.81) * noises[:, k]
        for noise in noises:
            size = level() + 0.2 * noise
            if "spikes" in kind:
                size += np.where(random.random(len(t)) < 0.0005, random.exponential(3, len(t)), 0)
            push = np.exp(size)
            yield kind, push[:steps], push[:steps] > 1, bool((push[steps:] > 1).any())


class Tally:
    """Counts of lives by row of a table."""

    def __init__(self):
        self.rows = {}

    def add(self, row, told, later=False):
        wrong, right, took = told
        counts = self.rows.setdefault(row, {"lives": 0} | {name: [0, 0, []] for name in VERDICTS})
        counts["lives"] += 1
        for name in VERDICTS:
            is_wrong = wrong[name] or (later and right[name])
            counts[name][0] += is_wrong
            if right[name] and not later:
                counts[name][1] += 1
                counts[name][2].append(took[name])

    def table(self, first):
        head = [first, "lives", *(f"{name}: wrong / right / T/g" for name in VERDICTS)]
        lines = [head, ["---"] * len(head)]
        for row, counts in self.rows.items():
            cells = [
                f"{wrong} / {right} / {np.median(took):.2f}" if took else f"{wrong} / {right} / -"
                for wrong, right, took in (counts[name] for name in VERDICTS)
            ]
            lines.append([row, f"{counts['lives']:,}", *cells])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure_runs(folder, names, most_tokens):
    """The table of settings and that of kinds of lives."""
    by_setting, by_kind = Tally(), Tally()
    for name, seed in ((each, seed) for each in names for seed in SETTINGS[each].seeds):
        path = folder / f"{seed}.npz"
        if not path.exists():
            train(SETTINGS[name], seed, path)
        run = read(path)
        for kind, strongest, moved in lives(run, seed, most_tokens):
            told = judge(strongest, moved, run)
            by_kind.add(kind, told)
            by_setting.add(f"{name} (seed {seed})", told)
        last = np.flatnonzero(run.moved.any(axis=1))[-1] + 1
        print(f"{name} (seed {seed}): last motion {last} of {len(run.rate)}", flush=True)
    return {"settings": by_setting.table("run"), "lives": by_kind.table("taken as a run")}


def measure_simulated(number, seed):
    tally = Tally()
    for kind, push, moved, later in simulated(number, seed):
        tally.add(kind, judge(push, moved, Recorded(push[:, None], moved[:, None], np.full(len(push), 1e-3))), later)
    return {"pushes": tally.table("level of the push")}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="where runs are kept, and trained if not there")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), metavar="NAME", help="some settings alone")
    parser.add_argument("--tokens", type=int, default=500, metavar="N", help="single tokens of each run (500)")
    parser.add_argument("--simulated", type=int, default=100, metavar="N", help="runs of each simulated kind (100)")
    parser.add_argument("--seed", type=int, default=7, help="of the simulated ones")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the tables of this page")
    options = parser.parse_args(arguments)
    tables = measure_simulated(options.simulated, options.seed) if options.simulated else {}
    if options.runs:
        options.runs.mkdir(parents=True, exist_ok=True)
        tables |= measure_runs(options.runs, options.only or list(SETTINGS), options.tokens)
    if options.write:
        spec = importlib.util.spec_from_file_location("errors", Path(__file__).with_name("end_state_errors.py"))
        errors = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(errors)
        errors.write(options.write, tables)
    else:
        print("\n\n".join(tables.values()))


if __name__ == "__main__":
    sys.exit(main())
