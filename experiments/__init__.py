"""Experiments: `--experiment NAME` runs the module NAME of this package, if it defines EXPERIMENT."""
