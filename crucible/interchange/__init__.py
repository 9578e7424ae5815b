"""Runs out to the files of other tools, and in from the lab's old ones; all of it in a stream.

`layout` says what the notebook's file looks like. `exporting` writes it, with `chunkstream`. `importing` reads it after
`importplan` has checked it, and compares by `filecheck`. `hdf5` is the lab's other kind of file.
"""
