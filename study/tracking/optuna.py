"""The study in Optuna's database, for dashboards: one Optuna trial for each trial that has ended.

The suite never proposes trials from this database (promise 3). No trial in it is ever RUNNING.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState
from sqlalchemy.exc import SQLAlchemyError

from sr_core.process.redaction import redact
from study.record.addresses import sqlite_file
from study.record.events import (
    Checkpointed,
    Event,
    Failed,
    Finished,
    MicroBatchReduced,
    Proposed,
    Pruned,
    Started,
    StudyOpened,
    Validated,
)
from study.record.folder import StudyFolder
from study.record.journal import study_id
from study.record.state import OBJECTIVE, StudyState, TrialState
from study.tracking.databases import ViewError, create_once, identity, view_errors
from study.tracking.follow import require_own
from study.tracking.mlflow.content import flat

_STATES = {"finished": OptunaState.COMPLETE, "pruned": OptunaState.PRUNED, "failed": OptunaState.FAIL}
_LOG_AXIS_MIN_RATIO = 100.0
"""A grid whose ends are at least this factor apart is shown on a logarithmic axis."""

Described = Mapping[str, Any]
"""One dimension of the search space as `Dimension.describe` wrote it into the journal."""


class OptunaSink:
    """Shows a study in an Optuna database.

    Args:
        storage_url: `sqlite:////absolute/optuna.db`, `postgresql+psycopg://…`, or another address for SQLAlchemy.
        folder: the study's folder, to tell it from a copy. None skips that check.
    """

    name = "optuna"

    def __init__(self, storage_url: str, folder: StudyFolder | None = None) -> None:
        self._url = storage_url
        self._folder = folder
        self.where = redact(storage_url)
        self._identity: int | None = None
        self._storage: RDBStorage | None = None

    def prepare(self) -> None:
        """Creates the embedded database. Raises ViewError if it cannot be written."""
        path = sqlite_file(self._url)
        if path is not None:
            with self._view_errors():
                create_once(path, lambda url: _release(RDBStorage(url)))

    def open(self, opened: StudyOpened) -> int:
        """Finds or creates the Optuna study, and returns how many events it holds.

        Raises:
            ViewError: the database cannot be reached, or its trials belong to another folder.
        """
        if self._folder:
            require_own(self._folder, opened, opened.study)
        self.prepare()
        with self._view_errors():
            self._storage = RDBStorage(self._url)
            self._identity = identity(self._url)
            self._study = _find_study(self._storage, opened)
            self._require_own(opened)
            self._space = {"+".join(d["names"]): d for d in opened.question["space"].values()}
            self._distributions = {label: distribution(d) for label, d in self._space.items()}
            trials = self._study.get_trials(deepcopy=False)
            self._shown = {trial.user_attrs.get("study.trial") for trial in trials}
            return int(self._study.user_attrs.get("study.synced", 0))

    def _require_own(self, opened: StudyOpened) -> None:
        """Raises ViewError if the trials belong to another folder, and this folder is a copy of it."""
        if self._folder is None:
            return
        owner = self._study.user_attrs.get("study.folder", opened.study)
        if owner != self._folder.study:
            require_own(self._folder, opened, owner)
            self._study.set_user_attr("study.folder", self._folder.study)

    def take(self, events: Sequence[Event], state: StudyState, upto: int) -> None:
        """Adds the trials that ended, then moves the cursor.

        Events from the middle of a trial do not move the cursor. They may come again.

        Raises:
            ViewError: the database cannot be reached, or was replaced.
        """
        with self._view_errors():
            if identity(self._url) != self._identity:
                raise ViewError(f"{self.where}: the database was replaced; the study is written to it again")
            for event in events:
                if isinstance(event, Finished | Pruned | Failed) and event.trial not in self._shown:
                    if state.trials[event.trial].is_replicate:  # it would repeat the point of the trial it replicates
                        continue
                    self._study.add_trial(self._frozen(state.trials[event.trial], event))
                    self._shown.add(event.trial)
            if not all(
                isinstance(event, Proposed | Started | Validated | Checkpointed | MicroBatchReduced) for event in events
            ):
                self._study.set_user_attr("study.synced", upto)

    def close(self) -> None:
        """Closes the connections."""
        if self._storage is not None:
            _release(self._storage)
            self._storage = None

    def _view_errors(self) -> AbstractContextManager[None]:
        return view_errors("Optuna's database", self._url, OptunaError, SQLAlchemyError, ImportError)

    def _frozen(self, trial: TrialState, end: Finished | Pruned | Failed) -> FrozenTrial:
        config = flat(trial.proposed.config)
        params = {}
        for label, dimension in self._space.items():
            value = place(dimension, config)
            if value is not None:
                params[label] = value

        attrs = {
            "study.trial": trial.number,
            "study.role": trial.proposed.role,
            "study.config_hash": trial.proposed.config_hash,
        }
        if trial.is_reference:
            attrs["study.reference"] = trial.proposed.name
        if not isinstance(end, Finished):
            attrs["study.reason"] = end.reason
        frozen = create_trial(
            state=_STATES[trial.status],
            value=None if isinstance(end, Failed) else trial.score,
            params=params,
            distributions={label: self._distributions[label] for label in params},
            user_attrs=attrs,
            intermediate_values={p.patches: p.scores[OBJECTIVE] for p in trial.curve},
        )
        frozen.datetime_start = _moment((trial.starts[0] if trial.starts else trial.proposed).time)
        frozen.datetime_complete = _moment(end.time)
        return frozen


def _moment(time: float) -> datetime:
    """Returns a Unix time as Optuna stores it, without a time zone. It is in UTC, the same on every machine."""
    return datetime.fromtimestamp(time, UTC).replace(tzinfo=None)


def distribution(dimension: Described) -> BaseDistribution:
    """Returns Optuna's distribution for a dimension: numbers lie on an axis, other values are categories."""
    kind = dimension["range"]
    if kind in ("Float", "Int"):
        low = dimension["low"]
        high = dimension["high"]
        log = dimension["log"]
        return IntDistribution(low, high, log=log) if kind == "Int" else FloatDistribution(low, high, log=log)
    values = dimension["values"]
    if not _is_axis(dimension):
        return CategoricalDistribution([_label(value) for value in values])
    low = values[0]
    high = values[-1]
    log = low > 0 and high / low >= _LOG_AXIS_MIN_RATIO
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def place(dimension: Described, config: Mapping[str, Any]) -> Any:
    """Returns a config's value in a dimension, as its distribution takes it; None if it is outside the dimension.

    Args:
        config: dotted names -> values.
    """
    values = [config.get(name) for name in dimension["names"]]
    value: Any = values if len(values) > 1 else values[0]
    if dimension["range"] in ("Float", "Int"):
        return value if dimension["low"] <= value <= dimension["high"] else None
    if _is_axis(dimension):
        return value if dimension["values"][0] <= value <= dimension["values"][-1] else None
    return _label(value) if value in dimension["values"] else None


def _is_axis(dimension: Described) -> bool:
    """Returns True if the listed values are numbers in order."""
    return dimension["range"] == "Grid" and all(type(value) in (int, float) for value in dimension["values"])


def _label(value: Any) -> Any:
    """Returns a category as Optuna takes it. Values that move together become one readable text."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _find_study(storage: RDBStorage, opened: StudyOpened) -> optuna.Study:
    """Returns the Optuna study of this name. If that name is another study's, the identity is appended to it."""
    identity_of_study = study_id(opened)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna announces studies that it creates or finds
    try:
        for name in (opened.study, f"{opened.study}-{identity_of_study}"):
            study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
            if study.user_attrs.get("study.id", identity_of_study) == identity_of_study:
                break
    finally:
        optuna.logging.set_verbosity(verbosity)

    if "study.id" not in study.user_attrs:
        study.set_user_attr("study.id", identity_of_study)
        study.set_user_attr("study.question", opened.text)
        study.set_user_attr("study.digest", opened.digest)
    return study


def _release(storage: RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()
