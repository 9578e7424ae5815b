import json
from dataclasses import fields
from pathlib import Path

import pytest

import crucible
from crucible.cli.training import add_parameters, read_parameters
from crucible.inputs.config import Config, ConfigError, read_file, rules

DEFAULTS = {
    "total_steps": 5000, "batch_size": 128, "seq_len": 128, "learning_rate": 1e-3, "weight_decay": 0.0, "beta1": 0.9,
    "beta2": 0.999, "epsilon": 1e-8, "vocab_size": 10000, "hidden_dim": 64, "num_layers": 2, "num_heads": 2,
    "random_seed": 42, "motion_threshold": 0.1, "device": "auto", "compute_dtype": "bfloat16",
}  # fmt: skip


def parsed(*words: str) -> Config:
    from crucible.cli.main import OneLineParser

    parser = OneLineParser()
    add_parameters(parser)
    return read_parameters(parser.parse_args(words))


def test_the_defaults_are_those_of_the_experiment():
    assert {name: Config().to_mapping()[name] for name in DEFAULTS} == DEFAULTS


def test_every_field_has_a_rule_and_a_flag():
    assert list(rules()) == [field.name for field in fields(Config)]
    values = {"corpus": "a", "total_steps": 3, "beta2": 0.5, "device": "cpu", "compute_dtype": "auto", "notes": "x y"}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    assert parsed(*words) == Config(**values)


def test_a_flag_beats_the_file_beats_the_default(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('total_steps = 7\nbatch_size = 3\nlearning_rate = 1\ncorpus = "text.txt"\n')
    config = parsed("--config", str(file), "--batch-size", "5")
    assert (config.total_steps, config.batch_size, config.seq_len) == (7, 5, 128)
    assert (config.learning_rate, config.corpus) == (1.0, "text.txt")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"total_steps": 0}, "total_steps must be at least 1"),
        ({"total_steps": 1.0}, "whole number"),
        ({"total_steps": True}, "whole number"),
        ({"total_steps": "7"}, "whole number"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"learning_rate": float("inf")}, "finite"),
        ({"beta1": 1.0}, "below 1"),
        ({"epsilon": -1e-9}, "at least 0"),
        ({"random_seed": 2**32}, "below"),
        ({"seq_len": 1}, "at least 2"),
        ({"motion_threshold": 0}, "above 0"),
        ({"epsilon": 1e39}, "epsilon"),
        ({"hidden_dim": 65}, "hidden_dim 65 must be divisible by num_heads 2"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
        ({"device": "cuda:x"}, "not known"),
        ({"compute_dtype": "float64"}, "must be one of"),
        ({"corpus": ""}, "must be a path"),
        ({"notes": 3}, "must be text"),
    ],
)
def test_values_that_cannot_be_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        Config(**values)


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("learning_rte = 0.1\n")
    with pytest.raises(ConfigError, match=r"run\.toml: unknown parameter 'learning_rte'; did you mean learning_rate"):
        parsed("--config", str(file))


@pytest.mark.parametrize("content", [b"total_steps = ", b"\xff\xfe", b"[table"])
def test_a_broken_file_is_refused(content, tmp_path):
    file = tmp_path / "run.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_file(file)
    with pytest.raises(ConfigError, match="no such config"):
        read_file(tmp_path / "nothing.toml")


def test_to_json_and_back_is_the_same():
    config = Config(corpus="a", total_steps=9, learning_rate=1 / 3)
    assert Config.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config


def test_resolved_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(corpus="text.txt").resolved()
    assert config.corpus == str(tmp_path / "text.txt")
    assert config.out is None


def test_a_runs_own_config_is_read_without_its_folder(tmp_path):
    file = tmp_path / "config.json"
    values = Config(total_steps=7, corpus="a.txt", out="runs/first").to_mapping()
    file.write_text(json.dumps({**values, "sha256": {"corpus": "00"}}))
    config = Config.from_mapping(read_file(file))
    assert (config.total_steps, config.corpus, config.out) == (7, "a.txt", None)


@pytest.mark.parametrize("text", ["[]", "{}", "{", "[" * 100_000])
def test_another_json_file_is_no_config(tmp_path, text):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"config.json: not"):
        read_file(file)


@pytest.mark.parametrize("asked", [crucible.train, crucible.plan])
@pytest.mark.parametrize("given", ["inputs/train.toml", Path("train.toml"), {"corpus": "a.txt"}])
def test_what_is_no_config_is_answered_with_how_to_make_one(asked, given):
    with pytest.raises(TypeError, match=r"expected a crucible\.Config, found .*Config\.from_mapping"):
        asked(given)
