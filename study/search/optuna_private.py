"""Two samplers that override private methods of Optuna, which may change in any release.

No other module of this project uses private parts of Optuna; a test reads every file to check this. Each class states
what it relies on and what happens without it. An override that Optuna no longer calls would change proposals without an
error. Both samplers therefore record whether they are called, and `doubts` tests a sampler before a session proposes.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, create_trial

from sr_core.errors import SuiteError

STARTUP_TRIALS = 5
"""Number of random trials before the sampler learns, chosen by simulation (docs/concepts/search.md)."""


class _WatchedSampler(BaseSampler):
    """Records whether Optuna calls the override of a sampler that inherits from this class first."""

    rated = 0
    """How many times Optuna has called the override."""
    ignored = False
    """True once Optuna has made a proposal from its model without calling the override."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        before = self.rated
        proposal = super().sample_relative(study, trial, search_space)  # type: ignore[safe-super]
        self.ignored |= bool(proposal) and self.rated == before
        return proposal


class Tpe(_WatchedSampler, TPESampler):
    """Optuna's TPE, which skips candidates that have already been tried.

    It receives the search space as an argument, because Optuna would compute it from all trials for every proposal.

    Relies on: TPESampler calls `_compute_acquisition_func(samples, below, above)` to rate its candidates, and proposes
    the candidate with the highest rating.
    Without it: TPE proposes points that have been tried. `propose` then asks it up to 20 times and takes the nearest
    point that has not been tried. The study says so in a warning.

    Args:
        seed: of the proposal.
        space: distribution of each dimension that all trials have, by name.
        tried: encoded points to skip, unless all candidates have been tried.
    """

    def __init__(self, seed: int, space: Mapping[str, BaseDistribution], tried: Iterable[Mapping[str, Any]]) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True)
        self._space = {name: d for name, d in sorted(space.items()) if not d.single()}
        self._tried = {tuple(d.to_internal_repr(point[name]) for name, d in self._space.items()) for point in tried}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def _compute_acquisition_func(self, samples: dict[str, Any], *estimators: Any) -> Any:
        self.rated += 1
        candidates = zip(*(samples[name].tolist() for name in self._space), strict=True)
        repeats = [candidate in self._tried for candidate in candidates]
        return np.where(repeats, -np.inf, super()._compute_acquisition_func(samples, *estimators))


class Gp(_WatchedSampler, GPSampler):
    """Optuna's GP, which rates every untried point if these are few enough to list.

    Relies on: GPSampler calls `_optimize_acqf(acqf, best_params)` to choose its proposal; the generator `_rng.rng`; the
    acquisition function's `search_space.get_normalized_params` and `eval_acqf_no_grad`. A comment in Optuna says that
    the method may be removed.
    Without it: the GP optimises over the whole space and proposes points that have been tried. `propose` then asks it
    up to 20 times and takes the nearest point that has not been tried. The study says so in a warning. Without the
    generator or the parts of the acquisition function, no session starts.

    Args:
        seed: of the proposal.
        untried: the encoded points that have not been tried; empty to optimise over the whole space.
    """

    def __init__(self, seed: int, untried: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP_TRIALS)
        self._untried = untried

    def _optimize_acqf(self, acqf: Any, best_params: Any) -> Any:
        self.rated += 1
        if not self._untried:
            return super()._optimize_acqf(acqf, best_params)
        order = self._rng.rng.permutation(len(self._untried))  # ties are broken at random
        points: Any = [self._untried[i] for i in order]
        rows = acqf.search_space.get_normalized_params(points, points)
        return rows[np.argmax(acqf.eval_acqf_no_grad(rows))]


def doubts(sampler: str) -> list[str]:
    """A warning if the installed Optuna ignores the override of this sampler, else an empty list.

    It asks for one proposal in a small space. The answer depends only on the installed packages.

    Raises:
        SuiteError: the sampler cannot propose with this version of Optuna.
    """
    if sampler not in ("tpe", "gp"):
        return []
    space: dict[str, BaseDistribution] = {"x": IntDistribution(0, 3), "y": IntDistribution(0, 3)}
    tried: list[dict[str, Any]] = [{"x": i % 4, "y": i // 4} for i in range(STARTUP_TRIALS + 1)]
    untried: list[dict[str, Any]] = [{"x": 3, "y": 3}, {"x": 0, "y": 3}]

    try:
        tested = Gp(0, untried) if sampler == "gp" else Tpe(0, space, tried)
        _ask(tested, space, tried)
    except Exception as exc:  # any exception here would otherwise be raised by the first proposal of the session
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise SuiteError(
            f"the sampler {sampler!r} cannot propose with Optuna {version('optuna')} ({reason}); install the version "
            "in constraints.txt, or give the experiment another sampler"
        ) from exc
    if not tested.ignored:
        return []
    return [
        f"Optuna {version('optuna')} ignores what this project adds to its sampler {sampler!r}: its proposals differ "
        "from those of the version in constraints.txt"
    ]


def _ask(sampler: Tpe | Gp, space: dict[str, BaseDistribution], tried: Sequence[dict[str, Any]]) -> None:
    """Asks the sampler for one proposal after these trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(
        [create_trial(value=float(i % 3), params=point, distributions=space) for i, point in enumerate(tried)]
    )
    study.ask(space)
