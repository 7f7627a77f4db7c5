"""The parts of Optuna that Optuna does not promise to keep: two samplers that override private methods.

No other module of this project touches such a part; a test reads every file for it. Each class says what it leans on
and what happens without it. An override that Optuna no longer calls would change proposals without an error. So both
samplers notice that, and `doubts` asks both of them before a session proposes anything.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import GPSampler, TPESampler
from optuna.trial import FrozenTrial, create_trial

from sr_core.errors import SuiteError

STARTUP_TRIALS = 5
"""Random trials before the sampler learns: chosen by simulation (docs/SEARCH.md)."""


class Tpe(TPESampler):
    """Optuna's TPE, told which dimensions all trials have: it would find that out from a thousand trials each time.

    Among its candidates it passes over points that were tried.

    Leans on: TPESampler calls `_compute_acquisition_func(samples, below, above)` to rate its candidates, and proposes
    the one that it rates highest.
    Without it: TPE proposes points that were tried. `propose` then asks it up to 20 times, and takes the nearest point
    that was not tried. The study says so in a warning.

    Args:
        tried: encoded points to pass over as long as one of the candidates is another.
    """

    def __init__(self, seed: int, space: Mapping[str, BaseDistribution], tried: Iterable[Mapping[str, Any]]) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True)
        self._space = {name: d for name, d in sorted(space.items()) if not d.single()}
        self._tried = {tuple(d.to_internal_repr(point[name]) for name, d in self._space.items()) for point in tried}
        self.rated = 0
        """How often Optuna called the override."""
        self.ignored = False
        """Whether Optuna proposed from its model without calling the override."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        before = self.rated
        proposal = super().sample_relative(study, trial, search_space)
        self.ignored |= bool(proposal) and self.rated == before
        return proposal

    def _compute_acquisition_func(self, samples: dict[str, Any], *estimators: Any) -> Any:
        self.rated += 1
        candidates = zip(*(samples[name].tolist() for name in self._space), strict=True)
        repeats = [candidate in self._tried for candidate in candidates]
        return np.where(repeats, -np.inf, super()._compute_acquisition_func(samples, *estimators))


class Gp(GPSampler):
    """Optuna's GP; where what is left to try is a short list, it looks at all of it.

    Leans on: GPSampler calls `_optimize_acqf(acqf, best_params)` to choose its proposal; the generator `_rng.rng`; the
    acquisition function's `search_space.get_normalized_params` and `eval_acqf_no_grad`. Optuna's own comment at the
    method says that it may be removed.
    Without it: the GP climbs through the whole space and proposes points that were tried. `propose` then asks it up to
    20 times, and takes the nearest point that was not tried. The study says so in a warning. Without the generator or
    the parts of the acquisition function, no session begins.

    Args:
        untried: the encoded points left, or none to climb through the whole space.
    """

    def __init__(self, seed: int, untried: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP_TRIALS)
        self._untried = untried
        self.rated = 0
        """How often Optuna called the override."""
        self.ignored = False
        """Whether Optuna proposed from its model without calling the override."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        before = self.rated
        proposal = super().sample_relative(study, trial, search_space)
        self.ignored |= bool(proposal) and self.rated == before
        return proposal

    def _optimize_acqf(self, acqf: Any, best_params: Any) -> Any:
        self.rated += 1
        if not self._untried:
            return super()._optimize_acqf(acqf, best_params)
        places = self._rng.rng.permutation(len(self._untried))  # so that of equal ones any may come
        points: Any = [self._untried[i] for i in places]
        rows = acqf.search_space.get_normalized_params(points, points)
        return rows[np.argmax(acqf.eval_acqf_no_grad(rows))]


def doubts(sampler: str) -> list[str]:
    """Returns what to warn of before this sampler proposes: that the installed Optuna ignores an override above.

    Asks for one proposal in a small space. Its answer depends on nothing but the installed packages.

    Raises:
        SuiteError: the sampler cannot propose with this version of Optuna.
    """
    if sampler not in ("tpe", "gp"):
        return []
    space: dict[str, BaseDistribution] = {"x": IntDistribution(0, 3), "y": IntDistribution(0, 3)}
    tried: list[dict[str, Any]] = [{"x": i % 4, "y": i // 4} for i in range(STARTUP_TRIALS + 1)]
    untried: list[dict[str, Any]] = [{"x": 3, "y": 3}, {"x": 0, "y": 3}]

    try:
        chosen = Gp(0, untried) if sampler == "gp" else Tpe(0, space, tried)
        _ask(chosen, space, tried)
    except Exception as exc:  # whatever Optuna raises, the first proposal would raise it in the middle of a session
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise SuiteError(
            f"the sampler {sampler!r} cannot propose with Optuna {version('optuna')} ({reason}); install the version "
            "that constraints.txt names, or give the experiment another sampler"
        ) from exc
    if not chosen.ignored:
        return []
    return [
        f"Optuna {version('optuna')} ignores what this project adds to its sampler {sampler!r}: its proposals differ "
        "from those of the version that constraints.txt names"
    ]


def _ask(sampler: Tpe | Gp, space: dict[str, BaseDistribution], tried: Sequence[dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(
        [create_trial(value=float(i % 3), params=point, distributions=space) for i, point in enumerate(tried)]
    )
    study.ask(space)
