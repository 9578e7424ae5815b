"""Icechunk: transactions over zarr-python, with Crucible's chunks and codecs, a commit a block."""

from peers.arrays import BLOCK, TILE, in_blocks

NEEDS = ("icechunk", "zarr")
WAYS = {"icechunk, the same chunks and codecs, a commit a block": {}}


def write(out, rows, shape):
    """A transaction for each block of both arrays."""
    import icechunk
    import zarr
    from zarr.codecs import BytesCodec, Crc32cCodec, TransposeCodec, ZstdCodec

    steps, tokens, hidden = shape
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(out)))
    session = repository.writable_session("main")
    group = zarr.create_group(session.store)
    for name, length, dtype in (("W", steps + 1, "u2"), ("delta_W_prime", steps, "f4")):
        group.create_array(
            name, shape=(length, tokens, hidden), chunks=(BLOCK, min(TILE, tokens), hidden), dtype=dtype,
            filters=[TransposeCodec(order=(1, 2, 0))], serializer=BytesCodec(endian="little"),
            compressors=[ZstdCodec(level=1), Crc32cCodec()], fill_value=0, config={"write_empty_chunks": True},
        )  # fmt: skip
    session.commit("arrays")
    session = repository.writable_session("main")
    for name, start, block in in_blocks(rows):
        zarr.open_group(session.store, mode="r+")[name][start : start + len(block)] = block
        if name == "delta_W_prime":
            session.commit(f"up to {start + len(block)}")
            session = repository.writable_session("main")
    if session.has_uncommitted_changes:
        session.commit("the rest")


def read(out):
    """The arrays of the last commit."""
    import icechunk
    import zarr

    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(out)))
    group = zarr.open_group(repository.readonly_session("main").store, mode="r")
    return {name: group[name] for name in ("W", "delta_W_prime")}, "moves"
