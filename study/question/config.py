"""One trial's complete configuration: every field that decides a number, as a value that can be stored and hashed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from sr_core.errors import ConfigError
from sr_core.process.stored import fill, is_newer, written
from study.question.budget import Counts

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
        """Every hyperparameter and the seed by dotted name, floats as floats however they were written.

        For people and for the search; `recorded` is what is stored and hashed.
        """
        flat: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            for f in fields(kind):
                value = getattr(getattr(self, section), f.name)
                flat[f"{section}.{f.name}"] = float(value) if f.type is float else value
        return flat | {"seed": self.seed}

    def recorded(self) -> dict[str, Any]:
        """The hyperparameters and the seed by dotted name as records hold them: what digests are taken over.

        Without those that came after version 0.1 and have the value that it implied (`sr_core.process.stored`).
        """
        flat = self.dotted()
        kept: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            values = {f.name: flat[f"{section}.{f.name}"] for f in fields(kind)}
            kept |= {f"{section}.{name}": value for name, value in written(kind, values).items()}
        return kept | {"seed": self.seed}

    def to_json(self) -> dict[str, Any]:
        """The config as nested plain values that `from_json` completes: those of `recorded`."""
        return _nested(self.recorded())

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "TrialConfig":
        """The config that `to_json` wrote, of this version or an older one.

        A field that the record is too old to have gets the value that older code implied.

        Raises:
            ConfigError: a field is unknown or missing (a default never stands in: it may have changed since), or a
                value is not legal.
        """
        if not isinstance(stored, Mapping):
            raise ConfigError(f"stored config: expected an object, got {type(stored).__name__}")
        sections: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            values = stored.get(section, {} if is_newer(kind) else None)
            sections[section] = kind(**fill(kind, values, f"stored config, section {section}"))
        original = {section for section, kind in SECTIONS.items() if not is_newer(kind)}
        if not {*original, "seed"} <= set(stored) <= {*SECTIONS, "seed"}:
            raise ConfigError(f"stored config: expected {', '.join([*SECTIONS, 'seed'])}; got {', '.join(stored)}")
        return cls(**sections, seed=stored["seed"])

    @classmethod
    def from_recorded(cls, flat: Mapping[str, Any]) -> "TrialConfig":
        """The config that `recorded` gave, of this version or an older one. Raises as `from_json` does."""
        return cls.from_json(_nested(flat))

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


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        section, _, key = name.rpartition(".")
        if section:
            nested.setdefault(section, {})[key] = value
        else:
            nested[key] = value
    return nested


def short_digest(value: Any) -> str:
    """16 hex digits of a plain JSON value, whatever the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
