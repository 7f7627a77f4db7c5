"""Scores over the values that were searched: parallel coordinates, and a slice for every hyperparameter."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from study.question.space import Dimension, Float, Int
from study.record.state import Status, TrialState
from study.report.course import PSNR, draw_bicubic, psnr_limits
from study.report.drawing import (
    BEST,
    GREY,
    GROUPS,
    INK,
    PAPER,
    DrawnFigure,
    csv_text,
    draw_figure,
    figure_html,
    middle_colours,
    sheet,
)
from study.report.markup import missing
from study.report.page import Section
from study.report.record import StudyRecord, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOSS = "train.loss"


@dataclass(frozen=True, slots=True)
class _Kind:
    """How trials of some states are drawn."""

    label: str
    states: tuple[Status, ...]
    line: Any
    """Matplotlib's line style."""
    line_name: str
    mark_name: str


_WHOLE = _Kind("finished", ("finished",), "-", "solid", "filled marks")
_KINDS = (
    _WHOLE,
    _Kind("stopped early", ("pruned", "paused"), (0, (4, 3)), "dashed", "open marks"),
    _Kind("under way or half done", ("running", "waiting"), ":", "dotted", "three-armed marks"),
    _Kind("failed", ("failed",), "-.", "dash-dotted", "crosses"),
)
_OWN_MARK = {"under way or half done": "4", "failed": "x"}
"""For both searches with a loss and without: a mark that no loss has."""


def parallel(record: StudyRecord) -> Section:
    """Every trial as a line through its values."""
    title, trials = "Parallel coordinates", _placed(record)
    if len(trials) < 2 or not record.space.dimensions:
        return Section("parallel", title, missing("Needs two or more validated trials inside of the search space."))
    figure = _parallel(record, trials)
    caption = (
        "One line a trial through the values it had, brighter and wider the higher its PSNR"
        f"{_told(trials, 'line_name')}. The best trial is drawn on top."
    )
    over = ", ".join(d.label for d in record.space.dimensions)
    alt = f"Parallel coordinates of {len(trials)} trials over {over} and PSNR"
    body = figure_html(figure, alt=alt, caption=caption, least_width=720)
    return Section("parallel", title, body, figure.files, figure.faults)


def _told(trials: Sequence[tuple[TrialState, Mapping[str, Any]]], look: str) -> str:
    """Which trials did not finish and how they look, to follow a sentence; empty where all finished."""
    there = {t.status for t, _ in trials}
    found = [f"{getattr(kind, look)}: {kind.label}" for kind in _KINDS[1:] if there.intersection(kind.states)]
    return f"; {'; '.join(found)} – these with the PSNR of their last validation" if found else ""


def _kind(trial: TrialState) -> _Kind:
    return next(kind for kind in _KINDS if trial.status in kind.states)


def _placed(record: StudyRecord) -> list[tuple[TrialState, dict[str, Any]]]:
    """Validated trials of the search inside the space, with the value of each dimension."""
    base = record.base.dotted()
    found = [(t, record.space.locate(t.config.dotted(), base)) for t in record.searched if t.score is not None]
    return [(t, point) for t, point in found if point is not None]


def _place(dimension: Dimension, value: Any) -> float:
    """Where a value stands on its axis, from 0 to 1; on a logarithmic one if its range is."""
    match dimension.range:
        case Float(low, high, log) | Int(low, high, log):
            a, b, x = (math.log(v) if log else float(v) for v in (low, high, value))
            return (x - a) / (b - a)
        case _:
            listed = dimension.listed or ()
            return listed.index(value) / max(1, len(listed) - 1)


def _marks(dimension: Dimension) -> list[tuple[float, str]]:
    match dimension.range:
        case Float(low, high, log) | Int(low, high, log):
            values = np.geomspace(low, high, 3) if log else np.linspace(low, high, 3)
            return [(_place(dimension, v), f"{v:.3g}") for v in values.tolist()]
        case _:
            return [(_place(dimension, v), label(v)) for v in dimension.listed or ()]


