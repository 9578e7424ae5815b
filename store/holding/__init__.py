"""A run in the hands of one process: its lock, whether it is still the same run, and what in it the store made."""
