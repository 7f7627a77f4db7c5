"""What a study asks: the experiment, its search space and its budget. Knows no journal."""
