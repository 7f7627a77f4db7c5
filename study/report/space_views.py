"""Shows scores over the searched values: parallel coordinates, and a slice for each hyperparameter."""

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
    """How trials in certain states are drawn."""

    label: str
    states: tuple[Status, ...]
    line: Any
    """Line style of Matplotlib."""
    line_name: str
    mark_name: str


_FINISHED = _Kind("finished", ("finished",), "-", "solid", "filled marks")
_KINDS = (
    _FINISHED,
    _Kind("stopped early", ("pruned", "paused"), (0, (4, 3)), "dashed", "open marks"),
    _Kind("under way or half done", ("running", "waiting"), ":", "dotted", "three-armed marks"),
    _Kind("failed", ("failed",), "-.", "dash-dotted", "crosses"),
)
_OWN_MARK = {"under way or half done": "4", "failed": "x"}
"""Marks that stand for no loss, so that they are unambiguous in a search over losses too."""


def parallel(record: StudyRecord) -> Section:
    """Return the section that draws every trial as a line through its values."""
    title = "Parallel coordinates"
    trials = _placed(record)
    if len(trials) < 2 or not record.space.dimensions:
        return Section("parallel", title, missing("Needs two or more validated trials in the search space."))

    figure = _parallel(record, trials)
    caption = (
        "Each line is a trial and passes through its values. Brighter and wider lines have a higher PSNR"
        f"{_describe_unfinished(trials, 'line_name')}. The best trial is drawn on top."
    )
    over = ", ".join(d.label for d in record.space.dimensions)
    alt = f"Parallel coordinates of {len(trials)} trials over {over} and PSNR"
    body = figure_html(figure, alt=alt, caption=caption, least_width=720)
    return Section("parallel", title, body, figure.files, figure.faults)


def _describe_unfinished(trials: Sequence[tuple[TrialState, Mapping[str, Any]]], look: str) -> str:
    """Return how trials that did not finish are drawn, to be appended to a sentence; empty if all finished.

    Args:
        look: the attribute of `_Kind` that names the look.
    """
    statuses = {t.status for t, _ in trials}
    looks = [f"{getattr(kind, look)}: {kind.label}" for kind in _KINDS[1:] if statuses.intersection(kind.states)]
    return f" ({'; '.join(looks)}; these with the PSNR of their last validation)" if looks else ""


def _kind(trial: TrialState) -> _Kind:
    return next(kind for kind in _KINDS if trial.status in kind.states)


def _placed(record: StudyRecord) -> list[tuple[TrialState, dict[str, Any]]]:
    """Return the validated trials inside the search space, with the value of each dimension."""
    base = record.base.dotted()
    placed: list[tuple[TrialState, dict[str, Any]]] = []
    for trial in record.searched:
        if trial.score is None:
            continue
        point = record.space.locate(trial.config.dotted(), base)
        if point is not None:
            placed.append((trial, point))
    return placed


def _place(dimension: Dimension, value: Any) -> float:
    """Return the position of a value on its axis, from 0 to 1. A logarithmic range has a logarithmic axis."""
    match dimension.range:
        case Float(low, high, log) | Int(low, high, log):
            if log:
                return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
            return (float(value) - float(low)) / (float(high) - float(low))
        case _:
            listed = dimension.listed or ()
            return listed.index(value) / max(1, len(listed) - 1)


def _marks(dimension: Dimension) -> list[tuple[float, str]]:
    """Return position and text of the ticks of an axis."""
    match dimension.range:
        case Float(low, high, log) | Int(low, high, log):
            values = np.geomspace(low, high, 3) if log else np.linspace(low, high, 3)
            return [(_place(dimension, v), f"{v:.3g}") for v in values.tolist()]
        case _:
            return [(_place(dimension, v), label(v)) for v in dimension.listed or ()]


