"""The experiment: a tiny language model trained on text, every optimizer step recorded."""
