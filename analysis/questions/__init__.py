"""The questions: each a function of a Dataset that answers with a lazy Dataset."""
