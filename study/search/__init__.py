"""What is tried next and what is given up: samplers, schedulers, and simulated studies that compare them."""
