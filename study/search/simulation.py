"""Searches simulated on recorded learning curves: the real sampler and scheduler, without training.

A simulated study has one slot. Its curves come from a table that holds every configuration of the space. If the
recorded study tried only some of them, a model is fitted to its curves. Its prediction at each patch count is a sum of
one effect for each value of each dimension (ridge regression), plus the residual curve of a recorded trial, drawn at
random for each configuration.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sr_core.errors import SuiteError
from sr_core.seed import child_seed
from study.question.experiment import Experiment
from study.question.space import Space
from study.record import events as ev
from study.record.state import OBJECTIVE, StudyState, TrialState
from study.search.policy import Start, consequence, next_step

Curve = tuple[float, ...]
"""Objective [dB] at each validation; the last validation is at the full budget."""
RIDGE_PENALTY = 1.0


@dataclass(frozen=True, slots=True)
class Table:
    """Recorded curves that share one budget and one interval between validations."""

    names: tuple[str, ...]
    """Dotted names of the swept hyperparameters."""
    every: int
    """Patches between two validations."""
    curves: Mapping[int, Mapping[tuple[str, ...], Curve]]
    """The curves by study seed, then by the values of `names` as text."""

    def key(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The key of a configuration in `curves`, from its values by dotted name."""
        return tuple(text(values[name]) for name in self.names)

    @property
    def truth(self) -> dict[tuple[str, ...], float]:
        """Full-budget score of each configuration that has a curve for every seed: the mean over seeds [dB]."""
        keys = set.intersection(*(set(curves) for curves in self.curves.values()))
        return {key: float(np.mean([curves[key][-1] for curves in self.curves.values()])) for key in keys}


def text(value: Any) -> str:
    """A value as a table writes it."""
    return f"{float(value):g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def record(states: Iterable[StudyState]) -> Table:
    """A table of the finished search trials of studies that differ only in their seed.

    Raises:
        SuiteError: a study has no finished search trial, or trials were validated at different patch counts.
    """
    names: tuple[str, ...] = ()
    curves: dict[int, dict[tuple[str, ...], Curve]] = {}
    counts: set[tuple[int, ...]] = set()
    for state in states:
        finished = [t for t in state.trials.values() if t.status == "finished" and t.proposed.role == "search"]
        if state.opened is None or not finished:
            raise SuiteError("a study without a finished search trial has no curves to replay")
        names = tuple(n for d in state.opened.question["space"].values() for n in d["names"])
        seed_curves = curves.setdefault(state.opened.seed, {})
        for trial in finished:
            key = tuple(text(trial.proposed.values[name]) for name in names)
            seed_curves[key] = tuple(p.scores[OBJECTIVE] for p in trial.curve)
            counts.add(tuple(p.patches for p in trial.curve))
    if len(counts) != 1:
        raise SuiteError(f"curves with validations at different patch counts cannot be replayed: {sorted(counts)[:2]}")
    return Table(names, counts.pop()[0], curves)


def write(table: Table) -> str:
    """The table as CSV. The columns: seed, the swept values, then the score [dB] at each validation.

    The header of a score column is the number of patches.
    """
    validations = len(next(iter(next(iter(table.curves.values())).values())))
    header = ["seed", *table.names, *(str(table.every * (i + 1)) for i in range(validations))]
    lines = [",".join(header)]
    for seed, seed_curves in table.curves.items():
        for key, curve in sorted(seed_curves.items()):
            lines.append(",".join([str(seed), *key, *(f"{score:.4f}" for score in curve)]))
    return "\n".join(lines) + "\n"


def read(path: Path) -> Table:
    """Reads a table that `write` wrote.

    Raises:
        SuiteError: the file cannot be read, or it is not such a table.
    """
    try:
        header, *rows = list(csv.reader(path.read_text("utf-8").splitlines()))
        width = next(i for i, name in enumerate(header) if name.isdecimal())
        curves: dict[int, dict[tuple[str, ...], Curve]] = {}
        for row in rows:
            curves.setdefault(int(row[0]), {})[tuple(row[1:width])] = tuple(map(float, row[width:]))
        return Table(tuple(header[1:width]), int(header[width]), curves)
    except (OSError, ValueError, StopIteration) as exc:
        raise SuiteError(f"{path}: expected a table of curves written by `study.simulate --record` ({exc})") from exc


def complete(table: Table, space: Space) -> Table:
    """A table with a curve for every configuration of the space.

    Returns:
        The given table if it is complete. Otherwise missing curves are drawn from a model fitted to the recorded ones.
    Raises:
        SuiteError: the table belongs to another space, or the space is not finite.
    """
    if set(table.names) != set(space.names):
        raise SuiteError(
            f"curves over {', '.join(table.names)} cannot be used for a space of {', '.join(space.names)}; "
            "give the --experiment that they were recorded with"
        )
    cells = [table.key(space.settings(cell)) for cell in space.cells()] if space.size is not None else []
    if not cells:
        raise SuiteError("only a finite space can be simulated; replace its ranges of real numbers (Float) by a Grid")
    if all(curves.keys() >= set(cells) for curves in table.curves.values()):
        return table
    return replace(table, curves={seed: _fitted(curves, cells, seed) for seed, curves in table.curves.items()})


