"""An experiment: the question, as a file. Loading one checks all that can be checked before the first trial."""

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
"""The name of an experiment's base configuration among the settings that it compares."""

_TAKEN = re.compile(r"(finalist|trial) \d+")
_THE_SAME_FOR_ALL = ("train.budget_patches", "data.scale", "train.engine", "train.precision", "train.deterministic")
"""With the evaluation section, what makes trials comparable (contract 1)."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What to search, on what base, and how trials are compared on the way."""

    question: str
    """In words; printed and recorded."""
    base: TrialConfig
    """Every value that no range moves, among them budget, evaluation and the study seed."""
    scientific: Ranges = field(default_factory=dict)
    """Ranges that are the question: each listed choice becomes an arm with a search of its own."""
    nuisance: Ranges = field(default_factory=dict)
    """Ranges tuned so that the comparison is fair."""
    references: Mapping[str, TrialConfig] = field(default_factory=dict)
    """Complete configurations by name, run first and never pruned. They take the study's seed."""
    sampler: SamplerName = "tpe"
    scheduler: SchedulerName = "successive_halving"
    rungs: tuple[int, ...] = ()
    """Patch counts below the budget at which trials are compared, ascending."""
    reduction_factor: float = 3.0
    """At a rung, the best 1 / reduction_factor of the trials that reached it go on."""
    replay: Path | None = None
    """The journal whose proposals the sampler "replay" makes again, and whose prunings the scheduler "replay"."""
    finalists: int = 1
    """So many of the best search trials are trained again after the search, the references beside them."""
    replicates: int = 3
    """Fresh seeds for each of them, the same for all; 0 saves that time and leaves a ranking without a verdict."""
    comparisons: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """Questions about settings named beforehand: in words, and the pairs to compare. Each name is a reference's, or
    `base`; nothing is searched, every one of them is trained with the study's seed and with `replicates` fresh ones."""
    benchmarks: tuple[str, ...] = ()
    """Test sets reported at the end, never steering; found under --data as DIR/<set>/HR."""
    space: Space = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", build_space(self.base, self.scientific, self.nuisance))
        if self.sampler not in get_args(SamplerName):
            raise ConfigError(f"sampler must be one of {', '.join(get_args(SamplerName))}, got {self.sampler!r}")
        if self.sampler == "grid" and self.space.size is None:
            raise ConfigError(
                'sampler "grid" needs listed values or whole numbers: a Float has no last one; take "qmc"'
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
                f"replicates must be 0 (no verdict) or at least 2 (one seed tells no noise), got {self.replicates!r}"
            )
        for name in self.space.names:
            if name in _THE_SAME_FOR_ALL or name.startswith("evaluation."):
                raise ConfigError(f"{name} is the same for every trial of a study; take it out of the search space")
        for name, reference in self.references.items():
            if _TAKEN.fullmatch(name):
                raise ConfigError(f"reference {name!r}: trials of the search are called so; give it another name")
            _check_name(f"reference {name!r}", name)
            _check_comparable(name, reference, self.base)
        self._check_comparisons()
        self._check_counting()

    def _check_comparisons(self) -> None:
        if not self.comparisons:
            return
        if self.space.dimensions:
            raise ConfigError(
                "comparisons are between settings named beforehand: make each a reference and leave out scientific and "
                "nuisance, or leave out comparisons"
            )
        known = {BASE, *self.references}
        if self.base in self.references.values() or BASE in self.references:
            raise ConfigError(f"comparisons call the base configuration {BASE!r}: let no reference repeat it")
        for question, pairs in self.comparisons.items():
            for one, other in pairs:
                if one == other or not {one, other} <= known:
                    raise ConfigError(
                        f"comparisons, {question!r}: expected two of {', '.join(sorted(known))}, got {one!r}, {other!r}"
                    )
            if not pairs:
                raise ConfigError(f"comparisons, {question!r}: expected at least one pair of names")
        if self.replicates < 2:
            raise ConfigError("comparisons need replicates, at least 2: one run each tells no noise")

    def _check_counting(self) -> None:
        train, evaluation = self.base.train, self.base.evaluation
        halving = self.scheduler in ("successive_halving", "asha")
        Counts(train.budget_patches, evaluation.every_patches, self.batch_sizes, self.rungs, halving).check()

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Every batch size that a trial of this experiment may have, ascending."""
        sizes = {config.train.batch_size for config in (self.base, *self.references.values())}
        for dimension in self.space.dimensions:
            if "train.batch_size" in dimension.names:
                if dimension.listed is None:
                    raise ConfigError("train.batch_size needs listed values (Choice, Grid, Together), no interval")
                sizes |= {dimension.settings(value)["train.batch_size"] for value in dimension.listed}
        return tuple(sorted(sizes))

    @property
    def train_kernels(self) -> tuple[str, ...]:
        """Every kernel that makes training LR in a trial of this experiment."""
        kernels = {config.data.train_kernel for config in (self.base, *self.references.values())}
        for dimension in self.space.dimensions:
            if "data.train_kernel" in dimension.names:
                kernels |= {dimension.settings(value)["data.train_kernel"] for value in dimension.listed or ()}
        return tuple(sorted(kernels))

    def describe(self) -> dict[str, Any]:
        """All that the answer depends on, as plain values: what the study's digest is taken over.

        A replayed journal is part of the question too: `study.record.course.described` adds it.
        """
        return {
            "base": {k: v for k, v in self.base.recorded().items() if k != "seed"},
            "space": {"+".join(d["names"]): d for d in self.space.describe()},
            "references": {
                name: {k: v for k, v in config.recorded().items() if k != "seed"}
                for name, config in self.references.items()
            },
            "search": {
                "sampler": self.sampler,
                "scheduler": self.scheduler,
                "rungs": list(self.rungs),
                "reduction_factor": float(self.reduction_factor),
                "finalists": self.finalists,
                "replicates": self.replicates,
                **({"comparisons": _plain(self.comparisons)} if self.comparisons else {}),
            },
            "benchmarks": list(self.benchmarks),
        }


def _plain(comparisons: Mapping[str, Sequence[tuple[str, str]]]) -> list[list[Any]]:
    # Rows, for MLflow allows no question mark in a parameter's name.
    return [[question, [list(pair) for pair in pairs]] for question, pairs in comparisons.items()]


def _check_name(what: str, name: str) -> None:
    """Names stand in tables, figures and sentences: one line of text."""
    if not name.strip() or visible(name) != name:
        raise ConfigError(f"{what}: expected a name that can be printed on one line")


def _check_comparable(name: str, reference: TrialConfig, base: TrialConfig) -> None:
    """A reference stands in the same ranking, so it is scored at the same counts by the same ruler."""
    for what, (one, other) in differences(reference, base).items():
        if what in _THE_SAME_FOR_ALL or what.startswith("evaluation."):
            raise ConfigError(f"reference {name!r}: {what} must equal the base config's {other!r}, got {one!r}")


def available() -> list[str]:
    """Names of the experiments that come with the suite."""
    folder = _folder()
    return sorted(p.stem for p in folder.glob("[!_]*.py") if "\nEXPERIMENT =" in p.read_text("utf-8"))


def _folder() -> Path:
    """The package `experiments`, which lies next to this one: never the first folder of that name on the path."""
    folder = Path(__file__).resolve().parents[2] / "experiments"
    if not (folder / "__init__.py").is_file():
        raise SuiteError(
            f"the package `experiments` is not in {folder.parent}; run: pip install -c constraints.txt -e ."
        )
    return folder


def load_experiment(name: str) -> tuple[str, Experiment]:
    """(short name, experiment) for a name of `available()` or the path of a Python file.

    While a file is executed, it may import the modules of its own folder by their names.

    Raises:
        SuiteError: there is no such experiment, the file defines none, or it fails to run.
        ConfigError: the experiment asks for something illegal.
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
    except (Exception, SystemExit) as exc:  # a user's file may fail in any way; whatever it is belongs to that file
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
            f"experiment {name}: expected a Python file, this is a notebook; export it, "
            f"jupyter nbconvert --to script {shlex.quote(name)}, and name the .py file"
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
            hint = f"; there is a file {name}.py here, add its suffix"
        raise SuiteError(f"no experiment {name!r}: expected {', '.join(available())}, or the path of a .py file{hint}")
    return _folder() / f"{name}.py"


