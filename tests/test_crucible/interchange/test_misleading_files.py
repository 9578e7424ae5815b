"""Files that look like something else than they are: each is refused, or said to be doubtful."""

import os

import h5py
import lab_files as lab
import numpy as np
import pytest
import xarray as xr

import crucible
from crucible.cli.main import main
from store.errors import TensorFileError


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power


# Zeros where nothing was filled


def filled_until(path, states, stop):
    """Arrays as a notebook prepares them, of a training that ended early."""
    W = np.zeros_like(states)
    W[:stop] = states[:stop]
    np.savez(path, W=W)


def written_until(path, states, stop):
    """HDF5 answers zeros for the part of a contiguous array that nobody wrote."""
    with h5py.File(path, "w") as file:
        file.create_dataset("W", states.shape, states.dtype)[:stop] = states[:stop]


@pytest.mark.parametrize("write", [filled_until, written_until], ids=lambda f: f.__name__)
@pytest.mark.parametrize("hidden", [2, 16])
def test_weights_that_were_filled_in_part_are_said_to_look_so(tmp_path, write, hidden, capsys):
    """Analysis takes what nobody filled for weights that came to rest."""
    write(tmp_path / "old.npz", lab.weights(20, 6, hidden, strange=False), 13)
    assert main(["import", str(tmp_path / "old.npz"), str(tmp_path / "run")]) == 0
    told = capsys.readouterr().err
    assert "all weights of 6 of 6 tokens are exactly 0 in 8 states from step 13 on, and were not before" in told


def test_a_hole_in_the_middle_of_a_file_is_said(tmp_path):
    W = lab.weights(20, 6, 16, strange=False)
    W[5:9, 2:4] = 0
    np.savez(tmp_path / "old.npz", W=W)
    told = " ".join(crucible.import_run(tmp_path / "old.npz", tmp_path / "run").assumed)
    assert "all weights of 2 of 6 tokens are exactly 0 in 4 states from step 5 on" in told


def test_zeros_from_the_beginning_and_single_zeros_are_weights_as_any(tmp_path):
    W = lab.weights(20, 6, 16, strange=False)
    W[:7] = 0  # a matrix that begins with zeros
    W[:, 3] = 0  # padding
    W[9:, :, 0] = 0
    np.savez(tmp_path / "old.npz", W=W)
    assert "exactly 0" not in " ".join(crucible.import_run(tmp_path / "old.npz", tmp_path / "run").assumed)
    W = lab.weights(20, 6, 1, strange=False)
    W[5, 2] = 0
    np.savez(tmp_path / "narrow.npz", W=W)
    assert "exactly 0" not in " ".join(crucible.import_run(tmp_path / "narrow.npz", tmp_path / "narrow").assumed)


# Rows that could be the dead tokens or the live ones

DEAD, LIVE = np.arange(0, 12, 2), np.arange(1, 12, 2)
MASK = np.isin(np.arange(12), DEAD)


@pytest.mark.parametrize(
    "told",
    [
        {"dead_mask": MASK, "live_mask": ~MASK},
        {"dead_mask": MASK, "live_ids": LIVE},
        {"live_mask": ~MASK},
        {"dead_ids": DEAD, "live_ids": LIVE},
    ],
    ids=" and ".join,
)
def test_rows_that_could_be_the_dead_or_the_live_are_refused(tmp_path, told):
    W = lab.weights(5, 6, 4)
    np.savez(tmp_path / "old.npz", W=W, **told)
    with pytest.raises(TensorFileError, match="name as many, not the same ones; leave one out with --skip, or name"):
        crucible.import_run(tmp_path / "old.npz", tmp_path / "run")
    np.savez(tmp_path / "told.npz", W=W, token=LIVE, **told)
    crucible.import_run(tmp_path / "told.npz", tmp_path / "run")
    ds = crucible.open_trajectory(tmp_path / "run")
    assert ds.token.values.tolist() == LIVE.tolist()
    assert "dead" not in ds.population.values


# HDF5 and NetCDF that say of their numbers what they are

STATES = lab.weights(12, 6, 4, strange=False)


def as_netcdf(path, values, dims=("step", "token", "hidden"), **encoding):
    xr.Dataset({"W": (dims, values)}).to_netcdf(path, engine="h5netcdf", encoding={"W": encoding})


def turned(path):
    as_netcdf(path, STATES.transpose(1, 0, 2), ("token", "step", "hidden"))


def labelled(path):
    with h5py.File(path, "w") as file:
        file["W"] = STATES.transpose(1, 0, 2)
        for at, label in enumerate(("token", "step", "hidden")):
            file["W"].dims[at].label = label


def packed(path):
    as_netcdf(path, STATES.astype(np.float32), dtype="int16", scale_factor=4.0, _FillValue=-1)


