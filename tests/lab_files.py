"""Files as the lab has them: the notebook's arrays of a made-up run, reckoned by plain loops in torch."""

import json
import struct

import numpy as np
import torch
from safetensors.torch import save, save_file

NAN, INF, NEGATIVE_ZERO, PAYLOADS = 0x7FC0, 0x7F80, 0x8000, (0x7FC1, 0xFFAB, 0x7F81)


def weights(steps=20, tokens=7, hidden=3, *, seed=0, strange=True):
    """W (step, token, hidden) uint16: small hops that die out, and if asked -0, infinities and NaN with payloads."""
    random = np.random.default_rng(seed)
    W = np.empty((steps + 1, tokens, hidden), np.uint16)
    W[0] = random.integers(0x3C00, 0x3D80, (tokens, hidden)) | (random.integers(0, 2, (tokens, hidden)) << 15)
    for t in range(1, steps + 1):
        W[t] = W[t - 1]
        moving = random.random(tokens) < 1 - t / (steps + 1)
        W[t][moving] += random.integers(0, 4, (moving.sum(), hidden)).astype(np.uint16)
    if strange:
        W[steps // 3 :, 0, 0] = NEGATIVE_ZERO
        W[steps // 2 :, 1 % tokens, 0] = INF
        for i, bits in enumerate(PAYLOADS):
            W[steps // 2 + i :, 2 % tokens, hidden - 1] = bits
    return W


def numbers(W):
    return torch.from_numpy(W.copy()).view(torch.bfloat16).float()


def displacement(W):
    """delta_W_prime by the definition, one element at a time."""
    values, bits = numbers(W).numpy(), W.tolist()
    delta = np.empty((W.shape[0] - 1, *W.shape[1:]), np.float32)
    with np.errstate(all="ignore"):
        for t, i, j in np.ndindex(delta.shape):
            exponent = (bits[t][i][j] >> 7) & 255
            cell = np.float32(2.0 ** (min(max(exponent, 1), 255) - 134))
            delta[t, i, j] = (values[t + 1, i, j] - values[t, i, j]) / cell
    return delta


def last_motion(delta, threshold=0.1):
    last = np.full(delta.shape[1], -1, np.int32)
    for t, i in np.ndindex(delta.shape[:2]):
        norm = float(np.sqrt(sum(float(x) ** 2 for x in delta[t, i]))) if not np.isinf(delta[t, i]).any() else np.inf
        if np.isnan(delta[t, i]).any():
            norm = np.nan
        if np.float32(norm) >= np.float32(threshold):
            last[i] = t + 1
    return last


def notebook(W=None, *, vocabulary=12, seed=0, **options):
    """The tensors of the notebook's file, as numpy arrays."""
    W = weights(seed=seed, **options) if W is None else W
    random = np.random.default_rng(seed + 1)
    steps, tokens = W.shape[0] - 1, W.shape[1]
    mask = np.zeros(vocabulary, bool)
    mask[np.sort(random.choice(vocabulary, tokens, replace=False))] = True
    loss = random.random(steps + 1).astype(np.float32)
    loss[0] = np.nan
    delta = displacement(W)
    return {
        "W": W,
        "delta_W_prime": delta,
        "centroid": np.stack([numbers(rows).mean(dim=0).numpy() for rows in W]),
        "loss": loss,
        "last_motion_step": last_motion(delta),
        "dead_mask": mask,
        "dead_indices": np.flatnonzero(mask),
    }


def as_tensors(arrays, *, bfloat16=False):
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
    if bfloat16:
        tensors["W"] = tensors["W"].view(torch.bfloat16)
    return tensors


def bytes_of(arrays, *, bfloat16=False):
    """What save_file would write of these arrays."""
    return save(as_tensors(arrays, bfloat16=bfloat16))


def write(path, arrays, *, bfloat16=False, words=None):
    save_file(as_tensors(arrays, bfloat16=bfloat16), path)
    if words is not None:
        path.with_name("metadata.json").write_text(json.dumps(words))
    return path


def file_of(header, data=b""):
    """A safetensors file with this header, whatever it says."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def damaged(sound, changes, cut):
    """The bytes of a file with pieces written over them anywhere, cut off anywhere or whole."""
    data = bytearray(sound)
    for anywhere, piece in changes:
        at = anywhere % len(data)
        data[at : at + len(piece)] = piece
    if cut is not None:
        del data[max(1, cut % len(data)) :]
    return data
