"""What lies on disk: the files of a run, byte by byte. Public to the other rooms of the store."""
