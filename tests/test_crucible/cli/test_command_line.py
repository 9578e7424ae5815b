"""Bad input: one clear line on stderr, the right exit code, nothing half written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from crucible.cli.main import main

SAID = (
    "device: ", "random seed: 42", "dead tokens", "sequences: ", "parameters", "AdamW", "planned: ",
    "training complete: 3 steps", "Fimbulwinter check", "Stillness analysis", "trajectory: ",
)  # fmt: skip
SMALL = ["--batch-size=4", "--seq-len=16", "--vocab-size=600", "--hidden-dim=8", "--num-layers=1", "--total-steps=3"]


def run(words, capsys) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a command."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as ending:
        code = ending.code
    out, err = capsys.readouterr()
    return code, out, err


def refused(words, code, *says, capsys):
    found, _, err = run(words, capsys)
    assert found == code, err
    assert err.count("\n") == 1, err
    assert all(word in err for word in says), err
    assert "Traceback" not in err


def masked(files, folder: Path, **changes) -> str:
    """The dead mask with some tensors changed; None takes one away."""
    tensors = load_file(files.dead_mask)
    tensors |= changes
    path = folder / "mask.safetensors"
    save_file({name: value for name, value in tensors.items() if value is not None}, path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("corpus", None, "no such text file"),
        ("corpus", b"caf\xe9 in latin-1", "not UTF-8 (byte 3)"),
        ("corpus", b" \n", "no text"),
        ("corpus", b"too short", "fewer than one batch of 4"),
        ("tokenizer", None, "no such tokenizer file"),
        ("tokenizer", b"{}", "not a tokenizers JSON file"),
        ("tokenizer", b"not json", "not a tokenizers JSON file"),
        ("dead_mask", None, "no such safetensors file"),
        ("dead_mask", b"garbage", "not a safetensors file"),
        ("dead_mask", b"\xff" * 64, "not a safetensors file"),
    ],
)
def test_broken_and_missing_files(name, content, says, files, tmp_path, capsys):  # noqa: PLR0917 - a table and fixtures
    bad = tmp_path / "bad"
    if content is not None:
        bad.write_bytes(content)
    flags = [*files.flags(), f"--{name.replace('_', '-')}={bad}"]
    refused(["train", *flags, *SMALL, "--out", tmp_path / "run"], 1, str(bad), says, capsys=capsys)
    assert not (tmp_path / "run").exists()


def test_masks_that_do_not_fit(files, tmp_path, capsys):
    tensors = load_file(files.dead_mask)
    mask, counts = tensors["dead_mask"], tensors["token_occurrence_counts"]
    indices = np.flatnonzero(mask)
    for changes, says in (
        ({"dead_mask": np.append(mask, True)}, "shape (601,)"),
        ({"dead_indices": indices[1:]}, "contradicts"),
        ({"dead_indices": indices[::-1].copy()}, "ascending"),
        ({"dead_indices": None}, "no tensor 'dead_indices'"),
        ({"dead_mask": mask.astype(np.float32)}, "float32"),
        ({"dead_mask": np.zeros(600, bool), "dead_indices": indices[:0]}, "no dead token"),
        ({"token_occurrence_counts": counts[:7]}, "token_occurrence_counts has shape (7,), expected (600,)"),
        ({"token_occurrence_counts": np.append(counts, 0)}, "token_occurrence_counts has shape (601,)"),
        ({"token_occurrence_counts": counts[:, None]}, "token_occurrence_counts has shape (600, 1)"),
        ({"token_occurrence_counts": counts / 2}, "token_occurrence_counts is float64"),
        ({"live_mask": ~mask[1:]}, "live_mask has shape (599,), expected (600,)"),
        ({"live_indices": np.zeros((2, 2), np.int64)}, "live_indices has shape (2, 2)"),
    ):
        path = masked(files, tmp_path, **changes)
        flags = [*files.flags(), "--dead-mask", path]
        refused(["train", *flags, *SMALL, "--out", tmp_path / "run"], 1, path, says, capsys=capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_mask_of_any_integer_dtype_is_read(files, tmp_path, capsys):
    mask = load_file(files.dead_mask)["dead_mask"]
    for dtype in (np.uint8, np.int64, np.uint32):
        path = masked(files, tmp_path, dead_mask=mask.astype(dtype), live_mask=None)
        out = tmp_path / np.dtype(dtype).name
        assert run(["train", *files.flags(), "--dead-mask", path, *SMALL, "--out", out], capsys)[0] == 0


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--vocab-size=599"], 1, "tokenizer.json: has ids up to 599, but vocab_size is 599"),
        (["--num-heads=3"], 2, "divisible"),
        (["--device=tpu"], 2, "tpu"),
        (["--device=cuda:7"], 2, "not available here"),
        (["--total-steps=many"], 2, "invalid int value"),
        (["--total-steps=0"], 2, "at least 1"),
        (["--nonsense=1"], 2, "unknown flag --nonsense"),
        (["--config=nowhere.toml"], 2, "no such config file"),
        (["--max-memory=1MB"], 6, "less than the projected"),
        (["--max-disk=1kB"], 6, "less than the projected"),
        (["--max-disk=plenty"], 2, "no size"),
        (["--batch-size=100000"], 1, "fewer than one batch"),
    ],
)
def test_parameters_that_cannot_be(flags, code, says, files, tmp_path, capsys):  # noqa: PLR0917 - as above
    for command in ("plan", "train"):
        refused([command, *files.flags(), *SMALL, *flags, "--out", tmp_path / "run"], code, says, capsys=capsys)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_refused_in_the_same_words(device, files, tmp_path, capsys, monkeypatch):
    for kind in (torch.cuda, torch.backends.mps):
        monkeypatch.setattr(kind, "is_available", lambda: False)
    for command in ("plan", "train"):
        words = [command, *files.flags(), *SMALL, f"--device={device}", "--out", tmp_path / "run"]
        refused(words, 2, f"device '{device}' is not available here; found cpu", capsys=capsys)


@pytest.mark.parametrize("inside", ["", "x", "x/y"])
def test_a_file_in_the_way_of_the_folder(inside, files, tmp_path, capsys):
    file = tmp_path / "narrow.txt"
    file.write_text("text")
    out = file / inside
    train = ["train", *files.flags(), *SMALL]
    prepare = ["prepare", "--text", files.corpus, "--model-corpus", files.corpus, "--vocab-size=300"]
    for words in (train, prepare):
        code, told, err = run([*words, "--out", out], capsys)
        assert (code, told, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"crucible: {out}: ")
        assert f"{file}{' ' if inside else ': '}is a file; name another folder" in err
        assert "Errno" not in err
    assert file.read_text() == "text"


def test_a_link_that_leads_nowhere_is_no_folder(files, tmp_path, capsys):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for out in (tmp_path / "link", tmp_path / "link" / "run"):
        refused(["train", *files.flags(), *SMALL, "--out", out], 1, str(out), "leads nowhere", capsys=capsys)
    (tmp_path / "gone").mkdir()
    assert run(["train", *files.flags(), *SMALL, "--out", tmp_path / "link" / "run"], capsys)[0] == 0


def test_an_unknown_key_in_the_file(tmp_path, capsys):
    (tmp_path / "c.toml").write_text("vocab_siz = 5\n")
    refused(["train", "--config", tmp_path / "c.toml"], 2, "vocab_siz", "vocab_size", capsys=capsys)


def test_missing_paths_are_named(capsys):
    refused(["train"], 2, "--corpus", "--tokenizer", "--dead-mask", "--out", capsys=capsys)


def test_a_run_that_exists_is_not_touched(files, tmp_path, capsys):
    out = tmp_path / "run"
    assert run(["train", *files.flags(), *SMALL, "--out", out], capsys)[0] == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    refused(["train", *files.flags(), *SMALL, "--out", out], 1, "there is a run already", capsys=capsys)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["info", "check", "analyze", "watch", "resume"])
def test_no_trajectory_here(command, tmp_path, capsys):
    flags = ["--once"] if command == "watch" else []  # without it, it waits for the run to begin
    refused([command, tmp_path / "nothing", *flags], 4, "nothing", capsys=capsys)
    (tmp_path / "folder").mkdir()
    refused([command, tmp_path / "folder", *flags], 4, "folder", capsys=capsys)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(files, tmp_path, capsys, monkeypatch):
    import errno

    from store.disk import LocalDisk

    true, calls = LocalDisk.put, iter(range(10_000))

    def full(self, *arguments, **options):
        if next(calls) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return true(self, *arguments, **options)

    words = ["train", *files.flags(), *SMALL, "--total-steps=200", "--commit-interval=0.01", "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(LocalDisk, "put", full)
        refused(words, 1, "No space left", "resume", capsys=capsys)
    assert run(["resume", tmp_path / "run"], capsys)[0] == 0
    assert run(["check", tmp_path / "run"], capsys)[0] == 0


@pytest.mark.slow
def test_the_reports_of_a_run(files, tmp_path, capsys):
    out = tmp_path / "run"
    code, told, _ = run(["train", *files.flags(), *SMALL, "--out", out], capsys)
    assert code == 0
    for words in SAID:
        assert words in told
    answers = json.loads(run(["analyze", out, "--json"], capsys)[1])
    assert answers["steps"] == 3
    assert answers["threshold"] == 0.1
    assert answers["global_last_motion"] == 3
    assert answers["end_state"]["p"] is None
    assert set(answers["lifecycle"]) == {"supernova", "cooling", "stumbling"}
    info = json.loads(run(["info", out, "--json"], capsys)[1])
    arrays = {array["name"]: array for array in info["arrays"]}
    assert arrays["W"]["dims"]["step"] == 4
    assert info["config"]["total_steps"] == 3
    assert "W " in run(["info", out], capsys)[1]
    checked = json.loads(run(["check", out, "--json"], capsys)[1])
    assert checked["whole"] is True
    assert {"W", "loss"} <= set(checked["only_read"])
    assert {"delta_W_prime", "last_motion_step", "centroid"} <= set(checked["recomputed"])
    assert "which nothing else can confirm: W, " in run(["check", out], capsys)[1]
    assert "step 3, last motion 3" in run(["watch", out], capsys)[1]
    refused(["analyze", out, "--scheduler", "nonsense://x"], 1, "no dask scheduler answers", capsys=capsys)
    refused(["analyze", out, "--threshold", "0"], 2, "above 0", capsys=capsys)


@pytest.mark.slow
def test_the_report_is_one_file_that_needs_no_network(files, tmp_path, capsys):
    out = tmp_path / "run"
    run(["train", *files.flags(), *SMALL, "--out", out], capsys)
    assert run(["report", out], capsys)[0] == 0
    page = (out / "report.html").read_text()
    assert page.count("<figure>") == 13  # the push was recorded
    assert "http:" not in page
    assert "https:" not in page
    assert "Fimbulwinter check" in page
    refused(["report", out], 1, "--force", capsys=capsys)
    assert run(["report", out, "--force", "--out", tmp_path / "other.html"], capsys)[0] == 0
    assert run(["check", out], capsys)[0] == 0


def test_damage_is_found_and_mended(files, tmp_path, capsys):
    out = tmp_path / "run"
    run(["train", *files.flags(), *SMALL, "--out", out], capsys)
    chunk = next((out / "trajectory.zarr" / "last_motion_step").glob("c*"))
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(bytes(data))
    code, told, err = run(["check", out], capsys)
    assert (code, err) == (3, "")
    assert "damage: last_motion_step" in told
    code, told, _ = run(["check", out, "--repair"], capsys)
    assert code == 0, told
    assert "repaired: " in told


def test_export_and_import_are_there_and_back(files, tmp_path, capsys):
    out, file = tmp_path / "run", tmp_path / "file.safetensors"
    run(["train", *files.flags(), *SMALL, "--out", out], capsys)
    assert run(["export", out, file], capsys)[0] == 0
    refused(["export", out, file], 1, str(file), capsys=capsys)
    assert run(["import", file, tmp_path / "again"], capsys)[0] == 0
    assert run(["export", tmp_path / "again", tmp_path / "again.safetensors"], capsys)[0] == 0
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    refused(["export", out, tmp_path / "x", "--only", "nonsense"], 2, "nonsense", capsys=capsys)
    refused(["export", out, tmp_path / "x", "--steps", "7"], 2, "range of steps", capsys=capsys)


def test_plan_answers_without_any_input(capsys):
    found = json.loads(run(["plan", "--json"], capsys)[1])
    assert found["tokens"] == 3699
    assert round(found["notebook_bytes"] / 1e9, 2) == 7.1
    assert found["recording_bytes"] < 128e6
    code, out, err = run(["plan", "--tokens", "3699", "--max-memory", "2GB"], capsys)
    assert code == 6
    assert "memory:" in out
    assert err.count("\n") == 1
    refused(["plan", "--tokens", "0"], 2, "--tokens", capsys=capsys)


def test_prepare(files, tmp_path, capsys):
    words = [
        "prepare",
        "--text",
        files.corpus,
        "--model-corpus",
        files.corpus,
        "--vocab-size",
        "300",
        "--out",
        tmp_path,
    ]
    code, told, _ = run(words, capsys)
    assert code == 0
    assert "dead mask" in told
    mask = load_file(tmp_path / "dead_mask.safetensors")
    assert set(mask) == {"dead_mask", "dead_indices", "live_mask", "live_indices", "token_occurrence_counts"}
    np.testing.assert_array_equal(mask["dead_mask"], mask["token_occurrence_counts"] == 0)
    np.testing.assert_array_equal(mask["dead_indices"], np.flatnonzero(mask["dead_mask"]))
    np.testing.assert_array_equal(mask["live_mask"], ~mask["dead_mask"])
    refused(words, 1, "exists already", capsys=capsys)
    refused([*words[:-1], tmp_path / "b", "--vocab-size", "9"], 1, "at least 256", capsys=capsys)
    refused(["prepare", "--text", "nowhere", *words[3:-1], tmp_path / "b"], 1, "nowhere", capsys=capsys)


def test_a_mistake_of_ours_is_one_line_and_v_shows_it(capsys, monkeypatch, tmp_path):
    import crucible.inspection.info

    def broken(_run):
        raise TypeError("oops")

    monkeypatch.setattr(crucible.inspection.info, "info", broken)
    refused(["info", tmp_path], 1, "TypeError", "oops", capsys=capsys)
    assert "Traceback" in run(["info", tmp_path, "-v"], capsys)[2]


def test_no_record_runs_the_bare_loop(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, told, _ = run(["train", *files.flags(), *SMALL, "--no-record"], capsys)
    assert code == 0
    assert re.search(r"training complete: 3 steps, final loss [\d.]+, 1 epoch begun, ", told)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--max-memory=1MB", "--max-disk=1MB", "--max-memory=4TB"])
def test_a_budget_without_recording_is_refused(flag, files, capsys):
    words = ["train", *files.flags(), *SMALL, "--no-record", flag]
    code, told, err = run(words, capsys)
    assert (code, told, err.count("\n")) == (2, "", 1)
    assert "--max-memory and --max-disk are about recording" in err


def test_help_and_imports_are_light():
    code = (
        "import sys; from crucible.cli.main import build_parser; build_parser();"
        "print([name for name in ('torch', 'numpy', 'xarray', 'zarr', 'tokenizers') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    code = "import sys, store, analysis, store.writing.writer, analysis.questions.motion; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize(("variable", "ours", "other"), [
    ("OMP_WAIT_POLICY", "passive", "active"), ("THP_MEM_ALLOC_ENABLE", "1", "0"),
])  # fmt: skip
def test_what_torch_reads_is_set_before_it_and_a_users_own_is_kept(monkeypatch, capsys, variable, ours, other):
    monkeypatch.delenv(variable, raising=False)
    run(["plan", "--json"], capsys)
    assert os.environ[variable] == ours
    monkeypatch.setenv(variable, other)
    run(["plan", "--json"], capsys)
    assert os.environ[variable] == other


@pytest.mark.parametrize("code", ["from crucible import attach", "import crucible; crucible.attach",
                                  "import crucible.cli.main"])  # fmt: skip
def test_a_shadowed_package_is_named(tmp_path, code):
    (tmp_path / "analysis.py").write_text("")
    process = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode
    assert "ImportError: crucible needs its own package 'analysis'" in process.stderr
    assert str(tmp_path / "analysis.py") in process.stderr


@pytest.mark.slow
def test_comparing_two_runs(files, tmp_path, capsys):
    runs = {}
    for name, flags in (("a", []), ("same", []), ("longer", ["--total-steps=5"]), ("other", ["--random-seed=1"])):
        runs[name] = tmp_path / name
        assert run(["train", *files.flags(), *SMALL, *flags, "--out", runs[name]], capsys)[0] == 0
    code, told, _ = run(["compare", runs["a"], runs["same"]], capsys)
    assert (code, told.splitlines()[-1]) == (0, "equal, bit for bit")
    code, told, _ = run(["compare", runs["a"], runs["longer"]], capsys)
    assert code == 0
    assert "they end at steps 3 and 5" in told
    code, told, _ = run(["compare", runs["a"], runs["other"], "--json"], capsys)
    found = json.loads(told)
    assert code == 1
    assert (found["equal"], found["array"], found["step"], found["equal_steps"]) == (False, "W", 0, 0)
    assert found["hops"] > 0
    assert "first difference: W at step 0" in run(["compare", runs["a"], runs["other"]], capsys)[1]
    refused(["compare", runs["a"], tmp_path / "nothing"], 4, "nothing", capsys=capsys)


@pytest.mark.slow
def test_compacting_a_run_changes_no_number(files, tmp_path, capsys):
    for name in ("run", "compacted"):
        assert run(["train", *files.flags(), *SMALL, "--out", tmp_path / name], capsys)[0] == 0
    assert run(["compact", tmp_path / "compacted"], capsys)[0] == 0
    assert run(["compare", tmp_path / "run", tmp_path / "compacted"], capsys)[0] == 0
    assert run(["check", tmp_path / "compacted"], capsys)[0] == 0
    refused(["compact", tmp_path / "nothing"], 4, "nothing", capsys=capsys)


def test_a_warning_is_one_line(tmp_path, capsys, monkeypatch):
    """Of a command that warns: the words, and no place in the code."""
    import warnings

    def warns(*_, **__):
        warnings.warn("nothing moves", stacklevel=1)
        raise FileNotFoundError("gone")

    monkeypatch.setattr("crucible.inspection.info.info", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run(["info", tmp_path], capsys) == (1, "", "note: nothing moves\ncrucible: gone\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["analyse", "run"], "there is no command 'analyse'; did you mean analyze?"),
        (["frobnicate"], "there is no command 'frobnicate' (see"),
        (["analyze", "run", "--treshold", "1"], "unknown flag --treshold; did you mean --threshold?"),
        (["train", "--total-step=5"], "unknown flag --total-step; did you mean --total-steps?"),
        (["info", "run", "other"], "one argument too many: other"),
        (["--json", "info", "run"], "--json comes after the command: crucible info --json ..."),
        (
            ["analyze", "run", "--norm", "linff"],
            "--norm cannot be 'linff', only one of l1, l2, linf; did you mean linf?",
        ),
        (["analyze", "run", "--norm", "L2"], "--norm cannot be 'L2', only one of l1, l2, linf; did you mean l2? (see"),
    ],
)
def test_a_word_that_is_not_known_is_answered_with_the_nearest_that_is(capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said in told
    assert told.count("\n") == 1


@pytest.fixture
def prepared(tmp_path, files, capsys):
    """What prepare made of a text, and what it said on stderr."""
    code, _, err = run(["prepare", "--text", files.corpus, "--model-corpus", files.corpus, "--vocab-size", "300",
                        "--out", str(tmp_path / "inputs")], capsys)  # fmt: skip
    assert code == 0
    return tmp_path / "inputs", err


def test_prepare_writes_a_config_and_names_the_command_that_trains_by_it(prepared, tmp_path, capsys):
    folder, told = prepared
    assert f"next: crucible train --config {folder / 'train.toml'} --out runs/first" in told
    small = ["--total-steps=2", "--batch-size=2", "--seq-len=8", "--hidden-dim=8", "--num-layers=1"]
    code, out, err = run(["train", "--config", folder / "train.toml", "--out", tmp_path / "run", *small], capsys)
    assert (code, "vocabulary: 300 ids" in out) == (0, True)
    assert f"next: crucible report {tmp_path / 'run'}" in err


def test_the_vocabulary_is_that_of_the_mask_or_of_the_tokenizer_unless_it_is_given(prepared, capsys):
    folder, _ = prepared
    mask, tokenizer = f"--dead-mask={folder / 'dead_mask.safetensors'}", f"--tokenizer={folder / 'tokenizer.json'}"
    for flags, vocabulary in (
        ([mask, tokenizer], 300),
        ([tokenizer], 300),
        ([], 10_000),
        ([tokenizer, "--vocab-size=400"], 400),
    ):
        code, out, _ = run(["plan", "--json", *flags], capsys)
        assert (code, json.loads(out)["config"]["vocab_size"]) == (0, vocabulary)


def test_plan_says_what_it_assumed_refuses_what_is_not_there_and_measures(prepared, capsys):
    folder, _ = prepared
    assert "3,699 recorded tokens are assumed" in run(["plan"], capsys)[2]
    assert "assumed" not in run(["plan", "--tokens=5"], capsys)[2]
    code, _, err = run(["plan", f"--tokenizer={folder / 'tokenizer.json'}", "--corpus=absent.txt"], capsys)
    assert (code, "--corpus absent.txt: there is no such file" in err) == (2, True)
    small = ["--total-steps=100", "--batch-size=2", "--seq-len=8", "--hidden-dim=8", "--num-layers=1"]
    code, out, _ = run(["plan", "--measure", "--config", folder / "train.toml", *small], capsys)
    assert (code, "a step as measured now" in out) == (0, True)
