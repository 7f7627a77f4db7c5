"""Questions: each module here that defines EXPERIMENT can be run by its name, `--experiment NAME`."""
