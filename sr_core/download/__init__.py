"""Download the image sets of the field: python -m sr_core.download --help."""
