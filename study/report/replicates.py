"""What the replicates tell: each setting's scores over fresh seeds, the winner against the others, with intervals."""

import math
from typing import TYPE_CHECKING

from sr_core.process.names import utf8
from study import results
from study.plots.figures import name_in_figure
from study.report.course import colours_of
from study.report.drawing import GREY, INK, Drawn, canvas, csv_text, drawn, shown
from study.report.markup import Html, bullets, missing, paragraph, table
from study.report.page import Section
from study.report.record import StudyRecord
from study.statistics.verdict import Comparison, Verdict, words
from study.statistics.wording import failures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def replicates(record: StudyRecord, told: Verdict | None) -> Section:
    """Settings trained again with fresh seeds."""
    numbers = results.replicates(record.state).to_csv(index=False)
    files = {"figures/replicates.csv": utf8(numbers)}
    asked = int(record.opened.question["search"].get("replicates", 0))
    if told is None and record.state.replicated:
        why = "; ".join(line.strip() for line in words(record.state))
        return Section("replicates", "Replicates and verdict", missing(f"No verdict: {why}."), files)
    if told is None:
        text = (
            f"No verdict yet: the finalists are trained again with {asked} fresh seeds when the search is over."
            if asked
            else "No verdict: this experiment asks for no replicates (`replicates` of an experiment says how many)."
        )
        return Section("replicates", "Replicates and verdict", missing(text), files if record.state.replicated else {})
    figure = _scores(record, told)
    alt = "; ".join(f"{j.title}: {j.estimate.mean:.3f} dB over {j.estimate.count} seeds" for j in told.judged)
    caption = (
        "Each setting trained again with fresh seeds, which all settings share: one dot a seed, the mean with its 95 % "
        "Student interval, and a cross at what its one run in the search showed."
    )
    comparisons = table(
        ("against", "difference [dB]", "95 % interval [dB]", "seeds", "p (Holm)", "significant", "crops ahead"),
        [_row(c, told.interim) for c in told.against],
        caption=f"{told.winner.title} against the references, over the seeds that both share"
        f"{f' ({told.interim}: no verdict yet)' if told.interim else ''}",
    )
    settings = table(
        (
            "setting",
            "seeds",
            "mean [dB]",
            "standard deviation [dB]",
            "95 % interval [dB]",
            "search run [dB]",
            "is the best",
        ),
        [
            (
                j.title,
                j.estimate.count,
                f"{j.estimate.mean:.3f}",
                "" if math.isnan(j.estimate.sd) else f"{j.estimate.sd:.3f}",
                _interval(j.estimate.low, j.estimate.high),
                f"{j.trial.score:.3f}",
                f"{told.probability_best[j.trial.number]:.2f}" if j.trial.number in told.probability_best else "",
            )
            for j in told.judged
        ],
        caption="Settings over their replicates; the last column is the probability of being the best of these",
    )
    note = paragraph(
        "An interval speaks of training seeds on these validation images, not of other images (docs/STATISTICS.md)."
    )
    parts = [
        shown(figure, alt=alt, caption=caption, least_width=480),
        comparisons if told.against else "",
        settings,
        bullets(failures(record.state)),
        note,
    ]
    body = Html("".join(parts))
    return Section("replicates", "Replicates and verdict", body, figure.files | files, figure.faults)


def _row(found: Comparison, interim: str) -> tuple[object, ...]:
    d = found.difference
    ahead = sum(c > 0 for c in found.crops)
    return (
        found.other.title,
        f"{d.mean:+.3f}",
        _interval(d.low, d.high, "+"),
        d.count,
        f"{found.p:.3g}",
        "interim" if interim else "yes" if found.significant else "no",
        f"{ahead} of {len(found.crops)}" if found.crops else "",
    )


def _interval(low: float, high: float, sign: str = "") -> str:
    if not math.isfinite(low) or not math.isfinite(high):
        return "one seed tells none"
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


def _scores(record: StudyRecord, told: Verdict) -> Drawn:
    rows: list[tuple[object, ...]] = []
    for judged in told.judged:
        estimate = judged.estimate
        rows += [(judged.title, f"seed {seed}", score, "", "") for seed, score in judged.scores.items()]
        rows += [
            (judged.title, "mean", estimate.mean, estimate.low, estimate.high),
            (judged.title, "search", judged.trial.score, "", ""),
        ]
    numbers = csv_text(("setting", "what", "val/psnr", "low", "high"), rows)
    return drawn("replicates-and-verdict", numbers, lambda: _draw_scores(record, told))


def _draw_scores(record: StudyRecord, told: Verdict) -> "Figure":
    colours = colours_of(record)
    figure, axes = canvas(8, 1.4 + 0.55 * len(told.judged))
    for place, judged in enumerate(told.judged):
        estimate, colour = judged.estimate, colours.get(judged.trial.number, GREY)
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
    axes.errorbar([math.nan], [math.nan], xerr=[[0], [0]], fmt="D", color=GREY, capsize=5, label="mean, 95 % interval")
    axes.plot([], [], "x", color=INK, label="run in the search")
    axes.set_yticks(range(len(told.judged)), [name_in_figure(j.title) for j in told.judged])
    axes.set_ylim(len(told.judged) - 0.5, -0.5)
    axes.set(xlabel="PSNR on the validation crops (Y) [dB]")
    figure.legend(loc="outside lower center", ncols=4)
    return figure
