"""A longer training in MLflow: a run of its own below its trial's run, linked both ways.

The run has the curve, params and files of a trial, and the scores and figures of a conclusion. The runs of its trial
and study name it by a tag. They are found by their tags too, so all of them can be rebuilt in any order.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from study.record import events as ev
from study.record.folder import StudyFolder
from study.record.state import StudyState
from study.tracking.follow import sync
from study.tracking.mlflow import content
from study.tracking.mlflow.files import Files
from study.tracking.mlflow.sink import KnownRun, MlflowSink
from study.tracking.mlflow.store import mlflow_view_errors, search
from study.tracking.mlflow.uploads import MISSING


class TrainingSink(MlflowSink):
    """Shows a longer training in the experiment of its study.

    Args:
        tracking_uri: as for MlflowSink.
        folder: the training's folder.
    """

    def __init__(self, tracking_uri: str, folder: StudyFolder) -> None:
        super().__init__(tracking_uri, folder)
        self._study_folder = replace(folder, training="")

    def open(self, opened: ev.StudyOpened) -> int:
        """Finds or creates the run, after those of its trial and study, links them, and returns the run's cursor.

        Raises:
            ViewError: MLflow cannot be reached, or another process is writing the study's runs.
        """
        with mlflow_view_errors(self._uri):
            self._connect(opened)
            self._number = int(opened.question["training"]["trial"])
            links = self._links(opened)
            if len(links) < 2:
                sync(self._study_folder.journal, MlflowSink(self._uri, self._study_folder))
                self._connect(opened)
                links = self._links(opened)
            parent = links.get("study.trial_run", links["study.study_run"])  # a user may have deleted the trial's run
            run = next(search(self._client, self._experiment, self._study["study.id"]), None)
            if run is None:
                marks = {"study.role": "training", "study.trial": str(self._number)}
                name = f"trial {self._number:04d} to {opened.question['base']['train.budget_patches']} patches"
                self._run = self._create(name, opened.time, marks)
            else:
                self._run = KnownRun(run.info.run_id, run.info.status, dict(run.data.tags))
            self._children = {self._number: self._run}
            self._parent = KnownRun(parent)
            self._log(self._run, tags={**links, "mlflow.parentRunId": parent})
            for linked in links.values():
                self._client.set_tag(linked, f"study.training.{self._folder.training}", self._run.id)
        cursor = int(self._run.tags.get("study.synced", 0))
        return max(cursor - 1, 0) if MISSING in self._run.tags else cursor

    def take(self, events: Sequence[ev.Event], state: StudyState, upto: int) -> None:
        """Writes what these events changed, then moves the cursor.

        Validations and checkpoints alone do not move the cursor. They may come again.
        """
        assert state.opened is not None
        with mlflow_view_errors(self._uri):
            self._require_same_store()
            news = [event for event in events if isinstance(event, ev.TrialEvent)]
            added = self._show_trial(state, self._number, news) if news else {}
            tags: content.Tags = {}
            for event in events:
                if isinstance(event, ev.StudyOpened):
                    tags |= content.question_tags(event) | content.flat({"training": event.question["training"]})
                elif isinstance(event, ev.Concluded):
                    self._show_result(event, state)
                    added |= self._results(event)
            self._send(self._run, added)
            self._send_missing(state)
            if not all(isinstance(event, ev.Validated | ev.Checkpointed) for event in events):
                session = {k: v for k, v in content.study_tags(state).items() if k.startswith(("provenance", "mlflow"))}
                self._log(self._run, tags=tags | session | {"study.synced": upto})

    def _links(self, opened: ev.StudyOpened) -> dict[str, str]:
        """Returns the ids of the trial's and the study's run, as far as they exist, under the names of their tags."""
        links: dict[str, str] = {}
        for run in search(self._client, self._experiment, opened.question["training"]["study"]):
            number = run.data.tags.get("study.trial")
            if number is None:
                links["study.study_run"] = run.info.run_id
            elif number == str(self._number):
                links["study.trial_run"] = run.info.run_id
        return links

    def _show_result(self, result: ev.Concluded, state: StudyState) -> None:
        patches = state.trials[self._number].patches
        self._log(self._run, [point._replace(step=patches) for point in content.results(result)])

    def _results(self, result: ev.Concluded) -> Files:
        """Returns the figures and tables. Weights and config are among the trial's files already."""
        written = self._folder.written(result.files)
        return {name: path for name, path in written.items() if Path(name).parent.name != "best"}

    def _files_of(self, state: StudyState, number: int | None) -> Files:
        results = self._results(state.concluded) if state.concluded else {}
        return super()._files_of(state, number) | results

    def _owner(self, opened: ev.StudyOpened) -> str:
        return str(opened.question["training"]["study"])
