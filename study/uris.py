"""Where a study's views live, as explicit absolute URIs, and how to show one without its password."""

import re
from pathlib import Path


def default_tracking_uri(root: Path) -> str:
    """MLflow's store under a root."""
    return sqlite_uri(root.resolve() / "mlflow.db")


def default_storage(root: Path) -> str:
    """Optuna's database under a root."""
    return sqlite_uri(root.resolve() / "optuna.db")


def artifact_root(root: Path) -> Path:
    """Where runs keep their files unless an MLflow server has a place of its own."""
    return root.resolve() / "artifacts"


def sqlite_uri(path: Path) -> str:
    return f"sqlite:///{path}"


def sqlite_file(uri: str) -> Path | None:
    """The file behind a SQLite URI, or None for any other kind of store."""
    return Path(uri.partition(":///")[2]) if uri.startswith("sqlite:///") else None


def redact(text: str) -> str:
    """The text with whatever opens a door in its URIs (user, password, token) replaced by stars."""
    text = re.sub(r"://[^\s/]*@", "://***@", text)
    return re.sub(r"(?i)\b((?:pass\w*|pwd|token|secret|\w*key)=)[^&\s]+", r"\1***", text)
