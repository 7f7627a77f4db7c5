"""The undocumented parts of MLflow that this project uses: its store's internals, and the tags that its pages read.

No other module of this project touches such a part, and a test reads every file to make sure. Each item says what it
relies on and what happens without it. docs/development/architecture.md, "Libraries", has the table.

Functions that need MLflow import it themselves, because other users of this module must not wait seconds for it.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from study.tracking.databases import ViewError

# Its embedded store

_ALTERED = {
    "MAX_RETRY_COUNT": "a database that refuses a password delays the view for minutes",
    "_make_parent_dirs_if_sqlite": "an empty folder appears next to a root with %, ? or braces in its path",
}


def alter() -> list[str]:
    """Makes MLflow try a database once only, and create no folder for it. Returns a line for each part it lacks.

    A follower retries by itself. The folder of a database already exists. MLflow would create another one, because it
    takes the name from the address without decoding %-escapes.

    Relies on: `MAX_RETRY_COUNT` and `_make_parent_dirs_if_sqlite` of `mlflow.store.db.utils`, looked up at each use.
    Without it: the two consequences in `_ALTERED`; a log line names them.
    """
    from mlflow.store.db import utils

    missing = [name for name in _ALTERED if not hasattr(utils, name)]
    utils.MAX_RETRY_COUNT = 1
    utils._make_parent_dirs_if_sqlite = lambda uri: None
    return [f"MLflow {version('mlflow')} has no {name}: {_ALTERED[name]}" for name in missing]


@contextmanager
def _missing_parts_as_view_errors() -> Iterator[None]:
    """Raises ViewError if MLflow lacks a part that the block relies on, or takes other arguments."""
    try:
        yield
    except (AttributeError, ImportError, TypeError) as exc:
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise ViewError(
            f"MLflow {version('mlflow')} is not as this project expects it ({reason}); install the version that "
            "constraints.txt names"
        ) from exc


def create_store(uri: str, artifacts: str) -> None:
    """Creates the tables of a SQLite database, and closes its connections.

    `MlflowClient` creates a store too. It would put the files of the user's other experiments into `./mlruns`.

    Args:
        artifacts: URI of the folder for the user's other experiments.

    Relies on: `SqlAlchemyStore(uri, artifacts)`, which creates the tables, and its `engine`.
    Without it: ViewError. The view is not written, and says so in one line; the study continues.
    """
    with _missing_parts_as_view_errors():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, artifacts).engine.dispose()


def release(uri: str) -> None:
    """Closes the connections to a database. MLflow keeps them, even if its file is deleted or its server restarted.

    Relies on: `_engine_map` of both SqlAlchemyStore classes, from address to SQLAlchemy engine.
    Without it: ViewError. The view is not written, and says so in one line; the study continues.
    """
    with _missing_parts_as_view_errors():
        from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        for store in (SqlAlchemyStore, RegistryStore):
            if uri in store._engine_map:
                store._engine_map[uri].dispose()


def is_out_of_date(exc: Exception) -> bool:
    """Returns True if this error says that an older MLflow created the store.

    Relies on: the text "out-of-date database schema".
    Without it: such a store is not upgraded. The view repeats MLflow's message, which has the command to type.
    """
    return "out-of-date database schema" in str(exc)


ABSOLUTE = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's store that hold absolute addresses of runs' files.

Relies on: MLflow's schema. A test compares it with this list.
Without one: the view says in one line that the column is missing. If there is one more: its files keep the old address.
"""


def move_artifacts(store: Path, old: str, new: str) -> None:
    """Replaces the prefix `old` of all file addresses in a SQLite store by `new`, after a root was moved.

    Relies on and without it: as `ABSOLUTE`.
    """
    with closing(sqlite3.connect(store)) as connection, connection:
        for table, column in ABSOLUTE:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )


# What its pages read of a run


def image_names(series: str, step: int, milliseconds: int, unique: str) -> tuple[str, str]:
    """Returns the names, in a run's artifacts, of an image of a series and of its preview.

    `MlflowClient.log_image` draws a random id, so a repetition would add an image instead of replacing it.

    Relies on: the naming of `MlflowClient.log_image`.
    Without it: the image grid is empty. The files are among the artifacts.
    """
    name = f"images/{series.replace('/', '~')}+step+{step}+timestamp+{milliseconds}+{unique}"
    return f"{name}.png", f"{name}+compressed.webp"


