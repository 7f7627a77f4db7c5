"""From the store to training batches and validation crops."""
