"""Between torch's tensors and NumPy's arrays, bit for bit; and what torch's dtypes are called here."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis import lattice
from crucible.units import a_or_an
from store.format.schema import Channel

if TYPE_CHECKING:
    import xarray as xr

Value = Tensor | float | None
TORCH_DTYPES = {
    "bool": torch.bool, "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32,
    "int64": torch.int64, "uint16": torch.uint16, "uint32": torch.uint32, "uint64": torch.uint64,
    "float16": torch.float16, "float32": torch.float32, "float64": torch.float64,
}  # fmt: skip

SHARE_ELEMENTS = 32768
"""torch gives a thread at least so many elements."""
LARGEST_FOR_ONE = 1 << 20
"""Up to so many elements one thread is used: to wake others costs more than they save."""
COLUMNS_TO_TRY = 16
"""In fewer columns two orders of adding may have the same mean by chance, one in some five has."""
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def to_torch(array: xr.DataArray) -> torch.Tensor:
    """Load a DataArray as a tensor of the dtype that its numbers mean.

    Parameters
    ----------
    array : DataArray
        Any part of a trajectory. uint16 with the attribute ``bits_of: "bfloat16"`` becomes a bfloat16 tensor.

    Returns
    -------
    Tensor
        On the cpu, in memory of its own.

    Raises
    ------
    TypeError
        A whole Dataset, or something that is no DataArray.
    ValueError
        If it should hold bits, but xarray made other numbers of them: `where`, `reindex` and outer joins do.

    Examples
    --------
    >>> import xarray as xr
    >>> one = xr.DataArray(np.array([0x3F80], np.uint16), attrs={"bits_of": "bfloat16"})
    >>> to_torch(one)
    tensor([1.], dtype=torch.bfloat16)
    """
    if hasattr(array, "data_vars"):
        names = ", ".join(str(name) for name in array.data_vars)
        raise TypeError(f"to_torch takes one array, not a Dataset: call to_torch(ds.W); this one has {names}")
    if not hasattr(array, "attrs"):
        raise TypeError(f"to_torch takes an array of a Dataset, as ds.W, not {a_or_an(type(array).__name__)}")
    name = "the array" if array.name is None else str(array.name)
    lattice.refuse_lost_bits(name, array.dtype, array.attrs.get("bits_of"))
    tensor = torch.from_numpy(np.array(array.values, order="C"))
    return tensor.view(torch.bfloat16) if array.attrs.get("bits_of") == "bfloat16" else tensor


def take_rows(tensor: Tensor, axis: int, rows: Tensor, room: NDArray[Any] | None = None) -> Tensor:
    """These rows of a tensor in memory of their own, as ``index_select``; on the host without waking torch's threads.

    Parameters
    ----------
    tensor : Tensor
        Without a gradient of its own.
    axis : int
        Where its rows are counted.
    rows : Tensor of int64, shape (row,)
        Ascending, on the tensor's device.
    room : array, optional
        Where they may lie, if it has their shape and size.

    Raises
    ------
    IndexError
        There is no such row.

    Examples
    --------
    >>> take_rows(torch.arange(6.0).reshape(3, 2), 0, torch.tensor([0, 2]))
    tensor([[0., 1.],
            [4., 5.]])
    """
    is_matrix = not axis and tensor.ndim == 2 and tensor.element_size() in _WORDS and _is_plain(tensor)
    if not is_matrix or rows.numel() * tensor.shape[1] > LARGEST_FOR_ONE:
        return tensor.index_select(axis, rows)
    words, places = tensor.view(_WORDS[tensor.element_size()]).numpy(), rows.numpy()
    if not len(places) or places[0] < 0 or places[-1] >= len(words):
        return tensor.index_select(axis, rows)
    out = None
    if room is not None and room.shape == (len(places), words.shape[1]) and room.itemsize == words.itemsize:
        out = room.view(words.dtype)
    taken = np.take(words, places, axis=0, out=out, mode="clip")  # not to look whether each is there halves the time
    return torch.from_numpy(taken).view(tensor.dtype)


def mean_of(rows: Tensor) -> Tensor:
    """The mean of rows in float32, with the bits of torch's own; on one thread where that adds in the same order.

    Parameters
    ----------
    rows : Tensor, shape (row, hidden)
        Of floats.

    Returns
    -------
    Tensor of float32, shape (hidden,)
    """
    is_shared = SHARE_ELEMENTS < rows.numel() <= LARGEST_FOR_ONE and rows.shape[-1] >= COLUMNS_TO_TRY
    if is_shared and _is_plain(rows) and _adds_alike(tuple(rows.shape), torch.get_num_threads()):
        with one_thread(rows):
            return rows.float().mean(dim=0)
    return rows.float().mean(dim=0)


@contextmanager
def one_thread(rows: Tensor) -> Iterator[None]:
    """Some operations of a tenth of a millisecond: to wake threads for each costs more than they save."""
    threads = torch.get_num_threads()
    if rows.device.type != "cpu" or threads == 1 or rows.numel() > LARGEST_FOR_ONE:
        yield
        return
    try:
        torch.set_num_threads(1)  # an interrupt may come right behind it
        yield
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _adds_alike(shape: tuple[int, ...], threads: int) -> bool:  # noqa: ARG001 - so many there are now
    """Whether one thread adds rows of this shape in the order in which so many do: tried on random numbers, once."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    numbers = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    with one_thread(numbers):
        mean = numbers.mean(dim=0)
    return torch.equal(mean, numbers.mean(dim=0))


