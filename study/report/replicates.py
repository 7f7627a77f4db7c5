"""Reports the replicates: the scores of each setting over new seeds, and the winner against the references."""

import math
from typing import TYPE_CHECKING

from sr_core.process.names import utf8
from study import results
from study.plots.figures import name_in_figure
from study.report.course import colours_of
from study.report.drawing import GREY, INK, DrawnFigure, canvas, csv_text, draw_figure, figure_html
from study.report.markup import Html, bullets, missing, paragraph, table
from study.report.page import Section
from study.report.record import StudyRecord
from study.statistics.verdict import Comparison, Verdict, words
from study.statistics.wording import failures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_TITLE = "Replicates and verdict"


def replicates(record: StudyRecord, verdict: Verdict | None) -> Section:
    """Return the section with the scores of settings that were retrained with new seeds, and their comparison."""
    numbers = results.replicates(record.state).to_csv(index=False)
    files = {"figures/replicates.csv": utf8(numbers)}
    if verdict is None:
        text = _no_verdict(record)
        return Section("replicates", _TITLE, missing(text), files if record.state.replicated else {})

    figure = _scores(record, verdict)
    alt = "; ".join(f"{j.title}: {j.estimate.mean:.3f} dB over {j.estimate.count} seeds" for j in verdict.judged)
    caption = (
        "Settings retrained with new seeds, which all settings share. Each dot is one seed. The mean is shown with its "
        "95% Student confidence interval. The cross is the setting's single run in the search."
    )
    interim_note = f" ({verdict.interim}: no verdict yet)" if verdict.interim else ""
    comparisons = table(
        ("against", "difference [dB]", "95% CI [dB]", "seeds", "p (Holm)", "significant", "crops ahead"),
        [_row(comparison, verdict.interim) for comparison in verdict.against],
        caption=f"{verdict.winner.title} against the references, over the seeds that both share{interim_note}",
    )
    note = paragraph(
        "A confidence interval describes the variation over training seeds on these validation images. It says nothing "
        "about other images (docs/concepts/statistics.md)."
    )
    parts = [
        figure_html(figure, alt=alt, caption=caption, least_width=480),
        comparisons if verdict.against else "",
        _settings(verdict),
        bullets(failures(record.state)),
        note,
    ]
    body = Html("".join(parts))
    return Section("replicates", _TITLE, body, figure.files | files, figure.faults)


def _no_verdict(record: StudyRecord) -> str:
    """Return a sentence that says why there is no verdict."""
    if record.state.replicated:
        why = "; ".join(line.strip() for line in words(record.state))
        return f"No verdict: {why}."
    requested = int(record.opened.question["search"].get("replicates", 0))
    if requested:
        return f"No verdict yet: after the search, the finalists are retrained with {requested} new seeds."
    return "No verdict: this experiment has no replicates (set `replicates` in the experiment)."


def _settings(verdict: Verdict) -> Html:
    """Return the table of settings with their scores over the replicates."""
    rows = []
    for judged in verdict.judged:
        estimate = judged.estimate
        probability = verdict.probability_best.get(judged.trial.number)
        rows.append(
            (
                judged.title,
                estimate.count,
                f"{estimate.mean:.3f}",
                "" if math.isnan(estimate.sd) else f"{estimate.sd:.3f}",
                _interval(estimate.low, estimate.high),
                f"{judged.trial.score:.3f}",
                "" if probability is None else f"{probability:.2f}",
            )
        )
    columns = (
        "setting",
        "seeds",
        "mean [dB]",
        "standard deviation [dB]",
        "95% CI [dB]",
        "search run [dB]",
        "P(best)",
    )
    caption = "Settings over their replicates. P(best) is the probability that a setting is the best of these"
    return table(columns, rows, caption=caption)


def _row(comparison: Comparison, interim: str) -> tuple[object, ...]:
    """Return the table row that compares the winner with a reference."""
    difference = comparison.difference
    significant = "yes" if comparison.significant else "no"
    ahead = sum(gain > 0 for gain in comparison.crops)
    return (
        comparison.other.title,
        f"{difference.mean:+.3f}",
        _interval(difference.low, difference.high, "+"),
        difference.count,
        f"{comparison.p:.3g}",
        "interim" if interim else significant,
        f"{ahead} of {len(comparison.crops)}" if comparison.crops else "",
    )


def _interval(low: float, high: float, sign: str = "") -> str:
    if not math.isfinite(low) or not math.isfinite(high):
        return "needs two seeds"
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


def _scores(record: StudyRecord, verdict: Verdict) -> DrawnFigure:
    rows: list[tuple[object, ...]] = []
    for judged in verdict.judged:
        estimate = judged.estimate
        rows += [(judged.title, f"seed {seed}", score, "", "") for seed, score in judged.scores.items()]
        rows += [
            (judged.title, "mean", estimate.mean, estimate.low, estimate.high),
            (judged.title, "search", judged.trial.score, "", ""),
        ]
    numbers = csv_text(("setting", "what", "val/psnr", "low", "high"), rows)
    return draw_figure("replicates-and-verdict", numbers, lambda: _draw_scores(record, verdict))


def _draw_scores(record: StudyRecord, verdict: Verdict) -> "Figure":
    colours = colours_of(record)
    figure, axes = canvas(8, 1.4 + 0.55 * len(verdict.judged))
    for place, judged in enumerate(verdict.judged):
        estimate = judged.estimate
        colour = colours.get(judged.trial.number, GREY)
        axes.scatter(
            list(judged.scores.values()),
            [place] * len(judged.scores),
            s=28,
            facecolor="none",
            edgecolor=colour,
            linewidth=1.4,
            zorder=3,
        )
        if math.isfinite(estimate.low):
            reach = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
            axes.errorbar(
                [estimate.mean], [place], xerr=reach, fmt="D", color=colour, capsize=5, markersize=6, zorder=2
            )
        else:
            axes.plot([estimate.mean], [place], "D", color=colour)
        axes.plot([judged.trial.score or math.nan], [place], "x", color=INK, markersize=6, zorder=4)
    low, high = axes.get_xlim()
    if low - (high - low) <= record.bicubic <= high + (high - low):
        axes.axvline(record.bicubic, color=INK, linestyle=":", linewidth=1.2, label=f"bicubic, {record.bicubic:.2f} dB")
    axes.plot([], [], "o", markerfacecolor="none", color=GREY, label="one seed")
    axes.errorbar([math.nan], [math.nan], xerr=[[0], [0]], fmt="D", color=GREY, capsize=5, label="mean, 95% CI")
    axes.plot([], [], "x", color=INK, label="run in the search")
    axes.set_yticks(range(len(verdict.judged)), [name_in_figure(j.title) for j in verdict.judged])
    axes.set_ylim(len(verdict.judged) - 0.5, -0.5)
    axes.set(xlabel="PSNR on the validation crops (Y) [dB]")
    figure.legend(loc="outside lower center", ncols=4)
    return figure
