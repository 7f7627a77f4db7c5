"""What libraries do not document is touched in one module each; every library is declared, with bounds."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sr_core", "study", "experiments")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PRIVATE = {
    "study/search/optuna_private.py": "optuna",
    "study/tracking/mlflow/private.py": "mlflow",
    "sr_core/training/torch_private.py": "torch",
}
"""Modules for what a library does not document."""
UNDOCUMENTED = (
    r"mlflow\.store\b",
    r"mlflow\.utils\b",
    r"mlflow\.(sharedViewState|experimentKind|loggedArtifacts|loggedImages)\b",
    r"\b(compareRunCharts|compareRunSections|compareRunsMode|isAccordionReordered|viewStateShareKey|selectedColumns)\b",
    r"#/(compare-runs|experiments|models)\b",
    r"\bUPDATE \{?(experiments|runs|logged_models|model_versions)\b",
    r"\+timestamp\+",
    r"out-of-date database schema",
    r"\boptuna_dashboard\._",
    r"\brich_proxied_file\b",
    r"\btorch\._(dynamo|inductor|foreach)",
    r"\btorch\.utils\._",
)
"""What else they do not document, as it stands in names and in strings that are no docstrings."""
OF_PYTHON = {"_replace", "_asdict", "_fields", "_make"}
"""Documented, though they begin with an underscore: of named tuples."""
INDIRECT = {
    "greenlet": "Optuna's GP sampler looks for it",
    "nvidia-ml-py": "torch.cuda looks for it",
    "scikit-image": "its photographs are read as files",
    "scikit-learn": "Optuna's fANOVA looks for it",
    "optuna-dashboard": "runs as a command of its own",
    "psycopg": "SQLAlchemy looks for it",
    "pytest": "runs the tests",
    "pytest-xdist": "runs the tests",
    "hypothesis": "runs the tests",
    "ruff": "reads the code",
    "mypy": "reads the code",
    "pandas-stubs": "mypy looks for them",
    "playwright": "the tests look at pages with it",
}
"""Declared, and not imported by name."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in OF_PYTHON


def is_outside(library: str) -> bool:
    return library not in PACKAGES and library not in sys.stdlib_module_names


def defined_in(tree: ast.Module) -> set[str]:
    """Names that a file gives to what is its own: functions, classes, variables, and attributes of `self`."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                found.add(name)
    return found


OWN = {name for path in FILES for name in defined_in(ast.parse(path.read_text("utf-8")))}


def imported_by(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted name, of everything that a file imports from libraries."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return {local: name for local, name in found.items() if is_outside(name.partition(".")[0])}


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """Strings that are statements: docstrings, and those below a field."""
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}


def resolved(node: ast.expr, imported: dict[str, str]) -> str | None:
    """The dotted name of an expression such as `torch.nn.Module`, if a library is at its beginning."""
    first, *rest = ast.unparse(node).split(".")
    return ".".join([imported[first], *rest]) if first in imported else None


def loaded(name: str) -> Any:
    """What a dotted name stands for; None where the library is not installed."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow's, of its own types
                found: Any = import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    return None


