"""One trial's complete configuration: every field that decides a number, as a value that can be stored and hashed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from sr_core.errors import ConfigError
from study.counting import Counts

SECTIONS = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig, "evaluation": EvaluationConfig}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialConfig:
    """What one trial trains. Hyperparameters have dotted names, `model.temperature`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    """Root of the trial's random streams; initial weights and patches each derive their own by name."""

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be a whole number in 0 … 2^63 - 1, got {self.seed!r}")

    def check_counts(self) -> None:
        """Raises ConfigError unless batches fill the stretches between validations, and these the budget."""
        Counts(self.train.budget_patches, self.evaluation.every_patches, [self.train.batch_size]).check()

    def dotted(self) -> dict[str, Any]:
        """Every hyperparameter and the seed by dotted name, floats as floats however they were written."""
        flat: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            for f in fields(kind):
                value = getattr(getattr(self, section), f.name)
                flat[f"{section}.{f.name}"] = float(value) if f.type is float else value
        return flat | {"seed": self.seed}

    def to_json(self) -> dict[str, Any]:
        """The complete config as nested plain values."""
        nested: dict[str, Any] = {}
        for name, value in self.dotted().items():
            section, _, key = name.rpartition(".")
            if section:
                nested.setdefault(section, {})[key] = value
            else:
                nested[key] = value
        return nested

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "TrialConfig":
        """The config that `to_json` wrote.

        Raises:
            ConfigError: a field is unknown or missing (a default never stands in: it may have changed since), or a
                value is not legal.
        """
        if not isinstance(stored, Mapping):
            raise ConfigError(f"stored config: expected an object, got {type(stored).__name__}")
        sections: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            values = stored.get(section)
            names = {f.name for f in fields(kind)}
            if not isinstance(values, Mapping) or set(values) != names:
                odd = sorted(names ^ set(values)) if isinstance(values, Mapping) else ["all of it"]
                raise ConfigError(f"stored config, section {section}: missing or unknown {', '.join(odd)}")
            sections[section] = kind(**values)
        if set(stored) != {*SECTIONS, "seed"}:
            raise ConfigError(f"stored config: expected {', '.join([*SECTIONS, 'seed'])}; got {', '.join(stored)}")
        return cls(**sections, seed=stored["seed"])

    def digest(self) -> str:
        """16 hex digits that name this config; equal exactly where every field is."""
        return short_digest(self.to_json())

    def with_values(self, values: Mapping[str, Any], *, counted: bool = True) -> "TrialConfig":
        """The same config with some dotted names set.

        Args:
            counted: check its patch counts; an experiment checks those of all its configurations at once.
        Raises:
            ConfigError: a name is unknown (the message lists the nearest), or a value is not legal.
        """
        sections: dict[str, dict[str, Any]] = {}
        seed = self.seed
        for name, value in values.items():
            if name == "seed":
                seed = value
                continue
            section, _, key = check_name(name).partition(".")
            kind = {f.name: f.type for f in fields(SECTIONS[section])}[key]
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            sections.setdefault(section, {})[key] = value
        changed = {section: replace(getattr(self, section), **new) for section, new in sections.items()}
        made = replace(self, **changed, seed=seed)
        if counted:
            made.check_counts()
        return made


def check_name(name: str) -> str:
    """The dotted name itself, if there is such a hyperparameter.

    Raises:
        ConfigError: there is none; names those that come near.
    """
    known = [f"{section}.{f.name}" for section, kind in SECTIONS.items() for f in fields(kind)]
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise ConfigError(f"no hyperparameter {name!r}; did you mean {' or '.join(near[:3])}?")
    return name


def differences(one: "TrialConfig", other: "TrialConfig") -> dict[str, tuple[Any, Any]]:
    """Dotted names whose values differ, with both values."""
    left, right = one.dotted(), other.dotted()
    return {name: (left[name], right[name]) for name in left if left[name] != right[name]}


def short_digest(value: Any) -> str:
    """16 hex digits of a plain JSON value, whatever the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
