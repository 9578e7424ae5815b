"""Several processes that train together: which of them records, and that what it records is what it trains."""

import numpy as np
import pytest
import ranked_training
from ranked_training import PICKED

import crucible
from store.reading.reader import open_trajectory

QUICK = ("ddp", "only_rank_0", "on_rank_1", "each_rank", "resumed", "fsdp")
SLOW = ("zero", "accelerated", "fsdp_replicated", "fsdp_of_all_rows", "fsdp_none_of_a_rank")
WHOLE = {"fsdp_of_all_rows": list(range(ranked_training.VOCABULARY)), "fsdp_none_of_a_rank": [0, 2]}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Two processes train in one way after the other."""
    folder = tmp_path_factory.mktemp("ranks")
    ranked_training.launch(folder, *QUICK)
    return folder


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    ranked_training.launch(folder, *SLOW, "fsdp1")
    return folder


def seen(folder, rank):
    with np.load(folder / f"seen-{rank}.npz") as kept:
        return kept["states"], kept["losses"]


def told(folder, rank):
    return (folder / f"told-{rank}.txt").read_text()


def assert_is_what_a_rank_saw(folder, rank=0, run="run"):
    states, losses = seen(folder, rank)
    ds = open_trajectory(folder / run)
    np.testing.assert_array_equal(ds.W.values, states[:, WHOLE.get(folder.name, PICKED)])
    np.testing.assert_array_equal(ds.loss.values, np.array([np.nan, *losses], np.float32))
    assert ds.attrs["completed"]
    assert crucible.check(folder / run).is_whole
    return ds


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "only_rank_0"])
def test_rank_0_records_what_it_trains(name, quick):
    ds = assert_is_what_a_rank_saw(quick / name)
    assert ds.sizes["step"] == 5
    np.testing.assert_array_equal(seen(quick / name, 0)[0], seen(quick / name, 1)[0])


@pytest.mark.slow
def test_the_others_are_told_once_that_they_record_nothing(quick):
    assert told(quick / "ddp", 0) == ""
    assert told(quick / "ddp", 1).count("rank 0 records this run, and rank 1, this process, records nothing") == 1


@pytest.mark.slow
def test_another_rank_may_record(quick):
    assert_is_what_a_rank_saw(quick / "on_rank_1", 1)
    assert "rank 1 records this run" in told(quick / "on_rank_1", 0)


@pytest.mark.slow
def test_each_rank_may_record_a_run_of_its_own(quick):
    for rank in (0, 1):
        assert_is_what_a_rank_saw(quick / "each_rank", rank, f"run-{rank}")


@pytest.mark.slow
def test_a_run_is_resumed_on_every_rank(quick):
    assert assert_is_what_a_rank_saw(quick / "resumed").sizes["step"] == 8


@pytest.mark.slow
def test_the_parts_of_a_spread_parameter_are_gathered(quick):
    ds = assert_is_what_a_rank_saw(quick / "fsdp")
    assert ds.attrs["committed_steps"] == 6
    W = ds.W.values
    np.testing.assert_allclose(ds.centroid.values, W.mean(axis=1), rtol=1e-5, atol=1e-7)
    assert np.isfinite(ds.gradient.values[1:]).all()
    np.testing.assert_allclose(ds.adam_m.values[1], 0.1 * ds.gradient.values[1], rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_other_ways_of_training_on_several_ranks(name, slow):
    assert_is_what_a_rank_saw(slow / name, 1 if name == "fsdp_of_all_rows" else 0)


@pytest.mark.slow
def test_a_rank_that_closes_early_leaves_no_other_waiting(tmp_path):
    ranked_training.launch(tmp_path, "fsdp_that_one_rank_leaves")
    words = told(tmp_path / "fsdp_that_one_rank_leaves", 0)
    assert "did not meet in its optimizer step within 2 s" in words
    assert open_trajectory(tmp_path / "fsdp_that_one_rank_leaves" / "run").attrs["committed_steps"] == 2


TRAINERS = (
    "trainer", "trainer_accumulating", "trainer_smoothing", "trainer_of_trainer", "trainer_of_own_tokens",
    "trainer_in_bfloat16", "trainer_fsdp", "trainer_on_rank_0",
)  # fmt: skip


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("ranks")
    ranked_training.launch(folder, *TRAINERS)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_of_two_processes_records_the_loss_that_it_logs(name, trainers):
    states, losses = seen(trainers / name, 0)
    ds = open_trajectory(trainers / name / "run")
    np.testing.assert_array_equal(ds.W.values, states[:, PICKED])
    assert ds.attrs["completed"]
    if name == "trainer_on_rank_0":
        assert "only some of the processes have this callback" in told(trainers / name, 0)
    else:
        np.testing.assert_allclose(ds.loss.values[1:], losses, rtol=1e-4)
        assert told(trainers / name, 0) == ""


@pytest.mark.slow
def test_lightning_on_two_processes(tmp_path):
    pytest.importorskip("lightning")
    ranked_training.launch(tmp_path, "lightning")
    states, losses = seen(tmp_path / "lightning", 0)
    ds = open_trajectory(tmp_path / "lightning" / "run")
    np.testing.assert_array_equal(ds.W.values, states[:, PICKED])
    np.testing.assert_allclose(ds.loss.values[1:], losses, rtol=1e-6)
    assert ds.attrs["completed"]


def test_outside_of_torchs_processes_the_environment_says_the_rank(tmp_path, monkeypatch):
    import torch

    monkeypatch.setenv("RANK", "3")
    embedding = torch.nn.Embedding(5, 2)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    notices = []
    with crucible.attach(embedding, optimizer, tmp_path / "run", say=notices.append) as recorder:
        recorder.log(loss=1.0)
        embedding(torch.arange(5)).sum().backward()
        optimizer.step()
        recorder.forget()
        recorder.checkpoint(1, {})
    assert recorder.step == 1
    assert not (tmp_path / "run").exists()
    assert len(notices) == 1


@pytest.mark.slow
def test_parameters_that_lie_flat_are_refused_with_what_to_use(slow):
    for rank in (0, 1):
        assert told(slow / "fsdp1", rank).count("shard the model by torch.distributed.fsdp.fully_shard (FSDP2)") == 2
