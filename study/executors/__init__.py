"""Executors run trials in slots: in this process, in worker processes or on a Ray cluster."""
