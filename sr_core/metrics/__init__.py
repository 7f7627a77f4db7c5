"""Scores of a picture against its original: pure functions on NumPy arrays, no torch."""
