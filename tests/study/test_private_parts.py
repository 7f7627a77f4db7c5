"""Private parts of libraries that the study uses exist, are used, and are reported if they are missing."""

import json
import sqlite3
import subprocess
import sys
import urllib.parse
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from importlib.metadata import entry_points, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlflow.store.db import utils as mlflow_database
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from optuna.samplers import GPSampler, TPESampler
from rich.console import Console

from sr_core.errors import SuiteError
from sr_core.process.stopping import StopSignal
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.question.space import Grid
from study.record import provenance
from study.record.addresses import sqlite_uri
from study.record.events import Warned
from study.record.wall_time import WallTime
from study.screen import live
from study.search import optuna_private
from study.search.sampler import propose
from study.session import session
from study.session.options import RunOptions
from study.tracking import databases
from study.tracking.mlflow import private as mlflow_private
from study.tracking.mlflow import store as mlflow_store

LISTED = Experiment(
    question="?",
    base=TrialConfig().with_values({"train.budget_patches": 1920, "evaluation.every_patches": 480}),
    rungs=(480,),
    nuisance={"model.temperature": Grid(0.1, 1.0, 10.0, 100.0), "train.learning_rate": Grid(1e-4, 2e-4, 4e-4, 8e-4)},
)

# Optuna's samplers


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_a_proposal_goes_through_the_override(
    history: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    samplers: list[Any] = []
    for kind in ("Tpe", "Gp"):
        plain = getattr(optuna_private, kind)
        monkeypatch.setattr(
            optuna_private, kind, lambda *args, plain=plain: samplers.append(plain(*args)) or samplers[-1]
        )
    study = history(replace(LISTED, sampler=name))
    for number in range(7):
        point = propose(study.state, study.experiment, number)
        assert point is not None
        study.try_out(study.experiment.space.settings(point), 30.0 + number % 3)
    samplers.clear()
    assert propose(study.state, study.experiment, 7) is not None
    assert samplers and all(sampler.rated == 1 and not sampler.ignored for sampler in samplers)


@pytest.mark.parametrize("name", ["tpe", "gp", "random", "qmc", "grid", "replay"])
def test_the_installed_optuna_gives_no_warning(name: str) -> None:
    assert optuna_private.doubts(name) == []


@pytest.mark.parametrize(("name", "kind", "override"), [
    ("tpe", "Tpe", "_compute_acquisition_func"), ("gp", "Gp", "_optimize_acqf"),
])  # fmt: skip
def test_an_override_that_optuna_does_not_call_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str, override: str
) -> None:
    monkeypatch.delattr(getattr(optuna_private, kind), override)
    (warning,) = optuna_private.doubts(name)
    assert warning.startswith(f"Optuna {version('optuna')} ignores what this project adds to its sampler {name!r}")


@pytest.mark.parametrize(("name", "kind", "part"), [
    ("tpe", TPESampler, "_compute_acquisition_func"), ("gp", GPSampler, "_rng"),
])  # fmt: skip
def test_a_sampler_that_cannot_propose_is_one_line_before_a_session_begins(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: type, part: str
) -> None:
    gone = property(lambda self: self.no_such_part, lambda self, value: None)
    monkeypatch.setattr(kind, part, gone, raising=False)
    with pytest.raises(SuiteError, match=rf"sampler '{name}' cannot propose with Optuna .*AttributeError") as caught:
        optuna_private.doubts(name)
    assert "\n" not in str(caught.value)


# What a session says at its beginning


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """begun(then, doubts=()): the warnings of a session after one with this provenance (None: there was none)."""
    monkeypatch.setattr(provenance, "collect", lambda: {"source": "feed", "git": None})
    monkeypatch.setattr(provenance, "keep_uncommitted_changes", lambda path: None)

    def start(then: dict[str, Any] | None, doubts: tuple[str, ...] = ()) -> list[str]:
        events: list[Any] = []
        last = None if then is None else SimpleNamespace(provenance=then)
        given = session.Session(
            name="e",
            experiment=LISTED,
            options=RunOptions(trials=1),
            folder=cast(Any, SimpleNamespace(changes=lambda epoch: tmp_path / "p", fence=tmp_path / "fence")),
            wall_time=WallTime(0.0),
            doubts=[*doubts],
        )
        given.start(cast(Any, SimpleNamespace(state=SimpleNamespace(session=last), record=events.append)), [])
        return [event.message for event in events if isinstance(event, Warned)]

    return start


HERE = {name: provenance._version(name) for name in provenance.DECIDING_LIBRARIES}
LINES = [f"{name}=={there}" for name, there in HERE.items()]


def test_other_versions_of_what_decides_are_one_line_that_names_package_then_and_now(
    begun: Callable[..., list[str]],
) -> None:
    then = {
        "source": "feed",
        "packages": [line.replace(f"optuna=={HERE['optuna']}", "optuna==4.9.1") for line in LINES],
    }
    then["packages"] = [line.replace(f"scipy=={HERE['scipy']}", "SciPy==1.0") for line in then["packages"]]
    (line,) = begun(then)
    assert line == (
        "proposals or bits may differ from the last session's: "
        f"optuna 4.9.1 then, {HERE['optuna']} now; scipy 1.0 then, {HERE['scipy']} now"
    )


