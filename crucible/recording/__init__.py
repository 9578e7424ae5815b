"""The recorder: what is read from a torch model at every optimizer step and handed to the store."""
