"""The top of the report: the question, its answer, how far that holds, and how the study stands."""

from collections.abc import Sequence

from study.record.state import TrialState
from study.report.markup import Html, bullets, element, joined, pairs, paragraph, readable
from study.report.record import StudyRecord, moment, short
from study.statistics.verdict import Verdict, words

_PHASES = {
    "running": ("running", "This study is running; what follows is what there is so far"),
    "complete": ("complete", ""),
    "exhausted": ("complete", "Every configuration of the search space has been tried"),
    "interrupted": ("interrupted", "This study was interrupted; the command that began it goes on from here"),
    "terminated": ("interrupted", "This study was terminated; the command that began it goes on from here"),
    "timeout": ("out of time", "This study's time was up; the command that began it goes on from here"),
    "failures": ("failed", "This study was stopped for repeated failures"),
    "died": ("crashed", "This study ended without a word (killed, or the machine went down); the command that began it "
             "goes on from the last checkpoints"),
}  # fmt: skip


def answer(record: StudyRecord, told: Verdict | None) -> Html:
    """What a reader has to know who reads nothing else."""
    state, opened, best = record.state, record.opened, record.best
    word, sentence = _PHASES[record.phase]
    if record.owner:
        sentence += f" ({record.owner})"
    detail = state.ended.detail if state.ended and record.phase == "failures" else ""
    status = paragraph(element("strong", word, class_=f"badge {record.phase}"), " ", _standing(record))
    told_sentence = ": ".join(filter(None, (sentence, detail)))
    notice = paragraph(told_sentence + ".", class_="notice") if sentence else None
    return joined(
        [
            paragraph("Hyperparameter study ", element("b", opened.study), class_="kicker"),
            element("h1", opened.text or opened.study),
            status,
            notice,
            _verdict(record, told, best),
            _tiles(record, best),
            _settings(best, record.swept) if best else None,
            _warnings(record),
        ]
    )


def _standing(record: StudyRecord) -> str:
    state = record.state
    counts = {s: sum(record.status[t.number] == s for t in record.searched)
              for s in ("finished", "pruned", "paused", "failed", "running", "waiting", "half done")}  # fmt: skip
    told = ", ".join(f"{n} {s}" for s, n in counts.items() if n) or "none yet"
    asked = state.session.trials if state.session else 0
    again = f"; {state.replicated} replicates" if state.replicated else ""
    return f"{state.counted} of {asked} trials ({told}){again}. Last event {moment(state.last_time)}."


def _verdict(record: StudyRecord, told: Verdict | None, best: TrialState | None) -> Html:
    if best is None:
        return paragraph(element("strong", "No answer yet: "), "no trial of the search has finished.", class_="verdict")
    if told is None and not record.state.replicated:
        text = (
            f"Best so far after {best.patches:,} patches is trial {best.number}. One run each is a ranking, not a "
            "verdict: no finalist has been trained again with fresh seeds."
        )
        return paragraph(text, class_="verdict")
    first, *rest = words(record.state)
    lines = [element("li", line.strip()) for line in rest]
    return element("div", paragraph(first[:1].upper() + first[1:]), element("ul", *lines), class_="verdict")


def _tiles(record: StudyRecord, best: TrialState | None) -> Html | None:
    """The winner's run in the search against bicubic and the references, in numbers."""
    if best is None or best.score is None:
        return None
    crops = record.opened.data.get("crops", {})
    on = f"mean of {crops['count']} validation crops" if "count" in crops else "validation crops"
    tiles = [
        _tile(f"{best.score:.3f} dB", f"PSNR of trial {best.number} after {best.patches:,} patches, {on}"),
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
    notes = record.state.concluded.notes if record.state.concluded else ()
    found = [*record.state.warnings, *(n.removeprefix("warning: ") for n in notes if n.startswith("warning: "))]
    if not found:
        return None
    shown = list(dict.fromkeys(found))
    head = element("summary", f"{len(shown)} warning{'s' * (len(shown) != 1)}")
    return element("details", head, bullets(shown), class_="warnings", open=len(shown) <= 3)
