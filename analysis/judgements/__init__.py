"""The verdict on a silence, in numbers and in words, from plain numbers."""
