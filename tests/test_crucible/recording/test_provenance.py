"""What made a run, also where it went on with other software or on another machine."""

import json

import pytest
import torch
from torch import nn

import crucible
from crucible.recording import opening
from crucible.recording.provenance import differences, latest
from store.reading.reader import open_trajectory


@pytest.fixture
def training(tmp_path, monkeypatch):
    """Trains on a machine of this name up to a step, recording from another on; returns the run's provenance."""
    run, kept, real = tmp_path / "run", [], opening.machine

    def go(last, *, on="A", resume=None, optimizer=torch.optim.SGD, **options):
        monkeypatch.setattr(opening, "machine", lambda device: {**real(device), "device_name": f"CPU {on}"})
        embedding = nn.Embedding(4, 2)
        optimizer = optimizer(embedding.parameters(), lr=0.1)
        if kept:
            embedding.weight.data.copy_(kept[resume])
        with crucible.attach(embedding, optimizer, run, resume=resume, say=lambda _: None, **options):
            for step in range(resume or 0, last + 1):
                kept[step:] = [embedding.weight.detach().clone()]
                if step < last:
                    embedding.weight.grad = torch.ones(4, 2)
                    optimizer.step()
        return json.loads(open_trajectory(run).attrs["provenance"])

    go.run = run
    return go


def test_a_run_tells_of_each_machine_on_which_it_went_on_and_from_which_step(training):
    first = training(3)
    assert "resumed" not in first
    same = training(5, resume=3)
    assert same == first
    second = training(6, on="B", resume=5)
    assert second == {**first, "resumed": [{"after_step": 5, "machine": {"device_name": "CPU B"}}]}
    assert training(7, on="B", resume=6) == second
    back = training(8, resume=7)
    assert back["resumed"][1:] == [{"after_step": 7, "machine": {"device_name": "CPU A"}}]
    assert latest(second)["machine"] == {**first["machine"], "device_name": "CPU B"}
    assert differences(latest(back), first) == []
    assert crucible.info(training.run)["provenance"] == back


def test_of_steps_that_are_cut_away_no_machine_is_told(training):
    first = training(3)
    training(6, on="B", resume=3)
    training(9, on="C", resume=6)
    told = training(9, on="C", resume=5)
    assert [(each["after_step"], each["machine"]["device_name"]) for each in told["resumed"]] == [
        (3, "CPU B"), (5, "CPU C"),
    ]  # fmt: skip
    assert training(4, resume=2) == first


def test_steps_that_are_compared_are_those_of_the_machine_that_wrote_them_too(training):
    training(3)
    training(6, on="B", resume=3)
    told = training(7, on="C", resume=2, compare=True)
    assert [(each["after_step"], each["machine"]["device_name"]) for each in told["resumed"]] == [
        (3, "CPU B"), (2, "CPU C"),
    ]  # fmt: skip


def test_other_software_is_told_and_what_was_not_asked_for_again_is_not_missed(training):
    first = training(2, provenance={"software": {"torch": "1.0", "mine": "7"}, "seed": 3})
    told = training(3, resume=2, provenance={"software": {"torch": "2.0"}})
    assert told == {**first, "resumed": [{"after_step": 2, "software": {"torch": "2.0"}}]}
    with pytest.raises(TypeError, match=r"provenance=\{'software'"):
        training(4, resume=3, provenance={"software": {"path": training.run}})


def test_another_optimizer_and_what_else_is_another_is_told_of_the_steps_behind_it(training):
    first = training(2, provenance={"batch_size": 8, "shape": (2, 3), "data": {"corpus": "a", "seed": 3}})
    assert first["optimizer"] == "SGD"
    same = training(3, resume=2, provenance={"batch_size": 8, "shape": (2, 3), "data": {"seed": 3}})
    assert same == first
    told = training(4, resume=3, optimizer=torch.optim.AdamW, provenance={"batch_size": 16, "data": {"corpus": "b"}})
    later = {"after_step": 3, "optimizer": "AdamW", "batch_size": 16, "data": {"corpus": "b"}}
    assert told == {**first, "resumed": [later]}
    now = latest(told)
    assert (now["optimizer"], now["batch_size"], now["shape"]) == ("AdamW", 16, [2, 3])
    assert now["data"] == {"corpus": "b", "seed": 3}
    back = training(4, resume=2, provenance={"batch_size": 8})
    assert back == first


@pytest.mark.filterwarnings("ignore:no token moved")
def test_a_report_names_the_optimizers_and_the_settings_in_turn(training, tmp_path):
    training(3, config={"batch_size": 8})
    training(6, resume=3, optimizer=torch.optim.AdamW, provenance={"batch_size": 16, "weight_decay": 0.5})
    crucible.report(training.run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "SGD, then AdamW" in page
    assert "8, then 16" in page
    assert "not told, then 0.5" in page


@pytest.mark.filterwarnings("ignore:no token moved")
def test_a_report_names_every_machine_and_version(training, tmp_path):
    training(3)
    training(6, on="B", resume=3, provenance={"software": {"crucible-trajectory": "9.9"}})
    crucible.report(training.run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "CPU A, then CPU B" in page
    assert f"recorded by crucible {crucible.__version__}, then 9.9" in page


@pytest.fixture
def products():
    """What torch rounds products of float32 by, given back as it was."""
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    yield products
    products.fp32_precision = before


def test_a_run_tells_where_products_are_rounded_otherwise(training, products):
    first = training(3)
    assert (first["machine"]["float32_matmul_precision"], first["machine"]["deterministic_algorithms"]) == (
        "none", False,
    )  # fmt: skip
    products.fp32_precision = "bf16"
    second = training(5, resume=3)
    assert second["resumed"] == [{"after_step": 3, "machine": {"float32_matmul_precision": "bf16"}}]
    assert differences(first, second["resumed"][0]) == ["float32_matmul_precision: none then, bf16 now"]


def test_what_a_run_of_an_earlier_version_does_not_tell_is_no_difference(training):
    first = training(3)
    earlier = {name: value for name, value in first["machine"].items() if "precision" not in name}
    assert differences({**first, "machine": earlier}, first) == []
