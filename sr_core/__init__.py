"""Super-resolution itself: network, data, metrics and training. Knows neither Optuna nor MLflow."""
