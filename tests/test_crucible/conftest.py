import os

# before torch is imported: its threads otherwise spin at barriers, and small steps take ten times as long
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from crucible.inputs.config import Config

VOCABULARY = 600

# a test run that is a background job, or under nohup, was started with these ignored, and so would its children be
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if signal.getsignal(getattr(signal, name, signal.SIGINT)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), handler)


@dataclass(frozen=True)
class Files:
    corpus: str
    tokenizer: str
    dead_mask: str

    def paths(self) -> dict[str, str]:
        return {"corpus": self.corpus, "tokenizer": self.tokenizer, "dead_mask": self.dead_mask}

    def flags(self) -> list[str]:
        return [f"--{name.replace('_', '-')}={path}" for name, path in self.paths().items()]


SMALL = {"batch_size": 4, "seq_len": 16, "vocab_size": VOCABULARY, "hidden_dim": 8, "num_layers": 1}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A tokenizer of 600 ids and a corpus of 12,000, of which 200 never occur."""
    from crucible.inputs.prepare import prepare
    from crucible.inputs.stdlib_text import topic_text

    folder = tmp_path_factory.mktemp("inputs")
    wide, narrow = folder / "wide.txt", folder / "narrow.txt"
    text = topic_text()
    wide.write_text(text[:200_000], encoding="utf-8")
    narrow.write_text(text[:30_000], encoding="utf-8")
    made = prepare([wide], narrow, VOCABULARY, folder)
    return Files(str(narrow), str(made.tokenizer), str(made.dead_mask))


@pytest.fixture
def small(files: Files, tmp_path: Path) -> Config:
    """A run of a second."""
    return Config(**files.paths(), out=str(tmp_path / "run"), total_steps=12, learning_rate=1e-2, **SMALL)
