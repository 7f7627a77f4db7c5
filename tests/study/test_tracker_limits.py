"""MLflow's limits and other users' objects: legal names, refused files, names that are taken."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

from study.record.folder import StudyFolder
from study.tracking.databases import ViewError, default_storage, default_tracking_uri
from study.tracking.follow import sync
from study.tracking.mlflow.names import legal_key, legal_path, legal_value
from study.tracking.mlflow.sink import MlflowSink
from study.tracking.mlflow.store import client_of, runs_of
from study.tracking.mlflow.uploads import MISSING
from study.tracking.optuna import OptunaSink

Tell = Callable[..., Any]

ODD = [
    "Set5 (GT)/psnr",
    "50%/psnr",
    'a"b',
    "..",
    "../x",
    "/x",
    "a//b",
    "x/",
    "",
    ".",
    "..x",
    "line\n",
    "\udce9",
    "x" * 251,
]
ODD += ["Set5 [GT]/psnr", "Set5_(GT)/psnr", "x" * 252, "\udcea"]


@pytest.fixture
def told(story: Tell, empty_store: Path) -> Any:
    """A study without events, under a root with an empty store."""
    made = story()
    shutil.copy(empty_store, made.folder.root / "mlflow.db")
    return made


def sink_of(told: Any) -> MlflowSink:
    return MlflowSink(default_tracking_uri(told.folder.root), told.folder)


def client(told: Any) -> MlflowClient:
    return client_of(default_tracking_uri(told.folder.root))


def runs(told: Any, experiment: str = "small") -> dict[str, Any]:
    found = client(told).get_experiment_by_name(experiment)
    return {run.info.run_name: run for run in client(told).search_runs([found.experiment_id])}


def short(told: Any) -> Any:
    """Writes a complete study with one finished trial and a conclusion."""
    told.open()
    told.session(trials=1)
    told.finish(told.propose(), 30.0)
    told.conclude()
    told.end_session("complete")
    return told


# Names and values


@pytest.mark.parametrize("name", ODD)
def test_every_name_becomes_one_that_mlflow_takes(name: str) -> None:
    for check in (_validate_metric_name, _validate_param_name, _validate_tag_name):
        check(legal_key(name))
    assert len(legal_key(name)) <= 250


def test_different_names_stay_different_and_legal_ones_stay() -> None:
    assert len({legal_key(name) for name in ODD}) == len(ODD)
    assert len({legal_path(name) for name in ODD}) == len(ODD)
    for name in ("val/psnr", "not_finite.val/psnr", "Set5: x4/psnr", "é/ψ", "space.a b"):
        assert legal_key(name) == name
    for name in ("images/val~crop+step+1+timestamp+2+ab.png", "results/best/config.json", "a b (1).png"):
        assert legal_path(name) == name


@pytest.mark.parametrize("name", ["a%2e%2e/b", "..", "/etc/x", "a\\b", "a#b", "a?b", "\udce9.png", "x" * 300 + ".png"])
def test_a_path_among_the_files_is_one_that_stays_in_its_folder(name: str) -> None:
    made = legal_path(name)
    assert not re.search(r"[%\\#?]", made) and ".." not in made.split("/") and not made.startswith("/")
    assert all(len(part.encode()) <= 255 for part in made.split("/"))
    assert made.encode().decode() == made and made.endswith(Path(name).suffix or "")


def test_a_value_is_cut_where_mlflow_cuts_it_and_holds_no_character_that_a_database_refuses() -> None:
    assert legal_value("x" * 7000, 6000) == "x" * 6000
    assert legal_value("a\0b\udce9", 100) == "a\\x00b\\xe9"


def test_a_benchmark_with_an_illegal_name_is_shown_and_everything_else_too(told: Any) -> None:
    told.open()
    told.session(trials=1)
    told.finish(told.propose(), 30.0)
    whole = told.tell

    def with_benchmark(kind: Any, **values: Any) -> None:
        if "files" in values:
            values["scores"] |= {"Set5 (GT)/psnr": 33.0, "Set5 [GT]/psnr": 34.0}
        whole(kind, **values)

    told.tell = with_benchmark
    told.conclude()
    told.end_session("complete")
    sync(told.folder.journal, sink_of(told))
    parent = runs(told)["small"]
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["valid/psnr"] == 30.0
    scores = [value for name, value in parent.data.metrics.items() if name.startswith("Set5 _GT_-")]
    assert sorted(scores) == [33.0, 34.0]
    assert "Set5 (GT)/psnr" in told.state.concluded.scores


# Files


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of files that the tracker refuses. An emptied set refuses none."""
    refused = {"weights.safetensors"}
    one, many = MlflowClient.log_artifact, MlflowClient.log_artifacts

    def log_artifact(self: Any, run: str, path: str, place: str | None = None) -> None:
        if Path(path).name in refused:
            raise ImportError("no module named boto3")
        one(self, run, path, place)

    def log_artifacts(self: Any, run: str, folder: str, place: str | None = None) -> None:
        if refused & {path.name for path in Path(folder).rglob("*")}:
            raise ImportError("no module named boto3")
        many(self, run, folder, place)

    monkeypatch.setattr(MlflowClient, "log_artifact", log_artifact)
    monkeypatch.setattr(MlflowClient, "log_artifacts", log_artifacts)
    return refused


