"""Waiting for what another thread or process does: for the event, however slow the machine is, never for a time."""

import time

PATIENCE_S = 300
"""Only a test that would wait for ever comes to its end."""


def wait_until(holds, most_s=PATIENCE_S):
    """Return once this holds; raises TimeoutError where it does not come to hold."""
    end = time.monotonic() + most_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {most_s} s for {holds}")
        time.sleep(0.01)
