"""How MLflow's pages show a study: the views that its experiment stores. The links of `study.ui` open them.

A view is a tag of the experiment. MLflow uses its own default for each setting that a view leaves out.
"""

from study.record.events import StudyOpened
from study.record.state import OBJECTIVE
from study.tracking.dashboards import CURVES, RANKING
from study.tracking.mlflow import private as mlflow_private
from study.tracking.mlflow.content import GAIN, flat, plain
from study.tracking.mlflow.files import IMAGE
from study.tracking.mlflow.private import View

_BEST_FIRST = mlflow_private.best_first(OBJECTIVE)
_LINES = [("val", OBJECTIVE), ("val", GAIN), ("val", "val/ssim"), ("train", "train/loss"), ("train", "train/lr")]


def experiment_tags(opened: StudyOpened) -> dict[str, str]:
    """Returns an experiment's tags: its study and question, its kind (not language models) and its views."""
    about = {"study.name": opened.study, "mlflow.note.content": plain(opened.text)}
    views = mlflow_private.shared({RANKING: _ranking(opened), CURVES: _curves(opened)})
    return about | mlflow_private.TRAINING_RUNS | views


def _ranking(opened: StudyOpened) -> View:
    """Returns the view that lists all runs, the best first."""
    # The description holds study, rank and score in words. No other column before the metrics can be written.
    columns = [mlflow_private.DESCRIPTION]
    columns += [f"metrics.`{name}`" for name in (OBJECTIVE, GAIN, "val/ssim")]
    space = opened.question.get("space", {}).values()  # a longer training has none
    columns += [f"params.`{name}`" for dimension in space for name in dimension["names"]]
    columns += [f"tags.`{name}`" for name in ("study.rank", "study.name", "study.state")]
    return _BEST_FIRST | mlflow_private.columns(columns)


def _curves(opened: StudyOpened) -> View:
    """Returns the view with charts of the search's best trials. MLflow draws the first ten runs of a list."""
    budget = flat(opened.question.get("base", {})).get("train.budget_patches", 0)
    lines = [mlflow_private.line_card(section, name, logarithmic=name == "train/loss") for section, name in _LINES]
    return _BEST_FIRST | mlflow_private.charts(
        f"tags.`study.name` = '{opened.study}' AND tags.`study.role` = 'search'",
        [*lines, mlflow_private.image_card("pictures", IMAGE, budget)],  # at the end of a whole training
        [
            mlflow_private.section("val"),
            mlflow_private.section("pictures", columns=1, cardHeight=600),
            mlflow_private.section("train"),
        ],
    )