def half_written(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("W", STATES.shape, "f4", fillvalue=9.96921e36)[:5] = lab.numbers(STATES[:5]).numpy()


OTHERWISE = {
    turned: "W has the dimensions token x step x hidden, in this order",
    labelled: "W has the dimensions token x step x hidden, in this order",
    packed: "W is packed: its attribute scale_factor says",
    half_written: r"W\[12\] is 9.969.*e\+36 throughout, the fill value of the array: it was never written",
}


@pytest.mark.parametrize("write", OTHERWISE, ids=lambda f: f.__name__)
def test_numbers_that_are_not_what_they_look_like_are_refused(tmp_path, write):
    write(tmp_path / "old.nc")
    with pytest.raises(TensorFileError, match=OTHERWISE[write]):
        crucible.import_run(tmp_path / "old.nc", tmp_path / "run")


def test_netcdf_as_xarray_writes_it_comes_in(tmp_path):
    as_netcdf(tmp_path / "old.nc", STATES)
    crucible.import_run(tmp_path / "old.nc", tmp_path / "run")
    assert (crucible.open_trajectory(tmp_path / "run").W.values == STATES).all()


# Integers that are no bits of bfloat16


@pytest.mark.parametrize("kind", ["bits of float16", "integers", "bits of bfloat16"])
def test_integers_that_are_hardly_bits_of_bfloat16_are_said(tmp_path, kind):
    numbers = np.random.default_rng(0).normal(0, 0.02, (3, 6, 8))
    W = {
        "bits of float16": numbers.astype(np.float16).view(np.uint16),
        "integers": np.abs(numbers * 1e4).astype(np.int16),
        "bits of bfloat16": (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16),
    }[kind]
    np.savez(tmp_path / "old.npz", W=W)
    told = " ".join(crucible.import_run(tmp_path / "old.npz", tmp_path / "run").assumed)
    assert ("is taken for bits of bfloat16; the median of its first weights" in told) == (kind != "bits of bfloat16")


# A mask and counts that do not agree


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ([], None),
        ([1], "dead_mask marks 1 ids that occur by token_occurrence_counts, as 1; dead are those of the mask"),
        ([4, 5], "dead_mask does not mark 2 ids that never occur by token_occurrence_counts, as 4; dead are those of "
                 "the mask"),
    ],
)  # fmt: skip
def test_a_mask_that_counts_contradict_is_said(tmp_path, changed, told):
    mask = np.arange(9) < 3
    counts = np.where(mask, 0, 7)
    counts[changed] = 7 - counts[changed]
    np.savez(tmp_path / "a.npz", W=lab.weights(5, 3, 2), dead_mask=mask, token_occurrence_counts=counts)
    assert crucible.import_run(tmp_path / "a.npz", tmp_path / "run").assumed == ((told,) if told else ())


# Files that change while they are read


def in_safetensors(path, states):
    lab.write(path, {"W": states})
    return path


def in_hdf5(path, states):
    with h5py.File(path, "w") as file:
        file["W"] = states
    return path


def in_checkpoints(path, states):
    path.mkdir(exist_ok=True)
    for step, state in enumerate(states):
        lab.write(path / f"step-{step}.safetensors", {"weight": state})
    return path


@pytest.mark.parametrize("write", [in_safetensors, in_hdf5, in_checkpoints], ids=lambda f: f.__name__)
def test_a_file_that_is_saved_again_while_it_is_read_makes_no_run_of_two_halves(tmp_path, write, monkeypatch):
    monkeypatch.setattr("crucible.interchange.importing.copying.READ_BYTES", 1)
    first, second = (lab.weights(20, 6, 16, seed=seed, strange=False) for seed in (0, 1))
    source, other = write(tmp_path / "old", first), write(tmp_path / "other", second)

    def save_again(done, _):
        if done == 10:
            for path in (other, *other.glob("*")):
                if path.is_file():  # in place, as save_file and h5py write
                    (source / path.relative_to(other)).write_bytes(path.read_bytes())

    with pytest.raises(TensorFileError, match=r"was changed while it was read"):
        crucible.import_run(source, tmp_path / "run", progress=save_again)
    stored = crucible.open_trajectory(tmp_path / "run")
    assert not stored.completed
    np.testing.assert_array_equal(stored.W, first[: stored.sizes["step"]])


@pytest.mark.parametrize("write", [in_safetensors, in_hdf5], ids=lambda f: f.__name__)
def test_a_file_that_is_replaced_by_another_while_it_is_read_is_read_to_its_end(tmp_path, write):
    first, second = (lab.weights(20, 6, 16, seed=seed, strange=False) for seed in (0, 1))
    source, other = write(tmp_path / "old", first), write(tmp_path / "other", second)
    crucible.import_run(source, tmp_path / "run", progress=lambda *_: other.exists() and other.replace(source))
    np.testing.assert_array_equal(crucible.open_trajectory(tmp_path / "run").W, first)
