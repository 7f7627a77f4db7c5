"""A study as one page for a colleague: `python -m study.report`. Every number in it comes from the journal."""
