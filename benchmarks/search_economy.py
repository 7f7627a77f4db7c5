"""Measures the cost of every sampler with every scheduler on the recorded grid until they find a good setting.

Usage: search_economy.py [--rows CSV] [--whole 10] [--samplers NAME ...] [--figure PNG]

Each row is written to the CSV as soon as it is known. A later run resumes with the missing rows. At the end the rows
are printed as a Markdown table that compares each with random search without pruning. A second table compares the GP
and TPE combinations. Without arguments the rows are those of curves/search_economy.csv, and nothing is simulated.
"""

import argparse
import csv
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from study.question.experiment import load_experiment
from study.search.economy import EconomyRow, summarise
from study.search.simulation import read, simulate

HERE = Path(__file__).parent
GOAL = 0.02
"""A study reaches the goal with a setting at most this many dB below the best one of the grid."""
SCHEDULERS: dict[str, tuple[str, tuple[int, ...], float]] = {
    "none": ("none", (960,), 2.0),
    "successive_halving, 1/2": ("successive_halving", (960,), 2.0),
    "successive_halving, 1/3": ("successive_halving", (960,), 3.0),
    "asha, 1/2": ("asha", (960,), 2.0),
    "asha, 1/3": ("asha", (960,), 3.0),
}
SAMPLERS = {"random": 1.0, "qmc": 1.0, "grid": 0.5, "tpe": 1.0, "gp": 0.5}
"""Samplers by name, with the fraction of --studies that each gets."""
PAIRED = {("gp", "asha, 1/3"): ("gp", "tpe"), ("tpe", "asha, 1/3"): ("tpe",)}
"""Comparisons over the same seeds: a combination -> the samplers whose combinations it is compared with."""
HEADER = ("sampler", "scheduler", "whole", "regret", "full", "costs")


