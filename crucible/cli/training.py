"""demo, prepare, plan, train, resume."""

from __future__ import annotations

import argparse
from typing import Any

from crucible.cli.command import Command, add_json
from crucible.console import bar, note, say, say_json
from crucible.inputs.config import Config, read_file, rules
from crucible.units import counted

KINDS = {"int": int, "float": float, "text": str, "path": str}


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """--config and a flag for each field of the config."""
    parser.add_argument(
        "--config", metavar="FILE", help="parameters from a TOML file or a run's config.json; a flag beats it"
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
            help=rule.help if default in (None, "") else f"{rule.help} ({default})",
        )
    parser.add_argument("--max-memory", metavar="SIZE", help="refuse a plan that takes more, e.g. 4GB")
    parser.add_argument("--max-disk", metavar="SIZE", help="refuse a plan that takes more, e.g. 500MB")


def read_parameters(arguments: argparse.Namespace) -> Config:
    """A flag beats the file beats the default."""
    flags = {name: value for name, value in vars(arguments).items() if name in rules()}
    file: dict[str, Any] = read_file(arguments.config) if arguments.config else {}
    return Config.from_mapping({**file, **flags}, where=arguments.config or "flags")


def _budget(arguments: argparse.Namespace) -> Any:  # noqa: ANN401 - its class is imported inside
    from crucible.experiment.plan import Budget, parse_size

    sizes = [None if text is None else parse_size(text) for text in (arguments.max_memory, arguments.max_disk)]
    return Budget(*sizes)


def _configure_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", nargs="+", required=True, metavar="FILE", help="text to train the tokenizer on")
    parser.add_argument("--model-corpus", required=True, metavar="FILE", help="text that the model will be trained on")
    parser.add_argument("--vocab-size", required=True, type=int, metavar="N", help="token ids")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the two files")


def _prepare(arguments: argparse.Namespace) -> int:
    from crucible.inputs.prepare import prepare

    files = (arguments.text, arguments.model_corpus, arguments.vocab_size, arguments.out)
    made = prepare(*files, say=lambda line: note(f"note: {line}"))
    say(f"tokenizer: {made.tokenizer}, {counted(made.learned, 'token')}")
    say(f"dead mask: {made.dead_mask}, {made.dead:,} of {counted(made.vocab_size, 'id')} never occur")
    say(f"corpus: {counted(made.corpus_ids, 'id')}")
    if made.learned < made.vocab_size:
        note(f"note: the text gave only {counted(made.learned, 'token')}; the ids above are dead and stand for nothing")
    return 0


def _configure_plan(parser: argparse.ArgumentParser) -> None:
    add_parameters(parser)
    parser.add_argument("--tokens", type=int, metavar="N", help="recorded rows, where there is no --dead-mask yet")
    add_json(parser)


def _plan(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from crucible.experiment.plan import plan, plan_mapping

    config = read_parameters(arguments)
    projected = plan(config, tokens=arguments.tokens)
    if arguments.json:
        say_json(plan_mapping(projected, config))
    else:
        for line in projected.lines():
            say(line)
    projected.refuse_beyond(_budget(arguments), Path(config.out) if config.out else None)
    return 0


def _configure_train(parser: argparse.ArgumentParser) -> None:
    add_parameters(parser)
    parser.add_argument("--no-record", action="store_true", help="the same loop without the recorder")


def _train(arguments: argparse.Namespace) -> int:
    from crucible.experiment.outcome import tell_end
    from crucible.experiment.run import train

    config = read_parameters(arguments)
    with bar("train", "step") as progress:
        outcome = train(config, record=not arguments.no_record, budget=_budget(arguments), say=say, progress=progress)
    return tell_end(outcome, None if arguments.no_record else config.out, say)


def _configure_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("--total-steps", type=int, metavar="N", help="a new end, past the planned one")
    parser.add_argument("--device", metavar="TEXT", help="another device than the run's own")


def _resume(arguments: argparse.Namespace) -> int:
    from crucible.experiment.outcome import tell_end
    from crucible.experiment.run import resume

    with bar("resume", "step") as progress:
        outcome = resume(
            arguments.run, total_steps=arguments.total_steps, device=arguments.device, say=say, progress=progress
        )
    if outcome is None:
        say(f"{arguments.run}: the run is finished; --total-steps N goes on to a later end")
        return 0
    return tell_end(outcome, arguments.run, say)


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", help="folder to make (crucible-demo)")


def _demo(arguments: argparse.Namespace) -> int:
    from crucible.experiment.demo import run_demo

    with bar("demo", "step") as progress:
        return run_demo(arguments.out, say, progress)


COMMANDS = (
    Command("demo", "the whole story with no input, in about a minute", _configure_demo, _demo),
    Command("prepare", "make a tokenizer and a dead mask from text", _configure_prepare, _prepare),
    Command("plan", "project memory, disk and files of a run", _configure_plan, _plan),
    Command("train", "train and record every step", _configure_train, _train),
    Command("resume", "go on with an interrupted run", _configure_resume, _resume),
)
