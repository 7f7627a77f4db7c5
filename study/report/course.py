"""Shows how the search went: scores in the order in which trials ended, and learning curves."""

import math
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from study import results
from study.plots.figures import name_in_figure
from study.record.state import TrialState
from study.report.drawing import (
    BEST,
    FINALISTS,
    GREY,
    INK,
    PAPER,
    REFERENCES,
    DrawnFigure,
    canvas,
    csv_text,
    draw_figure,
    figure_html,
)
from study.report.markup import Html, missing
from study.report.page import Section
from study.report.record import StudyRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PSNR = "PSNR on the validation crops (Y) [dB]"
_STOPPED = {"pruned": ("x", "pruned"), "paused": ("d", "paused"), "failed": ("X", "failed")}
_UNFINISHED = ("4", "under way or half done")


def psnr_limits(values: Iterable[float], bicubic: float | None = None) -> tuple[float, float]:
    """Return the limits of an axis of scores [dB], chosen so that a few very bad trials do not squeeze the others.

    The axis reaches from the best score down to the worst, but at most as far below the lowest tenth as the best is
    above it. Bicubic's score is included if that at most doubles the height.
    """
    ordered = sorted(v for v in values if math.isfinite(v))
    if not ordered:
        return 0.0, 1.0

    top = ordered[-1]
    lowest_tenth = ordered[len(ordered) // 10]
    low = max(ordered[0], lowest_tenth - max(top - lowest_tenth, 0.05))
    if bicubic is not None:
        span = max(top - low, 0.05)
        if low - span <= bicubic < low:
            low = bicubic
        elif top < bicubic <= top + span:
            top = bicubic
    margin = 0.05 * max(top - low, 0.05)
    return low - margin, top + margin


def draw_bicubic(axes: "Axes", bicubic: float) -> None:
    """Draw bicubic's score as a line, or name it in the legend if it is outside the axis."""
    low, high = axes.get_ylim()
    if low <= bicubic <= high:
        axes.axhline(bicubic, color=INK, linestyle=":", linewidth=1.2, label=f"bicubic, {bicubic:.2f} dB")
    else:
        axes.plot([], [], color=INK, linestyle=":", label=f"bicubic, {bicubic:.2f} dB (outside this axis)")


def history(record: StudyRecord) -> Section:
    """Return the section with the scores of trials in the order in which they ended, and the best so far."""
    scored = [t for t in record.searched if t.score is not None]
    if not scored:
        return Section("history", "Optimisation history", missing("No trial has been validated yet."))
    figure = _history(record, scored)
    last = " Trials under way or half done stand last." if any(_is_unfinished(t) for t in scored) else ""
    caption = (
        "Last PSNR of each trial, in the order in which trials ended or paused. For a stopped trial, it is the PSNR at "
        f"the point where it stopped. The line is the best finished trial of the search so far.{last}"
    )
    alt = f"Scatter plot of the PSNR of {len(scored)} trials in the order of their ends, with the best so far as a line"
    body = figure_html(figure, alt=alt, caption=caption, least_width=560)
    return Section("history", "Optimisation history", body, figure.files, figure.faults)


def _history(record: StudyRecord, scored: Sequence[TrialState]) -> DrawnFigure:
    order = _order(record)
    place = {number: count for count, number in enumerate(order, start=1)}
    best_by = dict(zip(order, _best_so_far(record, order), strict=True))
    rows = []
    for number in (*order, *(t.number for t in record.searched if _is_unfinished(t))):
        t, count = record.state.trials[number], place.get(number)
        rows.append((count, number, t.proposed.name, record.status[number], t.patches, t.score, best_by.get(number)))
    columns = ("ended", "trial", "name", "state", "patches", "val/psnr", "best_so_far")
    return draw_figure("history", csv_text(columns, rows), lambda: _draw_history(record, scored, order))


def _draw_history(record: StudyRecord, scored: Sequence[TrialState], order: Sequence[int]) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure, axes = canvas(9, 4.2)
    axes.set_ylim(*psnr_limits([t.score or 0.0 for t in scored], record.bicubic))
    low, _ = axes.get_ylim()
    place = {number: count for count, number in enumerate(order, start=1)}
    place |= {t.number: len(order) + 1 for t in record.searched if _is_unfinished(t)}

    def points(trials: Sequence[TrialState]) -> tuple[list[int], list[float]]:
        return [place[t.number] for t in trials], [t.score or 0.0 for t in trials]

    finished = [t for t in scored if t.status == "finished" and not t.is_reference]
    axes.scatter(*points(finished), s=26, color=GREY, edgecolor=PAPER, linewidth=0.5, zorder=3, label="finished")
    for status, (marker, label) in _STOPPED.items():
        stopped = [t for t in scored if t.status == status]
        if stopped:
            axes.scatter(*points(stopped), s=26, marker=marker, color=GREY, linewidth=1.1, zorder=2, label=label)
    unfinished = [t for t in scored if _is_unfinished(t)]
    if unfinished:
        marker, label = _UNFINISHED
        axes.scatter(*points(unfinished), s=40, marker=marker, color=INK, zorder=3, label=label)
    for reference, colour in zip(record.references, cycle(REFERENCES), strict=False):
        if reference.score is not None:
            label = f"reference: {name_in_figure(reference.proposed.name)}"
            axes.scatter(*points([reference]), s=44, marker="s", facecolor="none", edgecolor=colour,
                         linewidth=1.8, zorder=4, label=label)  # fmt: skip

    best_so_far = _best_so_far(record, order)
    steps = [(count, best) for count, best in enumerate(best_so_far, start=1) if best is not None]
    if steps:
        axes.step(*zip(*steps, strict=True), where="post", color=BEST, linewidth=2, zorder=1, label="best so far")
    below = [place[t.number] for t in scored if (t.score or 0.0) < low]
    if below:
        axes.plot(below, [low] * len(below), "v", color=GREY, markersize=5, clip_on=False, label="below this axis")
    draw_bicubic(axes, record.bicubic)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trials of the search that had ended or paused", ylabel=PSNR)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _is_unfinished(trial: TrialState) -> bool:
    """Return True if the trial has neither ended nor been paused by the scheduler."""
    return trial.status in ("running", "waiting")


def _order(record: StudyRecord) -> list[int]:
    """Return the numbers of the search's trials in the order in which they ended or reported their last score."""
    paused = [t for t in record.searched if t.status == "paused"]
    waiting = sorted((t.arrivals[-1] if t.arrivals else 0, t.number) for t in paused)
    order: list[int] = []
    for number in record.state.endings:
        trial = record.state.trials[number]
        if trial.is_replicate:
            continue
        while waiting and trial.arrivals and waiting[0][0] < trial.arrivals[-1]:
            order.append(waiting.pop(0)[1])
        order.append(number)
    return order + [number for _, number in waiting]


def _best_so_far(record: StudyRecord, order: Sequence[int]) -> list[float | None]:
    """Return the best score [dB] among the search's finished trials up to each trial; None before the first.

    References do not count.
    """
    scores: list[float | None] = []
    best: float | None = None
    for number in order:
        trial = record.state.trials[number]
        if trial.status == "finished" and not trial.is_reference and trial.score is not None:
            best = trial.score if best is None else max(best, trial.score)
        scores.append(best)
    return scores


def learning_curves_section(record: StudyRecord) -> Section:
    """Return the section with validation PSNR over training patches, for the search and for the replicates."""
    searched = [t for t in record.searched if t.curve]
    if not searched:
        return Section("curves", "Learning curves", missing("No trial has been validated yet."))
    figure = _curves(record, searched)
    replicates = _replicate_curves(record)
    caption = (
        "Validation PSNR over training patches, one line per trial. Lines that end early belong to stopped trials: "
        "× pruned, ◆ paused, ✖ failed."
    )
    alt = f"Learning curves of {len(searched)} trials over training patches"
    parts: list[Html] = [figure_html(figure, alt=alt, caption=caption, least_width=560)]
    files = dict(figure.files)
    faults = figure.faults
    if replicates is not None:
        caption = "Learning curves of the replicates: finalists and references retrained, one line per new seed."
        alt = "Learning curves of the replicates"
        parts.append(figure_html(replicates, alt=alt, caption=caption, least_width=560))
        files |= replicates.files
        faults += replicates.faults
    return Section("curves", "Learning curves", Html("".join(parts)), files, faults)


def _curves(record: StudyRecord, searched: Sequence[TrialState]) -> DrawnFigure:
    numbers = results.curves(record.state).to_csv(index=False)
    return draw_figure("learning-curves", numbers, lambda: _draw_curves(record, searched))


def _draw_curves(record: StudyRecord, searched: Sequence[TrialState]) -> "Figure":
    best = record.best
    colours = colours_of(record)
    figure, axes = canvas(9, 4.6)
    ends = [t.score or 0.0 for t in searched]
    ends += [p.scores["val/psnr"] for t in searched if t.status == "finished" for p in t.curve]
    low, high = psnr_limits(ends, record.bicubic)
    axes.set_ylim(low, high)
    labelled: set[str] = set()
    for t in searched:
        x = [p.patches for p in t.curve]
        y = [p.scores["val/psnr"] for p in t.curve]
        if best is not None and t.number == best.number:
            axes.plot(
                x, y, color=BEST, linewidth=2.6, zorder=4, marker="o", markersize=4, label=f"best: trial {t.number}"
            )
            continue
        if t.is_reference:
            axes.plot(
                x,
                y,
                color=colours[t.number],
                linewidth=2,
                linestyle="--",
                zorder=3,
                label=f"reference: {name_in_figure(t.proposed.name)}",
            )
        else:
            axes.plot(x, y, color=GREY, linewidth=0.9, alpha=0.75 if t.status == "finished" else 0.4, zorder=1)
        if t.status != "finished":
            marker, label = _STOPPED.get(t.status, _UNFINISHED)
            axes.plot(x[-1:], [max(y[-1], low)], marker, color=GREY, markersize=5, zorder=2, clip_on=False,
                      label=None if label in labelled else label)  # fmt: skip
            labelled.add(label)
    draw_bicubic(axes, record.bicubic)
    axes.set(xlabel="training patches", ylabel=PSNR)
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _replicate_curves(record: StudyRecord) -> DrawnFigure | None:
    again = [t for t in record.state.trials.values() if t.is_replicate and t.curve]
    if not again:
        return None
    columns = ("finalist", "of", "seed", "trial", "patches", "val/psnr", "val/ssim")
    rows = [(t.proposed.name, t.proposed.of, t.proposed.replicate, t.number, p.patches, p.scores["val/psnr"],
             p.scores.get("val/ssim")) for t in again for p in t.curve]  # fmt: skip
    return draw_figure("replicate-curves", csv_text(columns, rows), lambda: _draw_replicate_curves(record, again))


def _draw_replicate_curves(record: StudyRecord, again: Sequence[TrialState]) -> "Figure":
    figure, axes = canvas(9, 4)
    axes.set_ylim(*psnr_limits([p.scores["val/psnr"] for t in again for p in t.curve], record.bicubic))
    colours = colours_of(record)
    lines = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)))
    names = list(dict.fromkeys(t.proposed.of for t in again))
    labelled: set[int | None] = set()
    for t in again:
        name = t.proposed.of
        of = record.state.trials[t.proposed.of or 0]
        label = of.label
        axes.plot([p.patches for p in t.curve], [p.scores["val/psnr"] for p in t.curve], linewidth=1.5,
                  color=colours.get(of.number, GREY), linestyle=lines[names.index(name) % len(lines)], marker=".",
                  label=None if name in labelled else name_in_figure(label))  # fmt: skip
        labelled.add(name)
    draw_bicubic(axes, record.bicubic)
    axes.set(xlabel="training patches", ylabel=PSNR)
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def colours_of(record: StudyRecord) -> dict[int, str]:
    """Return the colour of each finalist and reference, by the number of its trial in the search."""
    best = record.best
    others = [t.number for t in record.state.candidates() if best is None or t.number != best.number]
    colours = dict(zip((t.number for t in record.references), cycle(REFERENCES), strict=False))
    colours |= dict(zip(others, cycle(FINALISTS), strict=False))
    if best is not None:
        colours[best.number] = BEST
    return colours
