"""What mattered: importances of hyperparameters, with their uncertainty."""

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
    """How much of the spread of scores each dimension explains."""
    title = "What mattered"
    points, scores = importance.located(record.state, record.space, record.base.dotted())
    dimensions, seed = record.space.dimensions, importance.seed_of(record.opened.seed)

    def compute() -> list[dict[str, Any]]:
        return [asdict(one) for one in importance.measure_importances(points, scores, dimensions, seed)]

    key = ["importance", 1, points, scores, record.space.describe(), seed]
    try:
        found = [Importance(**one) for one in cache.value("importance", key, compute)]
    except Exception as exc:  # whatever its libraries raise: importances are a view, and the rest of the page stands
        fault = f"Importances could not be measured ({cause(exc)})."
        return Section("importance", title, missing(fault), faults=(fault,))
    if not found:
        text = (
            f"Importances need {FEWEST_TRIALS} finished trials in the search space with different scores, and two or "
            f"more dimensions; there are {len(points)} such trials and {len(dimensions)} dimensions."
        )
        return Section("importance", title, missing(text))
    figure = _importances(found)
    told = importance.importance_sentences(
        found, record.opened.question["search"]["sampler"], importance.stopped(record.state)
    )
    caption = (
        f"Share of the spread of scores that each hyperparameter explains alone (fANOVA over {len(points)} finished "
        f"trials), with the interval from {LOW:.0%} to {HIGH:.0%} over {TREES} trees, each grown on a bootstrap sample "
        f"of them; hatched: not resolved from noise.{_limits(record, len(points))}"
    )
    alt = "Bars of importance: " + "; ".join(told)
    body = Html("".join([bullets(told), figure_html(figure, alt=alt, caption=caption, least_width=480)]))
    return Section("importance", title, body, figure.files, figure.faults)


def _limits(record: StudyRecord, count: int) -> str:
    """What the intervals can be trusted for, in sentences that follow another one."""
    search, left_out = record.opened.question["search"], importance.stopped(record.state)
    if importance.calibrated(record.state, search["sampler"], count):
        return " Of such intervals nine of ten held the truth in simulations (docs/STATISTICS.md)."
    told = []
    if search["sampler"] in ADAPTIVE:
        told.append("The sampler looked where scores are high, so this holds for where it looked.")
    if left_out:
        which = f"{left_out} trials that stood worse; they are" if left_out > 1 else "a trial that stood worse; it is"
        told.append(f"The scheduler ({search['scheduler'].replace('_', ' ')}) stopped {which} left out.")
    told.append("How often intervals of such a study hold the truth was not measured.")
    return " " + " ".join(told)


def _importances(found: Sequence[Importance]) -> DrawnFigure:
    numbers = results.importances(found).to_csv(index=False)
    return draw_figure(
        "importance", numbers, lambda: _draw_importances(found), {"hatch.color": GREY, "hatch.linewidth": 0.8}
    )


def _draw_importances(found: Sequence[Importance]) -> "Figure":
    figure, axes = canvas(8, 1.3 + 0.45 * len(found))
    for place, one in enumerate(found):
        look: dict[str, Any] = (
            {"color": BEST} if one.resolved else {"facecolor": "none", "edgecolor": GREY, "hatch": "///"}
        )
        axes.barh(place, one.share, height=0.6, **look)
        reach = [[one.share - min(one.low, one.share)], [max(one.high, one.share) - one.share]]
        axes.errorbar([one.share], [place], xerr=reach, fmt="none", ecolor=INK, capsize=4, linewidth=1.2)
        if not one.resolved:
            axes.text(max(one.high, one.share) + 0.01, place, "not resolved", va="center", fontsize=8.5)
    axes.plot([o.top for o in found], range(len(found)), "D", color=GROUPS[1][0], markeredgecolor=INK, markersize=5,
              label="share in telling the best tenth from the others (PED-ANOVA, no interval)")  # fmt: skip
    axes.set_yticks(range(len(found)), [short(o.label) for o in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(0, min(1.15, max(max(o.high, o.top) for o in found) + 0.15))
    axes.set(xlabel="share of the explained variance of scores [1]")
    axes.grid(False, axis="y")
    figure.legend(loc="outside lower center")
    return figure
