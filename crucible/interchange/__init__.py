"""Runs out to the files of other tools, and in from the lab's old ones; all of it in a stream.

Out: `exporter` writes a `selection`, with `chunk_copy`. In: `sources` open a file of any kind, `matching` finds by
`file_table` what its arrays are, and `importing` makes a run of it, with `words` from beside and inside the file.
`notebook` knows the habits of the notebook's file; `report` is what both ways answer.
"""
