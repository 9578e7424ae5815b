"""`python -m crucible`, and what the installed command `crucible` runs."""

from __future__ import annotations

import sys


def run() -> int:
    """Run one command and return its exit code. Ctrl-C shows no traceback, also while modules are imported."""
    try:
        from crucible.cli.main import main

        return main()
    except (KeyboardInterrupt, RuntimeError) as error:  # Python 3.11 makes the second of the first as a class is made
        if KeyboardInterrupt not in (type(error), type(error.__cause__)):
            raise
        sys.stderr.write("crucible: interrupted\n")
        return 130
    finally:
        # Python remembers an interrupt within exec(), as in the making of a dataclass, and would die of SIGINT at its
        # end instead of returning our code; running another string makes it forget
        exec("")


if __name__ == "__main__":
    sys.exit(run())