class Result(NamedTuple):
    """A line of the CSV."""

    sampler: str
    scheduler: str
    costs: list[float]
    """Training patches of each study until the goal; infinite if it was not reached."""
    whole: int
    """Studies that ran to the end. The next two are means over them."""
    regret: float
    """At the end of a study, in dB. It has no interval, because only two sets of curves were recorded."""
    full: float
    """Trials with the full budget at the end of a study."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tables of docs/concepts/search.md.")
    parser.add_argument(
        "--rows", type=Path, default=HERE / "curves" / "search_economy.csv", help="CSV of rows; existing ones are kept"
    )
    parser.add_argument(
        "--studies", type=int, default=200, help="studies that end at the goal; half as many with gp and grid"
    )
    parser.add_argument("--whole", type=int, default=10, help="studies that run to 50 trials in any case")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first simulated study")
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--schedulers", nargs="+", choices=list(SCHEDULERS), default=list(SCHEDULERS))
    parser.add_argument("--figure", type=Path, help="PNG to draw")
    args = parser.parse_args()
    path = args.rows
    for sampler, name in itertools.product(args.samplers, args.schedulers):
        if any((r.sampler, r.scheduler) == (sampler, name) for r in results(path)):
            continue
        seeds = range(args.seed, args.seed + round(args.studies * SAMPLERS[sampler]))
        to_goal = simulated(sampler, name, seeds, GOAL)
        whole = simulated(sampler, name, seeds[: args.whole], -1.0)
        is_new = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(HEADER)
            costs = " ".join(f"{cost:g}" for cost in to_goal.costs)
            writer.writerow([sampler, name, len(whole.costs), f"{whole.regret[0]:.5f}", whole.full, costs])
        print(sampler, name, to_goal.to_goal, whole.regret[0], whole.full, flush=True)

    rows = results(path)
    print(table(rows), differences(rows), sep="\n\n")
    if args.figure:
        figure(rows).savefig(args.figure, dpi=100)


def simulated(sampler: str, name: str, seeds: range, goal: float) -> EconomyRow:
    """Simulates studies of 50 trials with one sampler and one of SCHEDULERS, and returns their summary.

    Args:
        goal: a study ends early this many dB below the best setting. A negative goal is never reached.
    """
    _, experiment = load_experiment(str(HERE / "search_grid.py"))
    table = read(HERE / "curves" / "search_grid.csv")
    scheduler, rungs, factor = SCHEDULERS[name]
    names = {"sampler": sampler, "scheduler": scheduler}
    searched = replace(experiment, rungs=rungs, reduction_factor=factor, **names)  # type: ignore[arg-type]
    courses = [simulate(searched, table, seed=seed, trials=50, goal=goal) for seed in seeds]
    return summarise(sampler, scheduler, courses, GOAL)


def results(path: Path) -> list[Result]:
    """Returns the rows in the file; none if it does not exist."""
    if not path.exists():
        return []
    return [
        Result(
            sampler=row["sampler"],
            scheduler=row["scheduler"],
            costs=[float(cost) for cost in row["costs"].split()],
            whole=int(row["whole"]),
            regret=float(row["regret"]),
            full=float(row["full"]),
        )
        for row in csv.DictReader(path.read_text("utf-8").splitlines())
    ]


def medians(costs: Sequence[float], seed: int, samples: int = 2_000) -> np.ndarray:
    """Returns the medians of bootstrap samples of the studies. The first is the median of the studies themselves."""
    draws = np.random.default_rng(seed).integers(0, len(costs), (samples, len(costs)))
    draws[0] = np.arange(len(costs))
    result: np.ndarray = np.quantile(np.asarray(costs)[draws], 0.5, axis=1, method="inverted_cdf")
    return result


def table(rows: Sequence[Result]) -> str:
    """Returns the rows as a Markdown table, the cheapest first. Costs are also given relative to random search."""
    plain = next((medians(r.costs, 0) for r in rows if (r.sampler, r.scheduler) == ("random", "none")), None)
    lines = [
        "| sampler | scheduler | studies | patches to the goal, median (95 %) | of random without pruning (95 %) | "
        "reached | regret at the end [dB] | full budget |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(sorted(rows, key=lambda r: medians(r.costs, 0)[0]), 1):
        own = medians(row.costs, number)
        share = "" if plain is None else interval(own / plain, "{:.0%}")
        lines.append(
            f"| {row.sampler} | {row.scheduler} | {len(row.costs)} | {interval(own, '{:,.0f}')} | {share} | "
            f"{np.isfinite(row.costs).mean():.0%} | {row.regret:.3f} | {row.full:.1f} |"
        )
    return "\n".join(lines)


def difference(one: Sequence[float], other: Sequence[float]) -> np.ndarray:
    """Returns bootstrap samples of the difference of medians, `one` minus `other`, in patches.

    Only seeds that both have count, and each sample draws the same seeds of both. There are ten times as many samples
    as for the table, because medians come in steps of 960 patches, and an end of the interval can be near 0.
    """
    shared = min(len(one), len(other))
    samples: np.ndarray = medians(one[:shared], 0, 20_000) - medians(other[:shared], 0, 20_000)
    return samples


def differences(rows: Sequence[Result]) -> str:
    """Returns the comparisons of PAIRED as a Markdown table. A difference is significant if its interval excludes 0."""
    of = {(r.sampler, r.scheduler): r.costs for r in rows}
    lines = [
        "| combination | against | same studies | difference of their medians [patches] (95 %) | significant |",
        "|---|---|---|---|---|",
    ]
    for one, samplers in PAIRED.items():
        for other, name in itertools.product(samplers, SCHEDULERS):
            if one == (other, name) or one not in of or (other, name) not in of:
                continue
            samples = difference(of[one], of[other, name])
            low, high = np.quantile(samples, (0.025, 0.975), method="inverted_cdf")
            studies = min(len(of[one]), len(of[other, name]))
            text = interval(samples, "{:,.0f}").replace("–", " to ").replace("-", "−")
            significant = "yes" if low > 0 or high < 0 else "no"
            lines.append(f"| {one[0]}, {one[1]} | {other}, {name} | {studies} | {text} | {significant} |")
    return "\n".join(lines)


def interval(values: np.ndarray, form: str) -> str:
    """Returns the first value and the 95 % interval of all values as text. Infinity is written as `never`.

    Args:
        form: a format string for one value.
    """
    low, high = np.quantile(values, (0.025, 0.975), method="inverted_cdf")
    middle, low, high = (form.format(v) if math.isfinite(v) else "never" for v in (values[0], low, high))
    return f"{middle} ({low}–{high})"


def figure(rows: Sequence[Result]) -> Figure:
    """Draws the fraction of studies that have reached the goal over training patches, with a panel per sampler."""
    samplers = [name for name in SAMPLERS if any(r.sampler == name for r in rows)]
    drawn = Figure(figsize=(2.4 * len(samplers) + 0.6, 3.4), layout="constrained")
    colours = dict(zip(SCHEDULERS, ("0.4", "#E69F00", "#D55E00", "#56B4E9", "#0072B2"), strict=True))
    for axes, sampler in zip(np.atleast_1d(drawn.subplots(1, len(samplers), sharey=True)), samplers, strict=True):
        for row in rows:
            if row.sampler == sampler:
                costs = np.sort(row.costs)
                share = np.arange(1, len(costs) + 1) / len(costs)
                axes.step(costs / 1_000, share, where="post", color=colours[row.scheduler], label=row.scheduler)
        axes.set(title=sampler, xlim=(0, 96), ylim=(0, 1), xlabel="thousand patches")
        axes.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
        axes.grid(alpha=0.2)
    drawn.axes[0].set_ylabel("studies that reached the goal")
    handles, labels = drawn.axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=5, fontsize="small")
    return drawn


if __name__ == "__main__":
    main()
