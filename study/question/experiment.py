"""An experiment states the question of a study in a file. Loading it checks everything that needs no training."""

import difflib
import importlib.util
import os
import re
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from sr_core.errors import ConfigError, SuiteError
from sr_core.process.names import visible
from study.question.budget import Counts
from study.question.config import SECTIONS, TrialConfig, differences
from study.question.neighbours import bind_experiments, neighbours_of
from study.question.space import Ranges, Space, build_space

SamplerName = Literal["tpe", "gp", "random", "qmc", "grid", "replay"]
SchedulerName = Literal["successive_halving", "asha", "none", "replay"]

BASE = "base"
"""The name of the base configuration in an experiment's `comparisons`."""

_RESERVED_NAME = re.compile(r"(finalist|trial) \d+")
_EQUAL_IN_ALL_TRIALS = ("train.budget_patches", "data.scale", "train.engine", "train.precision", "train.deterministic")
"""Together with the evaluation section, the settings that make trials comparable (promise 1)."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What to search, from which base configuration, and how trials are compared.

    Raises:
        ConfigError: a field, a range or a combination of them is not legal.
    """

    question: str
    """The question in words. It is printed and recorded."""
    base: TrialConfig
    """Every value that no range changes, including the budget, the evaluation and the study's seed."""
    scientific: Ranges = field(default_factory=dict)
    """Ranges that the question is about. Each listed choice becomes an arm with its own search."""
    nuisance: Ranges = field(default_factory=dict)
    """Ranges that are tuned to make the comparison fair."""
    references: Mapping[str, TrialConfig] = field(default_factory=dict)
    """Complete configurations by name. They run first, are never pruned and use the study's seed."""
    sampler: SamplerName = "tpe"
    scheduler: SchedulerName = "successive_halving"
    rungs: tuple[int, ...] = ()
    """Patch counts below the budget at which trials are compared, in ascending order."""
    reduction_factor: float = 3.0
    """At a rung, the best 1 / reduction_factor of the trials that reached it continue."""
    replay: Path | None = None
    """The journal that is repeated: its proposals by the sampler "replay", its prunings by the scheduler "replay"."""
    finalists: int = 1
    """Number of the best search trials that are retrained after the search, together with the references."""
    replicates: int = 3
    """Number of new seeds for each retrained trial, the same seeds for all. With 0 there is no retraining: the study
    ends with a ranking and without a verdict."""
    comparisons: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """Comparisons planned in advance: each maps a question in words to the pairs of settings to compare. A setting is
    the name of a reference, or `base`. There is no search. Each setting is trained with the study's seed and with
    `replicates` new ones."""
    benchmarks: tuple[str, ...] = ()
    """Test sets that are reported at the end and never affect the search. They lie under --data as DIR/<set>/HR."""
    space: Space = field(init=False)
    """Every dimension of `scientific` and `nuisance`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", build_space(self.base, self.scientific, self.nuisance))
        if self.sampler not in get_args(SamplerName):
            raise ConfigError(f"sampler must be one of {', '.join(get_args(SamplerName))}, got {self.sampler!r}")
        if self.sampler == "grid" and self.space.size is None:
            raise ConfigError(
                'sampler "grid" needs listed values or whole numbers: a Float has infinitely many values; use "qmc"'
            )
        if self.scheduler not in get_args(SchedulerName):
            raise ConfigError(f"scheduler must be one of {', '.join(get_args(SchedulerName))}, got {self.scheduler!r}")
        if (self.replay is not None) != ("replay" in (self.sampler, self.scheduler)):
            raise ConfigError('a replay needs both: replay=Path("…/journal.jsonl") and sampler or scheduler "replay"')
        if not self.reduction_factor > 1:
            raise ConfigError(f"reduction_factor must be > 1, got {self.reduction_factor!r}")
        if self.finalists < 1:
            raise ConfigError(f"finalists must be at least 1, got {self.finalists!r}")
        if self.replicates < 0 or self.replicates == 1:
            raise ConfigError(
                "replicates must be 0 (no verdict) or at least 2 (one seed cannot show the spread between seeds), "
                f"got {self.replicates!r}"
            )
        for name in self.space.names:
            if name in _EQUAL_IN_ALL_TRIALS or name.startswith("evaluation."):
                raise ConfigError(f"{name} must be the same in every trial of a study; remove it from the search space")
        for name, reference in self.references.items():
            if _RESERVED_NAME.fullmatch(name):
                raise ConfigError(f"reference {name!r}: this name is reserved for search trials; use another name")
            _check_name(f"reference {name!r}", name)
            _check_comparable(name, reference, self.base)
        self._check_comparisons()
        self._check_counting()

    def _check_comparisons(self) -> None:
        if not self.comparisons:
            return
        if self.space.dimensions:
            raise ConfigError(
                "comparisons cannot be combined with a search: make each setting a reference and remove scientific and "
                "nuisance, or remove comparisons"
            )
        settings = {BASE, *self.references}
        if self.base in self.references.values() or BASE in self.references:
            raise ConfigError(
                f"comparisons call the base configuration {BASE!r}: remove or rename the reference that repeats it"
            )
        for question, pairs in self.comparisons.items():
            for one, other in pairs:
                if one == other or not {one, other} <= settings:
                    raise ConfigError(
                        f"comparisons, {question!r}: expected two of {', '.join(sorted(settings))}, "
                        f"got {one!r}, {other!r}"
                    )
            if not pairs:
                raise ConfigError(f"comparisons, {question!r}: expected at least one pair of names")
        if self.replicates < 2:
            raise ConfigError(
                "comparisons need replicates, at least 2: a single run each cannot show the spread between seeds"
            )

    def _check_counting(self) -> None:
        counts = Counts(
            budget=self.base.train.budget_patches,
            every=self.base.evaluation.every_patches,
            batch_sizes=self.batch_sizes,
            rungs=self.rungs,
            halving=self.scheduler in ("successive_halving", "asha"),
        )
        counts.check()

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Every batch size that a trial of this experiment can have, in ascending order."""
        sizes = {config.train.batch_size for config in (self.base, *self.references.values())}
        for dimension in self.space.dimensions:
            if "train.batch_size" in dimension.names:
                if dimension.listed is None:
                    raise ConfigError(
                        "train.batch_size needs listed values (Choice, Grid or Together), got an interval"
                    )
                sizes |= {dimension.settings(value)["train.batch_size"] for value in dimension.listed}
        return tuple(sorted(sizes))

    @property
    def train_kernels(self) -> tuple[str, ...]:
        """Every kernel that produces training LR in a trial of this experiment."""
        kernels = {config.data.train_kernel for config in (self.base, *self.references.values())}
        for dimension in self.space.dimensions:
            if "data.train_kernel" in dimension.names:
                kernels |= {dimension.settings(value)["data.train_kernel"] for value in dimension.listed or ()}
        return tuple(sorted(kernels))

    def describe(self) -> dict[str, Any]:
        """Everything that the result depends on, as plain values. The study's digest is computed from them.

        A replayed journal is part of the question, too. `study.record.course.described` adds it.
        """
        search: dict[str, Any] = {
            "sampler": self.sampler,
            "scheduler": self.scheduler,
            "rungs": list(self.rungs),
            "reduction_factor": float(self.reduction_factor),
            "finalists": self.finalists,
            "replicates": self.replicates,
        }
        if self.comparisons:
            search["comparisons"] = _plain(self.comparisons)
        return {
            "base": _without_seed(self.base),
            "space": {"+".join(d["names"]): d for d in self.space.describe()},
            "references": {name: _without_seed(config) for name, config in self.references.items()},
            "search": search,
            "benchmarks": list(self.benchmarks),
        }