def table_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table as MLflow's pages read it.

    `MlflowClient.log_table` appends to an existing table, so a repetition would double the rows.

    Relies on: the layout of `MlflowClient.log_table`, "split" of pandas.
    Without it: the page of a table is empty. The file is among the artifacts.
    """
    return json.dumps({"columns": list(columns), "data": list(rows)})


def marks(tables: Sequence[str], images: bool) -> dict[str, str]:
    """Returns the tags that tell MLflow's pages which tables and image series a run has.

    Relies on: the tags `mlflow.loggedArtifacts` and `mlflow.loggedImages`, which `log_table` and `log_image` set.
    Without it: the pages do not offer tables and images. The files are among the artifacts.

    Args:
        tables: their paths in the artifacts.
        images: the run has an image series.
    """
    tags = {}
    if tables:
        tags["mlflow.loggedArtifacts"] = json.dumps([{"path": name, "type": "table"} for name in tables])
    if images:
        tags["mlflow.loggedImages"] = "true"
    return tags


# Its pages

View = Mapping[str, Any]
TRAINING_RUNS = {"mlflow.experimentKind": "custom_model_development"}
"""Tags of an experiment that holds training runs, and no traces of language models.

Relies on: the tag `mlflow.experimentKind`.
Without it: MLflow asks what kind of experiment it is.
"""
DESCRIPTION = "attributes.`Description`"
"""The column with a run's `mlflow.note.content`. Relies on and without it: as `shared`."""


def shared(views: Mapping[str, View]) -> dict[str, str]:
    """Returns the tags that hold an experiment's views, as its "Share" button stores them; `shared_page` opens one.

    Relies on: the tag `mlflow.sharedViewState.KEY`, and the JSON in it (this function, `best_first`, `columns`,
    `charts`, `section`, `line_card`, `image_card`). What a view leaves out has MLflow's own default.
    Without it: the links of `study.ui` open MLflow's ordinary list of runs.
    """
    return {f"mlflow.sharedViewState.{key}": json.dumps(view, separators=(",", ":")) for key, view in views.items()}


def best_first(metric: str) -> dict[str, Any]:
    """Returns the part of a view that orders runs. Relies on and without it: as `shared`."""
    return {"orderByKey": f"metrics.`{metric}`", "orderByAsc": False}


def columns(names: Sequence[str]) -> dict[str, Any]:
    """Returns the part of a view that chooses columns. Relies on and without it: as `shared`."""
    return {"selectedColumns": list(names)}


def charts(condition: str, cards: Sequence[View], sections: Sequence[View]) -> dict[str, Any]:
    """Returns the part of a view that draws charts. Relies on and without it: as `shared`.

    Args:
        condition: MLflow's filter for the runs to draw.
    """
    return {
        "searchFilter": condition,
        "compareRunCharts": list(cards),
        "compareRunSections": list(sections),
        "isAccordionReordered": True,  # otherwise MLflow sorts the sections by name
    }


def section(name: str, **layout: int) -> View:
    """Returns a part of a page of charts. Relies on and without it: as `shared`.

    Args:
        layout: `columns` and `cardHeight`, if they differ from MLflow's defaults.
    """
    return {"uuid": name, "name": name, "display": True, **layout}


def line_card(section: str, metric: str, *, logarithmic: bool) -> View:
    """Returns a chart of a metric over steps. Relies on and without it: as `shared`."""
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


def image_card(section: str, series: str, step: int) -> View:
    """Returns an image grid at a step. Its slider shows the others. Relies on and without it: as `shared`."""
    return {**_card("IMAGE", section, series), "imageKeys": [series], "step": step, "showRunParams": False}


def _card(kind: str, section: str, name: str) -> dict[str, Any]:
    return {"type": kind, "uuid": name, "metricSectionId": section, "isGenerated": True, "deleted": False}


def shared_page(address: str, experiment: str, view: str, *, drawn: bool = False) -> str:
    """Returns the address of an experiment's runs, in a view of `shared`.

    Relies on: the fragment `#/experiments/ID/runs` and its query.
    Without it: the link opens MLflow's start page.

    Args:
        drawn: show charts and images instead of a list.
    """
    query = {"compareRunsMode": "CHART"} if drawn else {}
    return f"{address}/#/experiments/{experiment}/runs?{_query(**query, viewStateShareKey=view)}"


def comparison_page(address: str, experiment: str, runs: Sequence[str]) -> str:
    """Returns the address of a page that compares runs.

    Relies on: the fragment `#/compare-runs` and its query.
    Without it: the link opens MLflow's start page.
    """
    query = _query(runs=json.dumps(list(runs)), experiments=json.dumps([experiment]))
    return f"{address}/#/compare-runs?{query}"


def model_page(address: str, model: str) -> str:
    """Returns the address of a registered model's page.

    Relies on: the fragment `#/models/NAME`.
    Without it: the link opens MLflow's start page.
    """
    return f"{address}/#/models/{quote(model)}?{_query()}"


def _query(**options: str) -> str:
    """Returns a page's query. It selects MLflow's pages for training, not those for language models."""
    return urlencode({**options, "workflowType": "machine_learning"})
