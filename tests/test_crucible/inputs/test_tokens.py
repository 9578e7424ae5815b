"""What a tokenizer's file may do to a text in silence: cut, pad, vary or drop it. All of it is undone or told."""

import json
import re

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from crucible.cli.main import main
from crucible.experiment.session import read_inputs
from crucible.inputs.data import InputError, read_sequences, read_text, read_tokenizer
from crucible.inputs.prepare import prepare, train_tokenizer
from crucible.inputs.tokens import encode, text_of
from store.reading.reader import open_trajectory

TEXT = "\n".join(f"the quick brown fox {i} jumps over the lazy dog {i * i}" for i in range(400))


@pytest.fixture
def tokenizer():
    return train_tokenizer([TEXT], 300)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT)
    return path


def reread(tokenizer, tmp_path, vocab_size=310):
    """The tokenizer as it comes from its file, and what was said."""
    path, said = tmp_path / "tokenizer.json", []
    path.write_text(tokenizer.to_str())
    return read_tokenizer(path, vocab_size, say=said.append), said


def cut(tokenizer):
    tokenizer.enable_truncation(512)


def pad(tokenizer):
    tokenizer.enable_padding(length=50_000)


def drop_merges(tokenizer):
    tokenizer.model.dropout = 0.2


@pytest.mark.parametrize(("change", "words"), [(cut, "cuts .* after 512"), (pad, "pads"), (drop_merges, "dropout 0.2")])
def test_what_cuts_pads_or_varies_an_encoding_is_switched_off_and_told(change, words, tokenizer, corpus, tmp_path):
    expected = tokenizer.encode(TEXT).ids
    change(tokenizer)
    read, said = reread(tokenizer, tmp_path)
    assert len(said) == 1
    assert re.search(words, said[0])
    sequences = read_sequences(corpus, read, 16, 8)
    assert sequences.flatten().tolist() == expected[: sequences.numel()]


def test_a_plain_tokenizer_and_text_are_not_spoken_of(tokenizer, corpus, tmp_path):
    read, said = reread(tokenizer, tmp_path)
    read_sequences(corpus, read, 16, 8, say=said.append)
    assert said == []


def test_ids_that_stand_for_nothing_in_the_text_are_told(tokenizer):
    tokenizer.add_special_tokens(["<s>", "</s>"])
    pair = [("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=pair)
    ids, notes = encode(tokenizer, TEXT)
    assert len(ids) == len(tokenizer.encode(TEXT, add_special_tokens=False).ids) + 2
    assert len(notes) == 1
    assert "2 ids" in notes[0]
    assert "<s>, </s>" in notes[0]


def lower(tokenizer):
    tokenizer.normalizer = normalizers.Lowercase()


def without_alphabet(tokenizer):
    """Knows no letter but those that it was trained on, and has no token for the unknown."""
    tokenizer.model = models.BPE()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(["the lazy dog"], trainers.BpeTrainer(vocab_size=300, show_progress=False))


@pytest.mark.parametrize(("change", "text"), [(lower, "The dog"), (without_alphabet, "the dog QQ")])
def test_a_text_that_the_ids_do_not_give_back_is_told(change, text, tokenizer):
    change(tokenizer)
    _, notes = encode(tokenizer, text)
    assert len(notes) == 1
    assert "do not decode to the text" in notes[0]


def test_ids_beyond_the_vocabulary_are_refused_wherever_they_come_from(tokenizer, corpus, tmp_path):
    with pytest.raises(InputError, match="ids up to 299"):
        reread(tokenizer, tmp_path, vocab_size=299)
    described = json.loads(tokenizer.to_str())
    described["post_processor"] = {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [5000], "tokens": ["<s>"]}},
    }  # fmt: skip
    read, _ = reread(Tokenizer.from_str(json.dumps(described)), tmp_path)
    with pytest.raises(InputError, match="5,000"):
        read_sequences(corpus, read, 16, 8, vocab_size=310, say=lambda _: None)


def test_a_byte_order_mark_is_no_text(tmp_path):
    path, said = tmp_path / "text.txt", []
    path.write_text("\ufeffthe cat", encoding="utf-8")
    assert read_text(path, say=said.append) == "the cat"
    assert len(said) == 1
    assert "byte order mark" in said[0]
    path.write_text("\ufeff \n", encoding="utf-8")
    with pytest.raises(InputError, match="no text"):
        read_text(path, say=said.append)


