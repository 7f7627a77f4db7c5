"""Training batches and validation crops from the images of a store."""