def _is_plain(tensor: Tensor) -> bool:
    """Whether its numbers lie on the host as they are, in the order of its dimensions."""
    is_here = type(tensor) is Tensor and tensor.is_cpu and tensor.layout == torch.strided and tensor.is_contiguous()
    return is_here and not (tensor.is_neg() or tensor.is_conj())


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype as NumPy, the store and messages have it.

    Examples
    --------
    >>> dtype_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def to_host(values: Mapping[str, Value], channels: Mapping[str, Channel]) -> dict[str, Any]:
    """Rows as the store takes them: arrays of the channels' dtypes and plain numbers, after one copy per device.

    Tensors on the host are handed over as views: the store copies them before it returns.
    """
    rows: dict[str, Any] = {}
    elsewhere: dict[torch.device, dict[str, Tensor]] = {}
    for name, value in values.items():
        if not isinstance(value, Tensor):
            rows[name] = value
            continue
        tensor = _as_stored(value, channels[name])
        if tensor.is_cpu:
            rows[name] = numpy_of(tensor)
        else:
            elsewhere.setdefault(tensor.device, {})[name] = tensor
    for tensors in elsewhere.values():
        group = list(tensors.values())
        rows.update(zip(tensors, unpack(pack(group).cpu().numpy(), group), strict=True))
    return rows


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of tensors of one device, one behind the other: a single copy takes them to the host."""
    return torch.cat([tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in tensors])


def unpack(data: NDArray[np.uint8], like: Sequence[Tensor]) -> list[NDArray[Any]]:
    """The inverse of `pack`, as NumPy arrays; bfloat16 as its bits."""
    arrays, start = [], 0
    for tensor in like:
        size = tensor.numel() * tensor.element_size()
        dtype = "uint16" if tensor.dtype == torch.bfloat16 else dtype_name(tensor.dtype)
        # copied, since a piece may begin at an odd byte
        arrays.append(data[start : start + size].copy().view(dtype).reshape(tuple(tensor.shape)))
        start += size
    return arrays


def _as_stored(tensor: Tensor, channel: Channel) -> Tensor:
    """The tensor in the dtype that the store keeps; bfloat16 where its bits are kept.

    Floats are rounded to the channel's dtype. Whole numbers are kept as they are, or refused, as the store does, and so
    are complex ones.
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.ndim and not channel.dims and tensor.numel() == 1:
        tensor = tensor.reshape(())
    if channel.bits_of == "bfloat16":
        if tensor.dtype != torch.bfloat16:
            raise TypeError(f"channel {channel.name!r} keeps the bits of bfloat16, but its rows are {tensor.dtype}")
        return tensor
    dtype = TORCH_DTYPES[channel.dtype]
    if tensor.dtype == dtype:
        return tensor
    if tensor.is_complex():  # torch would keep the real part
        raise TypeError(
            f"channel {channel.name!r} is {channel.dtype}, but its rows are {dtype_name(tensor.dtype)}: give its real "
            "part, its imaginary part or its size, in a channel each"
        )
    stored = tensor.to(dtype)
    if not dtype.is_floating_point and not torch.equal(stored.to(tensor.dtype), tensor):
        odd = tensor[stored.to(tensor.dtype) != tensor].flatten()[0].item()
        raise ValueError(
            f"channel {channel.name!r} is {channel.dtype}, which cannot hold {odd}, which stands in its row of "
            f"{dtype_name(tensor.dtype)}; give the channel another dtype"
        )
    return stored


def numpy_of(tensor: Tensor) -> NDArray[Any]:
    """A tensor of the host as an array on the same memory; bfloat16 as its bits."""
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