def test_a_file_that_is_refused_keeps_nothing_else_away_and_is_sent_once_it_is_taken(
    told: Any, refusing: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    short(told)
    sync(told.folder.journal, sink_of(told))
    shown = runs(told)
    assert {run.info.status for run in shown.values()} == {"FINISHED"}
    assert shown["trial 0000"].data.metrics["val/psnr"] == 30.0
    assert shown["trial 0000"].data.tags[MISSING] == "weights.safetensors"
    files = {file.path for file in client(told).list_artifacts(shown["trial 0000"].info.run_id)}
    assert files == {"config.json", "images", "per_image.json"}
    said = [record.message for record in caplog.records if "refused" in record.message]
    assert len(said) == 1 and "weights.safetensors" in said[0] and "boto3" in said[0]

    refusing.clear()
    caplog.clear()
    assert sync(told.folder.journal, sink_of(told)) == 1
    shown = runs(told)
    files = {file.path for file in client(told).list_artifacts(shown["trial 0000"].info.run_id)}
    assert "weights.safetensors" in files
    assert not any(MISSING in run.data.tags for run in shown.values())
    assert [record.message for record in caplog.records] == ["mlflow: the missing files have arrived"]
    assert sync(told.folder.journal, sink_of(told)) == 0


def test_a_registry_that_fails_leaves_the_study_finished_and_is_asked_again(
    told: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    short(told)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no registry here")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_logged_model", fail)
        sync(told.folder.journal, sink_of(told))
    parent = runs(told)["small"]
    assert (parent.info.status, parent.data.tags["study.state"]) == ("FINISHED", "complete")
    assert "the registered model was refused (RuntimeError: no registry here)" in caplog.text
    sync(told.folder.journal, sink_of(told))
    assert client(told).get_model_version_by_alias("small", "champion").run_id == runs(told)["trial 0000"].info.run_id
    assert runs(told)["small"].data.tags["study.model_version"] == "1"


# Other owners' experiments and models


def test_a_registered_model_of_the_study_s_name_that_is_somebody_s_is_left_alone(
    told: Any, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = client(told)
    theirs.create_registered_model("small")
    theirs.create_model_version("small", "file:///somewhere", await_creation_for=0)
    theirs.set_registered_model_alias("small", "champion", "1")
    sync(short(told).folder.journal, sink_of(told))
    kept = theirs.get_registered_model("small")
    assert kept.aliases == {"champion": 1} or kept.aliases == {"champion": "1"}
    assert len(theirs.search_model_versions("name = 'small'")) == 1
    (ours,) = [model.name for model in theirs.search_registered_models() if model.name != "small"]
    assert re.fullmatch(r"small-[0-9a-f]{8}", ours)
    assert theirs.get_model_version_by_alias(ours, "champion").run_id == runs(told)["trial 0000"].info.run_id
    assert caplog.text.count("is not this study's") == 1


def test_an_experiment_of_the_study_s_name_that_is_somebody_s_gets_no_runs(told: Any) -> None:
    theirs = client(told).create_experiment("small")
    client(told).create_run(theirs)
    sync(short(told).folder.journal, sink_of(told))
    assert len(client(told).search_runs([theirs])) == 1
    (ours,) = [e for e in client(told).search_experiments() if e.name.startswith("small-")]
    assert {run.info.run_name for run in client(told).search_runs([ours.experiment_id])} == {"small", "trial 0000"}


def test_a_store_of_version_0_1_keeps_its_experiment_and_runs(told: Any) -> None:
    """Only the runs had the study's identity then."""
    sync(short(told).folder.journal, sink_of(told))
    experiment = client(told).get_experiment_by_name("small")
    before = {run.info.run_id for run in runs(told).values()}
    client(told).delete_experiment_tag(experiment.experiment_id, "study.id")
    client(told).delete_tag(runs(told)["small"].info.run_id, "study.synced")
    assert sync(told.folder.journal, sink_of(told)) > 0
    assert {run.info.run_id for run in runs(told).values()} == before
    assert [e.name for e in client(told).search_experiments()] == ["small", "Default"]
    assert len(client(told).search_model_versions("name = 'small'")) == 1


def test_an_experiment_that_was_renamed_is_still_the_study_s(told: Any) -> None:
    told.open()
    sync(told.folder.journal, sink_of(told))
    experiment = client(told).get_experiment_by_name("small")
    client(told).rename_experiment(experiment.experiment_id, "kept for the paper")
    told.session(trials=1)
    sync(told.folder.journal, sink_of(told))
    assert client(told).get_experiment_by_name("small") is None
    assert set(runs(told, "kept for the paper")) == {"small"}


@pytest.mark.parametrize("view", ["mlflow", "optuna"])
def test_a_copied_folder_writes_nothing_into_the_runs_of_its_original(told: Any, view: str) -> None:
    def sink(folder: StudyFolder) -> Any:
        if view == "mlflow":
            return MlflowSink(default_tracking_uri(folder.root), folder)
        return OptunaSink(default_storage(folder.root), folder)

    told.open()
    told.session(trials=1)
    told.finish(told.propose(), 30.0)
    sync(told.folder.journal, sink(told.folder))
    branch = replace(told.folder, study="branch")
    shutil.copytree(told.folder.path, branch.path)
    with pytest.raises(ViewError, match=r"branch is a copy of .*small"):
        sync(branch.journal, sink(branch))
    told.end_session("complete")
    assert sync(told.folder.journal, sink(told.folder)) == 1


def test_a_renamed_folder_keeps_its_runs(told: Any) -> None:
    told.open()
    sync(told.folder.journal, sink_of(told))
    (before,) = [run.info.run_id for run in runs(told).values()]
    renamed = replace(told.folder, study="renamed")
    told.folder.path.rename(renamed.path)
    sync(renamed.journal, MlflowSink(default_tracking_uri(renamed.root), renamed))
    (after,) = runs(told).values()
    assert (after.info.run_id, after.data.tags["study.folder"]) == (before, "renamed")


def test_a_run_of_a_trial_that_the_journal_does_not_know_is_no_error(told: Any) -> None:
    told.open()
    told.session(trials=1)
    told.finish(told.propose(), 30.0)
    sync(told.folder.journal, sink_of(told))
    experiment = client(told).get_experiment_by_name("small").experiment_id
    mine = runs(told)["small"].data.tags["study.id"]
    client(told).create_run(experiment, tags={"study.id": mine, "study.trial": "7"}, run_name="trial 0007")
    told.end_session("complete")
    assert sync(told.folder.journal, sink_of(told)) == 1
    assert set(runs_of(client(told), experiment, mine)) == {None, 0, 7}


def test_workspaces_of_another_server_do_not_keep_the_root_s_own_store_from_being_written(
    told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    monkeypatch.setenv("MLFLOW_WORKSPACE", "theirs")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    told.open()
    assert sync(told.folder.journal, sink_of(told)) == 1
    assert set(runs(told)) == {"small"}


def test_a_tracker_on_this_machine_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    from requests.utils import select_proxy, get_environ_proxies  # noqa: I001

    for name in ("http_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "" if "no_" in name.lower() else "http://127.0.0.1:9")
    uri = "http://127.0.0.2:5000"
    client_of(uri)
    assert select_proxy(uri, get_environ_proxies(uri, no_proxy=None)) is None
    assert select_proxy("http://elsewhere/", get_environ_proxies("http://elsewhere/", no_proxy=None)) is not None
