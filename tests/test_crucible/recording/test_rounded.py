"""Float32 masters that are kept rounded to bfloat16."""

import numpy as np
import pytest
import torch

import crucible
from crucible.channels.table import CENTROID, DELTA, GRADIENT, LAST_MOTION, LOSS, NORMS, W
from store.errors import StoreError
from store.reading.reader import open_trajectory

TABLE = (W, DELTA, *NORMS, CENTROID, LOSS, LAST_MOTION, GRADIENT)


def loop(dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    embedding = torch.nn.Embedding(20, 6).to(dtype)
    return embedding, torch.optim.AdamW(embedding.parameters(), lr=1e-3)


def train(embedding, optimizer, steps, seen):
    for _ in range(steps):
        optimizer.zero_grad()
        embedding(torch.randint(3, 20, (16,))).float().square().mean().backward()
        optimizer.step()
        seen.append(embedding.weight.detach()[:8].clone())


def record(run, steps=12, **options):
    embedding, optimizer = loop()
    seen = [embedding.weight.detach()[:8].clone()]
    options = {"rows": range(8), "channels": TABLE, "store_as": "bfloat16", **options}
    with crucible.attach(embedding, optimizer, run, **options):
        train(embedding, optimizer, steps, seen)
    return embedding, optimizer, seen


def test_the_bits_of_the_rounding_are_kept_and_all_else_is_of_them(tmp_path):
    *_, seen = record(tmp_path / "run")
    ds = open_trajectory(tmp_path / "run")
    rounded = torch.stack(seen).bfloat16()
    np.testing.assert_array_equal(ds.W.values, rounded.view(torch.uint16).numpy())
    assert torch.equal(crucible.to_torch(ds.W), rounded)
    assert ds.W.attrs["rounded_from"] == "float32"
    assert ds.delta_W_prime.attrs["lattice"] == "bfloat16"
    np.testing.assert_array_equal(ds.centroid.values, torch.stack([r.float().mean(0) for r in rounded]).numpy())
    assert ds.gradient.dtype == np.float32
    assert crucible.check(tmp_path / "run").is_whole


def test_the_centroid_is_that_of_the_rounded_rows_also_where_these_are_not_kept(tmp_path):
    _, _, seen = record(tmp_path / "run", channels=(CENTROID,))
    rounded = torch.stack(seen).bfloat16()
    stored = open_trajectory(tmp_path / "run").centroid
    np.testing.assert_array_equal(stored.values, torch.stack([r.float().mean(0) for r in rounded]).numpy())
    assert stored.attrs["rounded_from"] == "float32"


def test_what_is_derived_is_that_of_a_run_of_bfloat16_weights(tmp_path):
    *_, seen = record(tmp_path / "run")
    embedding, optimizer = loop(torch.bfloat16)
    with crucible.attach(embedding, optimizer, tmp_path / "same", channels=TABLE[:-1], rows=range(8)):
        for state in seen[1:]:
            optimizer.step()
            with torch.no_grad():
                embedding.weight[:8] = state.bfloat16()
    ours, theirs = open_trajectory(tmp_path / "run"), open_trajectory(tmp_path / "same")
    moved = slice(2, 12)  # the other recorder sees a state one update later
    np.testing.assert_array_equal(ours.delta_W_prime.values[moved], theirs.delta_W_prime.values[3:13])


def test_halves_are_rounded_to_even_and_nan_stays_nan(tmp_path):
    embedding = torch.nn.Embedding(5, 2)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with torch.no_grad():
        embedding.weight[0] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8])
        embedding.weight[1] = torch.tensor([float("nan"), float("-inf")])
    with crucible.attach(embedding, optimizer, tmp_path / "run", channels=(W,), store_as="bfloat16"):
        embedding(torch.tensor([4])).sum().backward()
        optimizer.step()
    kept = crucible.to_torch(open_trajectory(tmp_path / "run").W)[0]
    assert kept[0].tolist() == [1.0, 1 + 2**-6]
    assert kept[1].isnan().tolist() == [True, False]
    assert kept[1, 1] == float("-inf")


def test_it_is_resumed_where_the_rounded_weights_are_the_runs(tmp_path):
    embedding, optimizer, seen = record(tmp_path / "run")
    how = {"rows": range(8), "channels": TABLE}
    with pytest.raises((ValueError, StoreError), match=r"rounded from float32.*asked for: float32"):
        crucible.attach(embedding, optimizer, tmp_path / "run", resume=12, **how)
    with crucible.attach(embedding, optimizer, tmp_path / "run", resume=12, store_as="bfloat16", **how):
        train(embedding, optimizer, 3, seen)
    ds = open_trajectory(tmp_path / "run")
    np.testing.assert_array_equal(ds.W.values, torch.stack(seen).bfloat16().view(torch.uint16).numpy())
    assert crucible.check(tmp_path / "run").is_whole
    with torch.no_grad():
        embedding.weight.mul_(2)
    with pytest.raises(ValueError, match="is not where the run was"):
        crucible.attach(embedding, optimizer, tmp_path / "run", resume=15, store_as="bfloat16", **how)


@pytest.mark.parametrize(("dtype", "options", "words"), [
    (torch.bfloat16, {"store_as": "bfloat16"}, "only float32 weights are rounded"),
    (torch.float32, {"store_as": "float16"}, "only float32 weights are rounded, to 'bfloat16'"),
    (torch.float32, {"store_as": "bfloat16", "lattice": "float32"}, "lie on the bfloat16 lattice"),
])  # fmt: skip
def test_what_cannot_be_rounded(dtype, options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        crucible.attach(*loop(dtype), tmp_path / "run", **options)


def test_it_takes_a_fraction_of_the_bytes(tmp_path):
    record(tmp_path / "rounded", steps=300, channels=(W, DELTA, *NORMS))
    record(tmp_path / "whole", steps=300, channels=(W, DELTA, *NORMS), store_as=None)
    small, large = (crucible.info(tmp_path / name)["stored_bytes"] for name in ("rounded", "whole"))
    assert small * 2 < large


@pytest.mark.parametrize("dtype", ["uint16", "bfloat16"])
def test_export_and_import_know_that_it_was_rounded(tmp_path, dtype):
    record(tmp_path / "run", channels=TABLE[:-1])
    crucible.export_run(tmp_path / "run", tmp_path / "file.safetensors", dtype=dtype)
    report = crucible.import_run(tmp_path / "file.safetensors", tmp_path / "again")
    assert report.differences == ()
    run, again = open_trajectory(tmp_path / "run"), open_trajectory(tmp_path / "again")
    assert again.W.attrs == run.W.attrs
    np.testing.assert_array_equal(again.W.values, run.W.values)
    assert crucible.check(tmp_path / "again").is_whole


def test_exact_masters_come_back_too(tmp_path):
    record(tmp_path / "run", channels=TABLE[:-1], store_as=None)
    crucible.export_run(tmp_path / "run", tmp_path / "file.safetensors")
    crucible.import_run(tmp_path / "file.safetensors", tmp_path / "again")
    run, again = open_trajectory(tmp_path / "run"), open_trajectory(tmp_path / "again")
    np.testing.assert_array_equal(again.W.values, run.W.values)
    np.testing.assert_array_equal(again.delta_W_prime.values, run.delta_W_prime.values)
    assert "rounded_from" not in again.W.attrs