def _without_seed(config: TrialConfig) -> dict[str, Any]:
    return {name: value for name, value in config.recorded().items() if name != "seed"}


def _plain(comparisons: Mapping[str, Sequence[tuple[str, str]]]) -> list[list[Any]]:
    # Rows and not a mapping: MLflow does not allow a question mark in the name of a parameter.
    return [[question, [list(pair) for pair in pairs]] for question, pairs in comparisons.items()]


def _check_name(what: str, name: str) -> None:
    """Raise ConfigError unless the name is one printable line, because tables, figures and sentences show it."""
    if not name.strip() or visible(name) != name:
        raise ConfigError(f"{what}: expected a name that can be printed on one line")


def _check_comparable(name: str, reference: TrialConfig, base: TrialConfig) -> None:
    """Raise ConfigError unless the reference is scored as the other trials of its ranking are (promise 1)."""
    for setting, (value, expected) in differences(reference, base).items():
        if setting in _EQUAL_IN_ALL_TRIALS or setting.startswith("evaluation."):
            raise ConfigError(f"reference {name!r}: {setting} must equal the base config's {expected!r}, got {value!r}")


def available() -> list[str]:
    """The names of the experiments that come with the suite."""
    folder = _folder()
    return sorted(p.stem for p in folder.glob("[!_]*.py") if "\nEXPERIMENT =" in p.read_text("utf-8"))