def overridden(tree: ast.Module, imported: dict[str, str]) -> Iterator[str]:
    """Private methods and attributes of a library's class that a class of ours takes the place of."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in filter(None, (resolved(one, imported) for one in node.bases)):
                theirs = loaded(base)
                for name in defined_in(ast.Module([*node.body], [])):
                    if is_private(name) and hasattr(theirs, name):
                        yield f"{base}.{name}"


def private_parts(source: str) -> set[str]:
    """Everything that a library keeps to itself and this source touches."""
    tree = ast.parse(source)
    imported = imported_by(tree)
    found = {name for name in imported.values() if any(map(is_private, name.split(".")))} | {
        *overridden(tree, imported)
    }
    texts = [*imported.values()]
    silent = docstrings(tree)
    own = OWN | defined_in(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=value, attr=name):
                whole = resolved(node, imported)
                texts.append(whole or name)
                foreign = whole is not None or name not in own
                of_python = isinstance(value, ast.Name) and value.id in sys.stdlib_module_names
                if is_private(name) and foreign and not of_python:
                    found.add(whole or name)
            case ast.Import():
                texts += [alias.name for alias in node.names]
            case ast.ImportFrom(module=str(module), level=0) if is_outside(module.partition(".")[0]):
                texts.append(module)
            case ast.Constant(value=str(text)) if node not in silent:
                texts.append(text)
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=name), *_]):
                if isinstance(name, str) and is_private(name) and name not in OWN:
                    found.add(name)
    return found | {text for text in texts for pattern in UNDOCUMENTED if re.search(pattern, text)}


# One module for each library


def test_what_a_library_keeps_to_itself_is_touched_in_one_module_alone() -> None:
    outside = {
        name_of(p): parts for p in FILES if name_of(p) not in PRIVATE and (parts := private_parts(p.read_text()))
    }
    assert outside == {}


@pytest.mark.parametrize("name", PRIVATE)
def test_such_a_module_touches_its_own_library_and_no_other(name: str) -> None:
    source = (ROOT / name).read_text("utf-8")
    others = {imported.partition(".")[0] for imported in imported_by(ast.parse(source)).values()} & {*PRIVATE.values()}
    assert private_parts(source)
    assert others == {PRIVATE[name]}


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch._dynamo.config.recompile_limit = 512",
        "import torch as t\nt._foreach_add_([], 1)",
        "from torch.utils._triton import has_triton",
        "import torch._inductor",
        "from mlflow.store.db import utils",
        "import optuna\n\ndef f(study: optuna.Study) -> None:\n    study._get_trials()",
        "def f(study):\n    return getattr(study, '_never_ours')",
        "import optuna\n\nclass Mine(optuna.samplers.TPESampler):\n    def _compute_acquisition_func(self): ...",
        "from torch import nn\n\nclass Mine(nn.Module):\n    def _apply(self, fn): ...",
        "from optuna.samplers import GPSampler as G\n\nclass Mine(G):\n    def f(self):\n        return self._rng",
        "command = ['-c', 'from optuna_dashboard._cli import main; main()']",
        "key = 'x'\ntag = f'mlflow.sharedViewState.{key}'",
        "def f(stream):\n    stream.rich_proxied_file = None",
        "page = '/#/compare-runs?'",
    ],
)
def test_the_search_finds_every_form(source: str) -> None:
    assert private_parts(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""Not `torch._dynamo`."""',
        "import torch.compiler.config\ntorch.compiler.config.recompile_limit = 512",
        "import os\nos._exit(0)",
        "class Mine:\n    def __init__(self):\n        self._mine = 1\n\ndef f(a):\n    return a._mine",
        "def f(point):\n    return point._replace(x=1)",
    ],
)
def test_the_search_passes_over_what_is_documented_or_ours(source: str) -> None:
    assert private_parts(source) == set()


def items(name: str) -> dict[str, str]:
    """Public functions, classes and constants of a module with what is said of them."""
    body = ast.parse((ROOT / name).read_text("utf-8")).body
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        match node, after:
            case ((ast.FunctionDef() | ast.ClassDef()), _):
                found[node.name] = ast.get_docstring(node) or ""
            case ast.Assign(targets=[ast.Name(id=constant)]), ast.Expr(value=ast.Constant(value=str(text))):
                found[constant] = text
    return {item: text for item, text in found.items() if not item.startswith("_")}


OWN_ITEMS = {"doubts", "STARTUP_TRIALS"}
"""Items of these modules that lean on nothing."""


@pytest.mark.parametrize("name", PRIVATE)
def test_every_item_says_what_it_leans_on_and_what_happens_without_it(name: str) -> None:
    docstrings = {item: text.lower() for item, text in items(name).items() if item not in OWN_ITEMS}
    assert len(docstrings) >= 2
    silent = [item for item, text in docstrings.items() if "relies on" not in text or "without " not in text]
    assert silent == []


