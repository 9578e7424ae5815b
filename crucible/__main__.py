"""`python -m crucible`."""

from __future__ import annotations

import sys

from crucible.cli.main import main

sys.exit(main())
