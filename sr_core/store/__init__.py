"""A set of images, stored as HR and LR: their sources, their manifest, and one file of their pixels."""
