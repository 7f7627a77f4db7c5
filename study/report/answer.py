"""Builds the top of the report: the question, the answer with its limits, and the state of the study."""

from collections.abc import Sequence

from study.record.state import TrialState
from study.report.markup import Html, bullets, element, joined, pairs, paragraph, readable
from study.report.record import StudyRecord, moment, short
from study.statistics.verdict import Verdict, words

_PHASES = {
    "running": ("running", "This study is running, and the page shows the results so far"),
    "complete": ("complete", ""),
    "exhausted": ("complete", "Every configuration of the search space has been tried"),
    "interrupted": ("interrupted", "This study was interrupted; run the command that began it to resume"),
    "terminated": ("interrupted", "This study was terminated; run the command that began it to resume"),
    "timeout": ("out of time", "This study reached its time limit; run the command that began it to resume"),
    "failures": ("failed", "This study was stopped because of repeated failures"),
    "died": (
        "crashed",
        "This study ended without a record of its end, because it was killed or the machine failed; run the command "
        "that began it to resume from the last checkpoints",
    ),
}
"""For each phase: the badge, and a sentence without its full stop."""


def answer(record: StudyRecord, verdict: Verdict | None) -> Html:
    """Return the top of the page, with the essentials for readers who read nothing else."""
    state = record.state
    opened = record.opened
    best = record.best

    word, sentence = _PHASES[record.phase]
    if record.owner:
        sentence += f" ({record.owner})"
    if state.ended and record.phase == "failures" and state.ended.detail:
        sentence += f": {state.ended.detail}"
    status = paragraph(element("strong", word, class_=f"badge {record.phase}"), " ", _standing(record))
    notice = paragraph(f"{sentence}.", class_="notice") if sentence else None

    return joined(
        [
            paragraph("Hyperparameter study ", element("b", opened.study), class_="kicker"),
            element("h1", opened.text or opened.study),
            status,
            notice,
            _verdict(record, verdict, best),
            _tiles(record, best),
            _settings(best, record.swept) if best else None,
            _warnings(record),
        ]
    )


def _standing(record: StudyRecord) -> str:
    """Return how many trials are in which state, and the time of the last event."""
    state = record.state
    counts = {}
    for status in ("finished", "pruned", "paused", "failed", "running", "waiting", "half done"):
        counts[status] = sum(record.status[t.number] == status for t in record.searched)
    details = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none yet"
    asked = state.session.trials if state.session else 0
    replicates = f"; {state.replicated} replicates" if state.replicated else ""
    return f"{state.counted} of {asked} trials ({details}){replicates}. Last event {moment(state.last_time)}."


def _verdict(record: StudyRecord, verdict: Verdict | None, best: TrialState | None) -> Html:
    """Return the verdict, or why there is none yet."""
    if best is None:
        return paragraph(element("strong", "No answer yet: "), "no trial of the search has finished.", class_="verdict")
    if verdict is None and not record.state.replicated:
        text = (
            f"Trial {best.number} is the best so far after {best.patches:,} patches. A single run per trial only gives "
            "a ranking. A verdict needs replicates, and no finalist has been retrained with new seeds yet."
        )
        return paragraph(text, class_="verdict")

    first, *rest = words(record.state)
    lines = [element("li", line.strip()) for line in rest]
    return element("div", paragraph(first[:1].upper() + first[1:]), element("ul", *lines), class_="verdict")


def _tiles(record: StudyRecord, best: TrialState | None) -> Html | None:
    """Return the winner's score in the search, and its differences from bicubic and the references, as tiles."""
    if best is None or best.score is None:
        return None

    crops = record.opened.data.get("crops", {})
    scored_on = f"mean of {crops['count']} validation crops" if "count" in crops else "validation crops"
    tiles = [
        _tile(f"{best.score:.3f} dB", f"PSNR of trial {best.number} after {best.patches:,} patches, {scored_on}"),
        _tile(f"{best.score - record.bicubic:+.3f} dB", f"against bicubic enlargement ({record.bicubic:.3f} dB)"),
    ]
    for reference in record.references:
        if reference.status == "finished" and reference.score is not None:
            text = f"against the {reference.proposed.name} setting ({reference.score:.3f} dB), one run each"
            tiles.append(_tile(f"{best.score - reference.score:+.3f} dB", text))
    return element("div", *tiles, class_="tiles")


def _tile(number: str, text: str) -> Html:
    return element("div", element("b", number), element("span", text))


def _settings(best: TrialState, names: Sequence[str]) -> Html:
    config = best.config.dotted()
    rows = [(element("span", short(name), title=name), readable(config[name])) for name in names]
    return element("div", element("h3", f"The setting of trial {best.number}"), pairs(rows), class_="settings")


def _warnings(record: StudyRecord) -> Html | None:
    """Return the warnings of the study without duplicates; None if there are none."""
    notes = record.state.concluded.notes if record.state.concluded else ()
    concluding = [note.removeprefix("warning: ") for note in notes if note.startswith("warning: ")]
    warnings = list(dict.fromkeys([*record.state.warnings, *concluding]))
    if not warnings:
        return None
    heading = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    return element(
        "details", element("summary", heading), bullets(warnings), class_="warnings", open=len(warnings) <= 3
    )
