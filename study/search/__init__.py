"""What a study does next: samplers, schedulers, replicates, and simulated studies that compare them."""
