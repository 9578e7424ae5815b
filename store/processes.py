"""Whether a process of this machine is there."""

from __future__ import annotations

import os
import sys


def is_alive(pid: int) -> bool:
    """Whether there is such a process on this machine, also another user's.

    On Windows it is believed to be there: asking by a signal would end it.
    """
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
