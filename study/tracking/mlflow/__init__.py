"""The study in MLflow: runs, files, pages and the registry."""
