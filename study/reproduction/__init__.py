"""Retrains a recorded trial, on this or another machine, and compares every number with the record."""
