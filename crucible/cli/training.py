"""demo, prepare, plan, train, resume."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from crucible.cli.command import Command, add_json
from crucible.console import bar, next_command, note, say, say_json
from crucible.inputs.config import INPUTS, Config, ConfigError, read_file, rules
from crucible.units import counted, time_text

KINDS = {"int": int, "float": float, "text": str, "path": str}


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """--config and a flag for each field of the config."""
    parser.add_argument(
        "--config", metavar="FILE", help="parameters from a TOML file or a run's config.json; a flag overrides the file"
    )
    defaults = Config()
    for name, rule in rules().items():
        default = getattr(defaults, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=KINDS[rule.kind],
            choices=rule.choices or None,
            default=argparse.SUPPRESS,
            metavar=None if rule.choices else {"int": "N", "float": "X", "text": "TEXT", "path": "PATH"}[rule.kind],
            help=rule.help if default in (None, "") else f"{rule.help} (default: {default})",
        )
    parser.add_argument(
        "--max-memory", metavar="SIZE", help="refuse to start where the plan needs more memory, e.g. 4GB"
    )
    parser.add_argument("--max-disk", metavar="SIZE", help="refuse to start where the plan needs more disk, e.g. 500MB")


def read_parameters(arguments: argparse.Namespace) -> Config:
    """The config: flags override the file, the file the defaults. The vocabulary is the mask's or the tokenizer's
    unless it is given.
    """
    flags = {name: value for name, value in vars(arguments).items() if name in rules()}
    file: dict[str, Any] = read_file(arguments.config) if arguments.config else {}
    values = {**file, **flags}
    config = Config.from_mapping(values, where=arguments.config or "flags")
    if "vocab_size" in values or not (config.tokenizer or config.dead_mask):
        return config
    from crucible.inputs.data import vocabulary_of

    found = vocabulary_of(config.tokenizer, config.dead_mask)
    return config if found is None else replace(config, vocab_size=found)


def _refuse_missing(config: Config) -> None:
    """Raise where an input is named that is not there."""
    for name in INPUTS:
        path = getattr(config, name)
        if path is not None and not Path(path).exists():
            raise ConfigError(f"--{name.replace('_', '-')} {path}: there is no such file")


def _budget(arguments: argparse.Namespace) -> Any:  # noqa: ANN401 - its class is imported inside
    from crucible.experiment.plan import Budget, parse_size

    sizes = [None if text is None else parse_size(text) for text in (arguments.max_memory, arguments.max_disk)]
    return Budget(*sizes)


def _configure_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE", help="text to train the tokenizer on")
    parser.add_argument("--model-corpus", required=True, metavar="FILE", help="text that the model will be trained on")
    parser.add_argument("--vocab-size", required=True, type=int, metavar="N", help="number of token ids")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the three files")


def _prepare(arguments: argparse.Namespace) -> int:
    from crucible.inputs.prepare import prepare

    files = (arguments.text, arguments.model_corpus, arguments.vocab_size, arguments.out)
    made = prepare(*files, say=lambda line: note(f"note: {line}"))
    say(f"tokenizer: {made.tokenizer}, {counted(made.learned, 'token')}")
    say(f"dead mask: {made.dead_mask}, {made.dead:,} of {counted(made.vocab_size, 'id')} never occur")
    say(f"corpus: {counted(made.corpus_ids, 'id')}")
    say(f"config: {made.config}")
    if made.learned < made.vocab_size:
        note(f"note: the text gave only {counted(made.learned, 'token')}; the ids above are dead and stand for nothing")
    next_command("train", "--config", made.config, "--out", "runs/first")
    return 0


def _configure_plan(parser: argparse.ArgumentParser) -> None:
    add_parameters(parser)
    parser.add_argument("--tokens", type=int, metavar="N", help="recorded rows, where there is no --dead-mask yet")
    parser.add_argument("--measure", action="store_true", help="run a few steps to estimate the time; needs all inputs")
    add_json(parser)


def _plan(arguments: argparse.Namespace) -> int:
    from crucible.experiment.plan import plan, plan_mapping

    config = read_parameters(arguments)
    _refuse_missing(config)
    projected = plan(config, tokens=arguments.tokens)
    if config.dead_mask is None and arguments.tokens is None:
        note(f"note: without a --dead-mask, {projected.tokens:,} recorded tokens are assumed; --tokens N says how many")
    seconds = _measure(config) if arguments.measure else None
    if arguments.json:
        say_json({**plan_mapping(projected, config), "step_s": seconds})
    else:
        lines = projected.lines()
        if seconds is not None:
            whole = time_text(seconds * config.total_steps)
            lines.append(f"{'time:':10}about {whole}, {time_text(seconds)} a step as measured now, without recording")
        for line in lines:
            say(line)
    projected.refuse_beyond(_budget(arguments), Path(config.out) if config.out else None)
    return 0


def _measure(config: Config) -> float:
    from crucible.experiment.run import measure_step

    return measure_step(config)


def _configure_train(parser: argparse.ArgumentParser) -> None:
    add_parameters(parser)
    parser.add_argument("--no-record", action="store_true", help="train without recording anything")
    _add_no_lock(parser)
    parser.add_argument("--no-push", action="store_true", help="leave out how near each update came to moving a weight")


def _train(arguments: argparse.Namespace) -> int:
    from crucible.experiment.run import train

    config = read_parameters(arguments)
    with bar("train", "step") as progress:
        how = {"record": not arguments.no_record, "push": not arguments.no_push, "budget": _budget(arguments)}
        outcome = train(config, **how, lock=not arguments.no_lock, say=say, progress=progress)
    return _told(outcome, None if arguments.no_record else config.out)


def _add_no_lock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-lock",
        action="store_true",
        help="for a file system without locks: nothing keeps two processes from writing and spoiling the run at once",
    )


def _configure_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("--total-steps", type=int, metavar="N", help="a new end, past the planned one")
    parser.add_argument("--device", metavar="TEXT", help="another device than the run's own")
    parser.add_argument(
        "--from-start",
        action="store_true",
        help="compute all steps again, whatever training state there is, and compare them with the stored ones",
    )
    _add_no_lock(parser)


def _resume(arguments: argparse.Namespace) -> int:
    from crucible.experiment.run import resume

    with bar("resume", "step") as progress:
        outcome = resume(
            arguments.run,
            total_steps=arguments.total_steps,
            device=arguments.device,
            from_start=arguments.from_start,
            lock=not arguments.no_lock,
            say=say,
            progress=progress,
        )
    if outcome is None:
        say(f"{arguments.run}: the run is finished; --total-steps N goes on to a later end")
        return 0
    return _told(outcome, arguments.run)


def _told(outcome: Any, run: str | None) -> int:  # noqa: ANN401 - its class is imported inside
    from crucible.experiment.outcome import tell_end

    code = tell_end(outcome, run, say)
    if run and not code:
        next_command("report", run)
    return code


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="folder to make (default: crucible-demo)")


def _demo(arguments: argparse.Namespace) -> int:
    from crucible.experiment.demo import run_demo

    with bar("demo", "step") as progress:
        return run_demo(arguments.out, say, progress)


COMMANDS = (
    Command("demo", "run a complete example that needs no input, in about a minute", _configure_demo, _demo),
    Command("prepare", "make a tokenizer and a dead mask from text", _configure_prepare, _prepare),
    Command("plan", "estimate memory, disk and files of a run before it starts", _configure_plan, _plan),
    Command("train", "train a model and record every step", _configure_train, _train),
    Command("resume", "continue an interrupted run", _configure_resume, _resume),
)
