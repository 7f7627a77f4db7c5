"""Scores of a picture against its original: the reference in NumPy, and the same in torch for validations."""
