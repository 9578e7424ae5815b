"""Text summary of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from crucible.inspection.selection import share_of_silence
from crucible.units import counted

Say = Callable[[str], None]


def tell_answers(answers: Mapping[str, Any], say: Say) -> None:
    """What must be known first, then the Fimbulwinter check, the stillness analysis and the verdict, in words."""
    say_all([*opening(answers), *numbers(answers)], say)


def opening(answers: Mapping[str, Any]) -> list[str]:
    """What must be known before any number: that the run diverged, or that it may go on."""
    first = [answers["diverged"]["sentence"]] if answers["diverged"] else []
    if not answers["completed"]:
        last = f"{answers['last_step']:,}"
        of_all = f"This run is not completed: all of this is as of its last commit, step {last}."
        of_some = f"This run is not completed; these are its steps {answers['first_step']:,} to {last} alone."
        first.append(of_all if answers["all_steps"] else of_some)
    if mixture := populations_together(answers):
        first.append(f"{mixture} Each population by itself stands at the end.")
    return first


def populations_together(answers: Mapping[str, Any]) -> str:
    """That tokens of several populations, or of one and of none, are asked together; "" where they are of one."""
    parts = answers.get("populations") or {}
    named = [counted(part["tokens"], f"{name} token") for name, part in parts.items()]
    named += [f"{counted(others, 'token')} of no population"] if parts and (others := _of_none(answers)) else []
    decides = f"These are {' and '.join(named)} together, so that whatever moves longest decides."
    return f"{decides} {_asks_of_one(answers)}" if parts else ""


def _of_none(answers: Mapping[str, Any]) -> int:
    """How many tokens are of no population."""
    return int(answers["tokens"]) - sum(int(part["tokens"]) for part in answers["populations"].values())


def motion_words(answers: Mapping[str, Any]) -> str:
    """What counted as motion."""
    return f"{answers['norm'].capitalize()} >= {answers['threshold']:.7g} cells"


def of_several(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What must be known of several runs beside their table: each line names the runs that it is true of."""
    return [*_mixed(runs), *_not_completed(runs), *_with_gaps(runs), _motion(runs)]


