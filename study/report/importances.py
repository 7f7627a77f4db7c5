"""Reports the importance of each hyperparameter, with its uncertainty."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from study import results
from study.plots.figures import cause
from study.report.cache import Cache
from study.report.drawing import BEST, GREY, GROUPS, INK, DrawnFigure, canvas, draw_figure, figure_html
from study.report.markup import Html, bullets, missing
from study.report.page import Section
from study.report.record import StudyRecord, short
from study.statistics import importance
from study.statistics.importance import ADAPTIVE, FEWEST_TRIALS, HIGH, LOW, TREES, Importance

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def importances(record: StudyRecord, cache: Cache) -> Section:
    """Return the section on how much of the variance of scores each dimension explains."""
    title = "What mattered"
    points, scores = importance.located(record.state, record.space, record.base.dotted())
    dimensions, seed = record.space.dimensions, importance.seed_of(record.opened.seed)

    def compute() -> list[dict[str, Any]]:
        return [asdict(one) for one in importance.measure_importances(points, scores, dimensions, seed)]

    key = ["importance", 1, points, scores, record.space.describe(), seed]
    try:
        values = [Importance(**one) for one in cache.value("importance", key, compute)]
    except Exception as exc:  # any error of a library: the rest of the page is still written
        fault = f"Importances could not be measured ({cause(exc)})."
        return Section("importance", title, missing(fault), faults=(fault,))
    if not values:
        text = (
            f"Importances need {FEWEST_TRIALS} finished trials in the search space with different scores, and two or "
            f"more dimensions; there are {len(points)} such trials and {len(dimensions)} dimensions."
        )
        return Section("importance", title, missing(text))

    figure = _importances(values)
    sentences = importance.importance_sentences(
        values, record.opened.question["search"]["sampler"], importance.stopped(record.state)
    )
    caption = (
        f"Share of the variance of scores that each hyperparameter explains alone (fANOVA over {len(points)} finished "
        f"trials). Lines reach from {LOW:.0%} to {HIGH:.0%} over {TREES} trees, each grown on a bootstrap sample of "
        f"these trials. Hatched bars are not resolved from noise.{_limits(record, len(points))}"
    )
    alt = "Bars of importance: " + "; ".join(sentences)
    body = Html("".join([bullets(sentences), figure_html(figure, alt=alt, caption=caption, least_width=480)]))
    return Section("importance", title, body, figure.files, figure.faults)


def _limits(record: StudyRecord, count: int) -> str:
    """Return how far the intervals can be trusted, as sentences with a leading space."""
    search = record.opened.question["search"]
    left_out = importance.stopped(record.state)
    if importance.calibrated(record.state, search["sampler"], count):
        return " In simulations, nine of ten such intervals contained the true value (docs/concepts/statistics.md)."

    sentences = []
    if search["sampler"] in ADAPTIVE:
        sentences.append("The sampler preferred regions with high scores, so the shares hold for these regions only.")
    if left_out:
        scheduler = search["scheduler"].replace("_", " ")
        stopped = f"{left_out} trials with worse scores, which are"
        if left_out == 1:
            stopped = "1 trial with a worse score, which is"
        sentences.append(f"The scheduler ({scheduler}) stopped {stopped} left out.")
    sentences.append("How often the intervals of such a study contain the true value was not measured.")
    return " " + " ".join(sentences)


def _importances(values: Sequence[Importance]) -> DrawnFigure:
    numbers = results.importances(values).to_csv(index=False)
    return draw_figure(
        "importance", numbers, lambda: _draw_importances(values), {"hatch.color": GREY, "hatch.linewidth": 0.8}
    )


def _draw_importances(values: Sequence[Importance]) -> "Figure":
    figure, axes = canvas(8, 1.3 + 0.45 * len(values))
    for place, one in enumerate(values):
        look: dict[str, Any] = (
            {"color": BEST} if one.resolved else {"facecolor": "none", "edgecolor": GREY, "hatch": "///"}
        )
        axes.barh(place, one.share, height=0.6, **look)
        reach = [[one.share - min(one.low, one.share)], [max(one.high, one.share) - one.share]]
        axes.errorbar([one.share], [place], xerr=reach, fmt="none", ecolor=INK, capsize=4, linewidth=1.2)
        if not one.resolved:
            axes.text(max(one.high, one.share) + 0.01, place, "not resolved", va="center", fontsize=8.5)
    axes.plot([o.top for o in values], range(len(values)), "D", color=GROUPS[1][0], markeredgecolor=INK, markersize=5,
              label="share in separating the best tenth from the others (PED-ANOVA, no interval)")  # fmt: skip
    axes.set_yticks(range(len(values)), [short(o.label) for o in values])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlim(0, min(1.15, max(max(o.high, o.top) for o in values) + 0.15))
    axes.set(xlabel="share of the explained variance of scores [1]")
    axes.grid(False, axis="y")
    figure.legend(loc="outside lower center")
    return figure
