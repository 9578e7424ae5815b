"""The reading half: a run as a lazy xarray.Dataset."""