def label(value: Any) -> str:
    """A value as a tick says it."""
    if isinstance(value, list | tuple):
        return " · ".join(label(v) for v in value)
    return (
        f"{value:g}"
        if isinstance(value, float)
        else str(value).replace("_", " ")
        if isinstance(value, str)
        else str(value)
    )


def _parallel(record: StudyRecord, trials: Sequence[tuple[TrialState, Mapping[str, Any]]]) -> DrawnFigure:
    dimensions = record.space.dimensions
    columns = ("trial", "state", "val/psnr", *(d.label for d in dimensions))
    rows = [(t.number, record.status[t.number], t.score, *(label(p[d.label]) for d in dimensions)) for t, p in trials]
    return draw_figure("parallel-coordinates", csv_text(columns, rows), lambda: _draw_parallel(record, trials))


def _draw_parallel(record: StudyRecord, trials: Sequence[tuple[TrialState, Mapping[str, Any]]]) -> "Figure":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    dimensions, best = record.space.dimensions, record.best
    figure = sheet(max(8.0, 1.55 * (len(dimensions) + 1)), 4.6)
    axes = figure.subplots()
    low, high = psnr_limits(t.score or 0.0 for t, _ in trials)
    norm, colours = Normalize(low, high, clip=True), middle_colours()
    for t, point in sorted(trials, key=lambda found: found[0].score or 0.0):
        standing = float(norm(t.score or 0.0))
        y = [_place(d, point[d.label]) for d in dimensions] + [standing]
        nudge = ((t.number * 0.618034) % 1 - 0.5) * 0.03  # lines through one listed value lie beside each other
        y = [v + nudge for v in y[:-1]] + y[-1:]
        winner = best is not None and t.number == best.number
        look: dict[str, Any] = {
            "color": colours(standing), "linewidth": 0.7 + 1.1 * standing, "alpha": 0.75, "zorder": 2 + standing
        }  # fmt: skip
        if winner:
            look = {"color": BEST, "linewidth": 3, "zorder": 5, "label": f"best: trial {t.number}"}
        axes.plot(range(len(y)), y, linestyle=_kind(t).line, **look)
    for place, dimension in enumerate(dimensions):
        axes.axvline(place, color=INK, linewidth=0.8, alpha=0.5)
        for y0, text in _marks(dimension):
            axes.text(place + 0.03, y0, text, fontsize=8, va="center", zorder=6,
                      bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8})  # fmt: skip
    axes.axvline(len(dimensions), color=INK, linewidth=0.8, alpha=0.5)
    names = [f"{short(d.label).replace(' · ', chr(10))}{_log_note(d)}" for d in dimensions]
    axes.set_xticks(range(len(dimensions) + 1), [*names, "PSNR [dB]"])
    axes.set_xlim(-0.1, len(dimensions) + 0.1)
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=PSNR, pad=0.01)
    bar.outline.set_visible(False)
    for kind in _KINDS[1:]:
        if any(t.status in kind.states for t, _ in trials):
            axes.plot([], [], color=GREY, linestyle=kind.line, label=kind.label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.1), ncols=4)
    return figure


def _log_note(dimension: Dimension) -> str:
    return "\n(log)" if _is_log(dimension) else ""


def _is_log(dimension: Dimension) -> bool:
    return isinstance(dimension.range, Float | Int) and dimension.range.log


def slices(record: StudyRecord) -> Section:
    """Scores over each dimension, the others as they came."""
    title, trials = "Slices", _placed(record)
    if not trials or not record.space.dimensions:
        return Section("slices", title, missing("Needs a validated trial inside of the search space."))
    figure = _slices(record, trials)
    by_loss = " Colour and marker tell the loss." if _LOSS in record.swept else ""
    caption = (
        "PSNR over each hyperparameter, all others as the search happened to set them"
        f"{_told(trials, 'mark_name')}. Marks at one listed value are spread sideways.{by_loss}"
    )
    alt = f"Scatter plots of PSNR over {', '.join(d.label for d in record.space.dimensions)}"
    body = figure_html(figure, alt=alt, caption=caption, least_width=640)
    return Section("slices", title, body, figure.files, figure.faults)


