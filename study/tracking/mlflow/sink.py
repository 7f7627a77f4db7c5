"""The study in MLflow: one experiment, one parent run, a child run per trial, curves over training patches.

Everything here is derived from the journal, with its timestamps, so that writing it twice changes nothing. A run is
found by its tags `study.id` and `study.trial`, never by an id kept elsewhere. Numbers come before files: a tracker that
takes no files still shows how the study stands.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sr_core.process.redaction import redact, redact_with
from study.record import events as ev
from study.record.addresses import sqlite_file
from study.record.folder import StudyFolder
from study.record.journal import read, study_id
from study.record.state import OBJECTIVE, StudyState
from study.tracking import databases
from study.tracking.databases import ViewError
from study.tracking.follow import require_own
from study.tracking.mlflow import content, files
from study.tracking.mlflow import private as mlflow_private
from study.tracking.mlflow.names import MAX_EXPERIMENT_TAG_CHARS, MAX_RUN_NAME_CHARS, legal_value
from study.tracking.mlflow.pages import experiment_tags
from study.tracking.mlflow.store import (
    client_of,
    experiment_of,
    legal_tags,
    log,
    log_datasets,
    milliseconds,
    mlflow_view_errors,
    prepare_mlflow_store,
    runs_of,
    second_name,
)
from study.tracking.mlflow.uploads import MISSING, send

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 60.0
"""Between two attempts to send the files that a tracker refused."""
_MODEL = "the registered model"
_STATUS = {"finished": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


@dataclass(slots=True)
class KnownRun:
    """What MLflow is known to hold of one run."""

    id: str
    status: str = "RUNNING"
    tags: dict[str, str] = field(default_factory=dict)
    """Those of them that are compared before they are written again."""


class MlflowSink:
    """Shows a study in an MLflow store or server.

    Args:
        tracking_uri: `sqlite:////absolute/mlflow.db`, `http://…`, or another database. A server keeps the files of the
            runs in a place of its own; for a database they go to the root's `artifacts`, one folder per study in it.
        folder: where the trials' weights and the results are copied from.
    """

    name = "mlflow"

    def __init__(self, tracking_uri: str, folder: StudyFolder) -> None:
        self._uri = tracking_uri
        self.where = redact(tracking_uri)
        self._artifacts = None if tracking_uri.startswith("http") else databases.artifact_root(folder.root)
        self._folder = folder
        self._identity: int | None = None
        self._refused = self._unregistered = False
        """Whether files, or the model, were refused lately; said once."""
        self._retried = -_RETRY_SECONDS

    def prepare(self) -> None:
        """Create the embedded store. Raises ViewError where that cannot be written."""
        prepare_mlflow_store(self._uri)

    def open(self, opened: ev.StudyOpened) -> int:
        """Find or create experiment and parent run. Like `take`, raises ViewError where MLflow cannot be reached."""
        with mlflow_view_errors(self._uri):
            self._connect(opened)
            parent = self._find_runs()
            self._require_own(opened, parent)
            self._mark_experiment(opened)
            self._parent = parent or self._create(opened.study, opened.time, {"study.role": "study"})
            if self._parent.tags.get("study.folder", opened.study) != self._folder.study:
                self._log(self._parent, tags={"study.folder": self._folder.study})
        held = int(self._parent.tags.get("study.synced", 0))
        incomplete = any(MISSING in run.tags for run in (self._parent, *self._children.values()))
        return max(held - 1, 0) if incomplete else held  # the last event again: files are sent with events

    def _connect(self, opened: ev.StudyOpened) -> None:
        if opened.study != self._folder.study:
            require_own(self._folder, opened, opened.study)
        prepare_mlflow_store(self._uri)
        self._identity = databases.identity(self._uri)
        self._client = client_of(self._uri)
        self._study = {"study.name": opened.study, "study.id": study_id(opened)}
        self._experiment = self._find_experiment(opened)

    def _require_own(self, opened: ev.StudyOpened, parent: KnownRun | None) -> None:
        """Raises ViewError where the study's runs are another folder's, of which this one is a copy."""
        if parent is not None:
            require_own(self._folder, opened, parent.tags.get("study.folder", opened.study))

    def _mark_experiment(self, opened: ev.StudyOpened) -> None:
        known = self._client.get_experiment(self._experiment).tags
        tags = legal_tags(experiment_tags(opened), MAX_EXPERIMENT_TAG_CHARS)
        owner = self._owner(opened)
        if known.get("study.id", owner) != owner:
            return  # an earlier version put studies of one name into one experiment: it is the other one's
        if "study.id" not in known:
            tags["study.id"] = owner
        for key, value in tags.items():
            if known.get(key) != value:  # an earlier version had others
                self._client.set_experiment_tag(self._experiment, key, value)

    def _owner(self, opened: ev.StudyOpened) -> str:
        """The id of the study whose experiment this is."""
        return self._study["study.id"]

    def _require_same_store(self) -> None:
        if databases.identity(self._uri) != self._identity:
            raise ViewError(f"{self.where}: the store was replaced; it is written anew")

    def take(self, events: Sequence[ev.Event], state: StudyState, upto: int) -> None:
        """Write what these events changed, the cursor last, and not for points alone: those may come again."""
        assert state.opened is not None
        with mlflow_view_errors(self._uri):
            self._require_same_store()
            happened: dict[int, list[ev.TrialEvent]] = {}
            for event in events:
                if isinstance(event, ev.TrialEvent):
                    happened.setdefault(event.trial, []).append(event)
            added = {number: self._show_trial(state, number, news) for number, news in happened.items()}
            tags, of_study, concluded = content.Tags(), files.Files(), None
            for event in events:
                if isinstance(event, ev.StudyOpened):
                    self._log(self._parent, params=content.question_params(event))
                    log_datasets(self._client, self._parent.id, content.dataset_inputs(event))
                    tags |= content.question_tags(event)
                elif isinstance(event, ev.SessionStarted):
                    of_study |= files.of_session(self._folder, event)
                elif isinstance(event, ev.Concluded):
                    concluded = event
                    of_study |= files.of_conclusion(self._folder, event)
                    tags |= self._conclude(event, state)
            if any(isinstance(event, ev.SessionEnded) for event in events):
                self._put_right(state)
            if any(isinstance(event, ev.Concluded | ev.SessionEnded) for event in events):
                self._rank(state)
            told = not all(isinstance(event, ev.Validated | ev.Checkpointed | ev.MicroBatchReduced) for event in events)
            if told:
                self._show_study(state, tags | content.study_tags(state))
            for number, more in added.items():
                self._send(self._children[number], more)
            self._send(self._parent, of_study)
            cursor: content.Tags = {"study.synced": upto} if told else {}
            if concluded is not None:
                cursor["study.model_version"] = self._register(concluded, state)
            self._send_missing(state)
            if cursor:
                self._log(self._parent, tags=cursor)

    def _send(self, run: KnownRun, added: files.Files) -> bool:
        """Send files; those that are refused are named by a tag, so that a later session knows of them."""
        refused = send(self._client, run.id, added)
        if refused:
            self._put_off(run, refused)
        return not refused

    def _put_off(self, run: KnownRun, refused: Mapping[str, str]) -> None:
        name, why = next(iter(refused.items()))
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        if not self._refused:
            logger.warning(
                "%s: %s%s refused (%s); the numbers are shown, files are tried again later, also by study.sync",
                self.name, name, f"{more} were" if more else " was", why,
            )  # fmt: skip
        self._refused = True
        self._retried = time.monotonic()
        self._log(run, tags={MISSING: f"{name}{more}"})
        run.tags[MISSING] = name

    def _send_missing(self, state: StudyState) -> None:
        """Send the files that a run lacks, unless that was tried lately."""
        lacking = {n: run for n, run in self._children.items() if MISSING in run.tags and n in state.trials}
        if time.monotonic() - self._retried < _RETRY_SECONDS or not (lacking or MISSING in self._parent.tags):
            return
        whole = True
        for number, run in lacking.items():
            whole = whole and self._send(run, self._files_of(state, number)) and self._complete(run)
        if whole and MISSING in self._parent.tags:
            whole = self._send(self._parent, self._files_of(state, None))
            if whole and state.concluded is not None:
                version = self._register(state.concluded, state)
                self._log(self._parent, tags={"study.model_version": version})
                whole = not self._unregistered
            whole = whole and self._complete(self._parent)
        if whole:
            logger.warning("%s: the files that were missing are there now", self.name)
            self._refused = False

    def _complete(self, run: KnownRun) -> bool:
        self._client.delete_tag(run.id, MISSING)
        del run.tags[MISSING]
        return True

    def _files_of(self, state: StudyState, number: int | None) -> files.Files:
        """All files of a trial's run, or of the study's own."""
        if number is not None:
            trial = state.trials[number]
            found = files.images(self._folder, self._study["study.id"], trial, trial.curve)
            found |= files.of_proposal(trial.proposed)
            return found | (files.of_trial(self._folder, trial.end) if trial.end else {})
        found = {}
        for session in state.sessions:
            found |= files.of_session(self._folder, session)
        return found | (files.of_conclusion(self._folder, state.concluded) if state.concluded else {})

    def close(self) -> None:
        """Give back the connections to a database: a server that was restarted has forgotten them."""
        if not self._uri.startswith("http"):
            mlflow_private.release(self._uri)
        self._identity = None

    def _find_runs(self) -> KnownRun | None:
        """Take note of the trials' runs as MLflow has them now; the study's own."""
        parent, self._children = None, dict[int, KnownRun]()
        for number, found in runs_of(self._client, self._experiment, self._study["study.id"]).items():
            run, tags = KnownRun(found.info.run_id, found.info.status), found.data.tags
            if number is None:
                parent = run
                run.tags = dict(tags)
            else:
                self._children[number] = run
                run.tags = dict(tags)
        return parent

    def _put_right(self, state: StudyState) -> None:
        """Undo what a server did after all with a request that had been given up on: a second run, an old status."""
        parent = self._find_runs()
        if parent is None:
            raise ViewError(f"{self.where}: the study's run was deleted; it is written anew")
        self._parent = parent
        for number, run in self._children.items():
            trial = state.trials.get(number)  # a power cut may have taken the end of the journal
            if trial is not None and trial.end and run.status != _STATUS[trial.status]:
                self._end(run, _STATUS[trial.status], trial.end.time)

    def _show_trial(self, state: StudyState, number: int, news: list[ev.TrialEvent]) -> files.Files:
        """Write the numbers and the status of a trial; the files that belong to them."""
        trial = state.trials[number]
        run = self._children.get(number)
        if run is None:
            marks = {"study.role": trial.proposed.role, "study.trial": str(number)}
            run = self._create(content.run_name(trial), trial.proposed.time, marks)
            self._children[number] = run
            if not any(isinstance(event, ev.Proposed) for event in news):  # somebody deleted the run in MLflow
                news = self._story(state, number)
        assert state.opened is not None
        baseline = state.opened.data["baseline"][OBJECTIVE]
        validations = [event for event in news if isinstance(event, ev.Validated)]
        points = content.curve(validations, baseline)
        added = files.images(self._folder, self._study["study.id"], trial, validations)
        tags, params = content.Tags(), dict[str, Any]()
        if not all(isinstance(event, ev.Validated | ev.Checkpointed) for event in news):
            tags = content.trial_tags(trial, state.opened.study)
        if any(isinstance(event, ev.Proposed) for event in news):
            tags["mlflow.parentRunId"] = self._parent.id
            params = content.flat(trial.proposed.config)
            added |= files.of_proposal(trial.proposed)
            log_datasets(self._client, run.id, content.dataset_inputs(state.opened))
        end = next((event for event in news if isinstance(event, ev.Finished | ev.Pruned | ev.Failed)), None)
        if isinstance(end, ev.Finished):
            points += content.costs(end)
        if end:
            added |= files.of_trial(self._folder, end)
        self._log(run, points, params, tags | files.marks(added))
        if end:
            self._end(run, _STATUS[trial.status], end.time)
        elif not trial.ended and run.status != "RUNNING":
            self._run_again(run)
        return added

    def _story(self, state: StudyState, number: int) -> list[ev.TrialEvent]:
        """All that has happened to a trial, from the journal: the state has not all that its validations told."""
        happened = islice(read(self._folder.journal), state.count)
        return [event for event in happened if isinstance(event, ev.TrialEvent) and event.trial == number]

    def _conclude(self, result: ev.Concluded, state: StudyState) -> content.Tags:
        """Write the winner's scores; the parent's tags that name it."""
        self._log(self._parent, content.results(result))
        if result.best not in self._children:
            added = self._show_trial(state, result.best, [])
            self._send(self._children[result.best], added)
        marks = files.marks(files.of_conclusion(self._folder, result))
        return content.winner_tags(result, state, self._children[result.best].id) | marks

    def _register(self, result: ev.Concluded, state: StudyState) -> str:
        """Register the winner; the number of its version, empty if that is not possible now or at all."""
        from study.tracking.mlflow.registry import (  # seconds of imports, which nobody else waits for
            champion_of,
            register,
        )

        run, mine = self._children[result.best].id, self._study["study.id"]
        self._unregistered = False
        try:
            champion = champion_of(self._folder, state, result, self._experiment, run, mine)
            return register(self._client, champion) if champion else ""
        except Exception as exc:  # whatever a registry or its storage raises: the study is shown, finished
            why = redact_with(self._uri, str(exc).strip().partition("\n")[0])[:200]
            self._unregistered = True
            self._put_off(self._parent, {_MODEL: f"{type(exc).__name__}: {why}"})
            return ""

    def _rank(self, state: StudyState) -> None:
        """Write where each trial stands."""
        assert state.opened is not None
        ranking, bicubic = state.ranking(), state.opened.data["baseline"][OBJECTIVE]
        for rank, trial in enumerate(ranking, start=1):
            run = self._children.get(trial.number)
            tags = content.rank_tags(trial, rank, len(ranking), state.opened.study, bicubic)
            if run is not None and any(run.tags.get(key) != content.plain(value) for key, value in tags.items()):
                self._log(run, tags=tags)
                run.tags |= {key: content.plain(value) for key, value in tags.items()}

    def _show_study(self, state: StudyState, tags: content.Tags) -> None:
        if state.complete:
            for number, trial in state.trials.items():  # nothing is RUNNING in a complete study (contract 4)
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
        fresh = {k: content.plain(v) for k, v in tags.items() if self._parent.tags.get(k) != content.plain(v)}
        self._log(self._parent, tags=fresh)
        self._parent.tags |= fresh

    def _create(self, name: str, time: float, marks: Mapping[str, str]) -> KnownRun:
        """A run with the tags by which it is found again, whatever happens next."""
        tags = {**self._study, **marks, "mlflow.source.name": "python -m study.run", "mlflow.source.type": "LOCAL"}
        shown, marked = legal_value(name, MAX_RUN_NAME_CHARS), legal_tags(tags)
        made = self._client.create_run(self._experiment, milliseconds(time), marked, run_name=shown)
        return KnownRun(made.info.run_id)

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
        drawn, odd = content.separate(points)
        log(self._client, run.id, drawn, params or {}, {**odd, **(tags or {})})

    def _find_experiment(self, opened: ev.StudyOpened) -> str:
        """The study's experiment; one deleted in MLflow's UI comes back, because its name stays taken."""
        owner = self._owner(opened)
        found = experiment_of(self._client, opened.study, owner)
        if found is None:
            return self._make_experiment(opened, owner)
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        store, artifacts = sqlite_file(self._uri), self._artifacts
        if store and artifacts and store.parent == artifacts.parent:
            before = str(found.artifact_location).rpartition("/")[0]
            if before != artifacts.as_uri():
                mlflow_private.move_artifacts(store, f"{before}/", f"{artifacts.as_uri()}/")
        return str(found.experiment_id)

    def _make_experiment(self, opened: ev.StudyOpened, owner: str) -> str:
        name = opened.study
        if self._client.get_experiment_by_name(name) is not None:
            name = second_name(name, owner)
            logger.warning("%s: experiment %r is not this study's; its runs are in %r", self.name, opened.study, name)
        location = (self._artifacts / name).as_uri() if self._artifacts else None
        tags = legal_tags(experiment_tags(opened), MAX_EXPERIMENT_TAG_CHARS) | {"study.id": owner}
        return str(self._client.create_experiment(name, location, tags))