@pytest.mark.parametrize("name", ["torch", "numpy", "optuna", "scipy", "scikit-learn", "greenlet"])
def test_every_library_that_decides_is_compared(name: str) -> None:
    assert provenance.other_versions({"packages": [f"{name.replace('-', '_')}==0.1"]}) == [
        f"{name} 0.1 then, {HERE[name]} now"
    ]
    assert provenance.other_versions({"versions": {name: "0.1"}}) == [f"{name} 0.1 then, {HERE[name]} now"]


@pytest.mark.parametrize(
    "then",
    [
        None,
        {},
        {"source": "feed"},
        {"source": "feed", "packages": [], "versions": {}},
        {"source": "feed", "packages": LINES, "versions": HERE},
        {"source": "feed", "packages": [*LINES, "numpy==0.1"]},  # found twice on the path
        {"source": "feed", "packages": ["mlflow==0.1", "rich==0.1"], "versions": {"pandas": "0.1"}},
        {"source": "feed", "packages": None, "versions": None},
        {"source": "feed", "packages": 7, "versions": ["torch"]},
        {"source": "feed", "packages": ["torch==1 --index-url x", 7, None], "versions": {"torch": None, 7: [7]}},
    ],
    ids=["no session", "nothing", "source", "empty", "same", "twice", "others", "null", "odd", "forged"],
)
def test_the_same_versions_or_none_that_are_recorded_are_no_warning(
    begun: Callable[..., list[str]], then: dict[str, Any] | None
) -> None:
    assert begun(then) == []


def test_a_library_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_version", lambda name: "not installed" if name == "greenlet" else HERE[name])
    assert provenance.other_versions({"packages": LINES}) == [f"greenlet {HERE['greenlet']} then, not installed now"]


def test_a_version_from_elsewhere_that_is_none_is_not_repeated() -> None:
    assert provenance.other_versions({"versions": {"torch": "1.0\x1b[2J\n", "numpy": "1.0; rm"}}) == []


def test_a_sampler_that_optuna_ignores_is_recorded_at_the_beginning(begun: Callable[..., list[str]]) -> None:
    assert begun(None, doubts=("Optuna 9 ignores it",)) == ["Optuna 9 ignores it"]


# MLflow's store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow_store.prepare_mlflow_store(f"sqlite:///{path}")
    return path


