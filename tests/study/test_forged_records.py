"""Records come from others too: what they name is never taken further than it may lead."""

from study.provenance import recorded_versions
from study.tracking.mlflow_model import requirements

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


def test_the_registered_model_pins_the_version_installed_here_in_place_of_a_forged_one() -> None:
    assert requirements(FORGED) == requirements(())
    assert "torch==2.4.6" in requirements(["torch==2.4.6"])
