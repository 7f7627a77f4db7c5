"""Training images that also occur in held-out sets."""
