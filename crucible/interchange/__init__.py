"""Runs out to the files of other tools, and in from the lab's old ones; all of it in a stream.

Out: `exporter`, with `chunk_copy`. In: `sources` open a file of any kind, `matching` finds by `file_table` what its
arrays are, `import_plan` checks them and says what the run will be, with `words` from beside and inside the file,
`importer` writes it, and `differences` compares what follows from the weights. `notebook` knows the habits of the
notebook's file; `report` is what both ways answer.
"""
