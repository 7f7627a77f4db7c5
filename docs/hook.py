"""Let mkdocs build the folder that holds its own configuration."""

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Return the configuration with this folder as the source of all pages."""
    config["docs_dir"] = str(Path(__file__).resolve().parent)
    return config
