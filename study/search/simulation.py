"""Searches replayed on recorded learning curves: the real sampler and scheduler, no training.

A simulated study has one slot. Its curves are those of a table that holds every configuration of the space, or, where
a study tried only some, of a family fitted to them: at each patch count a sum of one effect for each value of each
dimension (ridge regression), plus the whole residual curve of one recorded trial, drawn for each configuration.
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
"""Objective [dB] at each validation, the last one at the full budget."""
_RIDGE = 1.0


@dataclass(frozen=True, slots=True)
class Table:
    """Recorded curves of one budget, validated every so many patches."""

    names: tuple[str, ...]
    """Dotted names of what was swept."""
    every: int
    """Patches between two validations."""
    curves: Mapping[int, Mapping[tuple[str, ...], Curve]]
    """By study seed, then by the values of `names` as text."""

    def key(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(text(values[name]) for name in self.names)

    @property
    def truth(self) -> dict[tuple[str, ...], float]:
        """Full-budget score of each configuration, the mean over seeds [dB]."""
        keys = set.intersection(*(set(of_seed) for of_seed in self.curves.values()))
        return {key: float(np.mean([c[key][-1] for c in self.curves.values()])) for key in keys}


def text(value: Any) -> str:
    """A value as it stands in a table."""
    return f"{float(value):g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def record(states: Iterable[StudyState]) -> Table:
    """The curves of the search trials that finished, of studies that differ in their seed alone.

    Raises:
        SuiteError: a study has none, or they were validated at other patch counts.
    """
    names: tuple[str, ...] = ()
    curves: dict[int, dict[tuple[str, ...], Curve]] = {}
    counts: set[tuple[int, ...]] = set()
    for state in states:
        finished = [t for t in state.trials.values() if t.status == "finished" and t.proposed.role == "search"]
        if state.opened is None or not finished:
            raise SuiteError("a study without a finished search trial has no curves to replay")
        names = tuple(n for d in state.opened.question["space"].values() for n in d["names"])
        of_seed = curves.setdefault(state.opened.seed, {})
        for trial in finished:
            key = tuple(text(trial.proposed.values[name]) for name in names)
            of_seed[key] = tuple(p.scores[OBJECTIVE] for p in trial.curve)
            counts.add(tuple(p.patches for p in trial.curve))
    if len(counts) != 1:
        raise SuiteError(f"curves with validations at different patch counts cannot be replayed: {sorted(counts)[:2]}")
    return Table(names, counts.pop()[0], curves)


def write(table: Table) -> str:
    """The table as CSV: seed, the swept values, then the score [dB] after so many patches."""
    length = len(next(iter(next(iter(table.curves.values())).values())))
    header = ["seed", *table.names, *(str(table.every * (i + 1)) for i in range(length))]
    rows = [
        ",".join([str(seed), *key, *(f"{score:.4f}" for score in curve)])
        for seed, of_seed in table.curves.items()
        for key, curve in sorted(of_seed.items())
    ]
    return "\n".join([",".join(header), *rows]) + "\n"


def read(path: Path) -> Table:
    """The table that `write` wrote. Raises SuiteError where it is none."""
    try:
        header, *rows = list(csv.reader(path.read_text("utf-8").splitlines()))
        width = next(i for i, name in enumerate(header) if name.isdecimal())
        curves: dict[int, dict[tuple[str, ...], Curve]] = {}
        for row in rows:
            curves.setdefault(int(row[0]), {})[tuple(row[1:width])] = tuple(map(float, row[width:]))
        return Table(tuple(header[1:width]), int(header[width]), curves)
    except (OSError, ValueError, StopIteration) as exc:
        raise SuiteError(f"{path}: expected a table of curves as `study.simulate --record` writes it ({exc})") from exc


def complete(table: Table, space: Space) -> Table:
    """The table itself if it holds the whole space, else the family fitted to it, for every configuration.

    Raises:
        SuiteError: the table is of another space, or the space has no list of configurations.
    """
    if set(table.names) != set(space.names):
        raise SuiteError(
            f"curves over {', '.join(table.names)} cannot stand for a space of {', '.join(space.names)}; "
            "give the --experiment that they were recorded with"
        )
    cells = [table.key(space.settings(cell)) for cell in space.cells()] if space.size is not None else []
    if not cells:
        raise SuiteError("only a space of listed values can be simulated")
    if all(of_seed.keys() >= set(cells) for of_seed in table.curves.values()):
        return table
    return replace(table, curves={seed: _family(of_seed, cells, seed) for seed, of_seed in table.curves.items()})


def _family(known: Mapping[tuple[str, ...], Curve], cells: Sequence[tuple[str, ...]], seed: int) -> dict[Any, Curve]:
    columns = sorted({(i, value) for cell in cells for i, value in enumerate(cell)})

    def rows(keys: Iterable[tuple[str, ...]]) -> NDArray[np.float64]:
        return np.array([[float(key[i] == value) for i, value in columns] for key in keys])

    scores = np.array(list(known.values()))
    x, mean = rows(known), scores.mean(axis=0)
    effects = np.linalg.solve(x.T @ x + _RIDGE * np.eye(len(columns)), x.T @ (scores - mean))
    residuals = scores - mean - x @ effects
    drawn = [child_seed(seed, "residual", *cell) % len(residuals) for cell in cells]
    fitted = mean + rows(cells) @ effects + residuals[drawn]
    return {cell: known.get(cell, tuple(curve)) for cell, curve in zip(cells, fitted.tolist(), strict=True)}


@dataclass(frozen=True, slots=True)
class Course:
    """How a simulated search went."""

    spent: tuple[int, ...]
    """Patches trained when each full-budget score came."""
    regret: tuple[float, ...]
    """How far the configuration that looks best then is below the table's best [dB, mean over seeds]."""
    found: tuple[float, ...]
    """How far the best configuration that has its full-budget score is below it."""
    trials: int
    """Begun."""

    def patches_to(self, goal: float) -> float:
        """Patches until a configuration within `goal` dB of the best has its full-budget score; inf if none has."""
        return next((float(s) for s, gap in zip(self.spent, self.found, strict=True) if gap <= goal), float("inf"))


