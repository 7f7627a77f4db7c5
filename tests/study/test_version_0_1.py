"""What version 0.1 left on a user's disk (tests/data/version_0_1) is read, continued, reproduced and published."""

import gzip
import json
import shutil
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient

from study import results
from study.question.experiment import load_experiment
from study.record import provenance
from study.record.events import Concluded, Started, StudyOpened, to_json
from study.record.folder import StudyFolder
from study.record.journal import read, study_id
from study.record.state import StudyState, fold
from study.report.answer import answer
from study.report.making import write_report
from study.report.ranking import ranking
from study.report.record import record_of
from study.reproduce import main as reproduce
from study.reproduction.retrain import TOLERANCES
from study.run import main as run
from study.session.opening import question_of, runtime_of
from study.statistics.verdict import verdict
from study.status import main as status
from study.sync import main as sync
from study.tracking.databases import default_tracking_uri
from study.train import main as train

DATA = Path(__file__).resolve().parents[1] / "data/version_0_1"
IMAGES = str(DATA / "images")
NO_VIEWS = ("--tracking-uri", "none", "--storage", "none")

IDENTITIES = {
    "finished/searched": ("a9b7343dc1b69f93", "2bb23f1baafd1e94"),
    "finished/searched/trainings/0004-480": ("0f3610e4a69a965f", "5caa8d7fbd54f2ca"),
    "unfinished/begun": ("5dc73b7bb910d435", "814d0ce5fe6dfb6d"),
}
"""The study's id and its question's digest, as version 0.1 computed them."""


