"""`crucible view`: a page that shows the tokens of a run moving, read from its Zarr files in the browser itself."""
