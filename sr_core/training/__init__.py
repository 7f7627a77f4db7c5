"""One training run: loss, optimiser, weight average, checkpoints, and the loop that drives them."""
