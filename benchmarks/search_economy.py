"""Every sampler with every scheduler on the recorded grid: what they cost until they find something good.

Usage: search_economy.py --out DIR [--studies 200] [--seed 0]

Rows stand in DIR/search_economy.csv as they come; started again, it goes on with those that are missing. At the end
it prints them as a Markdown table, each beside random search without pruning, and draws DIR/search_economy.png.
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

from study.economy import Row, summarise
from study.experiment import load_experiment
from study.simulation import read, simulate

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


class Result(NamedTuple):
    """A line of DIR/search_economy.csv."""

    sampler: str
    scheduler: str
    costs: list[float]
    """Patches until the goal, of each study; infinite where it was not reached."""
    regret: tuple[float, float, float]
    """At the end of a study [dB]: mean, and its 95 % interval."""
    full: float
    """Trials at the full budget at the end of a study, mean."""


def main() -> None:
    parser = argparse.ArgumentParser(description="the table of samplers and schedulers in docs/SEARCH.md")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--studies", type=int, default=200, help="that end at the goal")
    parser.add_argument("--whole", type=int, default=40, help="studies of 50 trials, whatever they find")
    parser.add_argument("--seed", type=int, default=0, help="of the first simulated study")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "search_economy.csv"
    for sampler, name in itertools.product(args.samplers, SCHEDULERS):
        if any((r.sampler, r.scheduler) == (sampler, name) for r in results(path)):
            continue
        seeds = range(args.seed, args.seed + round(args.studies * SAMPLERS[sampler]))
        to_goal, whole = simulated(sampler, name, seeds, GOAL), simulated(sampler, name, seeds[: args.whole], -1.0)
        with path.open("a", encoding="utf-8") as file:
            costs = " ".join(f"{cost:g}" for cost in to_goal.costs)
            csv.writer(file).writerow([sampler, name, *(f"{dB:.5f}" for dB in whole.regret), whole.full, costs])
        print(sampler, name, to_goal.to_goal, whole.regret, whole.full, flush=True)
    done = results(path)
    print(table(done))
    figure(done).savefig(args.out / "search_economy.png", dpi=110)


def simulated(sampler: str, name: str, seeds: range, goal: float) -> Row:
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
    rows = csv.reader(path.read_text("utf-8").splitlines())
    return [
        Result(row[0], row[1], list(map(float, row[6].split())), (float(row[2]), float(row[3]), float(row[4])),
               float(row[5])) for row in rows
    ]  # fmt: skip


def medians(costs: Sequence[float], seed: int) -> np.ndarray:
    """Of 2,000 bootstrap samples of the studies, the first of the studies themselves."""
    draws = np.random.default_rng(seed).integers(0, len(costs), (2_000, len(costs)))
    draws[0] = np.arange(len(costs))
    found: np.ndarray = np.quantile(np.asarray(costs)[draws], 0.5, axis=1, method="inverted_cdf")
    return found


def table(found: Sequence[Result]) -> str:
    """As Markdown, the cheapest first; shares are of random search without pruning."""
    plain = medians(next(r.costs for r in found if (r.sampler, r.scheduler) == ("random", "none")), 0)
    lines = [
        "| sampler | scheduler | studies | patches to the goal, median (95 %) | of random without pruning (95 %) | "
        "reached | regret at the end [dB] (95 %) | full budget |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, one in enumerate(sorted(found, key=lambda r: medians(r.costs, 0)[0]), 1):
        own = medians(one.costs, number)
        share = own / plain
        lines.append(
            f"| {one.sampler} | {one.scheduler} | {len(one.costs)} | {interval(own, '{:,.0f}')} | "
            f"{interval(share, '{:.0%}')} | {np.isfinite(one.costs).mean():.0%} | "
            f"{one.regret[0]:.3f} ({one.regret[1]:.3f}–{one.regret[2]:.3f}) | {one.full:.1f} |"
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
