"""What one asks of a run: sizes, integrity, answers, pictures, differences."""
