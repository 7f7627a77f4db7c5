"""How MLflow's pages list a study: views as its "Share" button stores them, that `?viewStateShareKey=…` opens.

Each is JSON in a tag of the experiment. What a view leaves out has MLflow's own default.
"""

import json
from collections.abc import Mapping
from typing import Any

from study.events import StudyOpened
from study.state import OBJECTIVE
from study.tracking.dashboards import CURVES, RANKING
from study.tracking.mlflow_content import GAIN, flat, plain
from study.tracking.mlflow_files import PICTURE

_BEST_FIRST = {"orderByKey": f"metrics.`{OBJECTIVE}`", "orderByAsc": False}
_DESCRIPTION = "attributes.`Description`"
"""Study, rank and score of a run in words: the only column before the metrics that we may write."""


def experiment_tags(opened: StudyOpened) -> dict[str, str]:
    """What an experiment is about, that it holds training runs and no traces of language models, and its views."""
    views = {RANKING: _ranking(opened), CURVES: _curves(opened)}
    return {
        "study.name": opened.study,
        "mlflow.note.content": plain(opened.text),
        "mlflow.experimentKind": "custom_model_development",
    } | {f"mlflow.sharedViewState.{key}": json.dumps(view, separators=(",", ":")) for key, view in views.items()}


def _ranking(opened: StudyOpened) -> dict[str, Any]:
    metrics, tags = (OBJECTIVE, GAIN, "val/ssim"), ("study.rank", "study.name", "study.state")
    columns = [_DESCRIPTION, *(f"metrics.`{name}`" for name in metrics)]
    space = opened.question.get("space", {}).values()  # a longer training has none
    columns += [f"params.`{name}`" for dimension in space for name in dimension["names"]]
    columns += [f"tags.`{name}`" for name in tags]
    return {**_BEST_FIRST, "selectedColumns": columns}


def _curves(opened: StudyOpened) -> dict[str, Any]:
    """The best trials of the search; MLflow draws the first ten of a list."""
    cards = [*(_line(section, name) for section, name in _LINES), _pictures(opened)]
    return {
        **_BEST_FIRST,
        "searchFilter": f"tags.`study.name` = '{opened.study}' AND tags.`study.role` = 'search'",
        "compareRunCharts": cards,
        "compareRunSections": [
            {"uuid": "val", "name": "val", "display": True},
            {"uuid": "pictures", "name": "pictures", "display": True, "columns": 1, "cardHeight": 600},
            {"uuid": "train", "name": "train", "display": True},
        ],
        "isAccordionReordered": True,  # else MLflow sorts them by name
    }


_LINES = [("val", OBJECTIVE), ("val", GAIN), ("val", "val/ssim"), ("train", "train/loss"), ("train", "train/lr")]


def _line(section: str, metric: str) -> Mapping[str, Any]:
    logarithmic = metric == "train/loss"
    return {
        **_card("LINE", section, metric),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "displayName": metric,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "log" if logarithmic else "linear",
        "range": {},
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "lineSmoothness": 0,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _pictures(opened: StudyOpened) -> Mapping[str, Any]:
    """The image grid, at the end of a whole training; the slider below it leads back to the beginning."""
    budget = flat(opened.question.get("base", {})).get("train.budget_patches", 0)
    return {**_card("IMAGE", "pictures", PICTURE), "imageKeys": [PICTURE], "step": budget, "showRunParams": False}


def _card(kind: str, section: str, name: str) -> dict[str, Any]:
    return {"type": kind, "uuid": name, "metricSectionId": section, "isGenerated": True, "deleted": False}
