"""The house as it is drawn: which way imports point, who knows which library, what a command may load."""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from study.question.config import TrialConfig
from study.record import events as ev
from study.record.journal import Journal

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
from house import House, levels  # noqa: E402

PACKAGES = ("sr_core", "study", "experiments")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

IMPORTERS = {
    "h5py": {"sr_core/store/hdf5.py"},
    "cv2": {"sr_core/images/degrade.py", "sr_core/leaks/recognition.py", "sr_core/images/turns.py"},
    "PIL": {"sr_core/images/degrade.py", "sr_core/images/files.py", "sr_core/images/own_images.py"},
    "safetensors": {"sr_core/training/checkpoint.py", "sr_core/model/weights.py"},
    "mlflow": {
        "study/tracking/mlflow/store.py",
        "study/tracking/mlflow/registry.py",
        "study/tracking/mlflow/private.py",
        "study/tracking/mlflow/served_model.py",
    },
    "optuna": {
        "study/statistics/importance.py",
        "study/search/encoding.py",
        "study/search/optuna_private.py",
        "study/search/sampler.py",
        "study/tracking/optuna.py",
    },
    "sqlalchemy": {"study/tracking/mlflow/store.py", "study/tracking/optuna.py"},
    "matplotlib": {"study/plots/figures.py", "study/plots/__init__.py"}
    | {
        f"study/report/{name}.py"
        for name in ("cost", "course", "drawing", "importances", "kernels", "replicates", "space_views")
    },
    "pandas": {
        "study/tracking/mlflow/registry.py",
        "study/tracking/mlflow/served_model.py",
        "study/results.py",
        "study/plots/__init__.py",
    },
    "rich": {
        "study/screen/terminal.py",
        "study/screen/live.py",
        "study/screen/live_table.py",
        "study/session/session.py",
        "study/session/training.py",
    },
    "ray": {"study/executors/ray.py", "study/executors/ray_actor.py"},
    "scipy": {"study/search/sampler.py", "study/statistics/stats.py"},
}
"""Who may import a library that is heavy, or that another could take the place of."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, wherever in it; relative ones made absolute."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).with_suffix("").parts[: -node.level] if node.level else ()
            yield ".".join([*above, *filter(None, [node.module])])


def libraries(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file, with the dotted name of what it calls."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_there_is_something_to_read() -> None:
    assert {"sr_core/config.py", "study/session/coordinator.py", "experiments/quickstart.py"} <= {
        name_of(p) for p in FILES
    }


# Which way imports point


@pytest.mark.parametrize(
    ("package", "above"), [("sr_core", {"study", "experiments"}), ("study", {"experiments"})], ids=["sr_core", "study"]
)
def test_imports_point_from_experiments_over_study_to_sr_core(package: str, above: set[str]) -> None:
    wrong = {name_of(p): found for p in (ROOT / package).rglob("*.py") if (found := libraries(p) & above)}
    assert wrong == {}


def test_the_network_and_its_training_know_no_tracker_and_no_sampler() -> None:
    above = {"optuna", "mlflow", "sqlalchemy", "ray", "rich", "pandas", "matplotlib"}
    wrong = {name_of(p): found for p in (ROOT / "sr_core").rglob("*.py") if (found := libraries(p) & above)}
    assert wrong == {}


@pytest.mark.parametrize("library", IMPORTERS)
def test_a_library_is_imported_where_it_belongs_and_nowhere_else(library: str) -> None:
    assert {name_of(p) for p in FILES if library in libraries(p)} == IMPORTERS[library]


def test_one_module_decides_how_float32_numbers_are_multiplied() -> None:
    names = ("fp32_precision", "allow_tf32", "float32_matmul_precision")
    touching = {name_of(p) for p in FILES if any(name in p.read_text("utf-8") for name in names)}
    assert touching == {"sr_core/process/precision.py"}


def test_libraries_that_nobody_declared_are_not_imported() -> None:
    declared = set(IMPORTERS) | {"torch", "numpy"} | set(PACKAGES) | sys.stdlib_module_names
    assert {name_of(p): found for p in FILES if (found := libraries(p) - declared)} == {}


def test_only_a_trial_and_the_winner_when_it_is_served_compute_in_the_study_package() -> None:
    computing = {name_of(p) for p in (ROOT / "study").rglob("*.py") if "torch" in libraries(p)}
    assert computing == {"study/executors/trial.py", "study/tracking/mlflow/served_model.py"}


# Habits that a reader relies on


def test_every_file_fits_in_the_head() -> None:
    lines = {name_of(p): len(p.read_text("utf-8").splitlines()) for p in FILES}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_every_file_says_what_it_is() -> None:
    assert [name_of(p) for p in FILES if not ast.get_docstring(tree_of(p))] == []
    assert [name_of(p) for p in FILES if p.stem in {"utils", "util", "common", "helpers", "misc"}] == []


# The rooms of the house; `python tests/house.py` prints its figures

HOUSE = House(ROOT)

SHARED = {"sr_core": {"config", "errors", "seed"}, "study": {"commandline", "results"}}
"""Files at the top of a package that are no commands: what all rooms share, and what notebooks use."""


def test_imports_between_rooms_point_downwards() -> None:
    assert HOUSE.cycles() == []
    assert HOUSE.upward() == []


def test_rooms_lie_on_few_levels() -> None:
    assert max(levels(HOUSE.arrows).values()) <= 10


def test_no_room_holds_most_of_its_package() -> None:
    assert {room: round(HOUSE.share(room), 2) for room in HOUSE.rooms if HOUSE.share(room) > 0.3} == {}


@pytest.mark.parametrize("package", SHARED)
def test_a_package_s_top_holds_commands_and_what_is_shared(package: str) -> None:
    tops = {path for path in (ROOT / package).glob("*.py") if path.stem != "__init__"}
    commands = {path for path in tops if 'if __name__ == "__main__":' in path.read_text("utf-8")}
    assert {path.stem for path in tops - commands} == SHARED[package]


def test_every_folder_is_a_room_that_says_what_it_is_for() -> None:
    folders = [path for package in SHARED for path in (ROOT / package).iterdir() if any(path.rglob("*.py"))]
    assert [name_of(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_no_module_of_the_house_imports_the_public_names() -> None:
    wrong = []
    for name, path in HOUSE.modules.items():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom) and node.module == "study" and name != "study":
                wrong += [f"{name}: {a.name}" for a in node.names if f"study.{a.name}" not in HOUSE.modules]
    assert wrong == []


def test_the_experiments_top_holds_only_a_docstring() -> None:
    (statement,) = tree_of(ROOT / "experiments" / "__init__.py").body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Constant)


def test_every_package_is_listed_for_installation() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(".".join(p.relative_to(ROOT).parent.parts) for p in FILES if p.stem == "__init__")
    assert {p.parent for p in FILES} == {ROOT / Path(*name.split(".")) for name in listed}


def test_no_test_file_shadows_a_package_or_another_test_file() -> None:
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_global_random_state_is_neither_seeded_nor_drawn_from() -> None:
    wrong = []
    for path in FILES:
        for name, _ in calls(path):
            last = name.rpartition(".")[2]
            by_numpy = name.startswith("np.random.") and last not in {"default_rng", "Generator", "Philox"}
            by_python = name.startswith("random.") and not name.startswith("random.Random")
            if by_numpy or by_python or name == "torch.manual_seed":
                wrong.append(f"{name_of(path)}: {name}")
    assert wrong == []


def test_nothing_that_is_loaded_can_execute_code() -> None:
    assert {name_of(p) for p in FILES if libraries(p) & {"pickle", "marshal", "shelve", "joblib", "dill"}} == set()
    loads = [(name_of(path), call) for path in FILES for name, call in calls(path) if name == "torch.load"]
    for where, call in loads:
        safe = {k.arg: ast.unparse(k.value) for k in call.keywords}.get("weights_only")
        assert safe == "True", where


# What a command loads

HEAVY = ("torch", "mlflow", "optuna", "pandas", "matplotlib", "numpy", "rich", "h5py", "scipy")

RUN = f"""
import json, runpy, sys, time
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
    status = 0
