"""The answer of a study: what its replicates tell, in numbers and in sentences that name budget and images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from study.record.events import Finished
from study.record.state import StudyState, TrialState
from study.statistics import replication
from study.statistics.replication import comparisons, failures, interim, replicated_settings
from study.statistics.stats import (
    CONFIDENCE,
    AgainstBest,
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


@dataclass(frozen=True, slots=True)
class Judged:
    """A setting and its replicates."""

    name: str
    """`finalist k`, a reference's name, or `base`."""
    trial: TrialState
    """Its trial in the search."""
    scores: Mapping[int, float]
    """Objective [dB] by the number of the seed, of the replicates that finished. 0 is the study's own seed, which
    counts only where nothing was chosen by it."""
    crops: Mapping[int, tuple[float, ...]]
    """PSNR [dB] of each validation crop by seed; the crops are the same, in the same order, for every trial."""
    failed: tuple[int, ...]
    """Numbers of the seeds with which it failed."""

    @property
    def title(self) -> str:
        return replication.replicate_title(self.name, self.trial)

    @property
    def estimate(self) -> Estimate:
        return estimate(list(self.scores.values()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One setting against another over the seeds with which both finished."""

    one: Judged
    other: Judged
    difference: Estimate
    p: float
    """Adjusted by Holm's procedure over all comparisons of its family."""
    family: int
    """Size of that family."""
    crops: tuple[float, ...]
    """Mean difference over seeds on each validation crop [dB]: its spread over images, no part of the seed noise."""

    @property
    def told(self) -> bool:
        return self.p < LEVEL

    @property
    def more_seeds(self) -> int | None:
        """About how many more would tell, were the difference what it seems; None where no reasonable number would."""
        if self.difference.count < 2:
            return None
        needed = seeds_needed(self.difference.mean, self.difference.sd, alpha=LEVEL / self.family)
        return None if needed is None else max(1, needed - self.difference.count)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a study's replicates tell."""

    winner: Judged
    """The first of the search's ranking or, once several finalists were judged, the one chosen."""
    judged: tuple[Judged, ...]
    """Every finalist that finished with a seed, then the references."""
    lost: tuple[Judged, ...]
    """Finalists and references that failed with every seed so far."""
    finalists: int
    """How many might have been the winner: as many as the experiment asks for."""
    interim: str
    """`interim, 2 of 3 seeds` until all replicates have ended: numbers, and no verdict yet. Then empty."""
    against: tuple[Comparison, ...]
    """The winner against each reference; empty where the experiment says what to compare."""
    asked: Mapping[str, tuple[Comparison, ...]]
    """What it says: question in words -> its comparisons, a family of its own each."""
    primary: bool
    """Whether the winner was fixed before any replicate was seen."""
    probability_best: Mapping[int, float]
    """Trial -> how probably it is the best of these; empty where too few seeds are shared."""
    choice: Mapping[int, tuple[float, float, float]]
    """Trial -> simultaneous interval of its mean minus the best other finalist's [dB], and its mean without the
    winner's curse; of more than one finalist."""
    flattered: float
    """How much more the winner's run in the search showed than its replicates do on average [dB]."""


def verdict(state: StudyState) -> Verdict | None:
    """The verdict that the replicates so far allow; None where the winner has none that finished."""
    best, first = state.best(), next(iter(state.candidates()), None)
    if best is None or first is None:
        return None
    pairs = comparisons(state)
    tried = [_judge(state, name, trial, own=bool(pairs)) for name, trial in replicated_settings(state).items()]
    judged = [j for j in tried if j.scores]
    winner = next((j for j in judged if j.trial.number == best.number), None)
    if winner is None or best.score is None:
        return None
    references = [j for j in judged if j.trial.is_reference]
    candidates = [j for j in judged if not j.trial.is_reference]
    known, primary = {j.name: j for j in judged}, best.number == first.number
    # A winner chosen after its replicates were seen is one of K that might have been: all their comparisons count,
    # those too that failures have made impossible.
    families = [winner] if primary else [winner, *(c for c in candidates if c is not winner)]
    asked = state.asked_for("finalists", 1)
    planned = len(_references(state)) * (1 if primary else asked)
    compared = () if pairs else compare(families, references, planned)
    return Verdict(
        winner=winner,
        judged=tuple(judged),
        lost=tuple(j for j in tried if j.failed and not j.scores),
        finalists=asked,
        interim=interim(state),
        against=tuple(c for c in compared if c.one is winner),
        asked={
            question: tuple(_compared([(known[a], known[b]) for a, b in of if {a, b} <= known.keys()], len(of)))
            for question, of in pairs.items()
        },
        primary=primary,
        probability_best=_probabilities(judged),
        choice=_choice(candidates),
        flattered=best.score - winner.estimate.mean,
    )


def _references(state: StudyState) -> Mapping[str, object]:
    """Those that the experiment names, whatever became of them."""
    assert state.opened is not None
    found: Mapping[str, object] = state.opened.question.get("references", {})
    return found


def _judge(state: StudyState, name: str, trial: TrialState, *, own: bool) -> Judged:
    """Args: own: the trial itself is one of its replicates, because no ranking chose it."""
    replicates = ({0: trial} if own else {}) | state.replicates_of(trial.number)
    ends = {seed: t.end for seed, t in sorted(replicates.items()) if isinstance(t.end, Finished)}
    return Judged(
        name=name,
        trial=trial,
        scores={seed: replicates[seed].score or 0.0 for seed in ends},
        crops={seed: tuple(psnr for _, psnr, _ in end.per_image) for seed, end in ends.items()},
        failed=tuple(sorted(seed for seed, t in replicates.items() if t.status == "failed")),
    )


def compare(ones: list[Judged], others: list[Judged], planned: int = 0) -> list[Comparison]:
    """Each of `ones` against each of `others`, those of the first one first; p-values adjusted over all of them.

    Args:
        planned: how many comparisons there were to be, where failures may have left fewer.
    """
    return _compared([(one, other) for one in ones for other in others], planned)


def _compared(asked: list[tuple[Judged, Judged]], planned: int = 0) -> list[Comparison]:
    """Those of the pairs that share seeds; p-values adjusted as if all that was planned had come about."""
    pairs = [(a, b, seeds) for a, b in asked if (seeds := sorted(a.scores.keys() & b.scores.keys()))]
    differences = [paired([a.scores[s] for s in seeds], [b.scores[s] for s in seeds]) for a, b, seeds in pairs]
    family = max(planned, len(pairs))
    adjusted = holm([d.p for d in differences] + [1.0] * (family - len(pairs)))[: len(pairs)]
    return [
        Comparison(a, b, difference, p, family, _by_crop(a, b, seeds))
        for (a, b, seeds), difference, p in zip(pairs, differences, adjusted, strict=True)
    ]


def _by_crop(one: Judged, other: Judged, seeds: list[int]) -> tuple[float, ...]:
    differences = np.subtract([one.crops[s] for s in seeds], [other.crops[s] for s in seeds])
    return tuple(differences.mean(axis=0).tolist())


def _matrix(judged: list[Judged]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]] | None:
    """(K, R) scores over the seeds that all of them share, or None where a noise cannot be estimated."""
    shared = sorted(set.intersection(*(set(j.scores) for j in judged))) if judged else []
    if len(judged) < 2 or len(shared) < 2:
        return None
    return np.array([[j.scores[seed] for seed in shared] for j in judged])


def _probabilities(judged: list[Judged]) -> dict[int, float]:
    scores = _matrix(judged)
    if scores is None:
        return {}
    return dict(zip((j.trial.number for j in judged), probability_best(scores).tolist(), strict=True))


def _choice(candidates: list[Judged]) -> dict[int, tuple[float, float, float]]:
    scores = _matrix(candidates)
    if scores is None:
        return {}
    found: AgainstBest = against_best(scores)
    rows = zip(candidates, found.low.tolist(), found.high.tolist(), shrunken(scores).tolist(), strict=True)
    return {c.trial.number: (low, high, mean) for c, low, high, mean in rows}


def verdict_sentences(found: Verdict, state: StudyState) -> list[str]:
    """The verdict in words, first what it holds for; before all replicates have ended, the numbers so far."""
    title = _title(state, found.winner.trial, found.interim or "verdict")
    failed = [f"  {line}" for line in failures(state)]
    if found.asked:
        asked = {name for pairs in comparisons(state).values() for pair in pairs for name in pair}
        absent = sorted(asked - {j.name for j in found.judged})
        lost = [f"  the {name} setting has not finished and is in no comparison" for name in absent]
        return [f"{title}:", *_answers(found), *failed, *lost]
    lines = [f"{title}, {found.winner.title} with batch {found.winner.trial.config.train.batch_size}:"]
    lines += [f"  {_so_far(c) if found.interim else f'it {_comparison(c)}'}" for c in found.against]
    if not found.interim:
        lines += _choosing(found)
    own = found.winner.estimate
    spread = f", standard deviation {own.sd:.3f}" if own.count > 1 else ""
    chance = None if found.interim else found.probability_best.get(found.winner.trial.number)
    best = "" if chance is None else f"; the best of these {len(found.judged)} with probability {chance:.2f}"
    lines.append(
        f"  its replicates: {own.mean:.3f} dB{spread} ({_seeds(own.count)}); "
        f"its run in the search showed {found.flattered:+.3f} dB beside that{best}"
    )
    return [*lines, *failed]


def _title(state: StudyState, winner: TrialState, what: str) -> str:
    """What this is, and what it holds for."""
    assert state.opened is not None
    crops = state.opened.data["crops"]
    return (
        f"{what}{',' * what.startswith('interim')} after {winner.config.train.budget_patches:,} patches, on "
        f"{crops['count']} crops of {crops['pictures']} images"
    )


def words(state: StudyState) -> list[str]:
    """What the replicates tell, or why they tell nothing: what is shown of a study that has a winner."""
    found = verdict(state)
    if found is not None:
        return verdict_sentences(found, state)
    first = no_verdict(state)
    return [first, *(f"  {line}" for line in failures(state) if line != first)]


def _choosing(found: Verdict) -> list[str]:
    """What it means that the winner is one of several finalists."""
    lines = []
    if not found.primary and found.against:
        lines.append(
            f"  chosen among {found.finalists} finalists after their replicates were seen: Holm's procedure over "
            f"all {found.against[0].family} comparisons of finalists with references"
        )
    return lines + _rivals(found)


def _answers(found: Verdict) -> list[str]:
    """Every question with its comparisons."""
    lines = []
    for question, compared in found.asked.items():
        lines.append(f"  {question}")
        if found.interim:
            lines += [f"    {c.one.title} {_so_far(c)}" for c in compared]
            continue
        lines += [f"    {c.one.title} {_comparison(c)}" for c in compared]
        if len(compared) > 1:
            lines.append(f"    told apart by Holm's procedure over the {compared[0].family} that were asked")
    return lines


def no_verdict(state: StudyState) -> str:
    """What a study has come to whose winner has no replicate that finished."""
    lost = replication.lost_winner(state)
    if lost:
        return lost
    text = "one run each is a ranking, not a verdict"
    if state.asked_for("replicates", 0):
        begun = any(trial.is_replicate for trial in state.trials.values())
        return f"{text} ({interim(state)})" if begun and interim(state) else text
    return f"{text}; a new study with replicates=3 in its experiment trains the winner and the references again"


def _so_far(found: Comparison) -> str:
    """The numbers of a comparison that is not complete, and no claim."""
    d = found.difference
    interval = f"95 % {d.low:.2f} to {d.high:.2f}, " if d.count > 1 else ""
    return f"against {found.other.title}: {d.mean:+.2f} dB ({interval}{_seeds(d.count)})"


def _comparison(found: Comparison) -> str:
    d = found.difference
    seeds = _seeds(d.count)
    if d.count < 2:
        return f"cannot be compared with {found.other.title}: they share one seed ({d.mean:+.2f} dB)"
    interval = f"95 % {d.low:.2f} to {d.high:.2f}"
    if not found.told:
        more = found.more_seeds
        tell = (
            "no reasonable number of seeds would tell" if more is None else f"about {_seeds(more, 'more ')} would tell"
        )
        return f"is not told apart from {found.other.title}: {d.mean:+.2f} dB ({interval}, {seeds}); {tell}"
    low, high = sorted((abs(d.low), abs(d.high)))
    faster = "faster" if d.mean > 0 else "slower"
    text = f"learns {faster} than {found.other.title} by {abs(d.mean):.2f} dB (95 % {low:.2f}–{high:.2f}, {seeds})"
    if found.crops:
        ahead = sum(math.copysign(1, d.mean) * c > 0 for c in found.crops)
        text += f"; on {ahead} of {len(found.crops)} crops, from {min(found.crops):+.2f} to {max(found.crops):+.2f} dB"
    return text


def _rivals(found: Verdict) -> list[str]:
    """Which other finalists the winner was not told from."""
    rivals = [n for n, (_, high, _) in found.choice.items() if high > 0 and n != found.winner.trial.number]
    if not found.choice:
        return []
    _, _, mean = found.choice[found.winner.trial.number]
    among = f"  among {len(found.choice)} finalists it "
    if rivals:
        others = ", ".join(f"trial {n}" for n in rivals)
        among += f"is not told apart from {others} (95 %, all at once)"
    else:
        among += "is the best (95 %, all at once)"
    return [f"{among}; without the winner's curse {mean:.3f} dB"]


def _seeds(count: int, more: str = "") -> str:
    return f"{count} {more}seed{'s' * (count != 1)}"
