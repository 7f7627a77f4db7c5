"""Every sentence of a verdict: comparisons, failed replicates, and why there is no verdict.

The functions take numbers that have already been computed, so importing this module loads no numerical library.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from study.question.experiment import BASE
from study.record.events import Failed
from study.record.state import StudyState, TrialState
from study.statistics.replication import (
    comparisons,
    interim,
    is_lost,
    next_candidate,
    replicate_title,
    replicated_settings,
)

if TYPE_CHECKING:
    from study.statistics.verdict import Comparison, Judged, Verdict

MAX_REASON_CHARACTERS = 160
"""Longer reasons of a failure are cut."""


# The verdict


def verdict_sentences(verdict: Verdict, state: StudyState) -> list[str]:
    """The verdict in sentences; the first line names trial, budget and images.

    Until all replicates have ended, the lines give the numbers so far and claim nothing.
    """
    failed = [f"  {line}" for line in failures(state)]
    if verdict.answers:
        return [_heading(verdict, state), *_answers(verdict), *failed, *_absent(verdict, state)]

    lines = [_heading(verdict, state, verdict.winner)]
    for comparison in verdict.against:
        lines.append(f"  {_so_far(comparison) if verdict.interim else _compared(comparison)}")
    if not verdict.interim:
        lines += _choice(verdict)
    return [*lines, _replicates_of_winner(verdict), *failed]


def _heading(verdict: Verdict, state: StudyState, winner: Judged | None = None) -> str:
    """What the lines below are, and what they hold for."""
    assert state.opened is not None
    crops = state.opened.data["crops"]
    config = verdict.winner.trial.config.train

    what = f"{verdict.interim}," if verdict.interim else "verdict"
    subject = "" if winner is None else f" for {_quoted(winner)} (batch size {config.batch_size})"
    conditions = f"after {config.budget_patches:,} patches, on {crops['count']} crops of {crops['pictures']} images"
    return f"{what}{subject} {conditions}:"


def _answers(verdict: Verdict) -> list[str]:
    """Each question of the experiment, followed by its comparisons."""
    lines = []
    for question, compared in verdict.answers.items():
        lines.append(f"  {question}")
        for comparison in compared:
            if verdict.interim:
                lines.append(f"    {_quoted(comparison.one)} {_so_far(comparison)}")
            else:
                lines.append(f"    {_compared(comparison, _quoted(comparison.one))}")
        if len(compared) > 1 and not verdict.interim:
            family = compared[0].family
            lines.append(f"    significance is Holm-corrected over the {family} comparisons of this question")
    return lines


def _absent(verdict: Verdict, state: StudyState) -> list[str]:
    """A line for each setting that the experiment compares and that has not finished."""
    compared = {name for pairs in comparisons(state).values() for pair in pairs for name in pair}
    absent = sorted(compared - {setting.name for setting in verdict.judged})
    return [f'  "{name}" has not finished and is in no comparison' for name in absent]


def _compared(comparison: Comparison, subject: str = "") -> str:
    """The result of a comparison, as a sentence about `subject` or, if that is empty, about the winner."""
    other = _quoted(comparison.other)
    difference = comparison.difference
    if difference.count < 2:
        sentence = f"cannot be compared with {other}: the two share only one seed ({difference.mean:+.2f} dB)"
        return f"{subject} {sentence}".lstrip()

    numbers = _numbers(comparison)
    if not comparison.significant:
        verb = f"{subject} shows " if subject else ""
        return f"{verb}no significant difference from {other}: {numbers} ({_seeds_needed(comparison)})"

    verb = f"{subject} has " if subject else ""
    order = "higher" if difference.mean > 0 else "lower"
    patches = comparison.one.trial.config.train.budget_patches
    sentence = f"{verb}{order} PSNR than {other} after {patches:,} patches: {numbers}"
    if comparison.crops:
        lowest = min(comparison.crops)
        highest = max(comparison.crops)
        agreeing = f"{comparison.crops_agreeing} of {len(comparison.crops)} crops"
        sentence += f"; {order} on {agreeing}, from {lowest:+.2f} to {highest:+.2f} dB"
    return sentence


def _so_far(comparison: Comparison) -> str:
    """The numbers of a comparison that is not complete, without a claim."""
    return f"compared with {_quoted(comparison.other)}: {_numbers(comparison)}"


def _numbers(comparison: Comparison) -> str:
    """Mean difference, confidence interval and number of seeds."""
    difference = comparison.difference
    numbers = f"{difference.mean:+.2f} dB"
    if difference.count > 1:
        numbers += f", 95% CI [{difference.low:.2f}, {difference.high:.2f}]"
    return f"{numbers}, n = {_seeds(difference.count)}"


def _seeds_needed(comparison: Comparison) -> str:
    more = comparison.more_seeds
    if more is None:
        return "no reasonable number of seeds would be enough"
    return f"about {more} more seed{'' if more == 1 else 's'} needed"


def _choice(verdict: Verdict) -> list[str]:
    """What it means that the winner is one of several finalists."""
    lines = []
    if not verdict.primary and verdict.against:
        lines.append(
            f"  chosen from {verdict.finalists} finalists by their replicates, so significance is Holm-corrected over "
            f"all {verdict.against[0].family} comparisons of finalists with references"
        )
    if not verdict.choice:
        return lines

    winner = verdict.winner.trial.number
    rivals = [number for number, (_, high, _) in verdict.choice.items() if high > 0 and number != winner]
    if rivals:
        names = ", ".join(f"trial {number}" for number in rivals)
        rank = f"no significant difference from {names}"
    else:
        rank = "significantly better than the others"
    _, _, corrected_mean = verdict.choice[winner]
    lines.append(
        f"  among {len(verdict.choice)} finalists: {rank} (simultaneous 95% CIs); "
        f"mean corrected for the winner's curse: {corrected_mean:.3f} dB"
    )
    return lines


def _replicates_of_winner(verdict: Verdict) -> str:
    """Mean of the winner's replicates, how much higher its run in the search scored, and how likely it is the best."""
    own = verdict.winner.estimate
    line = f"  replicates of {_quoted(verdict.winner)}: mean {own.mean:.3f} dB"
    if own.count > 1:
        line += f", standard deviation {own.sd:.3f} dB"
    line += f", n = {_seeds(own.count)}; its run in the search scored {verdict.flattered:+.3f} dB relative to this mean"

    probability = verdict.probability_best.get(verdict.winner.trial.number)
    if probability is not None and not verdict.interim:
        line += f"; probability of being the best of these {len(verdict.judged)}: {probability:.2f}"
    return line


