"""The complete configuration of one trial: every field that affects a result, as a value to store and hash."""

import difflib
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
    """The configuration of one trial. Hyperparameters have dotted names such as `model.temperature`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    seed: int = 0
    """Root of the trial's random streams, in [0, 2**63). Initial weights and patches derive their own seeds by name."""

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be a whole number in 0 … 2^63 - 1, got {self.seed!r}")

    def check_counts(self) -> None:
        """Check the patch counts.

        Raises:
            ConfigError: the patches between two validations are not a multiple of the batch size, or the budget is not
                a multiple of them.
        """
        Counts(self.train.budget_patches, self.evaluation.every_patches, [self.train.batch_size]).check()

    def dotted(self) -> dict[str, Any]:
        """Every hyperparameter and the seed by dotted name.

        A field of type float is a float here even if it was given as a whole number. Use this for display and for the
        search. `recorded` returns what is stored and hashed.
        """
        flat: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            for f in fields(kind):
                value = getattr(getattr(self, section), f.name)
                flat[f"{section}.{f.name}"] = float(value) if f.type is float else value
        return flat | {"seed": self.seed}

    def recorded(self) -> dict[str, Any]:
        """The hyperparameters and the seed by dotted name, as they are stored and hashed.

        A field that is newer than version 0.1 is left out if it has the value that version 0.1 implied
        (`sr_core.process.stored`).
        """
        flat = self.dotted()
        stored: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            values = {f.name: flat[f"{section}.{f.name}"] for f in fields(kind)}
            stored |= {f"{section}.{name}": value for name, value in written(kind, values).items()}
        return stored | {"seed": self.seed}

    def to_json(self) -> dict[str, Any]:
        """The values of `recorded`, nested by section. `from_json` reads them back."""
        return _nested(self.recorded())

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "TrialConfig":
        """The config that `to_json` of this version or an older one wrote.

        A field that is newer than the record gets the value that older code implied. Defaults are not used, because
        they may have changed since.

        Raises:
            ConfigError: a field is unknown or missing, or a value is not legal.
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
        """The config that `recorded` of this version or an older one returned.

        Raises:
            ConfigError: as `from_json` does.
        """
        return cls.from_json(_nested(flat))

    def digest(self) -> str:
        """16 hex digits that identify this config. Two digests are equal exactly if every field is equal."""
        return short_digest(self.to_json())

    def with_values(self, values: Mapping[str, Any], *, counted: bool = True) -> "TrialConfig":
        """A copy of the config with new values for some dotted names.

        Args:
            counted: check the patch counts. An experiment passes False: it checks all its configurations at once.
        Raises:
            ConfigError: a name is unknown (the message suggests similar ones), or a value is not legal.
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
        config = replace(self, **changed, seed=seed)
        if counted:
            config.check_counts()
        return config


def check_name(name: str) -> str:
    """Return the dotted name if a hyperparameter has it.

    Raises:
        ConfigError: there is no such hyperparameter. The message suggests similar names.
    """
    names = [f"{section}.{f.name}" for section, kind in SECTIONS.items() for f in fields(kind)]
    if name not in names:
        similar = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise ConfigError(f"no hyperparameter {name!r}; did you mean {' or '.join(similar[:3])}?")
    return name


def differences(one: "TrialConfig", other: "TrialConfig") -> dict[str, tuple[Any, Any]]:
    """The dotted names whose values differ, each with both values."""
    left = one.dotted()
    right = other.dotted()
    return {name: (left[name], right[name]) for name in left if left[name] != right[name]}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names grouped by section. A name without a section stays at the top."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        section, _, key = name.rpartition(".")
        if section:
            nested.setdefault(section, {})[key] = value
        else:
            nested[key] = value
    return nested


def short_digest(value: Any) -> str:
    """16 hex digits (BLAKE2b) of a JSON value. The order of keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
