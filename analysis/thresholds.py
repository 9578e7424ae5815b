"""What counts as motion unless one says otherwise, and which thresholds miss none. Numbers alone: nothing is imported.

A displacement other than 0 is never below half a cell, so every threshold in (0, 0.5] means "any weight changed".
"""

DEFAULT_THRESHOLD = 0.1
"""The smallest displacement that counts as motion, in cells, unless a threshold is given."""
SURE_THRESHOLD = 0.5
"""The largest threshold, in cells, by which every change of a weight is motion."""
