"""What the study cost: hours, patches, what stopping trials early saved, and where the time went."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.record.state import TrialState
from study.record.wall_time import trial_seconds
from study.report.drawing import GREY, GROUPS, PAPER, DrawnFigure, csv_text, draw_figure, figure_html, sheet
from study.report.markup import joined, missing, pairs, table
from study.report.page import Section
from study.report.record import SessionSummary, StudyRecord, duration_of, moment
from study.statistics import pace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo")


@dataclass(frozen=True, slots=True)
class Cost:
    """Sums over a study."""

    wall_seconds: float
    """Of all sessions."""
    parts: Mapping[str, float]
    """Seconds of slots that trials counted, by what they went into."""
    patches: Mapping[str, int]
    """Trained, by what became of the trials."""
    saved_patches: int
    """That stopped trials did not train."""
    saved_wall_seconds: float
    """About what these would have added to the wall time, at the study's own pace over all slots."""

    @property
    def trained(self) -> int:
        return sum(self.patches.values())


def cost_of(record: StudyRecord) -> Cost:
    """The sums, from the journal."""
    parts, patches = Counter[str](), Counter[str]()
    for trial in record.state.trials.values():
        parts.update(trial_seconds(trial))
        patches[_kind(record, trial)] += trial.patches
    wall = sum(session.seconds for session in record.sessions)
    rate = sum(patches.values()) / wall if wall else 0.0
    return Cost(wall, parts, patches, pace.saved(record.state), pace.saved_wall_seconds(record.state, rate))


def _kind(record: StudyRecord, trial: TrialState) -> str:
    if trial.is_replicate:
        return "replicates"
    return "references" if trial.is_reference else record.status[trial.number]


def cost(record: StudyRecord) -> Section:
    """Numbers, a figure, and the sessions."""
    found, budget = cost_of(record), record.base.train.budget_patches
    if not record.sessions:
        return Section("cost", "Cost", missing("No session has begun yet."))
    share = found.saved_patches / (found.trained + found.saved_patches) if found.trained else 0.0
    rows = [
        ("wall time of all sessions", duration_of(found.wall_seconds)),
        ("patches trained", f"{found.trained:,} ({found.trained / budget:.1f} full budgets of {budget:,})"),
        ("patches per second of wall time", f"{found.trained / found.wall_seconds:.0f}" if found.wall_seconds else ""),
        (
            "saved by stopping trials early",
            f"{found.saved_patches:,} patches, {share:.0%} of what training all to the end would take; "
            f"about {duration_of(found.saved_wall_seconds)} of wall time at the study's own pace",
        ),
        (
            "computed on",
            ", ".join(sorted({s.hardware for t in record.state.trials.values() for s in t.starts if s.hardware})),
        ),
        *_loads(record),
    ]
    figure = _bars(found)
    alt = "Stacked bars of slot seconds by what they went into and of patches by what became of the trials"
    caption = (
        "Where the time of trials went, summed over slots, so that slots side by side count more than the clock; and "
        "what became of the patches that were trained; dotted outline: saved."
    )
    sessions = table(
        ("session", "began", "lasted", "on", "asked for", "ended"),
        [_session(session) for session in record.sessions],
        caption="Sessions",
    )
    body = joined(
        [pairs((n, v) for n, v in rows if v), figure_html(figure, alt=alt, caption=caption, least_width=560), sessions]
    )
    return Section("cost", "Cost", body, figure.files, figure.faults)


def _session(session: SessionSummary) -> tuple[object, ...]:
    start, end = session.start, session.end
    ended = end.reason if end else "no end recorded"
    return start.epoch, moment(start.time), duration_of(session.seconds), start.host, f"{start.trials} trials", ended


def _loads(record: StudyRecord) -> list[tuple[str, str]]:
    """Means of what trials measured of their devices."""
    means = ", ".join(f"{what.replace('_', ' ')} {value:.0f}" for what, value in record.mean_loads.items())
    return [("mean load of a trial's device", means)] if means else []


def _bars(found: Cost) -> DrawnFigure:
    rows = [("slot seconds", what, value) for what, value in found.parts.items()]
    rows += [("patches", what, value) for what, value in found.patches.items()]
    rows += [("patches", "saved", found.saved_patches), ("wall seconds", "saved (estimate)", found.saved_wall_seconds)]
    rows += [("wall seconds", "all sessions", found.wall_seconds)]
    return draw_figure("cost", csv_text(("unit", "what", "value"), rows), lambda: _draw_bars(found))


def _draw_bars(found: Cost) -> "Figure":
    figure = sheet(9, 3.2)
    above, below = figure.subplots(2, 1)
    parts = {k: v for k, v in found.parts.items() if v > 0}
    _stack(above, parts, "slot time that trials counted [s]")
    patches = {k: float(v) for k, v in found.patches.items() if v}
    _stack(below, patches, "training patches", saved=float(found.saved_patches))
    return figure


def _stack(axes: "Axes", parts: Mapping[str, float], label: str, saved: float = 0.0) -> None:
    left = 0.0
    for (what, value), (colour, _), hatch in zip(parts.items(), GROUPS * 9, _HATCHES * 9, strict=False):
        axes.barh(
            0,
            value,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor=PAPER,
            linewidth=0.8,
            label=f"{what}: {value:,.0f}",
        )
        left += value
    if saved:
        axes.barh(
            0,
            saved,
            left=left,
            facecolor="none",
            edgecolor=GREY,
            linestyle=":",
            linewidth=1.5,
            label=f"saved: {saved:,.0f}",
        )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set(xlabel=label)
    axes.margins(x=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if parts:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center")
