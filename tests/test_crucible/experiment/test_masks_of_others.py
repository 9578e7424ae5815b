"""A dead mask that was made of another text or tokenizer: said with what to do, and its counts are not taken on."""

from dataclasses import replace

import numpy as np
from safetensors.numpy import load_file, save_file

import store
from crucible.experiment import run as running


def test_a_mask_of_another_corpus_is_said_and_its_counts_are_not_those_of_this_one(small, tmp_path):
    """The run kept `token_count` 0, "occurrences in the corpus", of tokens that are trained on."""
    tensors = load_file(small.dead_mask)
    other = int(np.flatnonzero(~tensors["dead_mask"] & (tensors["token_occurrence_counts"] > 20))[0])
    tensors["dead_mask"][other], tensors["live_mask"][other] = True, False
    tensors["token_occurrence_counts"][other] = 0
    tensors["dead_indices"] = np.flatnonzero(tensors["dead_mask"])
    tensors["live_indices"] = np.flatnonzero(tensors["live_mask"])
    save_file(tensors, tmp_path / "other.safetensors")
    said = []
    running.train(replace(small, dead_mask=str(tmp_path / "other.safetensors"), total_steps=2), say=said.append)
    dead = len(tensors["dead_indices"])
    note = next(line for line in said if "of the dead mask" in line)
    assert note.startswith(f"note: 1 token of the dead mask, of {dead}, is in this corpus: the mask is of another text")
    assert "`crucible prepare` makes one that fits" in note
    ds = store.open_trajectory(small.out)
    assert other in ds.token
    assert "token_count" not in ds.coords


def test_a_mask_of_this_corpus_needs_no_word_and_its_counts_are_kept(small):
    said = []
    running.train(replace(small, total_steps=2), say=said.append)
    assert not any("of the dead mask" in line for line in said)
    assert (store.open_trajectory(small.out).token_count == 0).all()
