"""acquire-zarr, a streaming writer of sharded Zarr for microscopes: Crucible's chunks, zstd-1."""

from peers.arrays import BLOCK, TILE, with_moves

NEEDS = ("acquire_zarr", "zarr")
WAYS = {"acquire-zarr, the same chunks": {}}


def write(out, rows, shape):
    """Two streams, a step at a time."""
    import acquire_zarr as az
    import numpy as np

    _, tokens, hidden = shape
    out.mkdir()
    streams = {}
    for name, kind in (("W", az.DataType.UINT16), ("delta_W_prime", az.DataType.FLOAT32)):
        dimensions = [
            az.Dimension(name=dim, kind=what, array_size_px=size, chunk_size_px=chunk, shard_size_chunks=1)
            for dim, what, size, chunk in (
                ("step", az.DimensionType.TIME, 0, BLOCK),
                ("token", az.DimensionType.SPACE, tokens, min(TILE, tokens)),
                ("hidden", az.DimensionType.SPACE, hidden, hidden),
            )
        ]
        compression = az.CompressionSettings(
            compressor=az.Compressor.BLOSC1, codec=az.CompressionCodec.BLOSC_ZSTD, level=1, shuffle=1
        )
        array = az.ArraySettings(output_key=name, compression=compression, dimensions=dimensions, data_type=kind)
        streams[name] = az.ZarrStream(az.StreamSettings(store_path=str(out / name), arrays=[array]))
    for _, row, move in with_moves(rows):
        streams["W"].append(np.ascontiguousarray(row[None]))
        if move is not None:
            streams["delta_W_prime"].append(np.ascontiguousarray(move[None]))
    for stream in streams.values():
        stream.close()


def read(out):
    """zarr-python reads it."""
    import zarr

    return {name: zarr.open_group(out / name, mode="r")[name] for name in ("W", "delta_W_prime")}, "moves"
