"""What `crucible analyze` says of the push: by the channel, else by the last checkpoint."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import crucible
import store
from analysis import simulate
from crucible.cli.main import main
from crucible.inspection.analyze import analyze
from crucible.inspection.checkpoint_push import push_of_checkpoint
from store.run.commit import read_commit
from store.run.document import digest

SMALL = ["--batch-size=4", "--seq-len=16", "--vocab-size=600", "--hidden-dim=8", "--num-layers=1", "--total-steps=12"]
GAINED = {"push", "headroom", "E", "reference_learning_rate", "frozen_by_silence", "frozen_by_push"}


@pytest.fixture(scope="module")
def runs(files, tmp_path_factory):
    """The same training with and without the push."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in (("with", []), ("without", ["--no-push"])):
        assert main(["train", *files.flags(), *SMALL, f"--out={folder / name}", *more]) == 0
    return folder


def asked(capsys, *words):
    capsys.readouterr()
    assert main(["analyze", *map(str, words)]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_json_gains_what_the_push_says(runs, capsys):
    end = json.loads(asked(capsys, runs / "with", "--json"))["end_state"]
    assert end.keys() >= GAINED
    assert end["push"] == pytest.approx(1 / end["headroom"])
    assert end["reference_learning_rate"] == 1e-3
    assert "confidence" in end
    assert "onfidence" not in asked(capsys, runs / "with")


@pytest.mark.slow
def test_another_reference_is_a_flag_and_a_keyword(runs, capsys):
    flag = ["--reference-learning-rate", "0.005"]
    assert json.loads(asked(capsys, runs / "with", "--json", *flag))["end_state"]["reference_learning_rate"] == 0.005
    assert analyze(runs / "with", reference_learning_rate=0.005)["end_state"]["reference_learning_rate"] == 0.005
    assert main(["analyze", str(runs / "with"), "--reference-learning-rate", "0"]) == 2
    assert "must be above 0" in capsys.readouterr().err


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_checkpoint_speaks_only_where_no_push_was_recorded(is_recorded, tmp_path, monkeypatch):
    """One that was recorded and contradicted by what moved is not judged by, and another is no better."""
    at_checkpoint = {"step": 2, "push": 0.25, "headroom": 4.0}
    monkeypatch.setattr("crucible.inspection.analyze.push_of_checkpoint", lambda _: at_checkpoint)
    ds = simulate.with_pushes(np.full((9, 2), 0.25))
    ds["W"] = simulate.with_last_motion([3, 2], total_steps=9).W  # moved by a push of a quarter of half a cell
    ds = ds[["W", "push", "learning_rate", "optimizer_step"] if is_recorded else ["W"]]
    monkeypatch.setattr("crucible.inspection.analyze.open_trajectory", lambda _: ds)
    end = analyze(tmp_path)["end_state"]
    assert ("push_of_checkpoint" in end, end["push"]) == ((False, None) if is_recorded else (True, 0.25))
    assert ("By the checkpoint of step 2" in end["sentence"]) != is_recorded
    assert end["unexplained"] == (5 if is_recorded else 0)


@pytest.mark.slow
def test_the_checkpoint_of_a_finished_run_tells_the_push_of_its_step(runs, capsys):
    pushes = crucible_push(runs / "with")
    found = push_of_checkpoint(runs / "without")
    assert found["step"] == 12
    assert rounded_up(found["push"]) == pushes[12]
    end = json.loads(asked(capsys, runs / "without", "--json"))["end_state"]
    assert (end["push"], end["headroom"], end["push_of_checkpoint"]) == (found["push"], found["headroom"], 12)
    assert end["E"] is None
    assert "By the checkpoint of step 12 the optimizer's strongest push is " in asked(capsys, runs / "without")
    assert "push_of_checkpoint" not in analyze(runs / "with")["end_state"]


def test_a_broken_checkpoint_or_that_of_another_loop_tells_none(runs, tmp_path):
    shutil.copytree(runs / "without", tmp_path / "run")
    for name in ("state.json", "optimizer.safetensors"):
        [file] = (tmp_path / "run" / "checkpoint").glob(f"*/{name}")
        whole = file.read_bytes()
        for broken in (b"", b"{}", whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
            file.write_bytes(broken)
            assert push_of_checkpoint(tmp_path / "run") is None
        file.unlink()
        assert push_of_checkpoint(tmp_path / "run") is None
        file.write_bytes(whole)
    assert push_of_checkpoint(tmp_path / "run") is not None


def test_the_optimizer_of_another_checkpoint_tells_no_push_of_this_one(runs, tmp_path):
    """As where a folder is synced by halves; its moments were taken for those of this step."""
    from safetensors.torch import load_file, save_file

    run = shutil.copytree(runs / "without", tmp_path / "run")
    [file] = (run / "checkpoint").glob("*/optimizer.safetensors")
    moments = load_file(file)
    save_file({name: 3 * each if "exp_avg_sq" in name else each for name, each in moments.items()}, file)
    assert push_of_checkpoint(run) is None
    assert "push_of_checkpoint" not in analyze(run)["end_state"]


def test_the_headroom_of_a_checkpoint_ends_where_weight_decay_moves_weights(runs, tmp_path):
    shutil.copytree(runs / "without", tmp_path / "run")
    [file] = (tmp_path / "run" / "checkpoint").glob("*/state.json")
    state = json.loads(file.read_text(encoding="utf-8"))
    state["optimizer"]["param_groups"][0] |= {"lr": 1e-9, "weight_decay": 1e6}
    data = json.dumps(state).encode()
    file.write_bytes(data)
    commit = read_commit(tmp_path / "run")
    named = {str(file.relative_to(tmp_path / "run")): digest(data)}
    committed = tmp_path / "run" / "trajectory.zarr" / "zarr.json"
    committed.write_bytes(replace(commit, sha256={**commit.sha256, **named}).to_bytes())
    told = push_of_checkpoint(tmp_path / "run")
    assert told["push"] < 0.1
    assert told["headroom"] == pytest.approx(2**-9 / 1e-3)


def crucible_push(run):
    import analysis

    return analysis.push(store.open_trajectory(run)).max("token").values


def rounded_up(push):
    import numpy as np

    from analysis.lattice import bits_to_float32
    from analysis.optimizers.push_arithmetic import bits_rounded_up

    return bits_to_float32(bits_rounded_up(np.float32([push])))[0]


def test_names_of_the_command_are_those_of_the_function(runs):
    assert crucible.analyze(runs / "with", norm="l1", threshold=0.2)["end_state"].keys() >= GAINED


@pytest.mark.default_cases(1)
@pytest.mark.filterwarnings("ignore:no token moved")
@pytest.mark.parametrize(("moves", "rate"), [(0, 1e-3), (1, 1e-3), (4, 1e-3), (4, 0.0), (4, float("nan"))])
def test_a_report_draws_the_push_of_any_run(moves, rate, tmp_path, monkeypatch):
    import torch

    from crucible.inspection.report import pictures, report

    kept = tuple(picture for picture in pictures.PICTURES if picture.name in ("silences", "push", "headroom"))
    monkeypatch.setattr(pictures, "PICTURES", kept)
    weight = torch.nn.Parameter(torch.ones(3, 64, dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW([weight], lr=1e-3)
    with crucible.attach(weight, optimizer, tmp_path / "run", say=lambda _: None):
        optimizer.param_groups[0]["lr"] = rate
        for _ in range(moves):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
    page = report(tmp_path / "run").read_text()
    assert all(f"<h2>{picture.heading}</h2>" in page for picture in kept)