def test_mlflow_tries_a_database_once_and_creates_no_folder_for_it(tmp_path: Path) -> None:
    assert mlflow_private.alter() == []
    with pytest.raises(Exception, match="unable to open database file"):
        mlflow_database.create_sqlalchemy_engine_with_retry(f"sqlite:///{tmp_path / 'gone' / 'x.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["MAX_RETRY_COUNT", "_make_parent_dirs_if_sqlite"])
def test_what_cannot_be_altered_in_mlflow_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(mlflow_database, name)
    (warning,) = mlflow_private.alter()
    assert warning.startswith(f"MLflow {version('mlflow')} has no {name}: ")


def test_connections_to_a_store_are_given_back(store: Path) -> None:
    uri = f"sqlite:///{store}"
    mlflow_store.client_of(uri).search_registered_models()
    for kind in (SqlAlchemyStore, RegistryStore):
        pool = kind._engine_map[uri].pool
        mlflow_private.release(uri)
        assert kind._engine_map[uri].pool is not pool


@pytest.mark.parametrize(("kind", "part"), [(SqlAlchemyStore, "_engine_map"), (RegistryStore, "_engine_map")])
def test_a_store_that_cannot_be_given_back_is_one_line(
    monkeypatch: pytest.MonkeyPatch, store: Path, kind: type, part: str
) -> None:
    monkeypatch.delattr(kind, part)
    with pytest.raises(databases.ViewError, match=rf"not as this project expects it \(AttributeError: .*{part}"):
        mlflow_store.prepare_mlflow_store(f"sqlite:///{store}")


def test_a_store_that_takes_other_arguments_is_one_line_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(SqlAlchemyStore, "__init__", lambda self, uri: None)
    with pytest.raises(databases.ViewError, match=r"not as this project expects it \(TypeError: ") as caught:
        mlflow_store.prepare_mlflow_store(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_column_that_names_files_is_moved_with_a_root(store: Path) -> None:
    """A column of MLflow's that this test does not know has to be looked at: is it one of ours that names files?"""
    of_others = {
        ("datasets", "dataset_source"),
        ("workspaces", "default_artifact_root"),
        ("workspaces", "trace_archival_location"),
        ("evaluation_dataset_records", "source"),
        ("mcp_server_versions", "source"),
    }
    with closing(sqlite3.connect(store)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {(table, row[1]) for table in tables for row in connection.execute(f"PRAGMA table_info({table})")}
    files = {(t, c) for t, c in columns if c.endswith(("_uri", "_location", "_root", "_path", "source"))}
    assert files - of_others == {*mlflow_private.ABSOLUTE}


def test_a_store_without_such_a_column_is_one_line(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
    with (
        pytest.raises(databases.ViewError, match="no such table: runs"),
        mlflow_store.mlflow_view_errors(f"sqlite:///{copy}"),
    ):
        mlflow_private.move_artifacts(copy, "a", "b")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "a%20b?c{d}"])
def test_a_store_of_the_first_mlflow_is_upgraded_by_mlflows_own_command(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    uri = sqlite_uri(folder / "mlflow.db")
    engine = mlflow_database.create_sqlalchemy_engine_with_retry(uri)
    mlflow_database.InitialBase.metadata.create_all(engine)
    engine.dispose()
    mlflow_store.prepare_mlflow_store(uri)
    assert mlflow_store.client_of(uri).search_experiments() != []
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert not list(folder.glob("mlruns"))


def test_an_upgrade_that_fails_is_one_line(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stderr=b"Traceback\n  File x\nOperationalError: locked\n\n")
    ran: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **more: ran.append(command) or failed)
    with pytest.raises(databases.ViewError, match=r"mlflow db upgrade failed \(OperationalError: locked\)$"):
        mlflow_store._upgrade(f"sqlite:///{store}")
    assert ran == [[sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{store}"]]


# MLflow's pages


def test_images_and_tables_are_named_and_laid_out_as_mlflow_itself_does(store: Path, tmp_path: Path) -> None:
    """Against what MLflow's own calls write: a release that writes otherwise fails here."""
    import numpy as np

    client = mlflow_store.client_of(f"sqlite:///{store}")
    experiment = client.create_experiment("pages", (tmp_path / "files").as_uri())
    run = client.create_run(experiment)
    client.log_image(run.info.run_id, np.zeros((4, 4, 3), np.uint8), key="val/crop", step=480, timestamp=1_700_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas', of MLflow
        client.log_table(run.info.run_id, {"image": ["a", "b"], "psnr": [30.0, 31.0]}, "per_image.json")
    artifacts = Path(urllib.parse.urlsplit(client.get_run(run.info.run_id).info.artifact_uri).path)
    written = {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file()}
    unique = next(name for name in written if name.endswith(".png")).removesuffix(".png").rpartition("+")[2]
    names = mlflow_private.image_names("val/crop", 480, 1_700_000, unique)
    assert written == {*names, "per_image.json"}
    rows = mlflow_private.table_text(("image", "psnr"), [["a", 30.0], ["b", 31.0]])
    assert json.loads((artifacts / "per_image.json").read_text()) == json.loads(rows)
    tags = client.get_run(run.info.run_id).data.tags
    marks = mlflow_private.marks(["per_image.json"], images=True)
    assert {name: tags.get(name, "").lower() for name in marks} == {name: text.lower() for name, text in marks.items()}


def test_mlflows_pages_still_know_the_words_of_our_views() -> None:
    """The pages are JavaScript in MLflow's wheel: a word that is gone from it opens nothing any more."""
    import mlflow

    pages = Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js"
    card = mlflow_private.line_card("val", "val/psnr", logarithmic=True)
    view = mlflow_private.best_first("a") | mlflow_private.columns([]) | mlflow_private.charts("", [], [])
    words = {*card, *view, *mlflow_private.image_card("a", "b", 1)} - {"type", "uuid", "range", "step"}
    words |= {"sharedViewState", "viewStateShareKey", "compareRunsMode", "compare-runs", "workflowType"}
    words |= {"mlflow.experimentKind", "custom_model_development", "isGenerated"}
    left = {word.encode() for word in words}
    for path in pages.rglob("*.js"):
        content = path.read_bytes()
        left -= {word for word in left if word in content}
    assert left == set()


# Optuna Dashboard and rich, by what they document


def test_optuna_dashboard_is_reached_by_the_name_of_its_command() -> None:
    pytest.importorskip("optuna_dashboard", reason="needs Optuna Dashboard: pip install -e '.[dashboard]'")
    assert callable(entry_points(group="console_scripts")["optuna-dashboard"].load())


def test_the_live_view_draws_on_the_stream_that_was_there_before_it(tmp_path: Path) -> None:
    """And not on what stands in for it, which makes messages of whole lines."""
    with (tmp_path / "screen").open("w") as screen, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        out = Console(force_terminal=True)
        view = live.LiveView(out, 1, slots=1, stop=StopSignal())
        try:
            assert sys.stdout is not screen
            out.print("drawn")
            print("a message")
        finally:
            view.close()
    written = (tmp_path / "screen").read_text()
    assert "drawn" in written
    assert written.index("drawn") < written.index("\x1b[?1049l") < written.index("a message")
