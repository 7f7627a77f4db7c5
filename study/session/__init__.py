"""One run of a study: opened, searched, concluded."""
