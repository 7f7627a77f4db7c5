"""Writes a study as one HTML page for colleagues (`python -m study.report`), with every number from the journal."""
