import itertools
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from crucible.channels.rows import choose
from crucible.channels.vocabulary import by_count, describe
from crucible.inputs import data
from crucible.inputs.data import BatchPosition, DeadMask, InputError, batches, read_dead_mask
from crucible.inputs.prepare import mask_tensors, train_tokenizer
from crucible.inputs.tokens import encode


def test_batches_resume_anywhere_with_the_same_ids_and_random_state():
    sequences = torch.arange(40).reshape(20, 2)
    torch.manual_seed(3)
    place, seen, saved = BatchPosition(), [], []
    stream = batches(sequences, 6, place)  # 3 batches in a pass
    saved.append((BatchPosition(place.epoch, place.drawn, place.random_state), torch.get_rng_state()))
    for _ in range(10):
        seen.append(next(stream))
        torch.rand(1)  # the model may draw too
        saved.append((BatchPosition(place.epoch, place.drawn, place.random_state), torch.get_rng_state()))
    assert place.epoch == 4
    for start, (kept, state) in enumerate(saved):
        torch.set_rng_state(state)
        again = batches(sequences, 6, kept)
        for step in range(start, 10):
            assert torch.equal(next(again), seen[step])
            torch.rand(1)
        assert torch.equal(torch.get_rng_state(), saved[10][1])


def test_a_pass_holds_every_sequence_once_but_the_tail():
    sequences = torch.arange(20)[:, None]
    stream = batches(sequences, 6, BatchPosition())
    first = torch.cat([next(stream) for _ in range(3)]).flatten().tolist()
    assert len(set(first)) == 18


def test_prepared_tokens_are_the_same_every_time_and_cover_all_bytes():
    text = ["the cat sat on the mat, the rat sat on the cat"]
    one, two = train_tokenizer(text, 270), train_tokenizer(text, 270)
    assert one.to_str() == two.to_str()
    for odd in ("naïve ☃", "\x00\x7f", "漢字", " leading"):
        assert one.decode(one.encode(odd).ids) == odd


def test_the_mask_is_read_as_it_was_written(files):
    dead = read_dead_mask(files.dead_mask, 600)
    assert isinstance(dead, DeadMask)
    assert dead.indices.dtype == np.int64
    assert set(dead.kept) == {"live_mask", "live_indices", "token_occurrence_counts"}
    expected = mask_tensors(dead.kept["token_occurrence_counts"])
    np.testing.assert_array_equal(dead.mask, expected["dead_mask"])


def test_rows_are_chosen_in_ascending_order():
    for rows in ([7, 2, 5], (5, 7, 2), torch.tensor([7, 5, 2]), np.array([2, 7, 5], np.int32)):
        assert choose(rows, 8).tolist() == [2, 5, 7]
    assert choose(range(2, 5), 8).tolist() == [2, 3, 4]
    assert choose("all", 3).tolist() == [0, 1, 2]
    populations = by_count([0, 4, 0, 1])
    assert choose("dead", 4, populations).tolist() == [0, 2]
    assert choose("live", 4, populations).tolist() == [1, 3]
    with pytest.raises(ValueError, match="float64"):
        choose([1.5], 8)


def test_token_texts_and_populations_as_arrays():
    ids = np.array([1, 2, 9])
    known = describe(ids, populations={"dead": np.array([1]), "rare": np.array([1, 2])}, text={1: "a", 9: "é"}.get)
    arrays = known.arrays
    assert arrays["population"].tolist() == [0, 1, -1]
    assert {c.name: c for c in known.channels}["population"].attributes["flag_meanings"] == "dead rare"
    assert "token_piece" not in arrays
    edges = arrays["token_text_offset"]
    letters = arrays["token_text"].tobytes()
    assert [letters[a:b].decode() for a, b in itertools.pairwise(edges)] == ["a", "", "é"]


def test_what_is_described_stands_in_the_order_of_the_rows():
    known = describe([9, 1, 2], counts=np.arange(10), text=str)
    assert known.ids.tolist() == [1, 2, 9]
    assert known.arrays["token_count"].tolist() == [1, 2, 9]
    assert known.arrays["token_text"].tobytes() == b"129"
    with pytest.raises(ValueError, match="statics describe 3 tokens, 1, 2, 9"):
        known | describe([1, 2, 3], text=str)


@pytest.mark.parametrize("name", ["live_mask", "live_indices"])
def test_a_mask_file_that_names_an_id_dead_and_live_is_refused(tmp_path, name):
    """The run would keep both, and what is asked of its live tokens would be of dead ones."""
    tensors = mask_tensors(np.array([0, 3, 0, 5]))
    tensors[name] = {"live_mask": tensors["dead_mask"], "live_indices": tensors["dead_indices"]}[name]
    save_file(tensors, tmp_path / "mask.safetensors")
    with pytest.raises(InputError, match=f"{name} and dead_mask both name 2 ids, the first of them 0; mend the file"):
        read_dead_mask(tmp_path / "mask.safetensors", 4)


@pytest.mark.parametrize(
    ("text", "is_enough", "is_whole"),
    [("a " * 50_000, True, False), ("a " * 32, True, True), ("a " * 31, False, True),
     (("a" * 500 + " ") * 40, True, True), (("a" * 500 + " ") * 31, False, True)],
    ids=["long", "just enough", "too short", "long words", "too few long words"],
)  # fmt: skip
def test_whether_a_corpus_has_a_batch_is_seen_at_its_beginning(text, is_enough, is_whole, tmp_path, monkeypatch):
    corpus, made, said = tmp_path / "corpus.txt", [], []
    corpus.write_text(text)
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    monkeypatch.setattr(data, "encode", lambda *how: made.append(how) or encode(*how))
    for read in (partial(data.read_sequences, say=lambda _: None), data.refuse_less_than_a_batch):
        made.clear()
        with nullcontext() if is_enough else pytest.raises(InputError, match="fewer than one batch of 4") as refused:
            read(corpus, tokenizer, 8, 4)
        said.append(str(refused.value) if refused else "")
    assert said[0] == said[1]
    assert bool(made) is is_whole
