"""Two trajectories beside each other: the first difference, and how far they are apart over time."""
