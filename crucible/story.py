"""What is said of a run when it has ended, and of its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crucible.trainer import Outcome
from crucible.units import size_text
from store.group import TRAJECTORY

INTERRUPTED = 130
Say = Callable[[str], None]


def tell_end(outcome: Outcome, run: str | Path | None, say: Say) -> int:
    """Tell how a run ended, and answer the exit code."""
    if not outcome.is_complete:
        again = f", which is committed: crucible resume {run}" if run else ""
        say(f"interrupted after step {outcome.steps:,}{again}")
        return INTERRUPTED
    loss = "none" if outcome.loss is None else f"{outcome.loss:.4f}"
    epochs, took = outcome.epochs, outcome.elapsed_s
    say(f"training complete: {outcome.steps:,} steps, final loss {loss}, {epochs} epochs, {took:.1f} s")
    if run:
        from crucible.asking import ask_run

        tell_answers(ask_run(run), say)
        size = sum(path.stat().st_size for path in (Path(run) / TRAJECTORY).rglob("*") if path.is_file())
        say(f"trajectory: {Path(run) / TRAJECTORY}, {size_text(size)}")
    return 0


def tell_answers(answers: Mapping[str, Any], say: Say) -> None:
    """The Fimbulwinter check, the stillness analysis and the verdict, in words."""
    if answers["stillness"]:
        counted = [*_stillness(answers["stillness"]), *_end_state(answers["end_state"])]
    else:
        counted = _missing_steps(answers["resolution_steps"])
    for line in (*_fimbulwinter(answers), *counted, *_lifecycle_and_drift(answers)):
        say(line)


def _missing_steps(resolution: int) -> list[str]:
    """How exact the answers are where steps are missing between recorded states, and what was not asked."""
    return [
        "",
        "Missing steps",
        f"  recorded states are up to {resolution:,} steps apart: a motion came up to {resolution - 1:,} steps before",
        "  the step that is named, and one that was undone between two states is not seen",
        "  not asked, since they count single steps: stillness, end state, life cycle",
    ]


def _fimbulwinter(answers: Mapping[str, Any]) -> list[str]:
    steps, freeze, last = answers["steps"], answers["freeze"], answers["global_last_motion"]
    lines = ["", "Fimbulwinter check"]
    if last is None:
        lines.append(
            f"  nothing moved at all in {steps:,} steps, by {answers['norm']} >= {answers['threshold']:g} cells"
        )
        return lines
    share = answers["fimbulwinter_fraction"] or 0.0
    lines.append(f"  last motion of any token: step {last:,} of {steps:,}")
    lines.append(f"  Fimbulwinter: {answers['fimbulwinter_duration']:,} steps, {share:.1%} of the run")
    times = {name: "never" if freeze[name] is None else f"{freeze[name]:,}" for name in freeze}
    lines.append(f"  freeze steps: earliest {times['earliest']}, median {times['median']}, latest {times['latest']}")
    never = answers["never_moved"]
    lines.append(f"  tokens that never moved: {never:,}" if never else "  every token moved")
    return lines


def _stillness(found: Mapping[str, Any]) -> list[str]:
    lines = ["", "Stillness analysis"]
    if not found["count"]:
        return [*lines, "  0 runs without motion: something moved at every step"]
    lines.append(
        f"  runs without motion: {found['count']:,}, mean {found['mean']:.1f}, median {found['median']:,} steps"
    )
    lines.append(f"  the longest: {', '.join(f'{length:,}' for length in found['longest'])}")
    if found["final_vs_second"] is not None:
        lines.append(f"  longest against second longest: {found['final_vs_second']:.2f}")
    return lines


def _end_state(found: Mapping[str, Any]) -> list[str]:
    lines = ["", "End state", f"  {found['sentence']}"]
    if found["nonfinite"]:
        lines.append(f"  warning: {found['nonfinite']:,} weights are NaN or infinite")
    return lines


def _lifecycle_and_drift(answers: Mapping[str, Any]) -> list[str]:
    lines, drift = ["", "Drift"], answers["drift"]
    if answers["lifecycle"]:
        exits = ", ".join(
            f"{phase} {'never' if told['median_exit'] is None else format(told['median_exit'], ',')}"
            for phase, told in answers["lifecycle"].items()
        )
        lines = ["", "Life cycle and drift", f"  median last steps: {exits}"]
    if drift["path"] is not None:
        efficiency = "" if drift["efficiency"] is None else f", efficiency {drift['efficiency']:.3f}"
        lines.append(f"  centroid: net {drift['net']:.4g} over a path of {drift['path']:.4g}{efficiency}")
    return [*lines, ""]
