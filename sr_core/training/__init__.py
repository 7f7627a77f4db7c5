"""Trains one network: loss, optimiser, weight average, checkpoints and the training loop."""
