"""What searches cost until they find something good: many simulated studies of each sampler and scheduler."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import numpy as np

from study.question.experiment import Experiment
from study.search.simulation import Course, Table, simulate

HEADER = (
    f"{'sampler':<8} {'scheduler':<19} {'studies':>7}  {'patches to the goal, median (95 %)':<36} {'reached':>7}  "
    f"{'regret [dB], mean (95 %)':<28} {'full budget':>11}"
)
_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EconomyPlan:
    """What is simulated, whichever sampler and scheduler."""

    experiment: Experiment
    table: Table
    rungs: tuple[int, ...]
    reduction_factor: float
    trials: int
    studies: int
    goal: float
    """Distance from the table's best [dB] at which a configuration is good enough."""
    first: int = 0
    """Seed of the first study. Settings are chosen on other seeds than those they are reported on."""

    def with_search(self, sampler: str, scheduler: str) -> Experiment:
        """The experiment as it is simulated: without references and replicates, which are no part of the search."""
        return replace(
            self.experiment,
            references={},
            replicates=0,
            rungs=self.rungs,
            reduction_factor=self.reduction_factor,
            sampler=sampler,  # type: ignore[arg-type]
            scheduler=scheduler,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, slots=True)
class EconomyRow:
    """One sampler with one scheduler over all its simulated studies."""

    sampler: str
    scheduler: str
    costs: tuple[float, ...]
    """Of each study, the patches until the goal; infinite where it was not reached."""
    to_goal: tuple[float, float, float]
    """Patches until the goal: median over studies, and its 95 % bootstrap interval."""
    reached: float
    regret: tuple[float, float, float]
    """At the end: mean [dB], and its 95 % bootstrap interval."""
    full: float
    """Trials at the full budget, mean over studies."""
    trials: float
    """Begun, mean over studies."""

    def line(self, rate: float | None) -> str:
        """A row of the table; with a rate [patches/s] hours stand beside patches."""
        middle, low, high = (f"{patches:,.0f}" if math.isfinite(patches) else "never" for patches in self.to_goal)
        hours = f", {self.to_goal[0] / rate / 3600:.2f} h" if rate and middle != "never" else ""
        goal = f"{middle} ({low} to {high}){hours}"
        regret = "{:.4f} ({:.4f} to {:.4f})".format(*self.regret)
        return (
            f"{self.sampler:<8} {self.scheduler:<19} {len(self.costs):>7}  {goal:<36} {self.reached:>7.0%}  "
            f"{regret:<28} {self.full:>4.1f} of {self.trials:.0f}"
        )


def compare_samplers(
    plan: EconomyPlan,
    samplers: Sequence[str],
    schedulers: Sequence[str],
    *,
    processes: int,
    told: Callable[[str], None],
) -> Iterator[EconomyRow]:
    """A row for each combination as it is done. Their studies have the same seeds."""
    chosen = [(sampler, scheduler) for sampler in samplers for scheduler in schedulers]
    experiments = [plan.with_search(*pair) for pair in chosen]  # an unknown name fails before anything is simulated
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for (sampler, scheduler), experiment in zip(chosen, experiments, strict=True):
            one = partial(_one, experiment, plan.table, plan.trials)
            courses = []
            for course in pool.map(one, range(plan.first, plan.first + plan.studies)):
                courses.append(course)
                told(f"{sampler}, {scheduler}: {len(courses)} of {plan.studies} studies")
            yield summarise(sampler, scheduler, courses, plan.goal)


def _one(experiment: Experiment, table: Table, trials: int, seed: int) -> Course:
    return simulate(experiment, table, seed=seed, trials=trials)


def summarise(sampler: str, scheduler: str, courses: Sequence[Course], goal: float) -> EconomyRow:
    """The row of these courses."""
    cost = np.array([course.patches_to(goal) for course in courses])
    regret = np.array([course.regret[-1] if course.regret else math.nan for course in courses])
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(courses), (_RESAMPLES, len(courses)))
    medians = np.sort(np.quantile(cost[draws], 0.5, axis=1, method="inverted_cdf"))
    means = np.sort(regret[draws].mean(axis=1))
    low, high = round(0.025 * _RESAMPLES), round(0.975 * _RESAMPLES) - 1
    return EconomyRow(
        sampler=sampler,
        scheduler=scheduler,
        costs=tuple(cost.tolist()),
        to_goal=(float(np.quantile(cost, 0.5, method="inverted_cdf")), float(medians[low]), float(medians[high])),
        reached=float(np.isfinite(cost).mean()),
        regret=(float(regret.mean()), float(means[low]), float(means[high])),
        full=float(np.mean([len(course.spent) for course in courses])),
        trials=float(np.mean([course.trials for course in courses])),
    )