@pytest.mark.parametrize("name", PRIVATE)
def test_every_item_is_used_elsewhere(name: str) -> None:
    path = Path(name)
    module = f"{path.parent.name}_private" if path.stem == "private" else path.stem  # what others import it as
    others = "\n".join(p.read_text("utf-8") for p in FILES if name_of(p) != name)
    used = {*re.findall(rf"\b{module}\.(\w+)", others)}
    for names in re.findall(rf"from [\w.]+\.{path.stem} import ([\w, ]+)", others):
        used |= {*names.split(", ")}
    unused = {*items(name)} - used
    own = (ROOT / name).read_text("utf-8")
    assert {item for item in unused if len(re.findall(rf"\b{item}\b", own)) < 2} == set()


# Bounds


def settings() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


@cache
def declared(*extras: str) -> dict[str, Requirement]:
    """Canonical name -> requirement, of the project and these extras."""
    project = settings()
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    found = {canonicalize_name(one.name): one for one in map(Requirement, lines)}
    found.pop(canonicalize_name(project["name"]), None)
    return dict(found)


EVERY = ("dashboard", "postgres", "test", "ray")
"""Extras whose packages the code or its tests use."""
TOOLS = ("docs", "dev")
"""Extras of tools around the code: they build the documentation and check a change."""


def test_every_requirement_has_an_upper_bound() -> None:
    loose = [
        str(r)
        for r in declared(*EVERY, *TOOLS).values()
        if not any(s.operator in ("<", "<=", "==") for s in r.specifier)
    ]
    assert loose == []


@pytest.mark.parametrize(
    ("library", "bounds"), [("optuna", ">=5.0,<5.1"), ("mlflow", ">=3.17,<3.18"), ("torch", ">=2.11,<2.15")]
)
def test_a_library_whose_private_parts_are_in_use_stops_before_its_next_minor_release(
    library: str, bounds: str
) -> None:
    assert {*str(declared()[library].specifier).split(",")} == {*bounds.split(",")}


def test_what_was_tested_together_is_within_the_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(n): v for n, _, v in (line.partition("==") for line in lines if "==" in line)}
    wanted = declared(*EVERY, *TOOLS)
    assert {*wanted} <= {*pins}
    assert [str(r) for name, r in wanted.items() if not r.specifier.contains(pins[canonicalize_name(name)])] == []


# What is imported


@cache
def imports() -> dict[str, str]:
    """Library -> a file that imports it, wherever in the file."""
    found = {}
    for path in FILES:
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in names:
                top = name.partition(".")[0]
                if is_outside(top):
                    found[top] = name_of(path)
    return found


@cache
def distributions() -> dict[str, list[str]]:
    """Importable name -> distributions that bring it, installed here; Ray, of an extra, need not be."""
    return {"ray": ["ray"]} | dict(packages_distributions())


def test_everything_that_is_imported_is_declared() -> None:
    wanted = declared(*EVERY)
    missing = {
        library: where
        for library, where in imports().items()
        if not {canonicalize_name(name) for name in distributions().get(library, [])} & {*wanted}
    }
    assert missing == {}


def test_everything_that_is_declared_is_imported_or_has_a_reason() -> None:
    used = {canonicalize_name(name) for library in imports() for name in distributions().get(library, [])}
    assert {*declared(*EVERY)} - used == {*INDIRECT}


# The suite on the newest releases


def lifted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lifted", ROOT / ".ci" / "lifted.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_newest_releases_are_asked_for_without_upper_bounds_but_for_torch() -> None:
    lines = lifted().lifted(ROOT / "pyproject.toml", ROOT / "constraints.txt")
    wanted = {str(canonicalize_name(one.name)): one for one in map(Requirement, lines)}
    assert {*wanted} == {*declared(*EVERY)}
    assert str(wanted.pop("torch").specifier).startswith("==")
    for name, one in wanted.items():
        known = declared(*EVERY)[name]
        assert {s.operator for s in one.specifier} <= {">="}
        assert {str(s) for s in one.specifier} <= {str(s) for s in known.specifier}
        assert one.extras == known.extras


def test_the_command_for_the_newest_releases_names_no_address_and_spares_a_folder_that_is_there(tmp_path: Path) -> None:
    text = (ROOT / ".ci" / "newest").read_text("utf-8")
    assert "://" not in text and "--index" not in text and "-c constraints" not in text
    (tmp_path / "kept").write_text("mine")
    ended = subprocess.run([ROOT / ".ci" / "newest", tmp_path], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith(f"error: {tmp_path}: ")
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
