"""Scores of an image against its original: the reference in NumPy, and the same in torch for validations."""
