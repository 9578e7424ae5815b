"""Look-alikes of the files of every kind of experiment: what each array comes in as, and the round trip out."""

import itertools
import json
import os

import h5py
import lab_files as lab
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import analysis
import crucible
from crucible.cli.main import main
from crucible.interchange.file_table import FILE_ARRAYS
from crucible.interchange.importing import weights
from store.errors import RunExistsError, TensorFileError

T, V, D = 12, 9, 4
DEAD = np.array([1, 4, 7])


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


def walk(dtype="float32", *, rows=T + 1, seed=0):
    random = np.random.default_rng(seed)
    return np.cumsum(random.normal(0, 1e-2, (rows, V, D)), axis=0).astype(dtype)


def as_hdf5(path, arrays, **attributes):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes)
    return path


def as_npz(path, arrays):
    np.savez(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def as_packed_npz(path, arrays):
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


WRITE = {"safetensors": lab.write, "hdf5": as_hdf5, "npz": as_npz, "packed npz": as_packed_npz}


def brought(tmp_path, arrays, kind="safetensors", **options):
    report = crucible.import_run(WRITE[kind](tmp_path / "old", arrays), tmp_path / "run", **options)
    assert report.differences == ()
    return crucible.open_trajectory(tmp_path / "run")


def sent_out(tmp_path, names):
    crucible.export_run(tmp_path / "run", tmp_path / "out", only=names, force=True)
    return {name: tensor.numpy() for name, tensor in load_file(tmp_path / "out").items()}


# Weights of every dtype, under either name


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize(("name", "dtype"), [("W", "uint16"), ("embeddings", "float32"), ("weights", "float16")])
def test_weights_come_in_and_go_out_bit_for_bit(tmp_path, kind, name, dtype):
    W = lab.weights(T, V, D) if dtype == "uint16" else walk(dtype)
    ds = brought(tmp_path, {name: W}, kind)
    assert ds.W.dtype == dtype
    assert (ds.W.values == W).all()
    assert ds.step.values.tolist() == list(range(T + 1))
    assert ds.token.values.tolist() == list(range(V))
    assert ds.delta_W_prime.attrs["lattice"] == ("bfloat16" if dtype == "uint16" else dtype)
    assert (analysis.last_motion(ds, threshold=0.5).last_motion >= 0).any()
    assert sent_out(tmp_path, ["W"])["W"].tobytes() == W.tobytes()


def test_weights_of_torch_in_bfloat16(tmp_path):
    W = lab.weights(T, V, D)
    save_file({"embeddings": torch.from_numpy(W).view(torch.bfloat16)}, tmp_path / "old")
    crucible.import_run(tmp_path / "old", tmp_path / "run")
    assert (crucible.open_trajectory(tmp_path / "run").W.values == W).all()


@pytest.mark.parametrize("kind", ["safetensors", "hdf5", "npz"])
def test_bits_as_signed_integers(tmp_path, kind):
    W = lab.weights(T, V, D)
    assert (brought(tmp_path, {"W": W.view(np.int16)}, kind).W.values == W).all()


def test_float64_that_holds_float32_numbers(tmp_path):
    W = walk()
    ds = brought(tmp_path, {"embeddings": W.astype(np.float64)})
    assert ds.W.dtype == np.float32
    assert (ds.W.values == W).all()


def test_float64_that_no_float32_holds_is_refused_and_rounded_where_that_is_asked(tmp_path):
    W = walk("float64")
    path = lab.write(tmp_path / "old", {"W": W})
    with pytest.raises(TensorFileError, match=r"W\[0, 0, 0\] is 0\.0012573\d+, which no float32 can hold; say --lossy"):
        crucible.import_run(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert crucible.import_run(path, tmp_path / "run", lossy=True).lossy
    assert (crucible.open_trajectory(tmp_path / "run").W.values == W.astype(np.float32)).all()


def test_float32_that_holds_bfloat16_numbers_is_measured_on_their_lattice(tmp_path):
    bits = lab.weights(T, V, D, strange=False)
    ds = brought(tmp_path, {"W": lab.numbers(bits).numpy()})
    assert ds.W.dtype == np.float32
    assert (ds.delta_W_prime.values[1:] == lab.displacement(bits)).all()
    brought_again = crucible.import_run(tmp_path / "old", tmp_path / "again")
    assert "bfloat16 number, though kept as float32" in brought_again.assumed[1]


def test_float32_whose_ends_alone_are_bfloat16_numbers_is_measured_on_its_own(tmp_path):
    """Weights may begin as bfloat16 numbers and end so; rounded between, what moved looked as if it never had."""
    W = lab.numbers(lab.weights(T, V, D, strange=False)).numpy()
    W[1:-1] = W[0] + np.float32(1e-7) * np.arange(1, T, dtype=np.float32)[:, None, None]
    W[-1] = W[0]
    ds = brought(tmp_path, {"W": W})
    assert ds.delta_W_prime.attrs["lattice"] == "float32"
    assert (ds.displacement_linf.values[1:] > 0).all()


def test_displacements_that_begin_with_rest_say_nothing_of_the_lattice(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_LOOKED_AT", 3 * V * D * 4)  # three states
    bits = lab.weights(T, V, D, strange=False)
    bits[:4] = bits[0]
    ds = brought(tmp_path, {"W": lab.numbers(bits).numpy(), "delta_W_prime": lab.displacement(bits)})
    assert ds.delta_W_prime.attrs["lattice"] == "bfloat16"


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("lattice", [None, "bfloat16"])
def test_exports_of_recorded_runs_come_back_in(tmp_path, dtype, lattice):
    if lattice and dtype != torch.float32:
        pytest.skip("only float32 weights are projected")
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(V, D).to(dtype)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    with crucible.attach(embedding, optimizer, tmp_path / "run", lattice=lattice) as recorder:
        for _ in range(T):
            optimizer.zero_grad()
            loss = (embedding.weight.float() ** 3).sum()
            loss.backward()
            recorder.log(loss=loss)
            optimizer.step()
    crucible.export_run(tmp_path / "run", tmp_path / "a")
    report = crucible.import_run(tmp_path / "a", tmp_path / "again")
    assert report.differences == ()
    one, again = (crucible.open_trajectory(tmp_path / name) for name in ("run", "again"))
    for name in ("W", "delta_W_prime", "displacement_l2", "centroid", "loss"):
        assert one[name].dtype == again[name].dtype
        assert one[name].values.tobytes() == again[name].values.tobytes(), name
    crucible.export_run(tmp_path / "again", tmp_path / "b")
    names = load_file(tmp_path / "b").keys()
    assert names == load_file(tmp_path / "a").keys() | {"last_motion_step"}


# What lies beside the weights

BESIDE = ("adam_m", "adam_v", "gradient")
ALIASES = list(itertools.zip_longest(*(FILE_ARRAYS[name].aliases for name in BESIDE)))


@pytest.mark.parametrize("aliases", ALIASES)
def test_moments_and_gradients_by_all_their_names(tmp_path, aliases):
    values = {name: walk(rows=T, seed=seed) for seed, name in enumerate(BESIDE)}
    values["adam_v"] **= 2
    named = {alias: values[name] for alias, name in zip(aliases, BESIDE, strict=True) if alias}
    ds = brought(tmp_path, {"W": lab.weights(T, V, D), **named})
    out = sent_out(tmp_path, ["W", *(name for name in BESIDE if name in ds)])
    for name in (name for alias, name in zip(aliases, BESIDE, strict=True) if alias):
        assert (ds[name].values[1:] == values[name]).all()
        first = ds[name].values[0]
        assert np.isnan(first).all() if name == "gradient" else (first == 0).all()
        assert ds[name].dims == ("step", "token", "hidden")
        assert (out[name][1:] == values[name]).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
def test_moments_with_a_row_for_every_state(tmp_path, dtype):
    values = walk("float32" if dtype == "bfloat16" else dtype, seed=1)
    tensors = {"W": torch.from_numpy(lab.weights(T, V, D)), "m": torch.from_numpy(values)}
    if dtype == "bfloat16":
        tensors["m"] = tensors["m"].bfloat16()
    save_file(tensors, tmp_path / "old")
    crucible.import_run(tmp_path / "old", tmp_path / "run")
    ds = crucible.open_trajectory(tmp_path / "run")
    expected = tensors["m"].view(torch.uint16) if dtype == "bfloat16" else tensors["m"]
    assert (ds.adam_m.values == expected.numpy()).all()
    crucible.export_run(tmp_path / "run", tmp_path / "out", only=["W", "adam_m"], dtype="bfloat16")
    assert torch.equal(load_file(tmp_path / "out")["adam_m"], tensors["m"])
    crucible.import_run(tmp_path / "out", tmp_path / "again")
    assert (crucible.open_trajectory(tmp_path / "again").adam_m.values == ds.adam_m.values).all()


def test_a_gradient_of_the_first_state_is_left_out_and_said(tmp_path):
    path = lab.write(tmp_path / "old", {"W": lab.weights(T, V, D), "grads": walk(seed=1)})
    report = crucible.import_run(path, tmp_path / "run")
    assert report.left_out == {"the gradient of the first state": "it is of an update before it"}
    assert np.isnan(crucible.open_trajectory(tmp_path / "run").gradient.values[0]).all()


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", ["loss", "losses"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rows", [T, T + 1])
def test_losses_belong_to_the_steps_1_to_T(tmp_path, name, dtype, rows):
    values = np.random.default_rng(2).random(rows).astype(dtype)
    values[0] = np.nan if rows > T else values[0]
    ds = brought(tmp_path, {"W": lab.weights(T, V, D), name: values}, "hdf5")
    assert np.isnan(ds.loss.values[0])
    assert ds.loss.values[1:].tolist() == values[-T:].tolist()
    assert ds.loss.dtype == ("float64" if dtype == "float64" else "float32")


def test_a_mean_hidden_state_and_logits_of_T_rows_belong_to_the_moves(tmp_path):
    random = np.random.default_rng(3)
    h_mean, logits = (random.normal(size=(T, width)).astype(np.float32) for width in (D, V))
    ds = brought(tmp_path, {"W": lab.weights(T, V, D), "h_mean": h_mean, "logits": logits})
    assert np.isnan(ds.h_mean.values[0]).all()
    assert (ds.h_mean.values[1:] == h_mean).all()
    assert (ds.logits.values[1:] == logits).all()
    assert (ds.h_mean.dims, ds.logits.dims) == (("step", "hidden"), ("step", "token"))
    assert ds.h_mean.attrs["belongs_to"] == "move"
    assert (sent_out(tmp_path, ["W", "h_mean"])["h_mean"][1:] == h_mean).all()


def test_logits_of_every_state_and_of_a_vocabulary_of_their_own(tmp_path):
    logits = np.random.default_rng(3).normal(size=(T + 1, 20)).astype(np.float16)
    ds = brought(tmp_path, {"W": lab.weights(T, V, D), "logits": logits})
    assert ds.logits.dims == ("step", "logit")
    assert (ds.logits.values == logits).all()
    assert ds.logits.attrs["belongs_to"] == "state"


# Masks and ids


def whole(**more):
    return {"embeddings": lab.weights(T, V, D), **more}


MASKS = {
    "dead_mask": {"dead_mask": np.isin(np.arange(V), DEAD)},
    "live_mask": {"live_mask": ~np.isin(np.arange(V), DEAD)},
    "dead_indices": {"dead_indices": DEAD},
    "dead_ids of int32": {"dead_ids": DEAD.astype(np.int32)},
    "all": {"dead_mask": np.isin(np.arange(V), DEAD), "live_mask": ~np.isin(np.arange(V), DEAD), "dead_ids": DEAD},
}


@pytest.mark.parametrize("name", MASKS)
def test_whatever_tells_dead_from_live_becomes_the_population(tmp_path, name):
    ds = brought(tmp_path, whole(**MASKS[name]))
    assert ds.token.values.tolist() == list(range(V))
    assert ds.token[ds.population.values == "dead"].values.tolist() == DEAD.tolist()
    assert (ds.population.values == "live").sum() == V - len(DEAD)
    out = sent_out(tmp_path, None)
    assert out["dead_indices"].tolist() == DEAD.tolist()
    assert out["token"].tolist() == list(range(V))


def test_rows_of_the_dead_alone(tmp_path):
    ds = brought(tmp_path, {"W": lab.weights(T, 3, D), "dead_ids": DEAD})
    assert ds.token.values.tolist() == DEAD.tolist()
    assert set(ds.population.values) == {"dead"}


MASK, LIVE = np.isin(np.arange(V), DEAD), np.setdiff1d(np.arange(V), DEAD)
ROWS = {
    "live ids": ({"live_ids": LIVE}, LIVE),
    "live ids, and the dead ones": ({"live_ids": LIVE, "dead_ids": DEAD}, LIVE),
    "dead ids, and the live ones": ({"live_ids": LIVE, "dead_ids": DEAD}, DEAD),
    "a mask of the live": ({"live_mask": ~MASK}, LIVE),
    "the others of a mask of the live": ({"live_mask": ~MASK}, DEAD),
    "all, by both lists": ({"live_ids": LIVE, "dead_ids": DEAD}, np.arange(V)),
    "all, by the live": ({"live_ids": LIVE}, np.arange(V)),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_bear_the_ids_that_the_file_tells_of_them(tmp_path, name):
    told, ids = ROWS[name]
    ds = brought(tmp_path, {"W": lab.weights(T, len(ids), D), **told})
    assert ds.token.values.tolist() == ids.tolist()
    assert ds.population.values.tolist() == ["dead" if each in DEAD else "live" for each in ids]


OF_OTHER_IDS = {
    "dead ids beyond the rows": ([10, 20, 30], {"dead_ids": [10]}, ["dead", "live", "live"], 1),
    "live ids": ([10, 20, 30], {"live_ids": [10]}, ["live", "dead", "dead"], None),
    "dead ids among others": ([0, 1, 5], {"dead_ids": [5, 7]}, ["live", "live", "dead"], 2),
    "dead ids that are not recorded": ([0, 1, 2], {"dead_ids": [7]}, ["live", "live", "live"], 1),
    "both lists, and an id of neither": ([1, 2, 4], {"dead_ids": [1], "live_ids": [4]}, ["dead", "", "live"], 1),
}


@pytest.mark.parametrize("name", OF_OTHER_IDS)
def test_lists_of_ids_are_of_the_ids_that_the_rows_bear_not_of_their_places(tmp_path, name):
    """A mask over the places said that no token was dead, or all, and an export named others."""
    tokens, told, populations, count = OF_OTHER_IDS[name]
    lists = {each: np.array(ids) for each, ids in told.items()}
    ds = brought(tmp_path, {"W": lab.weights(T, 3, D), "token": np.array(tokens), **lists})
    assert ds.population.values.tolist() == populations
    assert "dead_mask" not in ds
    assert "dead_indices" not in sent_out(tmp_path, None)
    words = json.loads((tmp_path / "run/metadata.json").read_text())
    assert words.get("n_dead_tokens") == count


@pytest.mark.parametrize(("told", "count"), [({}, None), ({"dead_mask": MASK}, 3), ({"dead_ids": DEAD}, 3)], ids=str)
def test_the_made_metadata_counts_as_dead_what_the_file_says_is_dead(tmp_path, told, count):
    brought(tmp_path, whole(**told))
    assert json.loads((tmp_path / "run/metadata.json").read_text()).get("n_dead_tokens") == count


CONTRADICTIONS = {
    "an inverted mask": {"dead_mask": ~MASK, "live_mask": ~MASK},
    "an inverted mask beside ids": {"live_mask": MASK, "dead_ids": DEAD},
    "dead ids as live ones": {"dead_mask": MASK, "live_ids": DEAD},
    "live ids that the mask does not mark": {"live_mask": ~MASK, "live_ids": DEAD},
    "one id on both lists": {"dead_ids": DEAD, "live_ids": np.array([4, 5])},
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_whatever_contradicts_itself_about_dead_and_live_is_refused(tmp_path, name):
    arrays = {each: values.copy() for each, values in CONTRADICTIONS[name].items()}
    path = lab.write(tmp_path / "old", whole(**arrays))
    with pytest.raises(TensorFileError, match=r"contradict each other: both have the id|which live_mask does not mark"):
        crucible.import_run(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_that_could_be_either_list_are_refused(tmp_path):
    path = lab.write(tmp_path / "old", {"W": lab.weights(T, 3, D), "dead_ids": DEAD, "live_ids": np.array([0, 2, 3])})
    with pytest.raises(TensorFileError, match="W has 3 rows, and dead_indices and live_indices name as many"):
        crucible.import_run(path, tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_moments_that_were_exchanged_are_refused(tmp_path, dtype):
    m = torch.from_numpy(walk(rows=T, seed=1)).to(dtype)
    tensors = {"W": torch.from_numpy(lab.weights(T, V, D)), "m": m.square(), "v": m}
    save_file(tensors, tmp_path / "old")
    with pytest.raises(TensorFileError, match=r"v would come in as adam_v, .* numbers below 0"):
        crucible.import_run(tmp_path / "old", tmp_path / "run")
    crucible.import_run(tmp_path / "old", tmp_path / "run", rename={"m": "adam_v", "v": "adam_m"})
    kept = crucible.open_trajectory(tmp_path / "run").adam_m.values[1:]
    assert (kept == (m.view(torch.uint16) if dtype == torch.bfloat16 else m).numpy()).all()


# Hyper-parameters


def test_attributes_of_hdf5_are_the_config(tmp_path):
    arrays = {"embeddings": lab.weights(T, V, D), "losses": np.random.random(T).astype(np.float16)}
    path = as_hdf5(
        tmp_path / "old", arrays, learning_rate=0.003, optimizer="adamw", betas=[0.9, 0.95], seed=7, beta1=0.8
    )
    crucible.import_run(path, tmp_path / "run")
    ds = crucible.open_trajectory(tmp_path / "run")
    assert crucible.info(tmp_path / "run")["config"]["learning_rate"] == 0.003
    assert crucible.info(tmp_path / "run")["config"]["seed"] == 7
    assert ds.attrs["beta1"] == 0.8
    assert crucible.info(tmp_path / "run")["provenance"]["said_by_the_file"]["betas"] == [0.9, 0.95]


def test_what_a_safetensors_file_says_of_itself_is_kept(tmp_path):
    said = {"lr": "1e-3", "note": "first try", "steps": "12"}
    save_file({"W": torch.from_numpy(lab.weights(T, V, D))}, tmp_path / "old", metadata=said)
    crucible.import_run(tmp_path / "old", tmp_path / "run")
    attributes = crucible.info(tmp_path / "run")
    assert attributes["provenance"]["said_by_the_file"] == {"lr": 0.001, "note": "first try", "steps": 12}
    assert attributes["config"]["lr"] == 0.001


@pytest.mark.parametrize("kind", ["safetensors", "hdf5", "npz"])
def test_single_numbers_are_the_config(tmp_path, kind):
    numbers = {"seed": np.array(3), "learning_rate": np.array(0.5)}
    texts = {} if kind != "npz" else {"optimizer": np.array("sgd")}
    arrays = {"W": lab.weights(T, V, D)} | numbers | texts
    if kind == "safetensors":  # lab.write makes arrays of single numbers
        save_file({name: torch.as_tensor(values) for name, values in arrays.items()}, tmp_path / "old")
    crucible.import_run(tmp_path / "old" if kind == "safetensors" else WRITE[kind](tmp_path / "old", arrays),
                        tmp_path / "run")  # fmt: skip
    config = crucible.info(tmp_path / "run")["config"]
    assert (config["seed"], config["learning_rate"], config.get("optimizer")) == (3, 0.5, "sgd" if texts else None)


# Sets of runs in one file


def as_groups(path, arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            where, local = (file.require_group(name[:5]), name[6:]) if name.startswith("run_") else (file, name)
            where[local] = values
    return path


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("write", [lab.write, as_hdf5, as_groups, as_npz], ids=lambda f: f.__name__)
def test_a_set_of_runs_in_one_file(tmp_path, write):
    runs = [lab.weights(T, V, D, seed=seed, strange=False) for seed in range(3)]
    losses = np.random.default_rng(0).random((3, T)).astype(np.float32)
    arrays = {f"run_{i}_embeddings": W for i, W in enumerate(runs)}
    arrays |= {f"run_{i}_losses": loss for i, loss in enumerate(losses)} | {"dead_mask": np.arange(V) < 4}
    path = write(tmp_path / "old", arrays)
    with pytest.raises(TensorFileError, match="a set of 3 runs, run_0, run_1, run_2; import_runs"):
        crucible.import_run(path, tmp_path / "runs")
    assert main(["import", str(path), str(tmp_path / "runs")]) == 0
    for i, W in enumerate(runs):
        ds = crucible.open_trajectory(tmp_path / f"runs/run_{i}")
        assert (ds.W.values == W).all()
        assert (ds.loss.values[1:] == losses[i]).all()
        assert (ds.population.values == "dead").sum() == 4
    assert crucible.import_runs(path, tmp_path / "runs") == ()  # all of them are there
    (tmp_path / "other").mkdir()
    (tmp_path / "other/run_1").mkdir()
    (tmp_path / "other/run_1/mine").touch()
    with pytest.raises(RunExistsError):
        crucible.import_runs(path, tmp_path / "other")


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("changed", ["run_1_W", "run_1_losses", "run_1_adam_m", "dead_mask", "nothing"])
def test_a_set_whose_numbers_changed_is_not_taken_for_the_one_that_is_there(tmp_path, changed, capsys):
    arrays = {f"run_{i}_W": lab.weights(T, V, D, seed=i) for i in range(2)}
    arrays |= {"run_1_losses": np.ones(T + 1, np.float32), "dead_mask": np.arange(V) < 4}
    arrays |= {"run_1_adam_m": np.ones((T, V, D), np.float32), "run_1_step_adam_m": np.arange(1, T + 1)}
    path = lab.write(tmp_path / "old", arrays)
    crucible.import_runs(path, tmp_path / "runs")
    if changed != "nothing":
        arrays[changed].reshape(-1)[-1] = arrays[changed].reshape(-1)[-1] ^ 1 if arrays[changed].dtype != "f4" else 7
        lab.write(path, arrays)
        where = "run_0: .* of them dead_mask;" if changed == "dead_mask" else rf"run_1: .* at step {T};"
        with pytest.raises(RunExistsError, match=where):
            crucible.import_runs(path, tmp_path / "runs")
        return
    assert main(["import", str(path), str(tmp_path / "runs")]) == 0
    assert "nothing to do: every run of the file is in" in capsys.readouterr().out


def test_a_run_of_a_set_whose_weights_bear_another_name_is_not_left_out_in_silence(tmp_path):
    W = lab.weights(T, V, D, strange=False)
    arrays = {"run_0_W": W, "run_1_W": W.copy(), "run_2_emb": W.copy(), "run_2_losses": np.ones(T, np.float32)}
    path = lab.write(tmp_path / "old", arrays)
    with pytest.raises(TensorFileError, match=r"run_2_emb, run_2_losses are not known .* --map run_2_emb=NAME"):
        crucible.import_runs(path, tmp_path / "runs")
    assert {row["name"] for row in crucible.list_file(path)} == arrays.keys()
    made = crucible.import_runs(path, tmp_path / "three", rename={"run_2_emb": "W"})
    assert [each.run.name for each in made] == ["run_0", "run_1", "run_2"]
    assert len(crucible.import_runs(path, tmp_path / "two", skip=["run_2_emb", "run_2_losses"])) == 2


def test_a_set_does_not_go_into_a_run(tmp_path):
    W = lab.weights(T, V, D, strange=False)
    crucible.import_run(lab.write(tmp_path / "one", {"W": W}), tmp_path / "run")
    path = lab.write(tmp_path / "old", {"run_0_W": W, "run_1_W": W.copy()})
    with pytest.raises(RunExistsError, match="is a run; name a folder for the 2 runs"):
        crucible.import_runs(path, tmp_path / "run")


# What would come in as what


def test_the_list_says_what_would_come_in_as_what(tmp_path, capsys):
    arrays = whole(
        momentum=walk(rows=T), emb=walk(rows=3), dead_ids=DEAD, delta_W_prime=np.zeros((3, V, D), np.float32)
    )
    path = lab.write(tmp_path / "old", arrays)
    assert main(["import", "--list", str(path), "--json"]) == 0
    told = {row["name"]: row for row in json.loads(capsys.readouterr().out)["arrays"]}
    assert told["embeddings"]["comes_in_as"] == "W"
    assert told["momentum"]["comes_in_as"] == "adam_m"
    assert told["momentum"]["shape"] == [T, V, D]
    assert told["dead_ids"]["comes_in_as"] == "dead_indices"
    assert told["emb"]["comes_in_as"] is None
    assert "--map" in told["emb"]["meaning"]
    assert told["delta_W_prime"]["comes_in_as"] is None
    assert f"expected {T} along its move" in told["delta_W_prime"]["meaning"]
    assert main(["import", "--list", str(path)]) == 0
    assert "momentum" in capsys.readouterr().out
    assert main(["import", "--list", str(path), "--skip", "embeddings"]) == 0  # also of a file without W
    assert "names that --map takes: W, delta_W_prime" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_a_map_overrides_names(tmp_path):
    W, m = lab.weights(T, V, D), walk(seed=1)
    path = lab.write(tmp_path / "old", {"table": W, "velocity": m, "W": np.zeros((2, 2, 2), np.uint16)})
    assert (
        main(["import", str(path), str(tmp_path / "run"), "--map", "table=W", "--map", "velocity=m", "--skip", "W"])
        == 0
    )
    ds = crucible.open_trajectory(tmp_path / "run")
    assert (ds.W.values == W).all()
    assert (ds.adam_m.values == m).all()
    assert crucible.info(tmp_path / "run")["provenance"]["named_in_file"] == {"W": "table", "adam_m": "velocity"}


MAPS = {
    "nobody=W": "there is no nobody to be mapped; it holds W, table",
    "table=Q": "--map table=Q: there is no such array; it can be one of W, delta_W_prime",
    "table=W": "W and table would both come in as W; leave one out with --skip",
    "table": "write for example --map emb=W",
}


@pytest.mark.parametrize("text", MAPS)
def test_maps_that_make_no_sense(tmp_path, text, capsys):
    path = lab.write(tmp_path / "old", {"table": lab.weights(T, V, D), "W": lab.weights(T, V, D)})
    assert main(["import", str(path), str(tmp_path / "run"), "--map", text]) != 0
    assert MAPS[text] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Files that are none of these, named as what they are


def test_what_is_not_taken_is_named_as_what_it_is(tmp_path, capsys):
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7100000000\n")
    np.save(tmp_path / "W.npy", lab.weights(T, V, D))
    torch.save({"W": torch.zeros(3, 2, 2)}, tmp_path / "W.pt")
    torch.save({"W": torch.zeros(3, 2, 2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "notes").write_text("loss 3.5\n")
    for name, sentence in {
        "notes": "a text that begins with 'loss 3.5\\n'; expected safetensors, HDF5, .npz, or a folder of checkpoints",
        "pointer": "Git LFS pointer, which stands for the file; fetch that with git lfs pull",
        "W.npy": "a .npy file, one array without a name; save it as numpy.savez(FILE, W=array)",
        "W.pt": "a file of torch.save, which is never read. Convert",
        "old.pt": "a pickle, which is never read. Convert",
    }.items():
        assert main(["import", str(tmp_path / name), str(tmp_path / "run")]) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
        assert not (tmp_path / "run").exists()


def test_reports_of_both_ways_have_the_same_fields(tmp_path):
    W = lab.weights(T, V, D)
    came = crucible.import_run(lab.write(tmp_path / "old", {"W": W}), tmp_path / "run")
    went = crucible.export_run(tmp_path / "run", tmp_path / "out")
    assert type(came) is type(went)
    for name in ("run", "steps", "first_step", "last_step", "states", "resolution_steps", "tokens", "hidden"):
        assert getattr(came, name) == getattr(went, name), name
    assert came.nonfinite == int(crucible.analyze(tmp_path / "run")["nonfinite"])
    assert came.nonfinite > 0
