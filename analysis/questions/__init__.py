"""The questions: each is a function that takes a trajectory as a Dataset and returns a lazy Dataset, the answer."""
