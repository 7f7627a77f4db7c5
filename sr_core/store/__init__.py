"""A set of images, kept as HR and LR: where they are from, what they are, one file of their pixels."""
