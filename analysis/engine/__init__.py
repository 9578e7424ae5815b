"""How a question is asked: lazily, once over the blocks of a trajectory, whatever its chunks."""