def test_line_ends_are_read_as_python_reads_them_and_told(tmp_path):
    path, said = tmp_path / "text.txt", []
    path.write_bytes(b"one\r\ntwo\rthree\n")
    assert read_text(path, say=said.append) == path.read_text() == "one\ntwo\nthree\n"
    assert len(said) == 1
    assert "2 line ends" in said[0]


def test_text_that_is_no_utf8_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"not UTF-8 \(byte 3\)"):
        read_text(path)
    path.write_text("the cat", encoding="utf-16")
    with pytest.raises(InputError, match=r"not UTF-8 \(byte 0\)"):
        read_text(path)


def test_prepare_leaves_the_mark_out_and_says_so(tmp_path):
    plain, marked, said = tmp_path / "plain.txt", tmp_path / "marked.txt", []
    plain.write_text(TEXT)
    marked.write_text("\ufeff" + TEXT, encoding="utf-8")
    one = prepare([plain], plain, 300, tmp_path / "one")
    two = prepare([marked], marked, 300, tmp_path / "two", say=said.append)
    assert one.tokenizer.read_bytes() == two.tokenizer.read_bytes()
    assert one.dead_mask.read_bytes() == two.dead_mask.read_bytes()
    assert len(said) == 2


def test_a_run_is_trained_on_the_whole_corpus_and_told_on_the_command_line(small, files, tmp_path, capsys):
    cutting = Tokenizer.from_file(files.tokenizer)
    cutting.enable_truncation(512)
    path = tmp_path / "cutting.json"
    cutting.save(str(path))
    words = ["train", *files.flags()[:1], f"--tokenizer={path}", *files.flags()[2:], f"--out={tmp_path / 'run'}"]
    sizes = [
        "--total-steps=2",
        "--batch-size=4",
        "--seq-len=16",
        "--vocab-size=600",
        "--hidden-dim=8",
        "--num-layers=1",
    ]
    assert main([*words, *sizes]) == 0
    told = capsys.readouterr().out
    assert "after 512" in told
    whole = read_inputs(small)
    assert f"sequences: {len(whole.sequences):,} of 16" in told
    ds = open_trajectory(tmp_path / "run")
    for token, text, piece in zip(ds.token.values, ds.token_text.values, ds.token_piece.values, strict=True):
        assert (text, piece) == (cutting.decode([token]).rstrip("\0"), cutting.id_to_token(token))
    one = next(text for text in ds.token_text.values if text.startswith(" ") and text.strip())
    assert cutting.decode([int(ds.sel(token_text=one).token)]) == one


def test_texts_are_what_tokens_decode_to(tokenizer):
    text = text_of(tokenizer)
    assert {" the", " dog", "\n", "q"} <= {text(i) for i in range(300)}
    assert text(tokenizer.token_to_id("Ġ")) == " "
    assert text(tokenizer.encode("é").ids[0]) == "�"  # half a letter
    assert text(5000) is None
    for sample in ("the lazy dog", " the", "fox 17\njumps"):
        assert "".join(text(i) for i in tokenizer.encode(sample).ids) == sample


def test_texts_of_special_tokens_and_of_other_kinds_of_tokenizer():
    spaces = Tokenizer(models.BPE())
    spaces.pre_tokenizer, spaces.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=60, show_progress=False, special_tokens=["<s>"])
    spaces.train_from_iterator([TEXT], trainer)
    text = text_of(spaces)
    assert text(0) == "<s>"
    assert text(spaces.token_to_id("▁the")) == " the"
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=60, show_progress=False, special_tokens=["[UNK]"])
    pieces.train_from_iterator([TEXT], trainer)
    assert text_of(pieces)(pieces.token_to_id("##o")) == "o"


def test_a_byte_level_tokenizer_without_a_decoder_is_given_one(tokenizer, tmp_path):
    tokenizer.decoder = None
    read, said = reread(tokenizer, tmp_path)
    assert said == []
    assert text_of(read)(read.encode("the dog").ids[-1]) == " dog"


def test_whole_texts_as_arrays_of_ids(tokenizer):
    ids, notes = encode(tokenizer, TEXT)
    assert notes == []
    np.testing.assert_array_equal(ids, tokenizer.encode(TEXT).ids)
