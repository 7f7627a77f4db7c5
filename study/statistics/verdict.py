"""The answer of a study in numbers: what its replicates show about the winner or about the settings compared.

`words` puts it into sentences; all of them stand in `study.statistics.wording`. docs/concepts/statistics.md explains
the procedures.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from study.record.events import Finished
from study.record.state import StudyState, TrialState
from study.statistics import wording
from study.statistics.replication import comparisons, interim, replicate_title, replicated_settings
from study.statistics.stats import (
    CONFIDENCE,
    Estimate,
    against_best,
    estimate,
    holm,
    paired,
    probability_best,
    seeds_needed,
    shrunken,
)

LEVEL = 1 - CONFIDENCE
"""Significance level of every family of comparisons."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A setting and its replicates."""

    name: str
    """`finalist k`, the name of a reference, or `base`."""
    trial: TrialState
    """The setting's trial in the search."""
    scores: Mapping[int, float]
    """Objective [dB] of each finished replicate, by the number of its seed.

    Seed 0 is the study's own seed. It is present only if no trial was chosen by its score with that seed.
    """
    crops: Mapping[int, tuple[float, ...]]
    """PSNR [dB] of each validation crop, by the number of the seed. All trials share the crops and their order."""
    failed: tuple[int, ...]
    """Numbers of the seeds with which the setting failed."""

    @property
    def title(self) -> str:
        """The setting's name as tables and figures show it: `trial 7`, or the name of a reference."""
        return replicate_title(self.name, self.trial)

    @property
    def estimate(self) -> Estimate:
        """Mean score [dB] over the seeds, with its confidence interval."""
        return estimate(list(self.scores.values()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One setting minus another, over the seeds with which both finished."""

    one: Judged
    other: Judged
    difference: Estimate
    """Mean of `one` - `other` over the shared seeds [dB]."""
    p: float
    """p-value, adjusted by Holm's procedure over all comparisons of the family."""
    family: int
    """Number of comparisons in the family."""
    crops: tuple[float, ...]
    """Mean difference over seeds on each validation crop [dB]. Its spread over crops is not part of the seed noise."""

    @property
    def significant(self) -> bool:
        """Whether the adjusted p-value is below LEVEL."""
        return self.p < LEVEL

    @property
    def more_seeds(self) -> int | None:
        """About how many more seeds would make a true difference of this size significant.

        None if the noise is unknown (fewer than two seeds) or if no reasonable number of seeds suffices.
        """
        if self.difference.count < 2:
            return None
        needed = seeds_needed(self.difference.mean, self.difference.sd, alpha=LEVEL / self.family)
        return None if needed is None else max(1, needed - self.difference.count)

    @property
    def crops_agreeing(self) -> int:
        """Number of crops on which the difference has the sign of its mean."""
        sign = math.copysign(1, self.difference.mean)
        return sum(sign * difference > 0 for difference in self.crops)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the replicates of a study show."""

    winner: Judged
    """The first of the search's ranking; with several finalists, the one with the best replicates."""
    judged: tuple[Judged, ...]
    """Every finalist that finished with at least one seed, followed by the references that did."""
    lost: tuple[Judged, ...]
    """Finalists and references that failed with every seed so far."""
    finalists: int
    """Number of finalists that the experiment asks for."""
    interim: str
    """`interim, 2 of 3 seeds` until all replicates have ended; then empty. Interim numbers are not a verdict."""
    against: tuple[Comparison, ...]
    """The winner compared with each reference; empty if the experiment declares its own comparisons."""
    answers: Mapping[str, tuple[Comparison, ...]]
    """The comparisons that the experiment declares, by question. Each question is a family of its own."""
    primary: bool
    """Whether the winner was determined before any replicate was trained."""
    probability_best: Mapping[int, float]
    """Probability that a trial is the best of those judged, by trial number; empty with fewer than two shared seeds."""
    choice: Mapping[int, tuple[float, float, float]]
    """For each finalist, by trial number: low and high end of a simultaneous interval for its mean minus that of the
    best other finalist [dB], and its mean corrected for the winner's curse [dB]. Empty with a single finalist."""
    flattered: float
    """Score of the winner's run in the search minus the mean of its replicates [dB]."""


def verdict(state: StudyState) -> Verdict | None:
    """The verdict that the replicates allow so far; None if no replicate of the winner has finished."""
    best = state.best()
    first = next(iter(state.candidates()), None)
    if best is None or first is None:
        return None

    questions = comparisons(state)
    settings = [_judge(state, name, t, own=bool(questions)) for name, t in replicated_settings(state).items()]
    judged = [setting for setting in settings if setting.scores]
    winner = next((setting for setting in judged if setting.trial.number == best.number), None)
    if winner is None or best.score is None:
        return None

    references = [setting for setting in judged if setting.trial.is_reference]
    candidates = [setting for setting in judged if not setting.trial.is_reference]
    finalists = state.asked_for("finalists", 1)
    primary = best.number == first.number

    # If the winner was chosen by its replicates, every finalist could have been the winner. Then all their
    # comparisons count, also those that failures have made impossible.
    possible_winners = [winner]
    planned = len(_references(state))
    if not primary:
        possible_winners += [setting for setting in candidates if setting is not winner]
        planned *= finalists
    compared = [] if questions else compare(possible_winners, references, planned)

    return Verdict(
        winner=winner,
        judged=tuple(judged),
        lost=tuple(setting for setting in settings if setting.failed and not setting.scores),
        finalists=finalists,
        interim=interim(state),
        against=tuple(comparison for comparison in compared if comparison.one is winner),
        answers=_answers(questions, judged),
        primary=primary,
        probability_best=_probabilities(judged),
        choice=_choice(candidates),
        flattered=best.score - winner.estimate.mean,
    )


def _answers(questions: Mapping[str, list[list[str]]], judged: list[Judged]) -> dict[str, tuple[Comparison, ...]]:
    """The comparisons of each question between settings that have scores."""
    by_name = {setting.name: setting for setting in judged}
    answers = {}
    for question, pairs in questions.items():
        scored = [(by_name[one], by_name[other]) for one, other in pairs if one in by_name and other in by_name]
        answers[question] = tuple(_compared(scored, len(pairs)))
    return answers


def _references(state: StudyState) -> Mapping[str, object]:
    """The references that the experiment declares, also those that failed."""
    assert state.opened is not None
    references: Mapping[str, object] = state.opened.question.get("references", {})
    return references


def _judge(state: StudyState, name: str, trial: TrialState, *, own: bool) -> Judged:
    """A setting with the results of its replicates.

    Args:
        own: count the trial itself as the replicate with seed 0. Correct only if no ranking chose the trial.
    """
    replicates = state.replicates_of(trial.number)
    if own:
        replicates = {0: trial} | replicates

    scores: dict[int, float] = {}
    crops: dict[int, tuple[float, ...]] = {}
    for seed, replicate in sorted(replicates.items()):
        if isinstance(replicate.end, Finished):
            scores[seed] = replicate.score or 0.0
            crops[seed] = tuple(psnr for _, psnr, _ in replicate.end.per_image)

    failed = sorted(seed for seed, replicate in replicates.items() if replicate.status == "failed")
    return Judged(name=name, trial=trial, scores=scores, crops=crops, failed=tuple(failed))


def compare(ones: list[Judged], others: list[Judged], planned: int = 0) -> list[Comparison]:
    """Compares each of `ones` with each of `others` and adjusts the p-values over all comparisons.

    The comparisons of the first of `ones` come first.

    Args:
        planned: number of comparisons that were planned. Failures may have left fewer; the family keeps its size.
    """
    return _compared([(one, other) for one in ones for other in others], planned)


def _compared(pairs: list[tuple[Judged, Judged]], planned: int = 0) -> list[Comparison]:
    """Compares the pairs that share a seed. The p-values are adjusted for all planned comparisons."""
    comparable = []
    differences = []
    for one, other in pairs:
        seeds = sorted(one.scores.keys() & other.scores.keys())
        if seeds:
            comparable.append((one, other, seeds))
            differences.append(paired([one.scores[s] for s in seeds], [other.scores[s] for s in seeds]))

    family = max(planned, len(comparable))
    impossible = [1.0] * (family - len(comparable))
    adjusted = holm([difference.p for difference in differences] + impossible)

    compared = []
    for i, (one, other, seeds) in enumerate(comparable):
        compared.append(Comparison(one, other, differences[i], adjusted[i], family, _by_crop(one, other, seeds)))
    return compared


def _by_crop(one: Judged, other: Judged, seeds: list[int]) -> tuple[float, ...]:
    differences = np.subtract([one.crops[s] for s in seeds], [other.crops[s] for s in seeds])
    return tuple(differences.mean(axis=0).tolist())


def _matrix(judged: list[Judged]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]] | None:
    """(K, R) scores over the seeds that all settings share; None if the seed noise cannot be estimated."""
    if len(judged) < 2:
        return None
    shared = sorted(set.intersection(*(set(setting.scores) for setting in judged)))
    if len(shared) < 2:
        return None
    return np.array([[setting.scores[seed] for seed in shared] for setting in judged])


def _probabilities(judged: list[Judged]) -> dict[int, float]:
    scores = _matrix(judged)
    if scores is None:
        return {}
    probabilities = probability_best(scores).tolist()
    return {setting.trial.number: probabilities[i] for i, setting in enumerate(judged)}


def _choice(candidates: list[Judged]) -> dict[int, tuple[float, float, float]]:
    scores = _matrix(candidates)
    if scores is None:
        return {}
    intervals = against_best(scores)
    means = shrunken(scores)
    return {
        setting.trial.number: (float(intervals.low[i]), float(intervals.high[i]), float(means[i]))
        for i, setting in enumerate(candidates)
    }


def words(state: StudyState) -> list[str]:
    """The verdict in sentences, or why there is none; the lines shown for every study that has a winner."""
    judged = verdict(state)
    if judged is not None:
        return wording.verdict_sentences(judged, state)
    first = wording.no_verdict(state)
    return [first, *(f"  {line}" for line in wording.failures(state) if line != first)]
