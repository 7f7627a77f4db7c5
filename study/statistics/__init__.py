"""What a study's numbers allow one to say: finalists, tests and intervals, importances."""
