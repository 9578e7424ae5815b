"""What stands around the pictures of one run: the verdict, what was recorded and how, the last movers, all numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from crucible.inspection.published import without_paths
from crucible.inspection.report import page, words
from crucible.inspection.report.asking import Story
from crucible.inspection.summary import missing_steps, motion_words, opening, tell_answers
from crucible.units import counted, size_text, steps_text
from crucible.version import __version__
from store.format.files import DOCUMENT, run_folder, trajectory_of

MOVERS = 12
"""Tokens in the table of the last movers."""
HOW = (
    ("optimizer", "optimizer"), ("learning_rate", "learning rate"), ("beta1", "beta1"), ("beta2", "beta2"),
    ("weight_decay", "weight decay"), ("batch_size", "batch size"), ("seq_len", "sequence length"),
    ("vocab_size", "vocabulary"), ("num_layers", "layers"), ("num_heads", "heads"), ("random_seed", "random seed"),
    ("compute_dtype", "arithmetic"), ("device", "device"),
)  # fmt: skip
"""What is told of how a run was trained, by its names in the configuration."""


def body_of(
    run: str | Path, known: Mapping[str, Any], story: Story, part: str, pictures: Mapping[str, str]
) -> tuple[str, list[str]]:
    """The title and the parts of the page; `known` is of `info`, `part` says which part of the run, if not all."""
    told = story.told
    sentence = words.verdict(told, story.reference)
    head = [
        f'<header><p class="over">{page.text(_experiment(known, story))}</p>',
        f"<h1>{page.text(sentence)}</h1>",
        f'<p class="facts">{page.text(_facts(run, known, story, part))}</p></header>',
    ]
    gaps = " ".join(missing_steps(told["resolution_steps"])[:2])  # one sentence in two lines
    notices = [*opening(told), *([f"{gaps[:1].upper()}{gaps[1:]}."] if told["resolution_steps"] > 1 else [])]
    head += [f'<p class="notice">{page.text(line)}</p>' for line in notices]
    head.append(page.figures(words.key_figures(told)))
    if told["end_state"] is not None:
        head.append(f'<p class="sentence">{page.text(told["end_state"]["sentence"])}</p>')
    parts = [*head, _recorded(known)]
    for name, section in pictures.items():
        parts.append(section)
        if name == "survival":
            parts.append(_last_movers(story))
    return f"{story.name}: {sentence}", [*parts, _numbers(story), _settings(known), footer()]


def footer() -> str:
    """Which program wrote the page, and when."""
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"<footer>crucible report, version {page.text(__version__)}, {now}. One file; nothing is loaded.</footer>"


def date_of_files(run: str | Path) -> str:
    """The day, in UTC, that the file of the last commit bears; of a copy, or of a compacted run, it may be a later one
    than that of the training.
    """
    changed = (trajectory_of(run_folder(run)) / DOCUMENT).stat().st_mtime
    return f"files of {datetime.fromtimestamp(changed, UTC):%Y-%m-%d}"


def _experiment(known: Mapping[str, Any], story: Story) -> str:
    name = known["config"].get("experiment")
    return f"{name} · {story.name}" if name else story.name


def _facts(run: str | Path, known: Mapping[str, Any], story: Story, part: str) -> str:
    """Steps, tokens, the date and the version, in a line."""
    told = story.told
    steps = steps_text(told["first_step"], told["last_step"], len(story["drift"]["step"]), told["resolution_steps"])
    made = _in_turn(known, "software", "crucible-trajectory")
    by = [f"recorded by crucible {made}"] if made else []
    asked = [*([part] if part else []), f"motion is {motion_words(told)}"]
    return " · ".join([steps, counted(told["tokens"], "token"), *asked, date_of_files(run), *by])


def _recorded(known: Mapping[str, Any]) -> str:
    """What was recorded, array by array, and how it was trained."""
    rows = [
        (array["name"], " × ".join(f"{size:,} {dim}" for dim, size in array["dims"].items()), array["dtype"],
         size_text(array["raw_bytes"]), size_text(array["stored_bytes"]),
         "" if array["ratio"] is None else f"{array['ratio']:.1f}")
        for array in known["arrays"] if len(array["dims"]) > 1 or "step" in array["dims"]
    ]  # fmt: skip
    total = size_text(known["raw_bytes"]), size_text(known["stored_bytes"])
    ratio = f"{known['raw_bytes'] / max(1, known['stored_bytes']):.1f}"
    rows.append(("all", "", "", *total, ratio))
    arrays = page.table(("array", "dimensions", "type", "raw", "stored", "ratio"), rows, numbers=(3, 4, 5))
    settings = {**known["config"], **known["provenance"], **_machine(known)}
    later = known["provenance"].get("resumed", [])
    how = [(words_, told) for name, words_ in HOW if (told := _setting(name, settings, later))]
    beside = page.table(("", ""), how) if how else ""
    return f'<section><h2>What was recorded, and how</h2><div class="two">{arrays}{beside}</div></section>'


def _setting(name: str, first: Mapping[str, Any], later: Iterable[Mapping[str, Any]]) -> str:
    """A setting of the run as it was at first, and then, where it went on with another; "" where none is known."""
    then = [_short(each[name]) for each in later if name in each]
    begin = "" if first.get(name) in (None, "") else _short(first[name])
    return ", then ".join([begin or "not told", *then]) if then else begin


def _machine(known: Mapping[str, Any]) -> dict[str, Any]:
    """The device by its name, where it is known."""
    name = _in_turn(known, "machine", "device_name")
    return {"device": name} if name else {}


def _in_turn(known: Mapping[str, Any], section: str, name: str) -> str:
    """What made the run at first, and then, where it went on with another."""
    parts = [known["provenance"], *known["provenance"].get("resumed", [])]
    return ", then ".join(str(found) for each in parts if (found := each.get(section, {}).get(name)))


def _last_movers(story: Story) -> str:
    """The tokens that froze last, with their texts."""
    last = story["last_motion"]["last_motion"]
    order = np.argsort(-last.values, kind="stable")[:MOVERS]
    order = order[last.values[order] >= 0]
    if not len(order):
        return ""
    life = story.answers.get("stratigraphy")
    phases = [] if life is None else [str(name) for name in life["phase"].values]
    exits = None if life is None else life["exit"].transpose("token", "phase").values
    rows = []
    for at in order:
        text = [] if story.texts is None else [_text(story.texts[at])]
        left = [] if exits is None else [_step(int(step)) for step in exits[at]]
        rows.append((f"{int(last['token'].values[at])}", *text, f"{int(last.values[at]):,}", *left))
    header = ("token", *(["text"] if story.texts is not None else []), "freeze step", *(f"left {p}" for p in phases))
    texts = 0 if story.texts is None else 1
    listed = page.table(header, rows, numbers=range(1 + texts, len(header)))
    return f"<section><h2>The last movers</h2>{listed}</section>"


def _text(text: str) -> str:
    """The text of a token with its spaces seen; some are but a part of a character."""
    return "part of a character" if "\ufffd" in text else page.code(repr(text))


def _numbers(story: Story) -> str:
    """All answers, as `crucible analyze` prints them."""
    lines: list[str] = []
    tell_answers(story.told, lines.append)
    said = page.text("\n".join(lines).strip())
    return f"<details><summary>All numbers, as crucible analyze prints them</summary><pre>{said}</pre></details>"


def _settings(known: Mapping[str, Any]) -> str:
    """The whole configuration and what made the run, paths cut to their last part."""
    flat = [
        (f"{name} {key}", value)
        for name, values in without_paths({**known["config"], **known["provenance"]}).items()
        for key, value in (values.items() if isinstance(values, Mapping) else [("", values)])
    ]
    rows = [(name.strip(), page.code(_short(value))) for name, value in flat]
    if not rows:
        return ""
    listed = page.table(("", ""), rows)
    return f"<details><summary>Configuration, software, and hashes of the inputs</summary>{listed}</details>"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _step(step: int) -> str:
    return "never" if step < 0 else f"{step:,}"
