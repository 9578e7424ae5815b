"""Answers in other tools: what their repr shows, pandas, Zarr and NetCDF, and runs joined by xarray."""

import importlib.util
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import analysis
import crucible
from analysis import simulate
from analysis.answers import SHOWN_BYTES, AnswerDataset

QUESTIONS = [
    "last_motion", "freeze_times", "fimbulwinter", "stillness", "token_stillness", "end_state", "lifecycle", "drift",
    "cloud", "census", "cooling", "divergence", "bounding_box", "exponents", "identical_rows", "principal_axes",
]  # fmt: skip
ASK = {name: getattr(analysis, name) for name in QUESTIONS}
ASK |= {"compare": lambda ds: analysis.compare(ds, ds), "apart": lambda ds: analysis.apart(ds, ds)}


needs_h5netcdf = pytest.mark.skipif(importlib.util.find_spec("h5netcdf") is None, reason="h5netcdf is not installed")


@pytest.fixture(scope="module")
def ds():
    return simulate.with_last_motion([5, 9, 3], total_steps=30).load()


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", ASK)
def test_an_answer_shows_its_numbers(ds, name):
    answer = ASK[name](ds)
    assert isinstance(answer, AnswerDataset)
    assert "dask.array" not in repr(answer)
    assert "dask.array" not in ASK[name](ds)._repr_html_()
    assert isinstance(pickle.loads(pickle.dumps(answer)), AnswerDataset)


def test_what_is_selected_of_an_answer_shows_numbers_and_stays_lazy_until_then(ds):
    answer = analysis.lifecycle(ds)
    assert answer.chunks
    part = answer[["exit"]].isel(token=[0, 1])
    assert part.chunks
    assert "dask.array" not in repr(part)


def test_what_is_too_large_stays_lazy():
    large = xr.DataArray(np.zeros((1, SHOWN_BYTES // 8 + 1)), dims=("step", "token")).chunk()
    answer = AnswerDataset({"large": large})
    assert "dask.array" in repr(answer)
    assert answer.chunks


@pytest.mark.parametrize("name", ASK)
def test_every_answer_goes_into_pandas(ds, name):
    answer = ASK[name](ds)
    table = answer.to_pandas()
    assert isinstance(table, pd.Series | pd.DataFrame)
    if isinstance(table, pd.Series):
        assert list(table.index) == list(answer.data_vars)
    elif "variable" in table:
        assert set(table["variable"]) == {name for name, array in answer.data_vars.items() if array.size}
        assert len(table) == sum(array.size for array in answer.data_vars.values())
    else:
        assert set(answer.data_vars) <= set(table.columns)


def test_a_long_frame_has_a_row_a_number(ds):
    answer = analysis.freeze_times(ds)
    table = answer.to_pandas()
    survival = table[table["variable"] == "survival"]
    assert survival["step"].tolist() == ds.step.values.tolist()
    assert survival["value"].tolist() == answer.survival.values.tolist()
    assert table[table["variable"] == "latest"]["value"].tolist() == [9]


def same_numbers(back, answer):
    for name, array in answer.data_vars.items():
        expected = array.values
        if "missing_value" in array.attrs:
            expected = np.where(expected == array.attrs["missing_value"], np.nan, expected)
        np.testing.assert_array_equal(back[name].values, expected, err_msg=str(name))


@pytest.mark.default_cases(5)
@pytest.mark.parametrize("name", ASK)
def test_every_answer_goes_to_zarr_and_back_without_a_warning(ds, name, tmp_path):
    answer = ASK[name](ds)
    answer.to_zarr(tmp_path / "answer.zarr")
    same_numbers(xr.open_zarr(tmp_path / "answer.zarr"), answer)


@pytest.mark.default_cases(5)
@needs_h5netcdf
@pytest.mark.parametrize("name", ASK)
def test_every_answer_goes_to_netcdf_and_back_without_a_warning(ds, name, tmp_path):
    answer = ASK[name](ds)
    answer.to_netcdf(tmp_path / "answer.nc")
    with xr.open_dataset(tmp_path / "answer.nc") as back:
        same_numbers(back, answer)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run as `attach` records it: its arrays have attributes of every kind."""
    torch.manual_seed(0)
    embedding, run = torch.nn.Embedding(5, 3).bfloat16(), tmp_path_factory.mktemp("recorded") / "run"
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=0.01)
    with crucible.attach(embedding, optimizer, run):
        for _ in range(30):
            optimizer.zero_grad()
            embedding(torch.arange(5)).float().square().sum().backward()
            optimizer.step()
    return crucible.open_trajectory(run)


ARRAYS = {"moved": analysis.moved, "weights": analysis.weights}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("how", ["zarr", pytest.param("netcdf", marks=needs_h5netcdf)])
def test_answers_that_are_arrays_go_there_and_back_without_a_warning(recorded, name, how, tmp_path):
    answer = ARRAYS[name](recorded)
    assert answer.chunks
    getattr(answer, f"to_{how}")(tmp_path / "answer")
    back = xr.open_dataarray(tmp_path / "answer", engine="zarr" if how == "zarr" else "h5netcdf")
    with back:
        assert back.dtype == answer.dtype
        assert back.values.tobytes() == answer.values.tobytes()
        assert back.step.values.tolist() == recorded.step.values.tolist()


@pytest.mark.default_cases(5)
@needs_h5netcdf
@pytest.mark.parametrize("name", ASK)
def test_answers_about_a_recorded_run_go_to_netcdf(recorded, name, tmp_path):
    ASK[name](recorded).to_netcdf(tmp_path / "answer.nc")


@pytest.mark.parametrize("name", ASK)
def test_runs_joined_by_xarray_are_refused_with_a_sentence(ds, name):
    """One question of many runs is `analysis.over`; what concat makes is no trajectory any more."""
    joined = xr.concat([ds, ds], dim="run")
    with pytest.raises(ValueError, match=r"has a dimension 'run' beside .* it is no longer one trajectory"):
        ASK[name](joined)
    assert ASK[name](joined.isel(run=0)).equals(ASK[name](ds))


def test_weights_of_joined_runs_are_theirs(ds):
    joined = xr.concat([ds, ds], dim="run")
    assert (analysis.weights(joined).isel(run=1).values == analysis.weights(ds).values).all()