def label(value: Any) -> str:
    """Return a value as the text of a tick."""
    if isinstance(value, list | tuple):
        return " · ".join(label(v) for v in value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value.replace("_", " ")
    return str(value)


def _parallel(record: StudyRecord, trials: Sequence[tuple[TrialState, Mapping[str, Any]]]) -> DrawnFigure:
    dimensions = record.space.dimensions
    columns = ("trial", "state", "val/psnr", *(d.label for d in dimensions))
    rows = [(t.number, record.status[t.number], t.score, *(label(p[d.label]) for d in dimensions)) for t, p in trials]
    return draw_figure("parallel-coordinates", csv_text(columns, rows), lambda: _draw_parallel(record, trials))


def _draw_parallel(record: StudyRecord, trials: Sequence[tuple[TrialState, Mapping[str, Any]]]) -> "Figure":
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    dimensions = record.space.dimensions
    best = record.best
    figure = sheet(max(8.0, 1.55 * (len(dimensions) + 1)), 4.6)
    axes = figure.subplots()
    low, high = psnr_limits(t.score or 0.0 for t, _ in trials)
    norm = Normalize(low, high, clip=True)
    colours = middle_colours()
    for t, point in sorted(trials, key=lambda placed: placed[0].score or 0.0):
        standing = float(norm(t.score or 0.0))
        nudge = _spread(t) * 0.03  # separates lines that pass through the same listed value
        y = [_place(d, point[d.label]) + nudge for d in dimensions] + [standing]
        look: dict[str, Any] = {
            "color": colours(standing),
            "linewidth": 0.7 + 1.1 * standing,
            "alpha": 0.75,
            "zorder": 2 + standing,
        }
        if best is not None and t.number == best.number:
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


def _spread(trial: TrialState) -> float:
    """Return a fixed offset in [-0.5, 0.5) that differs between trials, by multiples of the golden ratio."""
    return (trial.number * 0.618034) % 1 - 0.5


def _log_note(dimension: Dimension) -> str:
    return "\n(log)" if _is_log(dimension) else ""


def _is_log(dimension: Dimension) -> bool:
    return isinstance(dimension.range, Float | Int) and dimension.range.log


def slices(record: StudyRecord) -> Section:
    """Return the section with scores over each dimension, whatever the values of the other dimensions."""
    title = "Slices"
    trials = _placed(record)
    if not trials or not record.space.dimensions:
        return Section("slices", title, missing("Needs a validated trial in the search space."))

    figure = _slices(record, trials)
    by_loss = " Colour and marker show the loss." if _LOSS in record.swept else ""
    caption = (
        "PSNR over each hyperparameter. The other hyperparameters vary from trial to trial"
        f"{_describe_unfinished(trials, 'mark_name')}. Marks at the same listed value are spread sideways.{by_loss}"
    )
    alt = f"Scatter plots of PSNR over {', '.join(d.label for d in record.space.dimensions)}"
    body = figure_html(figure, alt=alt, caption=caption, least_width=640)
    return Section("slices", title, body, figure.files, figure.faults)


def _slices(record: StudyRecord, trials: Sequence[tuple[TrialState, Mapping[str, Any]]]) -> DrawnFigure:
    dimensions = record.space.dimensions
    columns = ("hyperparameter", "value", "loss", "trial", "state", "val/psnr")
    rows = []
    for dimension in dimensions:
        name = dimension.label
        for t, point in trials:
            rows.append((name, label(point[name]), t.config.train.loss, t.number, record.status[t.number], t.score))
    numbers = csv_text(columns, rows)
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
    statuses = {t.status for t, _ in trials}
    for kind in _KINDS[1:]:
        if statuses.intersection(kind.states):
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
    """Draw the trials of one loss over one dimension.

    Args:
        floor: scores below it are drawn at this height.
        name: of the loss; empty if the search does not vary it.
    """
    listed = dimension.listed
    if listed is None:
        if _is_log(dimension):
            axes.set_xscale("log")
    else:
        marks = [label(v) for v in listed]
        crowded = max(map(len, marks)) * len(marks) > 28
        if crowded:
            axes.set_xticks(range(len(listed)), marks, rotation=35, ha="right", fontsize=8)
        else:
            axes.set_xticks(range(len(listed)), marks, rotation=0, ha="center", fontsize=8)
        axes.set_xlim(-0.5, len(listed) - 0.5)

    for kind in _KINDS:
        own = [(t, p) for t, p in trials if t.status in kind.states]
        x: list[float] = []
        for t, point in own:
            value = point[dimension.label]
            x.append(float(value) if listed is None else listed.index(value) + _spread(t) * 0.5)
        y = [max(t.score or 0.0, floor) for t, _ in own]
        look: dict[str, Any] = {"s": 16, "facecolor": "none", "edgecolor": colour, "marker": marker, "alpha": 0.7}
        if kind is _FINISHED:
            look |= {"s": 20, "facecolor": colour, "alpha": 0.9, "label": name or "finished"}
        elif kind.label in _OWN_MARK:
            look = {"s": 36, "color": colour, "marker": _OWN_MARK[kind.label]}
        axes.scatter(x, y, linewidth=0.9, clip_on=False, zorder=3, **look)