def _slices(record: StudyRecord, trials: Sequence[tuple[TrialState, Mapping[str, Any]]]) -> DrawnFigure:
    dimensions = record.space.dimensions
    numbers = csv_text(
        ("hyperparameter", "value", "loss", "trial", "state", "val/psnr"),
        [(d.label, label(p[d.label]), t.config.train.loss, t.number, record.status[t.number], t.score)
         for d in dimensions for t, p in trials],
    )  # fmt: skip
    return draw_figure("slices", numbers, lambda: _draw_slices(record, trials))


def _draw_slices(record: StudyRecord, trials: Sequence[tuple[TrialState, Mapping[str, Any]]]) -> "Figure":
    from matplotlib.lines import Line2D

    dimensions = record.space.dimensions
    columns = min(3, len(dimensions))
    rows = -(-len(dimensions) // columns)
    figure = sheet(3.2 * columns + 0.4, 2.7 * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    limits = psnr_limits([t.score or 0.0 for t, _ in trials], record.bicubic)
    losses = sorted({t.config.train.loss for t, _ in trials}) if _LOSS in record.swept else [""]
    for panel, dimension in zip(panels, dimensions, strict=False):
        panel.grid(True)
        panel.set_ylim(*limits)
        for loss, (colour, marker) in zip(losses, GROUPS * 9, strict=False):
            own = [(t, p) for t, p in trials if not loss or t.config.train.loss == loss]
            _slice(panel, dimension, own, colour, marker, limits[0], loss)
        draw_bicubic(panel, record.bicubic)
        panel.set_xlabel(short(dimension.label) + (" (log)" if _is_log(dimension) else ""))
    for panel in panels[::columns]:
        panel.set_ylabel("PSNR (Y) [dB]")
    for panel in panels[len(dimensions) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    there = {t.status for t, _ in trials}
    for kind in _KINDS[1:]:
        if there.intersection(kind.states):
            mark = _OWN_MARK.get(kind.label, "o")
            handles.append(Line2D([], [], color=GREY, marker=mark, markerfacecolor="none", linestyle="none"))
            labels.append(kind.label)
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _slice(
    axes: "Axes",
    dimension: Dimension,
    trials: Sequence[tuple[TrialState, Mapping[str, Any]]],
    colour: str,
    marker: str,
    floor: float,
    name: str,
) -> None:
    listed = dimension.listed
    if listed is None:
        if _is_log(dimension):
            axes.set_xscale("log")
    else:
        marks = [label(v) for v in listed]
        long = max(map(len, marks)) * len(marks) > 28
        axes.set_xticks(
            range(len(listed)), marks, rotation=35 if long else 0, ha="right" if long else "center", fontsize=8
        )
        axes.set_xlim(-0.5, len(listed) - 0.5)
    for kind in _KINDS:
        own = [(t, p) for t, p in trials if t.status in kind.states]
        x = [float(p[dimension.label]) if listed is None else listed.index(p[dimension.label])
             + ((t.number * 0.618034) % 1 - 0.5) * 0.5 for t, p in own]  # fmt: skip
        y = [max(t.score or 0.0, floor) for t, _ in own]
        look: dict[str, Any] = {"s": 16, "facecolor": "none", "edgecolor": colour, "marker": marker, "alpha": 0.7}
        if kind is _WHOLE:
            look |= {"s": 20, "facecolor": colour, "alpha": 0.9, "label": name or "finished"}
        elif kind.label in _OWN_MARK:
            look = {"s": 36, "color": colour, "marker": _OWN_MARK[kind.label]}
        axes.scatter(x, y, linewidth=0.9, clip_on=False, zorder=3, **look)