except SystemExit as exc:
    status = exc.code
found = [name for name in {HEAVY!r} if name in sys.modules]
sys.stdout.flush()
print("\\n" + json.dumps([status, found, time.process_time()]))
"""


def run(*arguments: str) -> tuple[int, list[str], float, str, str]:
    """(exit status, heavy libraries loaded, CPU seconds, stdout, stderr) of `python -m …`."""
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, cwd=ROOT.parent)
    out, _, last = done.stdout.rstrip("\n").rpartition("\n")
    assert last, done.stderr
    status, loaded, seconds = json.loads(last)
    return status, loaded, seconds, out, done.stderr


COMMANDS = [f"study.{name}" for name in ("run", "status", "reproduce", "report", "simulate", "train", "ui")]
COMMANDS += ["sr_core.evaluate", "sr_core.upscale"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_at_once_and_loads_nothing_heavy(command: str) -> None:
    status, loaded, seconds, out, _ = run(command, "--help")
    assert (status, loaded) == (0, [])
    assert out.startswith(f"usage: python -m {command}")
    assert seconds < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("study.run", "--trials", "0"), "expected a whole number of at least 1, got '0'"),
        (("study.run", "--temperature", "3"), "unrecognized arguments: --temperature 3"),
        (("study.run", "--timeout", "soon"), "expected a time above 0 such as 90s, 20m or 2h, got 'soon'"),
        (("study.run", "--experiment", "quickstar"), "no experiment 'quickstar'"),
        (("study.run", "--experiment", "gone.py"), "experiment gone.py: no such file"),
        (("study.run", "--trial", "3"), "unrecognized arguments: --trial 3"),
        (("study.status", "--study-name", "a/b"), "study name 'a/b'"),
        (("study.status", "--root", "/nowhere/at/all"), "no study 'quickstart' under /nowhere/at/all"),
        (("study.report", "--root", "/nowhere/at/all"), "no study 'quickstart' under /nowhere/at/all"),
        (("study.reproduce",), "the following arguments are required"),
        (("study.train", "best"), "the following arguments are required: --patches"),
        (("study.train", "worst", "--patches", "9"), "expected best or a trial's number, got 'worst'"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, tuple) else "",
)
def test_bad_usage_is_one_line_and_status_2_and_loads_nothing_heavy(arguments: tuple[str, ...], message: str) -> None:
    status, loaded, seconds, _, err = run(*arguments)
    assert (status, loaded) == (2, [])
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert seconds < 1


@pytest.fixture
def finished_study(tmp_path: Path) -> Path:
    """A root with a record of 50 trials, as a quickstart writes it."""
    (tmp_path / "small").mkdir()
    journal = Journal(tmp_path / "small" / "journal.jsonl")
    common: dict[str, Any] = {"time": 1_700_000_000.0}
    rest: dict[str, Any] = {"question": {}, "digest": "", "text": "?", "runtime": {}}
    baseline = {"baseline": {"val/psnr": 28.0, "val/ssim": 0.8}}
    config = TrialConfig()
    story: list[ev.Event] = [
        ev.StudyOpened(format=ev.FORMAT, study="small", experiment="small", seed=1, data=baseline, **rest, **common),
        ev.SessionStarted(epoch=1, host="here", pid=1, trials=50, provenance={}, **common),
    ]
    for trial in range(50):
        scores = {"val/psnr": 29.0 + trial / 100, "val/ssim": 0.9}
        proposal = {"config": config.to_json(), "config_hash": config.digest(), "values": {"train.loss": "l1"}}
        story += [
            ev.Proposed(trial=trial, role="search", name="", **proposal, **common),
            ev.Started(trial=trial, slot=0, epoch=1, patches=0, source="", **common),
        ]
        for patches in (480, 960, 1_440, 1_920):
            story.append(
                ev.Validated(trial=trial, patches=patches, scores=scores, loss=0.1, learning_rate=1e-3, **common)
            )
            story.append(ev.Checkpointed(trial=trial, patches=patches, **common))
        end: dict[str, Any] = {"per_image": (), "weights": "", "seconds": {}}
        story.append(ev.Finished(trial=trial, patches=1_920, scores=scores, **end, **common))
    for event in [*story, ev.SessionEnded(epoch=1, reason="complete", **common)]:
        journal.append(event)
    journal.close()
    return tmp_path


def test_status_of_a_finished_study_answers_at_once_and_loads_nothing_heavy(finished_study: Path) -> None:
    status, loaded, seconds, out, _ = run("study.status", "--root", str(finished_study))
    assert (status, loaded) == (0, [])
    assert "small: complete" in out
    assert "50 of 50 trials counted: 50 finished" in out
    assert "best of the search: trial 49, 29.490 dB, +1.490 dB against bicubic" in out
    assert seconds < 1


def test_status_as_json_is_one_object(finished_study: Path) -> None:
    status, loaded, _, out, _ = run("study.status", "--root", str(finished_study), "--json")
    found = json.loads(out)
    assert (status, loaded) == (0, [])
    assert (found["phase"], found["counted"], found["best"]["trial"]) == ("complete", 50, 49)


def test_a_worker_loads_neither_tracker_nor_sampler_nor_screen() -> None:
    heavy = ("mlflow", "optuna", "sqlalchemy", "pandas", "matplotlib", "rich")
    code = f"import sys, study.executors.trial; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
