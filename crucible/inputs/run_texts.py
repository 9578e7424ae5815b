"""The texts of a run's tokens: as recorded, else by the run's own tokenizer file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import xarray as xr


def texts_of(ds: xr.Dataset) -> list[str] | None:
    """A text for each token of an opened run; None where neither the run nor its own tokenizer tells them."""
    if "token_text" in ds.coords:
        return [str(text) for text in ds.token_text.values]
    config = json.loads(ds.attrs.get("config") or "{}")
    path, digest = config.get("tokenizer"), (config.get("sha256") or {}).get("tokenizer")
    if not isinstance(path, str) or not Path(path).is_file():
        return None
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        return None  # another tokenizer lies there now
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(data)
    return [_text(tokenizer, int(token)) for token in ds.token.values]


def _text(tokenizer: Any, token: int) -> str:  # noqa: ANN401 - tokenizers has no types
    """A token as a person reads it; the tokenizer's own spelling where its bytes are no text."""
    text = str(tokenizer.decode([token], skip_special_tokens=False))
    return text if text and "\ufffd" not in text else str(tokenizer.id_to_token(token) or "")