@pytest.fixture(scope="module")
def as_left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both roots. Not to be changed: ask for `finished` or `unfinished`."""
    folder = tmp_path_factory.mktemp("version-0-1")
    with tarfile.open(DATA / "roots.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def finished(as_left: Path, tmp_path: Path) -> Path:
    """The root of the study that version 0.1 concluded."""
    return shutil.copytree(as_left / "finished", tmp_path / "finished")


@pytest.fixture
def unfinished(as_left: Path, tmp_path: Path) -> Path:
    """The root of the study in which version 0.1 was killed."""
    return shutil.copytree(as_left / "unfinished", tmp_path / "unfinished")


def state_of(journal: Path) -> StudyState:
    return fold(read(journal))


def events_of(root: Path, study: str) -> list[Any]:
    return list(read(StudyFolder(root, study).journal))


def same_bits_here(state: StudyState) -> bool:
    """True if this machine and its torch are those that version 0.1 ran on."""
    assert state.opened is not None
    models = {start.hardware for trial in state.trials.values() for start in trial.starts}
    return not runtime_of(state.opened).unmet() and models == {provenance.cpu_model()}


def stand_in_for_results(folder: StudyFolder) -> None:
    """Create empty files for the results that the archive leaves out; without them the study writes them again."""
    concluded = state_of(folder.journal).concluded
    assert concluded is not None
    for name in concluded.files:
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def assert_same_course(found: StudyState, expected: StudyState) -> None:
    """Same proposals, rungs and endings; the same numbers to the last bit, or within tolerance on another machine."""
    assert {n: (t.proposed.role, t.proposed.values, t.proposed.config) for n, t in found.trials.items()} == {
        n: (t.proposed.role, t.proposed.values, t.proposed.config) for n, t in expected.trials.items()
    }
    exact = same_bits_here(expected)
    for number, trial in expected.trials.items():
        other = found.trials[number]
        assert (other.status, other.patches) == (trial.status, trial.patches)
        if exact:
            assert [point.numbers() for point in other.curve] == [point.numbers() for point in trial.curve]
            assert _end(other.end) == _end(trial.end)
        for then, now in zip(trial.curve, other.curve, strict=True):
            for metric, tolerance in TOLERANCES.items():
                assert abs(then.scores[metric] - now.scores[metric]) <= tolerance


def _end(end: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(end).items() if name not in ("time", "seconds")}


# What it is


@pytest.mark.parametrize("place", IDENTITIES)
def test_a_study_of_version_0_1_keeps_its_identity(place: str, as_left: Path) -> None:
    state = state_of(as_left / place / "journal.jsonl")
    assert state.opened is not None and state.opened.format == 1
    assert (study_id(state.opened), state.opened.digest) == IDENTITIES[place]
    for trial in state.trials.values():
        assert trial.config.digest() == trial.proposed.config_hash
        assert json.loads(json.dumps(trial.config.to_json())) == trial.proposed.config


@pytest.mark.parametrize("place", IDENTITIES)
def test_every_line_of_version_0_1_is_written_as_it_was(place: str, as_left: Path) -> None:
    lines = (as_left / place / "journal.jsonl").read_text("utf-8").splitlines()
    stored = [{k: v for k, v in json.loads(line).items() if k not in ("seq", "sum")} for line in lines]
    assert [json.loads(json.dumps(to_json(e))) for e in read(as_left / place / "journal.jsonl")] == stored


@pytest.mark.parametrize(("name", "root"), [("searched", "finished"), ("begun", "unfinished")])
def test_an_unchanged_experiment_file_still_asks_the_same_question(name: str, root: str, as_left: Path) -> None:
    opened = state_of(as_left / root / name / "journal.jsonl").opened
    assert opened is not None
    _, experiment = load_experiment(str(DATA / f"{name}.py"))
    assert question_of(experiment, opened.seed, opened.data["fingerprint"]) == opened.question


def test_its_trials_did_not_flush_subnormal_numbers(as_left: Path) -> None:
    opened = state_of(as_left / "finished/searched/journal.jsonl").opened
    assert opened is not None and "flush_subnormals" not in opened.runtime
    assert runtime_of(opened).flush_subnormals is False


# What reads it


def test_it_is_listed_with_its_longer_training(as_left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["--root", str(as_left / "finished"), "--study-name", "searched"]) == 0
    out = capsys.readouterr().out
    assert "searched: complete" in out and "10 of 10 trials counted: 1 failed, 4 finished, 6 pruned" in out
    assert "training 0004-480: complete, 480 patches, 25.016 dB" in out
    assert status(["--root", str(as_left / "unfinished"), "--study-name", "begun", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == "begun"


def test_notebooks_read_its_tables(as_left: Path) -> None:
    root = as_left / "finished"
    table = results.trials("searched", root)
    assert list(table["trial"][:4]) == [4, 3, 8, 0]
    assert set(table["state"]) == {"finished", "pruned", "failed"}
    assert len(results.replicates("searched", root)) == 6
    best = results.best("searched", root)
    assert (best.number, f"{best.scores['val/psnr']:.6f}") == (4, "24.428481")
    assert best.config.train.batch_size == 2 and best.weights.is_file()
    with torch.no_grad():
        assert best.model()(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 32, 32)


def test_its_report_answers_and_ranks(as_left: Path) -> None:
    folder = StudyFolder(as_left / "finished", "searched")
    record = record_of(folder, read(folder.journal), None)
    assert record.base.recorded() == {**record.opened.question["base"], "seed": 0}
    shown = str(answer(record, verdict(record.state))) + str(ranking(record).body)
    assert "24.428 dB" in shown and "hasty" in shown


@pytest.mark.slow
def test_it_is_reported(finished: Path, tmp_path: Path) -> None:
    folder = StudyFolder(finished, "searched")
    faults: list[str] = []
    page = write_report(folder, read(folder.journal), out=tmp_path / "page", data=Path(IMAGES), warn=faults.append)
    text = page.read_text("utf-8")
    assert faults == []
    for told in ("24.428 dB", "hasty", "2bb23f1baafd1e94"):
        assert told in text


def test_it_is_published_with_its_training_and_read_there(finished: Path, tmp_path: Path) -> None:
    there = tmp_path / "records"
    assert sync(["--root", str(finished), "--study-name", "searched", "--publish", str(there)]) == 0
    before = StudyFolder(finished, "searched")
    after = StudyFolder(there, "searched")
    assert after.published and list(read(after.journal)) == list(read(before.journal))
    assert [t.training for t in after.trainings()] == ["0004-480"]


# What continues


def test_typed_again_on_a_finished_study_the_command_adds_nothing(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = StudyFolder(finished, "searched")
    stand_in_for_results(folder)
    journal = folder.journal
    before = journal.read_bytes()
    assert run([*_asked("searched", finished, 10), *NO_VIEWS]) == 0
    assert journal.read_bytes() == before
    assert "best of the search: trial 4" in capsys.readouterr().out


def _asked(name: str, root: Path, trials: int) -> list[str]:
    return ["--experiment", f"{DATA / name}.py", "--data", IMAGES, "--root", str(root), "--trials", str(trials)]


def test_an_unfinished_study_ends_as_version_0_1_would_have_ended_it(unfinished: Path) -> None:
    journal = StudyFolder(unfinished, "begun").journal
    before = journal.read_bytes()
    assert run([*_asked("begun", unfinished, 9), *NO_VIEWS]) == 0
    after = journal.read_bytes()
    assert after.startswith(before)
    state = state_of(journal)
    expected = state_of(DATA / "unfinished_ended.jsonl.gz")
    assert_same_course(state, expected)
    assert state.complete and state.concluded is not None and expected.concluded is not None
    assert state.concluded.best == expected.concluded.best
    if same_bits_here(expected):
        assert state.concluded.scores == expected.concluded.scores
    assert any("the code has changed since the last session" in warning for warning in state.warnings)


def test_a_finished_study_is_searched_on_as_version_0_1_would_have_done(finished: Path) -> None:
    assert run([*_asked("searched", finished, 12), *NO_VIEWS]) == 0
    state = state_of(StudyFolder(finished, "searched").journal)
    assert_same_course(state, state_of(DATA / "finished_searched_on.jsonl.gz"))
    assert state.counted == 12 and state.complete
    concluded = [e for e in events_of(finished, "searched") if isinstance(e, Concluded)]
    assert [c.counted for c in concluded] == [10, 12]


def test_its_longer_training_is_known_to_be_done(finished: Path) -> None:
    folder = StudyFolder(finished, "searched")
    [training] = folder.trainings()
    stand_in_for_results(training)
    before = training.journal.read_bytes()
    argv = ["best", "--patches", "480", "--root", str(finished), "--study-name", "searched", "--data", IMAGES]
    assert train([*argv, "--tracking-uri", "none"]) == 0
    assert [t.training for t in folder.trainings()] == ["0004-480"]
    assert training.journal.read_bytes() == before


# What reproduces it


@pytest.mark.parametrize(("which", "patches"), [("best", 240), ("2", 120), ("11", 240)])
def test_its_trials_are_reproduced(
    which: str, patches: int, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The winner (killed once, stopped once), a pruned trial, a replicate."""
    assert reproduce([which, "--root", str(finished), "--study-name", "searched", "--data", IMAGES]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"{patches} patches")
    if same_bits_here(state_of(StudyFolder(finished, "searched").journal)):
        assert lines[-1].startswith("verdict: bit-identical, every point of the curve")
    else:
        assert lines[-1].startswith("verdict: ")