def _fault(exc: BaseException, path: Path) -> str:
    """What went wrong in a user's file, and what to do where that is known."""
    told = f"{type(exc).__name__}: {exc}"
    if isinstance(exc, SystemExit):
        return f"it calls sys.exit({exc.code!r}) while it is loaded; remove that"
    if isinstance(exc, ImportError) and "relative import" in str(exc):
        return f"{told}; files in {path.parent} are imported by their names alone: from base import …, without a dot"
    if isinstance(exc, ModuleNotFoundError) and exc.name and "." not in exc.name:
        return f"{told}; expected an installed package, or {exc.name}.py in {path.parent}"
    if isinstance(exc, SyntaxError | UnicodeError) and "decode" in str(exc):
        return f"{told}; save the file as UTF-8"
    return told


def _unknown_field(exc: BaseException) -> str | None:
    """What a name that a section does not have was meant to be; None where it is another mistake."""
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(exc))
    if not isinstance(exc, TypeError) or found is None:
        return None
    kinds = {kind.__name__: kind for kind in (*SECTIONS.values(), TrialConfig, Experiment)}
    section, name = found.groups()
    if section not in kinds:
        return None
    elsewhere = [other for other, kind in kinds.items() if name in {f.name for f in fields(kind)}]
    if elsewhere:
        return f"{section} has no {name!r}; it belongs to {' or '.join(elsewhere)}"
    known = [f.name for f in fields(kinds[section]) if f.init]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else f"expected some of {', '.join(known)}"
    return f"{section} has no {name!r}; {meant}"
