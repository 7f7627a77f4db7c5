"""Fetch the field's images where there is a network: python -m sr_core.download --help."""