# Without a verdict


def no_verdict(state: StudyState) -> str:
    """Why a study has no verdict: its winner has no replicate that finished."""
    lost = lost_winner(state)
    if lost:
        return lost

    ranking = "a single run per trial gives a ranking, not a verdict"
    if not state.asked_for("replicates", 0):
        return f"{ranking}; for a verdict, start a new study with replicates=3 in its experiment"
    so_far = interim(state)
    has_replicates = any(trial.is_replicate for trial in state.trials.values())
    return f"{ranking} ({so_far})" if has_replicates and so_far else ranking


def lost_winner(state: StudyState) -> str:
    """A sentence about a winner that has failed with every fresh seed so far; empty for any other winner."""
    best = state.best()
    if best is None or not is_lost(state, best) or comparisons(state):
        return ""
    return _failure(state, "", best)


# Failures


def failures(state: StudyState) -> list[str]:
    """A sentence for each setting of the verdict that failed, with the causes; the winner comes first."""
    best = state.best()
    settings = replicated_settings(state)
    of_winner = [_failure(state, name, trial) for name, trial in settings.items() if trial is best]
    of_others = [_failure(state, name, trial) for name, trial in settings.items() if trial is not best]
    in_search = [
        f'"{trial.proposed.name}" failed in the search ({causes([trial])}): it is in no comparison'
        for trial in state.trials.values()
        if trial.is_reference and trial.status == "failed"
    ]
    return [line for line in (*of_winner, *of_others, *in_search) if line]


def _failure(state: StudyState, name: str, trial: TrialState) -> str:
    """A sentence about the failed replicates of a setting and what follows; empty if none has failed."""
    ended = [replicate for replicate in state.replicates_of(trial.number).values() if replicate.ended]
    failed = [replicate for replicate in ended if replicate.status == "failed"]
    if not failed:
        return ""

    setting = _setting(name, trial)
    own_seed_counts = bool(comparisons(state))
    if own_seed_counts or not is_lost(state, trial):
        count = len(ended) + own_seed_counts
        return f"{setting} failed with {len(failed)} of {count} seeds ({causes(failed)})"

    is_complete = len(ended) >= state.asked_for("replicates", 0)
    so_far = "" if is_complete else " so far"
    sentence = f"{setting} failed with {len(failed)} of {len(ended)} fresh seeds{so_far} ({causes(failed)})"
    if trial.is_reference:
        return f"{sentence}: it cannot be compared, but the Holm correction still counts it"
    if trial is not state.best():
        return f"{sentence}: it cannot be chosen"
    if not is_complete:
        return f"{sentence}: no verdict yet"
    candidate = next_candidate(state)
    if candidate is None:
        return f"{sentence}: no verdict; there is no other candidate"
    return f"{sentence}: no verdict; next candidate: trial {candidate.number}"


def causes(failed: Iterable[TrialState]) -> str:
    """Why trials failed: each kind of cause, with the first reason recorded for it."""
    reasons: dict[str, str] = {}
    for trial in failed:
        if isinstance(trial.end, Failed):
            reasons.setdefault(trial.end.cause, " ".join(trial.end.reason.split()))
    return "; ".join(f"{cause}: {_short(reason)}" if reason else cause for cause, reason in reasons.items())


def _short(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON_CHARACTERS else f"{reason[:MAX_REASON_CHARACTERS]}…"


# Names and numbers


def _quoted(judged: Judged) -> str:
    return _setting(judged.name, judged.trial)


def _setting(name: str, trial: TrialState) -> str:
    """A setting's name in a sentence: `"authors"` for a reference or the base, `trial 7` for a trial of the search."""
    title = replicate_title(name, trial)
    return f'"{title}"' if trial.is_reference or name == BASE else title


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
