"""`crucible train` against the in-memory loop: the exported file must have the same bytes."""

import functools
import hashlib
import json
from pathlib import Path

import notebook_loop
import pytest

import crucible
from crucible.cli.main import main

SETTINGS = {
    "moving at every step": {"total_steps": 40, "learning_rate": 1e-2, "hidden_dim": 8},
    "with still steps": {"total_steps": 300, "learning_rate": 1e-2, "hidden_dim": 4},
    "more layers, other betas": {
        "total_steps": 30, "learning_rate": 3e-3, "hidden_dim": 12, "num_layers": 2, "num_heads": 3, "beta1": 0.8,
        "beta2": 0.95, "epsilon": 1e-6, "weight_decay": 5.0, "random_seed": 7, "motion_threshold": 2.5, "seq_len": 24,
    },
    "over the end of an epoch and of a block": {
        "total_steps": 140, "learning_rate": 1e-3, "hidden_dim": 4, "batch_size": 16,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def notebooks(files):
    """The in-memory loop under each setting, run once."""

    @functools.cache
    def run(name):
        return notebook_loop.run(notebook_loop.Settings(**files.paths(), **settings_of(name)))

    return run


def settings_of(name):
    return {"batch_size": 4, "seq_len": 16, "vocab_size": 600, "num_layers": 1, **SETTINGS[name]}


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", SETTINGS)
def test_exported_file_is_the_notebooks_to_the_byte(name: str, notebooks, files, tmp_path: Path):
    settings, notebook = settings_of(name), notebooks(name)
    notebook_loop.save(notebook, tmp_path / "notebook.safetensors")
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    run = tmp_path / "run"
    assert main(["train", *files.flags(), *flags, "--out", str(run), "--compute-dtype", "bfloat16"]) == 0
    crucible.export_run(run, tmp_path / "ours.safetensors")
    assert digest(tmp_path / "ours.safetensors") == digest(tmp_path / "notebook.safetensors")
    check_metadata(json.loads((run / "metadata.json").read_text()), notebook, settings)


@pytest.mark.slow
def test_the_settings_are_what_they_are_called(notebooks):
    """One setting has still steps, one has none: otherwise the comparison above shows less than it says."""
    assert notebooks("with still steps").said["stillness_count"] > 0
    assert notebooks("moving at every step").said["stillness_count"] == 0


def check_metadata(found, notebook, settings):
    for name, value in settings.items():
        assert found[name] == value
    shapes = notebook_loop.shapes(notebook)
    assert found["data_shapes"] == shapes
    assert found["final_loss"] == float(notebook.tensors["loss"][-1])
    assert found["total_epochs"] == notebook.epochs
    assert found["n_dead_tokens"] == shapes["dead_indices"][0]
    assert found["device"] == notebook_loop.DEVICE
    assert found["global_last_motion"] == notebook.said["global_last_motion"]
    assert found["fimbulwinter_duration"] == notebook.said["fimbulwinter_duration"]
    assert {"experiment", "series", "date", "notes", "corpus", "tokenizer", "dead_mask", "out"} <= found.keys()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
