"""The study in MLflow: one experiment, one parent run, a child run per trial, curves over training patches.

Everything is derived from the journal, with its timestamps, so writing it twice changes nothing. A run is found by its
tags `study.id` and `study.trial`, never by an id kept elsewhere. Metrics, params and tags are written before files, so
a tracker that refuses files still shows the study's state.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sr_core.process.redaction import redact, redact_with
from study.record import events as ev
from study.record.folder import StudyFolder
from study.record.journal import read, study_id
from study.record.state import OBJECTIVE, StudyState
from study.tracking import databases
from study.tracking.databases import ViewError
from study.tracking.follow import require_own
from study.tracking.mlflow import content, experiment, files
from study.tracking.mlflow import private as mlflow_private
from study.tracking.mlflow.names import MAX_RUN_NAME_CHARS, legal_value
from study.tracking.mlflow.store import (
    client_of,
    legal_tags,
    log,
    log_datasets,
    milliseconds,
    mlflow_view_errors,
    prepare_mlflow_store,
    runs_of,
)
from study.tracking.mlflow.uploads import MISSING, send

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 60.0
"""Least time between two attempts to send files that a tracker refused."""
_MODEL = "the registered model"
_STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


@dataclass(slots=True)
class KnownRun:
    """One run as MLflow is known to hold it."""

    id: str
    status: str = "RUNNING"
    tags: dict[str, str] = field(default_factory=dict)
    """Tags that are compared before they are written again."""


class MlflowSink:
    """Shows a study in an MLflow store or server.

    Args:
        tracking_uri: `sqlite:////absolute/mlflow.db`, `http://…`, or another database. A server stores the files of
            runs itself. With a database they go to the root's `artifacts`, in one folder per study.
        folder: the source of the trials' weights and the results.
    """

    name = "mlflow"

    def __init__(self, tracking_uri: str, folder: StudyFolder) -> None:
        self._uri = tracking_uri
        self.where = redact(tracking_uri)
        self._artifacts = None if tracking_uri.startswith("http") else databases.artifact_root(folder.root)
        self._folder = folder
        self._identity: int | None = None
        self._refused = False
        """The user was warned of refused files, and they have not arrived since."""
        self._unregistered = False
        """The last attempt to register the winner failed."""
        self._retried = -_RETRY_SECONDS

    def prepare(self) -> None:
        """Creates the embedded store. Raises ViewError if it cannot be written."""
        prepare_mlflow_store(self._uri)

    def open(self, opened: ev.StudyOpened) -> int:
        """Finds or creates the experiment and the parent run, and returns how many events they hold.

        Raises:
            ViewError: MLflow cannot be reached, or the runs belong to another folder.
        """
        with mlflow_view_errors(self._uri):
            self._connect(opened)
            parent = self._find_runs()
            self._require_own(opened, parent)
            experiment.update_tags(self._client, self._experiment, opened, self._owner(opened))
            self._parent = parent or self._create(opened.study, opened.time, {"study.role": "study"})
            if self._parent.tags.get("study.folder", opened.study) != self._folder.study:
                self._log(self._parent, tags={"study.folder": self._folder.study})
        cursor = int(self._parent.tags.get("study.synced", 0))
        incomplete = any(MISSING in run.tags for run in (self._parent, *self._children.values()))
        return max(cursor - 1, 0) if incomplete else cursor  # ask for the last event again: files go with events

    def _connect(self, opened: ev.StudyOpened) -> None:
        """Prepares the store, and finds or creates the experiment."""
        if opened.study != self._folder.study:
            require_own(self._folder, opened, opened.study)
        prepare_mlflow_store(self._uri)
        self._identity = databases.identity(self._uri)
        self._client = client_of(self._uri)
        self._study = {"study.name": opened.study, "study.id": study_id(opened)}
        self._experiment = experiment.find_or_create(
            self._client, self._uri, self._artifacts, opened, self._owner(opened)
        )

    def _require_own(self, opened: ev.StudyOpened, parent: KnownRun | None) -> None:
        """Raises ViewError if the study's runs belong to another folder, and this folder is a copy of it."""
        if parent is not None:
            require_own(self._folder, opened, parent.tags.get("study.folder", opened.study))

    def _owner(self, opened: ev.StudyOpened) -> str:
        """Returns the id of the study that the experiment belongs to."""
        return self._study["study.id"]

    def _require_same_store(self) -> None:
        """Raises ViewError if another file took the store's place."""
        if databases.identity(self._uri) != self._identity:
            raise ViewError(f"{self.where}: the store was replaced; the study is written to it again")

    def take(self, events: Sequence[ev.Event], state: StudyState, upto: int) -> None:
        """Writes what these events changed, then moves the cursor.

        Events from the middle of a trial alone do not move the cursor. They may come again.

        Raises:
            ViewError: MLflow cannot be reached, or its store was replaced.
        """
        assert state.opened is not None
        with mlflow_view_errors(self._uri):
            self._require_same_store()
            by_trial: dict[int, list[ev.TrialEvent]] = {}
            for event in events:
                if isinstance(event, ev.TrialEvent):
                    by_trial.setdefault(event.trial, []).append(event)
            trial_files = {number: self._show_trial(state, number, news) for number, news in by_trial.items()}

            tags = content.Tags()
            study_files = files.Files()
            concluded = None
            for event in events:
                if isinstance(event, ev.StudyOpened):
                    self._log(self._parent, params=content.question_params(event))
                    log_datasets(self._client, self._parent.id, content.dataset_inputs(event))
                    tags |= content.question_tags(event)
                elif isinstance(event, ev.SessionStarted):
                    study_files |= files.of_session(self._folder, event)
                elif isinstance(event, ev.Concluded):
                    concluded = event
                    study_files |= files.of_conclusion(self._folder, event)
                    tags |= self._conclude(event, state)

            if any(isinstance(event, ev.SessionEnded) for event in events):
                self._repair_runs(state)
            if any(isinstance(event, ev.Concluded | ev.SessionEnded) for event in events):
                self._rank(state)

            mid_trial = ev.Validated | ev.Checkpointed | ev.MicroBatchReduced
            moves_cursor = not all(isinstance(event, mid_trial) for event in events)
            if moves_cursor:
                self._show_study(state, tags | content.study_tags(state))

            for number, new_files in trial_files.items():
                self._send(self._children[number], new_files)
            self._send(self._parent, study_files)

            final_tags: content.Tags = {"study.synced": upto} if moves_cursor else {}
            if concluded is not None:
                final_tags["study.model_version"] = self._register(concluded, state)
            self._send_missing(state)
            if final_tags:
                self._log(self._parent, tags=final_tags)

    def _send(self, run: KnownRun, new_files: files.Files) -> bool:
        """Sends files and returns whether all arrived. A tag names refused ones, so that a later session finds them."""
        refused = send(self._client, run.id, new_files)
        if refused:
            self._postpone(run, refused)
        return not refused

    def _postpone(self, run: KnownRun, refused: Mapping[str, str]) -> None:
        """Warns once of refused files, and marks the run so that they are sent later.

        Args:
            refused: file name -> why it was refused.
        """
        name, reason = next(iter(refused.items()))
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        if not self._refused:
            logger.warning(
                "%s: %s%s refused (%s); metrics and params are written; files are retried later, also by study.sync",
                self.name, name, f"{more} were" if more else " was", reason,
            )  # fmt: skip
        self._refused = True
        self._retried = time.monotonic()
        self._log(run, tags={MISSING: f"{name}{more}"})
        run.tags[MISSING] = name

    def _send_missing(self, state: StudyState) -> None:
        """Sends the files that runs lack, unless that was tried within the last _RETRY_SECONDS."""
        if time.monotonic() - self._retried < _RETRY_SECONDS:
            return
        incomplete = [n for n, run in self._children.items() if MISSING in run.tags and n in state.trials]
        if not incomplete and MISSING not in self._parent.tags:
            return

        for number in incomplete:
            run = self._children[number]
            if not self._send(run, self._files_of(state, number)):
                return
            self._mark_complete(run)
        if MISSING in self._parent.tags:
            if not self._send(self._parent, self._files_of(state, None)):
                return
            if state.concluded is not None:
                version = self._register(state.concluded, state)
                self._log(self._parent, tags={"study.model_version": version})
                if self._unregistered:
                    return
            self._mark_complete(self._parent)

        logger.warning("%s: the missing files have arrived", self.name)
        self._refused = False

    def _mark_complete(self, run: KnownRun) -> None:
        """Removes the tag that says that a run lacks files."""
        self._client.delete_tag(run.id, MISSING)
        del run.tags[MISSING]

    def _files_of(self, state: StudyState, number: int | None) -> files.Files:
        """Returns all files of a trial's run, or those of the study's own run if `number` is None."""
        if number is None:
            return files.all_of_study(self._folder, state)
        return files.all_of_trial(self._folder, self._study["study.id"], state.trials[number])

    def close(self) -> None:
        """Closes the connections to a database. A database server that was restarted no longer knows them."""
        if not self._uri.startswith("http"):
            mlflow_private.release(self._uri)
        self._identity = None

    def _find_runs(self) -> KnownRun | None:
        """Reads the study's runs from MLflow, keeps the trials' runs and returns the study's own; None without one."""
        parent = None
        self._children: dict[int, KnownRun] = {}
        for number, run in runs_of(self._client, self._experiment, self._study["study.id"]).items():
            known_run = KnownRun(run.info.run_id, run.info.status, dict(run.data.tags))
            if number is None:
                parent = known_run
            else:
                self._children[number] = known_run
        return parent

    def _repair_runs(self, state: StudyState) -> None:
        """Undoes requests that timed out here but were carried out later: a second run, an outdated status."""
        parent = self._find_runs()
        if parent is None:
            raise ViewError(f"{self.where}: the study's run was deleted; the study is written again")
        self._parent = parent
        for number, run in self._children.items():
            trial = state.trials.get(number)  # a power cut may have taken the end of the journal
            if trial is not None and trial.end and run.status != _STATUS[trial.status]:
                self._end(run, _STATUS[trial.status], trial.end.time)

    def _show_trial(self, state: StudyState, number: int, news: list[ev.TrialEvent]) -> files.Files:
        """Writes metrics, params, tags and status of a trial, and returns the files that belong to them.

        Args:
            news: the trial's events that are not shown yet.
        """
        trial = state.trials[number]
        run = self._children.get(number)
        if run is None:
            marks = {"study.role": trial.proposed.role, "study.trial": str(number)}
            run = self._create(content.run_name(trial), trial.proposed.time, marks)
            self._children[number] = run
            if not any(isinstance(event, ev.Proposed) for event in news):  # the run was deleted in MLflow
                news = self._all_events(state, number)

        assert state.opened is not None
        baseline = state.opened.data["baseline"][OBJECTIVE]
        validations = [event for event in news if isinstance(event, ev.Validated)]
        points = content.curve(validations, baseline)
        new_files = files.images(self._folder, self._study["study.id"], trial, validations)
        tags = content.Tags()
        params: dict[str, Any] = {}
        if not all(isinstance(event, ev.Validated | ev.Checkpointed) for event in news):
            tags = content.trial_tags(trial, state.opened.study)
        if any(isinstance(event, ev.Proposed) for event in news):
            tags["mlflow.parentRunId"] = self._parent.id
            params = content.flat(trial.proposed.config)
            new_files |= files.of_proposal(trial.proposed)
            log_datasets(self._client, run.id, content.dataset_inputs(state.opened))

        end = next((event for event in news if isinstance(event, ev.Finished | ev.Pruned | ev.Failed)), None)
        if isinstance(end, ev.Finished):
            points += content.costs(end)
        if end:
            new_files |= files.of_trial(self._folder, end)

        self._log(run, points, params, tags | files.marks(new_files))
        if end:
            self._end(run, _STATUS[trial.status], end.time)
        elif not trial.ended and run.status != "RUNNING":
            self._run_again(run)
        return new_files

    def _all_events(self, state: StudyState, number: int) -> list[ev.TrialEvent]:
        """Returns all events of a trial from the journal. The state does not keep all fields of its validations."""
        events = islice(read(self._folder.journal), state.count)
        return [event for event in events if isinstance(event, ev.TrialEvent) and event.trial == number]

    def _conclude(self, result: ev.Concluded, state: StudyState) -> content.Tags:
        """Writes the winner's scores, and returns the parent run's tags that name the winner."""
        self._log(self._parent, content.results(result))
        if result.best not in self._children:
            new_files = self._show_trial(state, result.best, [])
            self._send(self._children[result.best], new_files)
        marks = files.marks(files.of_conclusion(self._folder, result))
        return content.winner_tags(result, state, self._children[result.best].id) | marks

    def _register(self, result: ev.Concluded, state: StudyState) -> str:
        """Registers the winner and returns the number of its version; empty if that fails or its weights are gone."""
        from study.tracking.mlflow.registry import champion_of, register  # takes seconds, needed only at the end

        run = self._children[result.best].id
        identity = self._study["study.id"]
        self._unregistered = False
        try:
            champion = champion_of(self._folder, state, result, self._experiment, run, identity)
            return register(self._client, champion) if champion else ""
        except Exception as exc:  # a registry and its storage may raise anything; the study is shown all the same
            reason = redact_with(self._uri, str(exc).strip().partition("\n")[0])[:200]
            self._unregistered = True
            self._postpone(self._parent, {_MODEL: f"{type(exc).__name__}: {reason}"})
            return ""

    def _rank(self, state: StudyState) -> None:
        """Writes the rank of each trial to its run."""
        assert state.opened is not None
        ranking = state.ranking()
        bicubic = state.opened.data["baseline"][OBJECTIVE]
        for rank, trial in enumerate(ranking, start=1):
            run = self._children.get(trial.number)
            tags = content.rank_tags(trial, rank, len(ranking), state.opened.study, bicubic)
            if run is not None and any(run.tags.get(key) != content.plain(value) for key, value in tags.items()):
                self._log(run, tags=tags)
                run.tags |= {key: content.plain(value) for key, value in tags.items()}

    def _show_study(self, state: StudyState, tags: content.Tags) -> None:
        """Writes the status of the study's own run, and those of its tags that changed."""
        if state.complete:
            for number, trial in state.trials.items():  # no run is RUNNING in a complete study (promise 4)
                run = self._children.get(number)
                if run is not None and not trial.ended and run.status == "RUNNING":
                    self._log(run, tags={"study.state": "unfinished"})
                    self._end(run, "KILLED", state.last_time)
        failed = state.ended is not None and state.ended.reason == "failures"
        if state.ended and (state.complete or failed):
            if self._parent.status == "RUNNING":
                self._end(self._parent, "FAILED" if failed else "FINISHED", state.ended.time)
        elif self._parent.status != "RUNNING":
            self._run_again(self._parent)

        texts = {key: content.plain(value) for key, value in tags.items()}
        changed = {key: text for key, text in texts.items() if self._parent.tags.get(key) != text}
        self._log(self._parent, tags=changed)
        self._parent.tags |= changed

    def _create(self, name: str, time: float, marks: Mapping[str, str]) -> KnownRun:
        """Creates a run together with the tags by which a later session finds it."""
        tags = {**self._study, **marks, "mlflow.source.name": "python -m study.run", "mlflow.source.type": "LOCAL"}
        legal_name = legal_value(name, MAX_RUN_NAME_CHARS)
        run = self._client.create_run(self._experiment, milliseconds(time), legal_tags(tags), run_name=legal_name)
        return KnownRun(run.info.run_id)

    def _end(self, run: KnownRun, status: str, time: float) -> None:
        self._client.set_terminated(run.id, status, milliseconds(time))
        run.status = status

    def _run_again(self, run: KnownRun) -> None:
        self._client.update_run(run.id, status="RUNNING")
        run.status = "RUNNING"

    def _log(
        self,
        run: KnownRun,
        points: Iterable[content.Point] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes to a run. Values that are not finite become tags."""
        finite, not_finite_tags = content.separate(points)
        log(self._client, run.id, finite, params or {}, {**not_finite_tags, **(tags or {})})
