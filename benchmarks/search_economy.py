"""Every sampler with every scheduler on the recorded grid: what they cost until they find something good.

Usage: search_economy.py [--rows CSV] [--whole 10] [--samplers NAME ...] [--figure PNG]

Rows stand in the CSV as they come; started again, it goes on with those that are missing. At the end it prints them as
a Markdown table, each beside random search without pruning, then how far GP and TPE combinations are apart. Without
arguments these are the rows of curves/search_economy.csv, and nothing is simulated.
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
"""dB below the best of the table."""
SCHEDULERS: dict[str, tuple[str, tuple[int, ...], float]] = {
    "none": ("none", (960,), 2.0),
    "successive_halving, 1/2": ("successive_halving", (960,), 2.0),
    "successive_halving, 1/3": ("successive_halving", (960,), 3.0),
    "asha, 1/2": ("asha", (960,), 2.0),
    "asha, 1/3": ("asha", (960,), 3.0),
}
SAMPLERS = {"random": 1.0, "qmc": 1.0, "grid": 0.5, "tpe": 1.0, "gp": 0.5}
"""By name, with the share of the studies that it gets."""
PAIRED = {("gp", "asha, 1/3"): ("gp", "tpe"), ("tpe", "asha, 1/3"): ("tpe",)}
"""What is compared over the same seeds: a combination with the others of these samplers."""
HEADER = ("sampler", "scheduler", "whole", "regret", "full", "costs")


class Result(NamedTuple):
    """A line of the CSV."""

    sampler: str
    scheduler: str
    costs: list[float]
    """Patches until the goal, of each study; infinite where it was not reached."""
    whole: int
    """Studies that ran to the end: what the next two are means over."""
    regret: float
    """At the end of a study [dB]. Without interval: all studies see one of only two recorded curve sets."""
    full: float
    """Trials at the full budget at the end of a study."""


def main() -> None:
    parser = argparse.ArgumentParser(description="the table of samplers and schedulers in docs/SEARCH.md")
    parser.add_argument(
        "--rows", type=Path, default=HERE / "curves" / "search_economy.csv", help="those there are kept"
    )
    parser.add_argument("--studies", type=int, default=200, help="that end at the goal; half as many with gp and grid")
    parser.add_argument("--whole", type=int, default=10, help="of them run to 50 trials, whatever they find")
    parser.add_argument("--seed", type=int, default=0, help="of the first simulated study")
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--schedulers", nargs="+", choices=list(SCHEDULERS), default=list(SCHEDULERS))
    parser.add_argument("--figure", type=Path, help="PNG to draw")
    args = parser.parse_args()
    path = args.rows
    for sampler, name in itertools.product(args.samplers, args.schedulers):
        if any((r.sampler, r.scheduler) == (sampler, name) for r in results(path)):
            continue
        seeds = range(args.seed, args.seed + round(args.studies * SAMPLERS[sampler]))
        to_goal, whole = simulated(sampler, name, seeds, GOAL), simulated(sampler, name, seeds[: args.whole], -1.0)
        new = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(HEADER)
            costs = " ".join(f"{cost:g}" for cost in to_goal.costs)
            writer.writerow([sampler, name, len(whole.costs), f"{whole.regret[0]:.5f}", whole.full, costs])
        print(sampler, name, to_goal.to_goal, whole.regret[0], whole.full, flush=True)
    done = results(path)
    print(table(done), differences(done), sep="\n\n")
    if args.figure:
        figure(done).savefig(args.figure, dpi=100)


def simulated(sampler: str, name: str, seeds: range, goal: float) -> EconomyRow:
    """Studies of 50 trials with one sampler and one of SCHEDULERS; they end early at the goal [dB] if there is one."""
    experiment, table = load_experiment(str(HERE / "search_grid.py"))[1], read(HERE / "curves" / "search_grid.csv")
    scheduler, rungs, factor = SCHEDULERS[name]
    names = {"sampler": sampler, "scheduler": scheduler}
    searched = replace(experiment, rungs=rungs, reduction_factor=factor, **names)  # type: ignore[arg-type]
    courses = [simulate(searched, table, seed=seed, trials=50, goal=goal) for seed in seeds]
    return summarise(sampler, scheduler, courses, GOAL)


def results(path: Path) -> list[Result]:
    """What the file holds so far."""
    if not path.exists():
        return []
    return [
        Result(row["sampler"], row["scheduler"], list(map(float, row["costs"].split())), int(row["whole"]),
               float(row["regret"]), float(row["full"])) for row in csv.DictReader(path.read_text("utf-8").splitlines())
    ]  # fmt: skip


def medians(costs: Sequence[float], seed: int, samples: int = 2_000) -> np.ndarray:
    """Of that many bootstrap samples of the studies, the first of the studies themselves."""
    draws = np.random.default_rng(seed).integers(0, len(costs), (samples, len(costs)))
    draws[0] = np.arange(len(costs))
    found: np.ndarray = np.quantile(np.asarray(costs)[draws], 0.5, axis=1, method="inverted_cdf")
    return found


def table(found: Sequence[Result]) -> str:
    """As Markdown, the cheapest first; shares are of random search without pruning."""
    plain = next((medians(r.costs, 0) for r in found if (r.sampler, r.scheduler) == ("random", "none")), None)
    lines = [
        "| sampler | scheduler | studies | patches to the goal, median (95 %) | of random without pruning (95 %) | "
        "reached | regret at the end [dB] | full budget |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(sorted(found, key=lambda r: medians(r.costs, 0)[0]), 1):
        own = medians(one.costs, number)
        share = "" if plain is None else interval(own / plain, "{:.0%}")
        lines.append(
            f"| {one.sampler} | {one.scheduler} | {len(one.costs)} | {interval(own, '{:,.0f}')} | {share} | "
            f"{np.isfinite(one.costs).mean():.0%} | {one.regret:.3f} | {one.full:.1f} |"
        )
    return "\n".join(lines)


def difference(one: Sequence[float], other: Sequence[float]) -> np.ndarray:
    """Of medians [patches], one minus other over the seeds that both have; each sample draws the same seeds of both.

    Ten times the samples of the table: medians come in steps of 960 patches, so an end of the interval can be near 0.
    """
    shared = min(len(one), len(other))
    found: np.ndarray = medians(one[:shared], 0, 20_000) - medians(other[:shared], 0, 20_000)
    return found


def differences(found: Sequence[Result]) -> str:
    """Of each combination in PAIRED from others, as Markdown; it is told apart where the interval is without 0."""
    of = {(r.sampler, r.scheduler): r.costs for r in found}
    lines = [
        "| combination | against | same studies | difference of their medians [patches] (95 %) | told apart |",
        "|---|---|---|---|---|",
    ]
    for one, samplers in PAIRED.items():
        for other, name in itertools.product(samplers, SCHEDULERS):
            if one == (other, name) or one not in of or (other, name) not in of:
                continue
            apart = difference(of[one], of[other, name])
            low, high = np.quantile(apart, (0.025, 0.975), method="inverted_cdf")
            studies, shown = min(len(of[one]), len(of[other, name])), interval(apart, "{:,.0f}")
            lines.append(
                f"| {one[0]}, {one[1]} | {other}, {name} | {studies} | "
                f"{shown.replace('–', ' to ').replace('-', '−')} | {'yes' if low > 0 or high < 0 else 'no'} |"
            )
    return "\n".join(lines)


def interval(values: np.ndarray, form: str) -> str:
    low, high = np.quantile(values, (0.025, 0.975), method="inverted_cdf")
    middle, low, high = (form.format(v) if math.isfinite(v) else "never" for v in (values[0], low, high))
    return f"{middle} ({low}–{high})"


def figure(found: Sequence[Result]) -> Figure:
    """Share of the studies that had reached the goal after so many patches, a panel for each sampler."""
    samplers = [name for name in SAMPLERS if any(r.sampler == name for r in found)]
    drawn = Figure(figsize=(2.4 * len(samplers) + 0.6, 3.4), layout="constrained")
    colours = dict(zip(SCHEDULERS, ("0.4", "#E69F00", "#D55E00", "#56B4E9", "#0072B2"), strict=True))
    for axes, sampler in zip(np.atleast_1d(drawn.subplots(1, len(samplers), sharey=True)), samplers, strict=True):
        for one in found:
            if one.sampler == sampler:
                costs = np.sort(one.costs)
                share = np.arange(1, len(costs) + 1) / len(costs)
                axes.step(costs / 1_000, share, where="post", color=colours[one.scheduler], label=one.scheduler)
        axes.set(title=sampler, xlim=(0, 96), ylim=(0, 1), xlabel="thousand patches")
        axes.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
        axes.grid(alpha=0.2)
    drawn.axes[0].set_ylabel("studies that reached the goal")
    handles, labels = drawn.axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=5, fontsize="small")
    return drawn


if __name__ == "__main__":
    main()
