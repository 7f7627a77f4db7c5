"""Shows a study in MLflow: its runs, files, pages and registered model."""
