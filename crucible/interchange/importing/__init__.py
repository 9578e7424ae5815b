"""A file of another tool into a run: what it is taken for, then its states through the writer that training uses.

`plan` checks a file and says what the run will be, by `weights`, `populations` and `schedules`. `importer` makes it,
`copying` brings its states, `metadata` its words, and `differences` compares what follows from the weights.
"""
