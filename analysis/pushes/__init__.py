"""How near the optimizer came to moving a weight: the push of a trajectory, and the questions about it."""
