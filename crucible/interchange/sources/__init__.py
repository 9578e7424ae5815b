"""Other people's files, read in pieces and believed as little as possible: safetensors, HDF5, .npz, checkpoints."""
