"""Tokens selected by their text, and what selections of a run do together."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import store
from store.format.schema import Channel
from store.reading.token_labels import _texts

TEXTS = [" the", "a", "\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}", "naïve ☃", ""]
PIECES = ["Ġthe", "a", "Ã", "¯", "naÃ¯veĠâĺĥ", "?"]
IDS = np.array([2, 4, 6, 8, 10, 12])


def statics_of(name, texts):
    """As on disk: bytes and offsets."""
    pieces = [text.encode() for text in texts]
    letters, edges = np.frombuffer(b"".join(pieces), np.uint8), np.cumsum([0, *map(len, pieces)])
    channels = (
        Channel(name, (f"{name}_byte",), "uint8", role="static"),
        Channel(f"{name}_offset", (f"{name}_edge",), "int64", role="static"),
    )
    return channels, {name: letters, f"{name}_offset": edges}


def make_run(folder, **texts):
    tables = [statics_of(name, values) for name, values in texts.items()]
    channels = [channel for table, _ in tables for channel in table]
    statics = {name: array for _, arrays in tables for name, array in arrays.items()}
    table = (Channel("W", ("token", "hidden"), "uint16", bits_of="bfloat16"), *channels)
    count = len(next(iter(texts.values())))
    ids = IDS if count == len(IDS) else np.arange(count)
    writer = store.TrajectoryWriter.create(folder, channels=table, tokens=ids, hidden=2, statics=statics, attributes={})
    for step in range(3):
        writer.append(W=np.full((count, 2), step, np.uint16) + np.arange(count, dtype=np.uint16)[:, None])
    writer.complete()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("texts") / "run", token_text=TEXTS, token_piece=PIECES)


@pytest.fixture
def ds(run):
    return store.open_trajectory(run)


def test_a_token_is_selected_by_its_text(ds):
    one = ds.sel(token_text=" the")
    assert (int(one.token), one.W.dims) == (2, ("step", "hidden"))
    assert_array_equal(one.W.values, ds.W.sel(token=2).values)
    assert int(ds.W.sel(token_piece="¯").token) == 8
    assert int(ds.sel(token_text="naïve ☃", step=1).W[0]) == 5
    with pytest.raises(KeyError, match="not all values found"):
        ds.sel(token_text="the")


def test_tokens_that_share_a_text_come_together(ds):
    shared = ds.sel(token_text=TEXTS[2])
    assert shared.token.values.tolist() == [6, 8]
    assert ds.sel(token=ds.token_text.isin(["a", TEXTS[2]])).token.values.tolist() == [4, 6, 8]


def test_parts_of_a_run_are_selected_by_text_too(ds):
    for part in (ds.isel(token=[4, 1]), ds.isel(token=slice(1, None, 3)), ds.sel(token=ds.token > 2), ds[["W"]]):
        assert int(part.sel(token_text="a").token) == 4
    assert int(pickle.loads(pickle.dumps(ds)).sel(token_text="a").token) == 4


def test_arrays_of_different_tokens_are_aligned_by_id(ds):
    array = ds.W.astype("f8").compute()
    difference = array.isel(token=[0, 2, 3]) - array.isel(token=[2, 3, 4])
    assert difference.token.values.tolist() == [6, 8]
    assert array.reindex(token=[2, 99]).sizes["token"] == 2
    assert array.stack(at=("step", "token")).sizes["at"] == 18


def test_a_run_that_keeps_no_pieces_opens(tmp_path):
    ds = store.open_trajectory(make_run(tmp_path / "run", token_text=PIECES))
    assert ds.sel(token_text="Ġthe").token == 2


def test_texts_are_read_whatever_the_bytes_are():
    for texts in (TEXTS, PIECES, ["", ""], ["é☃😀", "x" * 300, ""]):
        pieces = [text.encode() for text in texts]
        edges = np.cumsum([0, *map(len, pieces)])
        assert _texts(np.frombuffer(b"".join(pieces), np.uint8), edges).tolist() == texts
    half = np.frombuffer("é".encode()[:1] + b"a", np.uint8)
    assert _texts(half, np.array([0, 1, 2])).tolist() == ["\N{REPLACEMENT CHARACTER}", "a"]
    assert _texts(np.zeros(0, np.uint8), np.array([0])).tolist() == []
