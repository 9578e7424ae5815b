"""`crucible report`: pictures and answers in one file."""

from crucible.inspection.report.writing import report

__all__ = ["report"]
