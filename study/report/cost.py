"""Reports what the study cost: hours and patches, the savings of early stopping, and where the time went."""

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
    """Sums over all trials and sessions of a study."""

    wall_seconds: float
    """Wall time of all sessions."""
    parts: Mapping[str, float]
    """Slot seconds by activity, summed over trials."""
    patches: Mapping[str, int]
    """Training patches by the outcome of their trials."""
    saved_patches: int
    """Patches that stopped trials did not train."""
    saved_wall_seconds: float
    """Estimated wall time of the saved patches, at the study's own rate over all slots."""

    @property
    def trained(self) -> int:
        """Number of training patches of all trials."""
        return sum(self.patches.values())


def cost_of(record: StudyRecord) -> Cost:
    """Return the cost of a study, from its journal."""
    parts = Counter[str]()
    patches = Counter[str]()
    for trial in record.state.trials.values():
        parts.update(trial_seconds(trial))
        patches[_kind(record, trial)] += trial.patches
    wall = sum(session.seconds for session in record.sessions)
    rate = sum(patches.values()) / wall if wall else 0.0
    return Cost(wall, parts, patches, pace.saved(record.state), pace.saved_wall_seconds(record.state, rate))


def _kind(record: StudyRecord, trial: TrialState) -> str:
    """Return the outcome under which a trial's patches are counted."""
    if trial.is_replicate:
        return "replicates"
    if trial.is_reference:
        return "references"
    return record.status[trial.number]


def cost(record: StudyRecord) -> Section:
    """Return the section with the sums, a figure and a table of the sessions."""
    if not record.sessions:
        return Section("cost", "Cost", missing("No session has begun yet."))

    total = cost_of(record)
    budget = record.base.train.budget_patches
    saved_share = total.saved_patches / (total.trained + total.saved_patches) if total.trained else 0.0
    rate = f"{total.trained / total.wall_seconds:.0f}" if total.wall_seconds else ""
    hardware = {s.hardware for t in record.state.trials.values() for s in t.starts if s.hardware}
    rows = [
        ("wall time of all sessions", duration_of(total.wall_seconds)),
        ("patches trained", f"{total.trained:,} ({total.trained / budget:.1f} full budgets of {budget:,})"),
        ("patches per second of wall time", rate),
        (
            "saved by stopping trials early",
            f"{total.saved_patches:,} patches, {saved_share:.0%} of training every trial to its full budget; "
            f"about {duration_of(total.saved_wall_seconds)} of wall time at the study's own rate",
        ),
        ("hardware", ", ".join(sorted(hardware))),
        *_loads(record),
    ]

    figure = _bars(total)
    alt = "Stacked bars of slot seconds by activity and of training patches by the outcome of their trials"
    caption = (
        "Top: time by activity, summed over slots, so that concurrent slots add up to more than the wall time. "
        "Bottom: training patches by the outcome of their trials. Dotted outline: patches saved by stopping early."
    )
    sessions = table(
        ("session", "began", "duration", "host", "requested", "ended"),
        [_session(session) for session in record.sessions],
        caption="Sessions",
    )
    body = joined(
        [pairs((n, v) for n, v in rows if v), figure_html(figure, alt=alt, caption=caption, least_width=560), sessions]
    )
    return Section("cost", "Cost", body, figure.files, figure.faults)


def _session(session: SessionSummary) -> tuple[object, ...]:
    """Return the row of a session in the table."""
    start = session.start
    ended = session.end.reason if session.end else "no end recorded"
    return start.epoch, moment(start.time), duration_of(session.seconds), start.host, f"{start.trials} trials", ended


def _loads(record: StudyRecord) -> list[tuple[str, str]]:
    """Return the mean loads of the trials' devices as a row; empty if none were measured."""
    means = ", ".join(f"{what.replace('_', ' ')} {value:.0f}" for what, value in record.mean_loads.items())
    return [("mean load of a trial's device", means)] if means else []


def _bars(total: Cost) -> DrawnFigure:
    rows = [("slot seconds", what, value) for what, value in total.parts.items()]
    rows += [("patches", what, value) for what, value in total.patches.items()]
    rows += [("patches", "saved", total.saved_patches), ("wall seconds", "saved (estimate)", total.saved_wall_seconds)]
    rows += [("wall seconds", "all sessions", total.wall_seconds)]
    return draw_figure("cost", csv_text(("unit", "what", "value"), rows), lambda: _draw_bars(total))


def _draw_bars(total: Cost) -> "Figure":
    figure = sheet(9, 3.2)
    top, bottom = figure.subplots(2, 1)
    parts = {activity: seconds for activity, seconds in total.parts.items() if seconds > 0}
    _stack(top, parts, "slot time [s]")
    patches = {outcome: float(count) for outcome, count in total.patches.items() if count}
    _stack(bottom, patches, "training patches", saved=float(total.saved_patches))
    return figure


def _stack(axes: "Axes", parts: Mapping[str, float], label: str, saved: float = 0.0) -> None:
    """Draw one stacked bar, with an outline for what was saved."""
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
