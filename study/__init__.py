"""Hyperparameter studies of super-resolution networks: the record, the search and its commands."""