def test_a_trial_of_it_is_exported(finished: Path, tmp_path: Path) -> None:
    to = tmp_path / "winner"
    argv = ["best", "--root", str(finished), "--study-name", "searched", "--export", str(to)]
    assert reproduce(argv) == 0
    told = json.loads((to / "trial.json").read_text("utf-8"))
    assert "flush_subnormals" not in told["runtime"]
    events = list(read(to / "record/searched/journal.jsonl.gz"))
    assert isinstance(events[0], StudyOpened) and events[0].format == 1
    assert any(isinstance(event, Started) for event in events)


# Its views


def _runs(uri: str) -> dict[str, str]:
    """Status of every run of a store, by the study and the trial that it is tagged with."""
    client = MlflowClient(tracking_uri=uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    names = ("study.name", "study.role", "study.trial")
    found = {" ".join(r.data.tags[name] for name in names if name in r.data.tags): r.info.status for r in runs}
    assert len(found) == len(runs)
    return found


def test_its_mlflow_store_is_up_to_date_where_it_was_carried(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = default_tracking_uri(finished)
    assert sync(["--root", str(finished), "--study-name", "searched", "--storage", "none"]) == 0
    assert capsys.readouterr().out.count("was up to date") == 2
    assert set(_runs(uri).values()) <= {"FINISHED", "FAILED", "KILLED"}


def test_a_store_that_a_kill_left_behind_goes_on(unfinished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sync(["--root", str(unfinished), "--study-name", "begun"]) == 0
    out = capsys.readouterr().out
    assert "mlflow: " in out and "optuna: " in out
    assert len(_runs(default_tracking_uri(unfinished))) == 7  # the study and six trials


def test_its_old_store_takes_what_was_recorded_since(finished: Path) -> None:
    uri = default_tracking_uri(finished)
    before = _runs(uri)
    lines = gzip.decompress((DATA / "finished_searched_on.jsonl.gz").read_bytes())
    StudyFolder(finished, "searched").journal.write_bytes(lines)
    assert sync(["--root", str(finished), "--study-name", "searched", "--storage", "none"]) == 0
    after = _runs(uri)
    assert set(after) - set(before) == {"searched search 17", "searched search 18"}
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_its_views_are_made_again_from_the_journal(finished: Path) -> None:
    old = _runs(default_tracking_uri(finished))
    for name in ("mlflow.db", "optuna.db", "artifacts", "searched/.mlflow.json", "searched/.optuna.json"):
        path = finished / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert sync(["--root", str(finished), "--study-name", "searched"]) == 0
    new = _runs(default_tracking_uri(finished))
    assert new == old
