"""The study in MLflow: one experiment, one parent run, a child run per trial, curves over training patches.

Everything here is derived from the journal, with its timestamps, so that writing it twice changes nothing. A run is
found by its tags `study.id` and `study.trial`, never by an id kept elsewhere.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before the import, which reads them. A follower retries by itself, and patiently: MLflow need not do it for minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow.entities import Metric, Param, RunTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient

from study.events import (
    Concluded,
    Event,
    Failed,
    Finished,
    Progress,
    Proposed,
    Pruned,
    Started,
    StudyOpened,
    TrialEvent,
)
from study.folder import StudyFolder
from study.follow import ViewError, study_id
from study.state import OBJECTIVE, StudyState, TrialState
from study.uris import redact, sqlite_file

# MLflow and Alembic narrate on stderr what they do, and log the errors that they also raise.
for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

GAIN = "val/psnr_gain_over_bicubic"
MOST_METRICS, MOST_OTHERS = 900, 90
"""Points, and params or tags, in one request; MLflow refuses more than 1,000 and 100."""
PAGE = 500

_STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


@dataclass(slots=True)
class _Run:
    """What MLflow is known to hold of one run."""

    id: str
    status: str
    rank: str = ""


class MlflowSink:
    """Shows a study in an MLflow store or server.

    Args:
        tracking_uri: `sqlite:////absolute/mlflow.db`, `http://…`, or another database.
        artifact_root: folder for the files of the runs, one folder per study in it; None leaves it to the server.
        folder: where the trials' weights and the results are copied from.
    """

    name = "mlflow"

    def __init__(self, tracking_uri: str, artifact_root: Path | None, folder: StudyFolder) -> None:
        self._uri = tracking_uri
        self._artifact_root = artifact_root
        self._folder = folder
        self._inode: int | None = None

    def open(self, opened: StudyOpened) -> int:
        """Find or create the experiment and the parent run. Raises ViewError where MLflow cannot be reached."""
        with _told_plainly(self._uri):
            prepare_store(self._uri)
            self._inode = self._store_inode()
            self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            self._study = study_id(opened)
            self._experiment = self._find_experiment(opened)
            self._parent: _Run | None = None
            self._children: dict[int, _Run] = {}
            held = 0
            for run in _search(self._client, self._experiment, f"tags.`study.id` = '{self._study}'"):
                tags = run.data.tags
                found = _Run(run.info.run_id, run.info.status, tags.get("study.rank", ""))
                if "study.trial" in tags:
                    self._children[int(tags["study.trial"])] = found
                else:
                    self._parent, held = found, int(tags.get("study.synced", 0))
            if self._parent is None:
                self._parent = self._create(opened.study, opened.time, self._tags(opened.study, role="study"))
        return held

    def take(self, events: Sequence[Event], state: StudyState, upto: int) -> None:
        """Write what these events changed, the parent's cursor last. Raises ViewError where MLflow cannot be reached."""
        assert state.opened is not None and self._parent is not None
        with _told_plainly(self._uri):
            if self._store_inode() != self._inode:
                raise ViewError(f"{redact(self._uri)}: the store was replaced; writing it anew")
            news: dict[int, list[TrialEvent]] = {}
            for event in events:
                if isinstance(event, TrialEvent):
                    news.setdefault(event.trial, []).append(event)
            baseline = state.opened.data.get("baseline", {}).get(OBJECTIVE)
            for number, happened in news.items():
                self._show_trial(state.trials[number], happened, baseline)
            if state.complete:
                self._close_unended(state)
            tags: dict[str, Any] = {}
            if any(isinstance(event, StudyOpened) for event in events):
                self._log(self._parent, params=_question_params(state.opened))
                tags |= _question_tags(state.opened)
            if state.concluded is not None and state.concluded in events:
                tags |= self._conclude(state.concluded, state)
            self._show_study(state, tags | {"study.synced": upto})

    def close(self) -> None:
        """Give back the connections of a store that is a file."""
        if self._inode is not None:
            SqlAlchemyStore._get_or_create_engine(self._uri).dispose()
            self._inode = None

    def _show_trial(self, trial: TrialState, happened: list[TrialEvent], baseline: float | None) -> None:
        run = self._children.get(trial.number)
        # A run that somebody deleted in MLflow comes back with all that is known of its trial.
        whole = run is None or any(isinstance(event, Proposed) for event in happened)
        if run is None:
            role, name = trial.proposed.role, trial.proposed.name
            tags = self._tags(self._folder.study, role=role, trial=trial.number)
            run = self._create(
                f"reference: {name}" if role == "reference" else f"trial {trial.number:04d}", trial.proposed.time, tags
            )
            self._children[trial.number] = run
            happened = [trial.proposed, *trial.starts[-1:], *trial.curve, *([trial.end] if trial.end else [])]
        ended = trial.end is not None and any(event is trial.end or event == trial.end for event in happened)
        scores, odd = _points([event for event in happened if isinstance(event, Progress)], baseline)
        tags = odd
        if whole or ended or any(isinstance(event, Started) for event in happened):
            tags |= _trial_tags(trial)
        if whole:
            assert self._parent is not None
            tags |= {"mlflow.parentRunId": self._parent.id}
        if isinstance(trial.end, Finished) and ended:
            scores += _seconds(trial.end)
        self._log(run, metrics=scores, params=flat(trial.proposed.config) if whole else {}, tags=tags)
        if whole:
            self._client.log_text(run.id, json.dumps(trial.proposed.config, indent=2), "config.json")
        if ended:
            assert trial.end is not None
            self._add_files(run, trial.end)
            self._end(run, _STATUS[trial.status], trial.end.time)
        elif not trial.ended and run.status != "RUNNING":
            self._run_again(run)

    def _add_files(self, run: _Run, end: Finished | Pruned | Failed) -> None:
        weights = self._folder.trial(end.trial) / "weights.safetensors"
        if isinstance(end, Finished) and weights.is_file():
            self._client.log_artifact(run.id, str(weights))
        if isinstance(end, Failed) and end.traceback:
            self._client.log_text(run.id, end.traceback, "traceback.txt")

    def _close_unended(self, state: StudyState) -> None:
        """A complete study has nothing RUNNING, not even what a larger --trials would go on with."""
        for trial in state.trials.values():
            run = self._children.get(trial.number)
            if not trial.ended and run is not None and run.status == "RUNNING":
                self._log(run, tags={"study.state": "unfinished"})
                self._end(run, "KILLED", state.last_time)

    def _conclude(self, result: Concluded, state: StudyState) -> dict[str, Any]:
        """Results and ranks; the parent's tags that tell the winner."""
        assert self._parent is not None
        points, odd = _finite(result.scores, result.time, result.counted)
        self._log(self._parent, metrics=points)
        for name in result.files:
            path = self._folder.path / name
            if path.is_file():
                below = path.parent.relative_to(self._folder.path).as_posix()
                self._client.log_artifact(self._parent.id, str(path), None if below == "." else below)
        for rank, trial in enumerate(state.ranking(), start=1):
            run = self._children.get(trial.number)
            if run is not None and run.rank != str(rank):
                self._client.set_tag(run.id, "study.rank", rank)
                run.rank = str(rank)
        best = state.trials[result.best]
        run = self._children.get(result.best)
        values = {f"best.{name}": value for name, value in best.proposed.values.items()}
        return odd | {"study.best": result.best, "study.best_run": run.id if run else ""} | values

    def _show_study(self, state: StudyState, tags: dict[str, Any]) -> None:
        assert self._parent is not None
        reason = state.ended.reason if state.ended else "running"
        tags |= {"study.state": reason, "study.reason": state.ended.detail if state.ended else ""}
        if state.session:
            tags |= {f"provenance.{key}": _plain(value) for key, value in state.session.provenance.items()}
        self._log(self._parent, tags=tags)
        if state.complete or reason in ("failures", "error"):
            assert state.ended is not None
            if self._parent.status == "RUNNING":
                self._end(self._parent, "FINISHED" if state.complete else "FAILED", state.ended.time)
        elif self._parent.status != "RUNNING":
            self._run_again(self._parent)

    def _tags(self, study: str, *, role: str, trial: int | None = None) -> dict[str, str]:
        """Who a run is: set when it is created, so that it is found again whatever happens next."""
        tags = {"study.name": study, "study.id": self._study, "study.role": role}
        if trial is not None:
            assert self._parent is not None
            tags |= {"study.trial": str(trial), "mlflow.parentRunId": self._parent.id}
        return tags

    def _create(self, name: str, time: float, tags: dict[str, str]) -> _Run:
        info = self._client.create_run(self._experiment, _ms(time), tags, run_name=name).info
        return _Run(info.run_id, info.status)

    def _end(self, run: _Run, status: str, time: float) -> None:
        self._client.set_terminated(run.id, status, _ms(time))
        run.status = status

    def _run_again(self, run: _Run) -> None:
        self._client.update_run(run.id, status="RUNNING")
        run.status = "RUNNING"

    def _log(
        self,
        run: _Run,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """All of it in one request where MLflow takes that many."""
        rest = [
            list(metrics),
            [Param(key, _plain(value)) for key, value in (params or {}).items()],
            [RunTag(key, _plain(value)) for key, value in (tags or {}).items()],
        ]
        while any(rest):
            first = [part[:most] for part, most in zip(rest, (MOST_METRICS, MOST_OTHERS, MOST_OTHERS), strict=True)]
            rest = [part[len(sent) :] for part, sent in zip(rest, first, strict=True)]
            self._client.log_batch(run.id, *first)

    def _find_experiment(self, opened: StudyOpened) -> str:
        """The study's experiment; one deleted in MLflow's UI is restored, because its name stays taken."""
        found = self._client.get_experiment_by_name(opened.study)
        if found is None:
            location = (self._artifact_root / opened.study).as_uri() if self._artifact_root else None
            tags = {"study.name": opened.study, "mlflow.note.content": opened.text}
            return str(self._client.create_experiment(opened.study, location, tags))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _store_inode(self) -> int | None:
        """Tells a store file from one that took its place: a connection to a deleted file goes on without complaint."""
        path = sqlite_file(self._uri)
        return path.stat().st_ino if path and path.exists() else None
