"""`crucible watch`: how a run goes that another process is writing, as it commits."""

from crucible.inspection.watch.lines import line, watch
from crucible.inspection.watch.looking import Look, looks

__all__ = ["Look", "line", "looks", "watch"]