def _fitted(
    recorded: Mapping[tuple[str, ...], Curve], cells: Sequence[tuple[str, ...]], seed: int
) -> dict[tuple[str, ...], Curve]:
    """A curve for every cell: the recorded one, or one drawn from the model fitted to the recorded curves."""
    columns = sorted({(i, value) for cell in cells for i, value in enumerate(cell)})

    def one_hot(keys: Iterable[tuple[str, ...]]) -> NDArray[np.float64]:
        return np.array([[float(key[i] == value) for i, value in columns] for key in keys])

    scores = np.array(list(recorded.values()))  # (trials, validations)
    mean = scores.mean(axis=0)
    x = one_hot(recorded)
    effects = np.linalg.solve(x.T @ x + RIDGE_PENALTY * np.eye(len(columns)), x.T @ (scores - mean))
    residuals = scores - mean - x @ effects

    drawn = [child_seed(seed, "residual", *cell) % len(residuals) for cell in cells]
    curves = mean + one_hot(cells) @ effects + residuals[drawn]
    return {cell: recorded.get(cell, tuple(curve)) for cell, curve in zip(cells, curves.tolist(), strict=True)}


@dataclass(frozen=True, slots=True)
class Course:
    """The course of a simulated search: one entry for each trial that reached the full budget."""

    spent: tuple[int, ...]
    """Patches trained so far, over all trials."""
    regret: tuple[float, ...]
    """Gap between the true score of the configuration that looks best so far and the best of the table [dB]."""
    gap: tuple[float, ...]
    """Gap between the truly best configuration so far and the best of the table [dB]."""
    trials: int
    """Number of trials that started."""

    def patches_to(self, goal: float) -> float:
        """Patches until a configuration within `goal` dB of the best has reached the full budget; inf if none has."""
        for patches, gap in zip(self.spent, self.gap, strict=True):
            if gap <= goal:
                return float(patches)
        return float("inf")


def simulate(experiment: Experiment, table: Table, *, seed: int, trials: int, goal: float = -1.0) -> Course:
    """Simulates one search on the curves of one of the table's seeds.

    Args:
        seed: of the study; it also selects the curves.
        trials: number of trials of the search.
        goal: the search ends early when `Course.gap` is at most this [dB]; a negative goal is never reached.
    """
    truth = table.truth
    best = max(truth.values())
    curves = table.curves[sorted(table.curves)[seed % len(table.curves)]]

    def score(trial: TrialState, patches: int) -> float:
        return curves[table.key(trial.proposed.values)][patches // table.every - 1]

    budget = table.every * len(next(iter(curves.values())))
    spent: list[int] = []
    regret: list[float] = []
    gaps: list[float] = []
    scores: dict[tuple[str, ...], float] = {}
    state = StudyState()
    for state, number in search(experiment, score, seed=seed, trials=trials, every=table.every, budget=budget):
        if state.trials[number].status != "finished":
            continue
        key = table.key(state.trials[number].proposed.values)
        scores[key] = curves[key][-1]
        looks_best = max(scores, key=scores.__getitem__)
        spent.append(patches_trained(state))
        regret.append(best - truth[looks_best])
        gaps.append(best - max(truth[tried] for tried in scores))
        if gaps[-1] <= goal:
            break
    return Course(tuple(spent), tuple(regret), tuple(gaps), len(state.trials))


def search(
    experiment: Experiment,
    score: Callable[[TrialState, int], float],
    *,
    seed: int,
    trials: int,
    every: int,
    budget: int,
) -> Iterator[tuple[StudyState, int]]:
    """Runs a search with one slot, without references and replicates, and yields whenever a trial leaves the slot.

    Args:
        score: returns the objective [dB] of a trial after a number of patches.
        seed: of the study.
        trials: number of trials of the search.
        every: patches between two validations.
        budget: patches of a full training.
    Yields:
        The state, and the number of the trial that has just ended or paused.
    """
    if experiment.references or experiment.replicates:
        experiment = replace(experiment, references={}, replicates=0)
    opened = ev.StudyOpened(time=0.0, format=ev.FORMAT, study="", experiment="", seed=seed, question={}, digest="",
                            text="", runtime={}, data={})  # fmt: skip
    state = StudyState().apply(opened)
    while (step := next_step(state, experiment, trials, now=0.0)) is not None:
        if isinstance(step, Start):
            state = _trained(state, experiment, step.trial, score, every, budget)
            yield state, step.trial
        else:
            state = state.apply(step)


def _trained(
    state: StudyState,
    experiment: Experiment,
    number: int,
    score: Callable[[TrialState, int], float],
    every: int,
    budget: int,
) -> StudyState:
    """The state after a trial has finished, or has paused or stopped at a rung."""
    for patches in range(state.trials[number].patches + every, budget + 1, every):
        scores = {OBJECTIVE: score(state.trials[number], patches)}
        validated = ev.Validated(time=0.0, trial=number, patches=patches, scores=scores, loss=0.0, learning_rate=0.0)
        state = state.apply(validated)
        if patches == budget:
            break
        event = consequence(state, experiment, number, now=0.0)
        if event is not None:
            return state.apply(event)
    finished = ev.Finished(time=0.0, trial=number, patches=budget, scores={}, per_image=(), weights="", seconds={})
    return state.apply(finished)


def patches_trained(state: StudyState) -> int:
    """Patches that all trials together have been trained for."""
    return sum(trial.patches for trial in state.trials.values())
