"""One run of a study, from opening or resuming it to its results."""
