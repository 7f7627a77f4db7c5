"""Detection of training images that also occur in held-out sets."""
