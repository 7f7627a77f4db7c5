"""What follows the journal into other programs: MLflow, Optuna's database, and the dashboards on both."""
