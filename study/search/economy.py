"""The cost of finding a good configuration: many simulated studies with each sampler and scheduler."""

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
    f"{'sampler':<8} {'scheduler':<19} {'studies':>7}  {'patches to the goal, median (95% CI)':<36} {'reached':>7}  "
    f"{'regret [dB], mean (95% CI)':<28} {'full budget':>11}"
)
BOOTSTRAP_SAMPLES = 2_000
"""Bootstrap samples of the studies for each confidence interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EconomyPlan:
    """What every simulated search has in common, for all samplers and schedulers."""

    experiment: Experiment
    table: Table
    rungs: tuple[int, ...]
    reduction_factor: float
    trials: int
    """Number of trials of a study."""
    studies: int
    """Number of studies for each sampler and scheduler."""
    goal: float
    """A configuration is good enough if its score is at most this much below the best of the table [dB]."""
    first: int = 0
    """Seed of the first study. Report settings on other seeds than those they were chosen on."""

    def with_search(self, sampler: str, scheduler: str) -> Experiment:
        """The experiment with this sampler and scheduler, without references and replicates."""
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
    """The results of one sampler with one scheduler over all its simulated studies."""

    sampler: str
    scheduler: str
    costs: tuple[float, ...]
    """Patches until the goal, for each study; infinite if a study did not reach it."""
    to_goal: tuple[float, float, float]
    """Patches until the goal: median over studies, and its 95% bootstrap confidence interval (low, high)."""
    reached: float
    """Share of the studies that reached the goal."""
    regret: tuple[float, float, float]
    """Regret at the end of a study [dB]: mean over studies, and its 95% bootstrap confidence interval (low, high)."""
    full: float
    """Number of trials with the full budget, mean over studies."""
    trials: float
    """Number of trials, mean over studies."""

    def line(self, rate: float | None) -> str:
        """A row of the table below HEADER.

        Args:
            rate: patches per second of one slot, to give hours as well as patches.
        """
        median, low, high = (f"{patches:,.0f}" if math.isfinite(patches) else "never" for patches in self.to_goal)
        goal = f"{median} ({low} to {high})"
        if rate and median != "never":
            goal += f", {self.to_goal[0] / rate / 3600:.2f} h"
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
    report: Callable[[str], None],
) -> Iterator[EconomyRow]:
    """Simulates every combination and yields a row when its studies are complete. All have the same seeds.

    Args:
        processes: number of studies simulated at once.
        report: is called with a line of progress after each study.
    Raises:
        ConfigError: a sampler or scheduler is unknown. Nothing has been simulated then.
    """
    combinations = [(sampler, scheduler) for sampler in samplers for scheduler in schedulers]
    experiments = [plan.with_search(sampler, scheduler) for sampler, scheduler in combinations]
    seeds = range(plan.first, plan.first + plan.studies)

    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for (sampler, scheduler), experiment in zip(combinations, experiments, strict=True):
            simulate_seed = partial(_simulate_seed, experiment, plan.table, plan.trials)
            courses = []
            for course in pool.map(simulate_seed, seeds):
                courses.append(course)
                report(f"{sampler}, {scheduler}: {len(courses)} of {plan.studies} studies")
            yield summarise(sampler, scheduler, courses, plan.goal)


def _simulate_seed(experiment: Experiment, table: Table, trials: int, seed: int) -> Course:
    return simulate(experiment, table, seed=seed, trials=trials)


def summarise(sampler: str, scheduler: str, courses: Sequence[Course], goal: float) -> EconomyRow:
    """The row that summarises these simulated searches.

    Args:
        goal: distance from the best of the table [dB].
    """
    cost = np.array([course.patches_to(goal) for course in courses])
    regret = np.array([course.regret[-1] if course.regret else math.nan for course in courses])
    generator = np.random.default_rng(0)
    draws = generator.integers(0, len(courses), (BOOTSTRAP_SAMPLES, len(courses)))
    medians = np.sort(np.quantile(cost[draws], 0.5, axis=1, method="inverted_cdf"))
    means = np.sort(regret[draws].mean(axis=1))
    low = round(0.025 * BOOTSTRAP_SAMPLES)
    high = round(0.975 * BOOTSTRAP_SAMPLES) - 1

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
