"""What is said of a run when it has ended, and of its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crucible.experiment.trainer import Outcome
from crucible.units import size_text
from store.format.files import TRAJECTORY, folder_bytes

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
        from crucible.inspection.analyze import ask_run

        tell_answers(ask_run(run), say)
        size = folder_bytes(Path(run) / TRAJECTORY)
        say(f"trajectory: {Path(run) / TRAJECTORY}, {size_text(size)}")
    return 0


def tell_answers(answers: Mapping[str, Any], say: Say) -> None:
    """The Fimbulwinter check, the stillness analysis and the verdict, in words."""
    for line in (*_fimbulwinter(answers), *_stillness(answers["stillness"]), *_rest(answers)):
        say(line)


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


def _rest(answers: Mapping[str, Any]) -> list[str]:
    end, life = answers["end_state"], answers["lifecycle"]
    exits = ", ".join(
        f"{phase} {'never' if told['median_exit'] is None else format(told['median_exit'], ',')}"
        for phase, told in life.items()
    )
    lines = ["", "End state", f"  {end['sentence']}"]
    if end["nonfinite"]:
        lines.append(f"  warning: {end['nonfinite']:,} weights are NaN or infinite")
    drift = answers["drift"]
    lines += ["", "Life cycle and drift", f"  median last steps: {exits}"]
    if drift["path"] is not None:
        efficiency = "" if drift["efficiency"] is None else f", efficiency {drift['efficiency']:.3f}"
        lines.append(f"  centroid: net {drift['net']:.4g} over a path of {drift['path']:.4g}{efficiency}")
    return [*lines, ""]
