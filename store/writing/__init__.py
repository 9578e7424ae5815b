"""The writing half: rows to a ring, chunks, one commit. Loads neither dask nor xarray."""
