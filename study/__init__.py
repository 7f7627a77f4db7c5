"""Hyperparameter studies of super-resolution networks: the search, its record and its commands.

This package exports the names that experiment files and notebooks use, for example
`from study import Experiment, TrialConfig, Choice`. Each name is loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sr_core.process.former_names import keep

if TYPE_CHECKING:
    from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
    from study.question.config import TrialConfig
    from study.question.experiment import Experiment
    from study.question.space import Choice, Float, Grid, Int, Together
    from study.results import best, curves, replicates, trials

__all__ = [
    "Choice",
    "DataConfig",
    "EvaluationConfig",
    "Experiment",
    "Float",
    "Grid",
    "Int",
    "ModelConfig",
    "Together",
    "TrainConfig",
    "TrialConfig",
    "best",
    "curves",
    "replicates",
    "trials",
]

_NAMES_BY_MODULE = {
    "sr_core.config": ("DataConfig", "EvaluationConfig", "ModelConfig", "TrainConfig"),
    "study.question.config": ("TrialConfig",),
    "study.question.experiment": ("Experiment",),
    "study.question.space": ("Choice", "Float", "Grid", "Int", "Together"),
    "study.results": ("best", "curves", "replicates", "trials"),
}

keep(
    {
        "study.config": "study.question.config",
        "study.experiment": "study.question.experiment",
        "study.space": "study.question.space",
    }
)


def __getattr__(name: str) -> Any:
    """The public name, loaded from its module."""
    for module, names in _NAMES_BY_MODULE.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The module's names, including public names that are not loaded yet."""
    return sorted({*globals(), *__all__})
