"""Names that experiment files and notebooks import: the present ones, and those of version 0.1."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import study
from study.question.experiment import Experiment, load_experiment

OF_VERSION_0_1 = """
from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.config import TrialConfig
from study.experiment import Experiment
from study.space import Choice, Grid, Together

BASE = TrialConfig(train=TrainConfig(budget_patches=960), evaluation=EvaluationConfig(every_patches=480))
EXPERIMENT = Experiment(question="Which loss?", base=BASE, nuisance={"train.loss": Choice("l1", "l2")}, rungs=(480,))
"""


def printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_experiment_file_of_version_0_1_loads_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(OF_VERSION_0_1)
    name, experiment = load_experiment(str(tmp_path / "old.py"))
    assert name == "old"
    assert isinstance(experiment, Experiment)
    assert experiment.base.train.budget_patches == 960


def test_an_experiment_file_that_imports_from_study_asks_the_same_question(tmp_path: Path) -> None:
    new = OF_VERSION_0_1.replace("from sr_core.config import", "from study import")
    for module in ("study.config", "study.experiment", "study.space"):
        new = new.replace(f"from {module} import", "from study import")
    (tmp_path / "old.py").write_text(OF_VERSION_0_1)
    (tmp_path / "new.py").write_text(new)
    old, present = (load_experiment(str(tmp_path / name))[1] for name in ("old.py", "new.py"))
    assert present.describe() == old.describe()


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("study.config", "study.question.config"),
        ("study.experiment", "study.question.experiment"),
        ("study.space", "study.question.space"),
        ("sr_core.data.color", "sr_core.images.color"),
        ("sr_core.data.degrade", "sr_core.images.degrade"),
        ("sr_core.data.images", "sr_core.images.files"),
        ("sr_core.data.resize", "sr_core.images.resize"),
    ],
)
def test_a_former_module_is_the_present_one(former: str, present: str) -> None:
    module = importlib.import_module(present)
    assert importlib.import_module(former) is module
    assert module.__name__ == present
    assert module.__spec__ is not None
    assert module.__spec__.name == present
    code = f"import {former}; from {former.rpartition('.')[0]} import {former.rpartition('.')[2]} as found\n"
    assert printed(f"{code}import {present}, sys; print(found is sys.modules['{present}'])") == "True"


def test_a_former_folder_holds_nothing_but_former_modules() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'sr_core\.data\.nothing'"):
        importlib.import_module("sr_core.data.nothing")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'study\.nothing'"):
        importlib.import_module("study.nothing")


def test_every_public_name_is_there() -> None:
    assert {name: getattr(study, name).__name__ for name in study.__all__} == {name: name for name in study.__all__}
    assert set(study.__all__) <= set(dir(study))


def test_a_name_that_study_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'study' has no attribute 'Experimnt'"):
        _ = study.Experimnt


def test_the_package_loads_nothing_until_a_name_is_used() -> None:
    heavy = ("torch", "numpy", "pandas", "optuna", "mlflow", "study.question", "study.record", "study.results")
    assert printed(f"import sys, study; print([name for name in {heavy!r} if name in sys.modules])") == "[]"
    used = (
        "import sys, study; study.Experiment; print('study.question.experiment' in sys.modules, 'torch' in sys.modules)"
    )
    assert printed(used) == "True False"
