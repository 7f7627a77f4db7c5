"""Views of the journal in other programs: MLflow, Optuna's database, and the dashboards of both."""
