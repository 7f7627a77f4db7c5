"""Shows a study in a terminal: the live view, plain lines, the ranking and the status."""
