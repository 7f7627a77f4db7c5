"""The answer of a study: what its replicates tell, in numbers and in sentences that name budget and pictures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from study.events import Finished
from study.experiment import BASE
from study.state import StudyState, TrialState
from study.statistics.finalists import finalists
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
        named = self.trial.is_reference or self.name == BASE
        return f"the {self.name} setting" if named else f"trial {self.trial.number}"

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
    """Mean difference over seeds on each validation crop [dB]: its spread over pictures, no part of the seed noise."""

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
    """Every finalist, then the references."""
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
    pairs = _comparisons(state)
    named = {BASE if pairs and trial is first else name: trial for name, trial in finalists(state).items()}
    judged = [j for name, trial in named.items() if (j := _judge(state, name, trial, own=bool(pairs))).scores]
    winner = next((j for j in judged if j.trial.number == best.number), None)
    if winner is None or best.score is None:
        return None
    references = [j for j in judged if j.trial.is_reference]
    candidates = [j for j in judged if not j.trial.is_reference]
    known, primary = {j.name: j for j in judged}, best.number == first.number
    # A winner chosen after its replicates were seen is one of K that might have been: all their comparisons count.
    families = [winner] if primary else [winner, *(c for c in candidates if c is not winner)]
    return Verdict(
        winner=winner,
        judged=tuple(judged),
        against=() if pairs else tuple(compare(families, references)[: len(references)]),
        asked={
            question: tuple(_compared([(known[a], known[b]) for a, b in of if {a, b} <= known.keys()], len(of)))
            for question, of in pairs.items()
        },
        primary=primary,
        probability_best=_probabilities(judged),
        choice=_choice(candidates),
        flattered=best.score - winner.estimate.mean,
    )


def _comparisons(state: StudyState) -> Mapping[str, list[list[str]]]:
    """What the experiment says is to be compared: question -> pairs of names."""
    assert state.opened is not None
    return dict(state.opened.question["search"].get("comparisons", ()))


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


def compare(ones: list[Judged], others: list[Judged]) -> list[Comparison]:
    """Each of `ones` against each of `others`, those of the first one first; p-values adjusted over all of them."""
    return _compared([(one, other) for one in ones for other in others])


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


def sentences(found: Verdict, state: StudyState) -> list[str]:
    """The verdict in words, first what it holds for."""
    assert state.opened is not None
    config, crops = found.winner.trial.config, state.opened.data["crops"]
    title = (
        f"verdict after {config.train.budget_patches:,} patches, on {crops['count']} crops of {crops['pictures']} "
        f"pictures"
    )
    if found.asked:
        asked = {name for pairs in _comparisons(state).values() for pair in pairs for name in pair}
        absent = sorted(asked - {j.name for j in found.judged})
        lost = [f"  the {name} setting has not finished and is in no comparison" for name in absent]
        return [f"{title}:", *_answers(found), *_failures(found), *lost]
    lines = [f"{title}, {found.winner.title} with batch {config.train.batch_size}:"]
    lines += [f"  it {_comparison(c)}" for c in found.against]
    if not found.primary and found.against:
        lines.append(
            f"  chosen among {len(found.choice)} finalists after their replicates were seen: Holm's procedure over "
            f"all {found.against[0].family} comparisons of finalists with references"
        )
    lines += _rivals(found)
    own = found.winner.estimate
    spread = f", standard deviation {own.sd:.3f}" if own.count > 1 else ""
    chance = found.probability_best.get(found.winner.trial.number)
    best = "" if chance is None else f"; the best of these {len(found.judged)} with probability {chance:.2f}"
    lines.append(
        f"  its replicates: {own.mean:.3f} dB{spread} ({_seeds(own.count)}); "
        f"its run in the search showed {found.flattered:+.3f} dB beside that{best}"
    )
    return [*lines, *_failures(found)]


def _answers(found: Verdict) -> list[str]:
    """Every question with its comparisons."""
    lines = []
    for question, comparisons in found.asked.items():
        lines.append(f"  {question}")
        lines += [f"    {c.one.title} {_comparison(c)}" for c in comparisons]
        if len(comparisons) > 1:
            lines.append(f"    told apart by Holm's procedure over the {comparisons[0].family} that were asked")
    return lines


def _failures(found: Verdict) -> list[str]:
    return [
        f"  {j.title} failed with {len(j.failed)} of {len(j.failed) + len(j.scores)} seeds"
        for j in found.judged
        if j.failed
    ]


def no_verdict(state: StudyState) -> str:
    """What a study without replicates has come to."""
    assert state.opened is not None
    text = "one run each is a ranking, not a verdict"
    if state.opened.question["search"]["replicates"]:
        return text
    return f"{text}; a new study with replicates=3 in its experiment trains the winner and the references again"


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