def _folder() -> Path:
    """The folder of the package `experiments` next to this package, even if the path holds another one first."""
    folder = Path(__file__).resolve().parents[2] / "experiments"
    if not (folder / "__init__.py").is_file():
        raise SuiteError(
            f"the package `experiments` is not in {folder.parent}; run: pip install -c constraints.txt -e ."
        )
    return folder


def load_experiment(name: str) -> tuple[str, Experiment]:
    """Load an experiment; returns its short name and the experiment.

    Args:
        name: a name from `available()`, or the path of a Python file. While the file is executed, it can import the
            modules of its own folder by their names.
    Raises:
        SuiteError: there is no such experiment, the file does not define one, or executing it fails.
        ConfigError: the experiment is not legal.
    """
    bind_experiments(_folder())
    path = _path_of(name)
    spec = importlib.util.spec_from_file_location(f"_experiment_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        sys.modules[spec.name] = module
        with neighbours_of(path):
            spec.loader.exec_module(module)
    except ConfigError as exc:
        raise ConfigError(f"{path.name}: {exc}") from exc
    except (Exception, SystemExit) as exc:  # a user's file can fail in any way
        lines = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == str(path)]
        where = f"experiment {path}, line {lines[-1]}" if lines else f"experiment {path}"
        raise SuiteError(f"{where}: {_unknown_field(exc) or _fault(exc, path)}") from exc
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise SuiteError(f"experiment {path}: expected a module-level EXPERIMENT = Experiment(…)")
    return path.stem, experiment


def _path_of(name: str) -> Path:
    path = Path(name)
    if path.suffix == ".ipynb":
        raise SuiteError(
            f"experiment {name}: expected a Python file, this is a notebook; export it "
            f"(jupyter nbconvert --to script {shlex.quote(name)}) and name the .py file"
        )
    if path.suffix == ".py":
        if path.is_dir():
            raise SuiteError(f"experiment {name}: no such file, this is a folder; name a .py file in it")
        if not path.is_file():
            raise SuiteError(f"experiment {name}: no such file")
        return path
    if name not in available():
        hint = ""
        if path.is_dir() and os.sep in name:
            hint = f"; {name} is a folder, name a .py file in it"
        elif Path(f"{name}.py").is_file():
            hint = f"; there is a file {name}.py here, add the suffix .py"
        raise SuiteError(f"no experiment {name!r}: expected {', '.join(available())}, or the path of a .py file{hint}")
    return _folder() / f"{name}.py"


def _fault(exc: BaseException, path: Path) -> str:
    """What went wrong in a user's file and, for known mistakes, what to do about it."""
    error = f"{type(exc).__name__}: {exc}"
    if isinstance(exc, SystemExit):
        return f"it calls sys.exit({exc.code!r}) while it is loaded; remove that call"
    if isinstance(exc, ImportError) and "relative import" in str(exc):
        return f"{error}; import files in {path.parent} by their names, without a dot: from base import …"
    if isinstance(exc, ModuleNotFoundError) and exc.name and "." not in exc.name:
        return f"{error}; expected an installed package, or {exc.name}.py in {path.parent}"
    if isinstance(exc, SyntaxError | UnicodeError) and "decode" in str(exc):
        return f"{error}; save the file as UTF-8"
    return error


def _unknown_field(exc: BaseException) -> str | None:
    """A suggestion for a field name that a section does not have; None for any other mistake."""
    match = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(exc))
    if not isinstance(exc, TypeError) or match is None:
        return None
    kinds = {kind.__name__: kind for kind in (*SECTIONS.values(), TrialConfig, Experiment)}
    section, name = match.groups()
    if section not in kinds:
        return None
    elsewhere = [other for other, kind in kinds.items() if name in {f.name for f in fields(kind)}]
    if elsewhere:
        return f"{section} has no {name!r}; it belongs to {' or '.join(elsewhere)}"
    names = [f.name for f in fields(kinds[section]) if f.init]
    similar = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"expected some of {', '.join(names)}"
    return f"{section} has no {name!r}; {hint}"