def simulate(experiment: Experiment, table: Table, *, seed: int, trials: int, goal: float = -1.0) -> Course:
    """One search of that many trials on the curves of one of the table's seeds; ends early at the goal [dB]."""
    truth = table.truth
    best = max(truth.values())
    curves = table.curves[sorted(table.curves)[seed % len(table.curves)]]

    def score(trial: TrialState, patches: int) -> float:
        return curves[table.key(trial.proposed.values)][patches // table.every - 1]

    budget = table.every * len(next(iter(curves.values())))
    spent, regret, found = list[int](), list[float](), list[float]()
    seen: dict[tuple[str, ...], float] = {}
    state = StudyState()
    for state, number in search(experiment, score, seed=seed, trials=trials, every=table.every, budget=budget):
        if state.trials[number].status != "finished":
            continue
        key = table.key(state.trials[number].proposed.values)
        seen[key] = curves[key][-1]
        spent.append(patches_trained(state))
        regret.append(best - truth[max(seen, key=seen.__getitem__)])
        found.append(best - max(truth[k] for k in seen))
        if found[-1] <= goal:
            break
    return Course(tuple(spent), tuple(regret), tuple(found), len(state.trials))


def search(
    experiment: Experiment,
    score: Callable[[TrialState, int], float],
    *,
    seed: int,
    trials: int,
    every: int,
    budget: int,
) -> Iterator[tuple[StudyState, int]]:
    """A search with one slot, without references and replicates: the state whenever a trial leaves the slot.

    Args:
        score: gives a trial's objective [dB] after so many patches.
        every: patches between two validations.

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
    """The state once a trial has come to its end or to a rung where it does not continue."""
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
    """Of all trials together."""
    return sum(trial.patches for trial in state.trials.values())