def _mixed(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where tokens of several populations are asked together: a line for all runs that have the same ones."""
    mixed: dict[str, list[str]] = {}
    for name, answers in runs.items():
        if parts := answers.get("populations"):
            kinds = " and ".join([*parts, *(["other"] if _of_none(answers) else [])])
            words = f"{kinds} tokens together, so that whatever moves longest decides. {_asks_of_one(answers)}"
            mixed.setdefault(words, []).append(name)
    return [f"{', '.join(names)}: {words}" for words, names in mixed.items()]


def _not_completed(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which of the runs may go on."""
    names = [name for name, answers in runs.items() if not answers["completed"]]
    return [f"Not completed, so that all of this is as of the last commit: {', '.join(names)}."] if names else []


def _with_gaps(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of which runs steps are missing, and how exact their answers are."""
    apart = {name: answers.get("resolution_steps", 1) for name, answers in runs.items()}
    early = [f"up to {counted(steps - 1, 'step')} in {name}" for name, steps in apart.items() if steps > 1]
    return (
        [f"Steps are missing, so that a motion came before the step that is named: {', '.join(early)}."]
        if early
        else []
    )


def _motion(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """What counted as motion, which may differ from run to run."""
    by: dict[str, list[str]] = {}
    for name, answers in runs.items():
        by.setdefault(motion_words(answers), []).append(name)
    if len(by) == 1:
        return f"Motion is {next(iter(by))}."
    each = "; ".join(f"{words} in {', '.join(names)}" for words, names in by.items())
    return f"Motion is not the same in all: {each}."


def _asks_of_one(answers: Mapping[str, Any]) -> str:
    return f"--population {next(iter(answers['populations']))} asks of one alone."


def numbers(answers: Mapping[str, Any]) -> list[str]:
    """The answers by headings, which say so where the run diverged."""
    mark = ", of a run that diverged" if answers["diverged"] else ""
    parts = {"Fimbulwinter check": _fimbulwinter(answers)} | _counted(answers)
    if not answers["steps"]:
        why = "no update is recorded" if answers["all_steps"] else "a single state is asked about, and no move"
        none = [f"{why}, so there is nothing to say of motion"]
        parts |= dict.fromkeys(("Fimbulwinter check", "Stillness analysis"), none)
    if answers.get("populations"):
        parts["By population"] = _populations(answers["populations"])
    indented = {name + mark: [f"  {line}" for line in lines] for name, lines in parts.items()}
    return [line for name, lines in indented.items() for line in ("", name, *lines)] + [""]


def _counted(answers: Mapping[str, Any]) -> dict[str, list[str]]:
    """What counts single steps, or that it was not asked, and how the centroid drifts."""
    if answers["resolution_steps"] > 1:
        return {"Missing steps": missing_steps(answers["resolution_steps"]), "Drift": _drift(answers["drift"])}
    return {
        "Stillness analysis": _stillness(answers["stillness"]),
        "End state": [answers["end_state"]["sentence"]],
        "Life cycle and drift": [_lifecycle(answers), *_drift(answers["drift"])],
    }


def say_all(lines: Iterable[str], say: Say) -> None:
    """Say line after line."""
    for line in lines:
        say(line)


def _so_far(answers: Mapping[str, Any]) -> str:
    return "" if answers["completed"] else " so far"


def _fimbulwinter(answers: Mapping[str, Any]) -> list[str]:
    steps, freeze, last = answers["steps"], answers["freeze"], answers["global_last_motion"]
    by = f"by {motion_words(answers)}"
    if last is None:
        return [f"nothing moved at all in {counted(steps, 'step')}, {by}"]
    is_winter = answers["sees_every_change"] and not answers["diverged"]
    silence = "Fimbulwinter" if is_winter else "no motion that counts since then"
    whole = answers["fimbulwinter_fraction"]
    part = whole if whole == 1 else min(whole, 0.999)  # 100 % is nothing less
    share = f"{'< 0.1%' if 0 < part < 0.001 else f'{part:.1%}'} {share_of_silence(answers)}{_so_far(answers)}"
    times = {name: "never" if freeze[name] is None else f"{freeze[name]:,}" for name in freeze}
    never = answers["never_moved"]
    return [
        f"last motion of any token: step {last:,} of {answers['last_step']:,}, {by}",
        f"{silence}: {counted(answers['fimbulwinter_duration'], 'step')}, {share}",
        f"freeze steps: earliest {times['earliest']}, median {times['median']}, latest {times['latest']}",
        f"tokens that never moved: {never:,}" if never else "every token moved",
    ]


def _stillness(found: Mapping[str, Any]) -> list[str]:
    if not found["count"]:
        return ["0 silences: something moved at every step"]
    lines = [
        f"silences: {found['count']:,}, mean {found['mean']:,.1f}, median {counted(found['median'], 'step')}",
        f"the longest: {', '.join(f'{length:,}' for length in found['longest'])}",
    ]
    if found["final_vs_second"] is not None:
        lines.append(f"longest against second longest: {found['final_vs_second']:.2f}")
    return lines


def _populations(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The last motion and the verdict of each population."""
    lines = []
    for name, part in parts.items():
        last = "never" if part["global_last_motion"] is None else f"{part['global_last_motion']:,}"
        verdict = "" if part["end_state"] is None else f" {part['end_state']['sentence']}"
        lines.append(f"{name}, {counted(part['tokens'], 'token')}: last motion {last}.{verdict}")
    return lines


def missing_steps(resolution: int) -> list[str]:
    """How exact the answers are where steps are missing between recorded states, and what was not asked."""
    return [
        f"recorded states are up to {resolution:,} steps apart: a motion came up to {resolution - 1:,} steps before",
        "the step that is named, and one that was undone between two states is not seen",
        "not asked, since they count single steps: stillness, end state, life cycle",
    ]


def _lifecycle(answers: Mapping[str, Any]) -> str:
    exits = ", ".join(
        f"{phase} {'never' if told['median_exit'] is None else format(told['median_exit'], ',')}"
        for phase, told in answers["lifecycle"].items()
    )
    return f"median last steps{_so_far(answers)}: {exits}"


def _drift(found: Mapping[str, Any]) -> list[str]:
    if found["path"] is None or found["net"] is None:  # of a single state that is not finite only the path is known
        return []
    efficiency = "" if found["efficiency"] is None else f", efficiency {found['efficiency']:.3f}"
    return [f"centroid: net {found['net']:.4g} over a path of {found['path']:.4g}{efficiency}"]
