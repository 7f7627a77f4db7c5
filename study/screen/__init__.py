"""What a person sees of a study in a terminal: the live view, plain lines, the ranking in words."""
