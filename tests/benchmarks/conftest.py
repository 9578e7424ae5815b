import json
import shutil

import measuring
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crucible.inputs.prepare import prepare
from crucible.inputs.stdlib_text import docstring_text, topic_text

VOCABULARY, DEAD, EXPERIMENT = 10_000, 3_699, 3_644

MAKE = """
    import sys, json, time, numpy, torch, zarr
    import crucible, store
    from crucible.channels.table import NOTEBOOK, derive, finisher
    source = zarr.open_group(sys.argv[1], mode="r")
    W, loss = source["W"], source["loss"][:]
    steps, tokens, hidden = W.shape
    writer = store.TrajectoryWriter.create(
        sys.argv[2], channels=NOTEBOOK, derive=derive, finish=finisher(0.1), tokens=numpy.arange(tokens),
        hidden=hidden, statics={"dead_mask": numpy.arange(10_000) < tokens},
        attributes={"motion_threshold": 0.1, "beta1": 0.9},
    )
    for start in range(0, steps, 1251):
        for step, bits in enumerate(W[start:start + 1251], start):
            centroid = torch.from_numpy(bits).view(torch.bfloat16).float().mean(dim=0).numpy()
            writer.append(W=bits, centroid=centroid, loss=loss[step] if step else None)
    writer.complete()
"""


@pytest.fixture(scope="session")
def real_run():
    return measuring.real_run()


@pytest.fixture(scope="session")
def recorded(real_run, tmp_path_factory):
    """The real run as a run of the store: everything the notebook's table keeps."""
    run = tmp_path_factory.mktemp("recorded") / "real"
    measuring.measure_python(MAKE, real_run, run)
    return run


@pytest.fixture(scope="session")
def compacted(recorded, tmp_path_factory):
    """The same run, compacted; that takes some minutes."""
    run = tmp_path_factory.mktemp("compacted") / "real"
    shutil.copytree(recorded, run)
    measuring.measure_crucible("compact", run)
    return run


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A corpus that never uses 3,699 of 10,000 words: the size of the reference, made in a second."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    alive = np.sort(rng.permutation(VOCABULARY)[DEAD:])
    words = alive[np.minimum(rng.zipf(1.2, 400_000) - 1, len(alive) - 1)]
    (folder / "corpus.txt").write_text(" ".join(f"w{word}" for word in [*alive, *words]), encoding="utf-8")
    vocabulary = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    mask = np.ones(VOCABULARY, bool)
    mask[alive] = False
    save_file({"dead_mask": mask, "dead_indices": np.flatnonzero(mask)}, folder / "mask.safetensors")
    return {"corpus": folder / "corpus.txt", "tokenizer": folder / "tokenizer.json",
            "dead_mask": folder / "mask.safetensors"}  # fmt: skip


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    """The experiment's sizes on text that Python ships: 3,644 of 10,000 tokens that never occur in it."""
    folder = tmp_path_factory.mktemp("experiment")
    narrow, wide = folder / "topics.txt", folder / "docstrings.txt"
    narrow.write_text(topic_text(), encoding="utf-8")
    wide.write_text(docstring_text(), encoding="utf-8")
    made = prepare([narrow, wide], narrow, VOCABULARY, folder)
    ids = load_file(made.dead_mask)["dead_indices"]
    ids = np.sort(np.random.default_rng(0).permutation(ids)[:EXPERIMENT])
    mask = np.zeros(VOCABULARY, bool)
    mask[ids] = True
    save_file({"dead_mask": mask, "dead_indices": ids}, folder / "mask.safetensors")
    return {"corpus": narrow, "tokenizer": made.tokenizer, "dead_mask": folder / "mask.safetensors"}
