"""What a tokenizer knows of the recorded rows, in one argument of `crucible.attach`."""

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models
from tokenizers.decoders import ByteLevel
from torch import nn

import crucible
from crucible.channels.tokenizer import populations_of
from crucible.inputs.prepare import train_tokenizer

TEXT = ["the cat, the rat, the mat and the hat"]
ROWS = 280


@pytest.fixture
def own():
    tokenizer = train_tokenizer(TEXT, 266)
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.add_tokens(["<name>"])
    return tokenizer


@pytest.fixture
def fast(own):
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<end>")


@pytest.fixture(params=["own", "fast"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def attach(run, **options):
    embedding = nn.Embedding(ROWS, 4)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    crucible.attach(embedding, optimizer, run, channels=(crucible.W,), say=lambda _: None, **options).close()
    return crucible.open_trajectory(run)


def own_id_of(tokenizer, piece):
    find = getattr(tokenizer, "token_to_id", None) or tokenizer.convert_tokens_to_ids
    return find(piece)


def test_texts_pieces_and_populations_become_coordinates(tokenizer, tmp_path):
    ds = attach(tmp_path / "run", tokenizer=tokenizer)
    end, name = 266, 267
    of = dict(zip(ds.population.values, ds.token.values, strict=True))
    assert ds.population.values[[end, name]].tolist() == ["special", "added"]
    assert of["unnamed"] == ROWS - 1
    assert ds.token_piece.values[[220, end, name, 275]].tolist() == ["Ġ", "<end>", "<name>", ""]
    assert ds.token_text.values[[220, end]].tolist() == [" ", "<end>"]
    the = own_id_of(tokenizer, "Ġthe")
    assert int(ds.sel(token_text=" the").token) == the


def test_rows_may_be_named_by_a_population_of_the_tokenizer(tokenizer, tmp_path):
    ds = attach(tmp_path / "run", tokenizer=tokenizer, rows="unnamed")
    assert ds.token.values.tolist() == list(range(268, ROWS))
    assert set(ds.population.values) == {"unnamed"}


def test_populations_and_texts_of_yours_come_first(tokenizer, tmp_path):
    populations = {"dead": np.arange(5)}
    known = crucible.describe(range(5), text=lambda i: f"word{i}")
    ds = attach(tmp_path / "run", tokenizer=tokenizer, populations=populations, rows="dead", statics=known)
    assert set(ds.population.values) == {"dead"}
    assert ds.token_text.values[3] == "word3"
    ds = attach(tmp_path / "texts", tokenizer=tokenizer, populations=populations, rows="dead")
    assert ds.token_text.values[0] == "!"


def test_a_slow_tokenizer_is_read_the_same_way():
    class Slow:
        """As transformers' tokenizers without a fast half."""

        all_special_ids = (2,)
        added_tokens_decoder = {2: AddedToken("</s>", special=True)}  # noqa: RUF012
        pieces = ("a", "▁b", "</s>")

        def __len__(self):
            return 3

        def convert_ids_to_tokens(self, token):
            return self.pieces[token]

        def decode(self, ids, **_):
            return "".join(self.pieces[i] for i in ids).replace("▁", " ").lstrip()

    found = populations_of(Slow(), 4)
    assert {name: ids.tolist() for name, ids in found.items()} == {"special": [2], "ordinary": [0, 1], "unnamed": [3]}


def test_a_hole_in_the_vocabulary_is_unnamed():
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 2}, unk_token="a"))
    tokenizer.decoder = ByteLevel()
    found = populations_of(tokenizer, 3)
    assert {name: ids.tolist() for name, ids in found.items()} == {"ordinary": [0, 2], "unnamed": [1]}


def test_what_is_no_tokenizer_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"not a str; for another one give statics=crucible.describe"):
        attach(tmp_path / "run", tokenizer="gpt2")
