"""The documentation is complete and true: references are current, links and paths resolve, the worked example works."""

import importlib.util
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from study.__main__ import COMMANDS
from study.question.config import TrialConfig

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
README = ROOT / "README.md"
FOLDERS = ("sr_core", "study", "experiments", "benchmarks", "tests", "docs", ".ci")
"""Folders whose files a page may name."""
MODULES = ("sr_core", "study", "experiments")
TAGS = "id name trial state reason rank role reference slot hardware replicate replicate_of best files_missing"
OTHER_NAMES = {
    *(f"study.{tag}" for tag in TAGS.split()),
    "study.training.NAME",
    "study.trial_run",
    "study.study_run",
    "study.optimize",
}
"""Tags in MLflow, and a method of Optuna, that look like modules."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def generator() -> ModuleType:
    """Return docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def slug(heading: str) -> str:
    """Return the anchor of a heading, as mkdocs and code hosts make it."""
    words = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"\s", "-", words)


# The reference


@pytest.mark.parametrize("page", ["commands.md", "experiment.md", "hyperparameters.md", "journal.md"])
def test_the_generated_reference_is_what_the_code_says(page: str) -> None:
    pages = generator().pages()
    assert sorted(pages) == ["commands.md", "experiment.md", "hyperparameters.md", "journal.md"]
    assert (DOCS / "reference" / page).read_text("utf-8") == pages[page], "run python docs/generate.py"


def test_every_command_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "commands.md").read_text("utf-8")
    headings = set(re.findall(r"^## (\S+)$", text, re.M))
    assert {f"study.{name}" for name in COMMANDS} <= headings
    assert {"sr_core.download", "sr_core.prepare", "sr_core.evaluate", "sr_core.upscale"} <= headings
    assert headings == set(generator().commands())


def test_every_hyperparameter_is_in_the_reference_with_its_meaning() -> None:
    text = (DOCS / "reference" / "hyperparameters.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \|.*\| (.*) \|$", text, re.M))
    assert set(rows) == set(TrialConfig().dotted())
    assert [name for name, meaning in rows.items() if not meaning] == []


def test_sr_study_knows_every_study_command() -> None:
    commands = {name.partition(".")[2] for name in generator().commands() if name.startswith("study.")}
    assert commands == set(COMMANDS)


# Links and names


def test_every_page_is_in_the_navigation_and_in_the_index() -> None:
    navigation = set(re.findall(r"- (\S+\.md)$", (DOCS / "mkdocs.yml").read_text("utf-8"), re.M))
    pages = {page.relative_to(DOCS).as_posix() for page in PAGES}
    assert navigation == pages
    linked = set(re.findall(r"\]\(([\w/.-]+\.md)\)", (DOCS / "index.md").read_text("utf-8")))
    assert linked == pages - {"index.md"}


@pytest.mark.parametrize("page", [README, ROOT / "CHANGELOG.md", *PAGES], ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text("utf-8"))):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.M) if path.suffix == ".md" else []
        if not path.exists() or (anchor and anchor not in map(slug, headings)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_link_to_pages_alone(page: Path) -> None:
    """A built site has no other files of the repository."""
    links = re.findall(r"\]\(([^)\s#]+)", prose(page.read_text("utf-8")))
    outside = [link for link in links if "://" not in link and not (page.parent / link).resolve().is_relative_to(DOCS)]
    assert outside == []


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    folders = "|".join(re.escape(folder) for folder in FOLDERS)
    text = page.read_text("utf-8").replace("/STUDY/", "/")
    named = re.findall(rf"(?<![\w/.-])((?:{folders})/[\w/.-]*\w/?)", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    missing = []
    for name in re.findall(r"(?<![\w/.-])((?:sr_core|study|experiments)(?:\.\w+)+)", text):
        if name not in OTHER_NAMES and not name.endswith(".md") and not exists(name):
            missing.append(name)
    assert missing == []


def exists(name: str) -> bool:
    """Return whether a dotted name is a module, or a name defined in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if file.is_file():
            rest = parts[length:]
            return (
                not rest
                or re.search(rf"^(def|class) {rest[0]}\b|^{rest[0]}\b", file.read_text("utf-8"), re.M) is not None
            )
    return False


def test_every_page_that_code_names_exists() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    files = [path for path in files if path.suffix in {".py", ".sh", ".toml"}]
    missing = []
    for path in [*files, ROOT / "pyproject.toml", ROOT / "CHANGELOG.md"]:
        for page in re.findall(r"docs/[\w/-]+\.md", path.read_text("utf-8")):
            if not (ROOT / page).is_file():
                missing.append(f"{name_of(path)}: {page}")
    assert missing == []


# Commands in pages


def command_lines(page: Path) -> list[str]:
    """Return the `python -m` commands of a page, from blocks and code spans, continued lines joined."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    return re.findall(r"python (?:-P )?-m ((?:study|sr_core)\.[\w]+[^`\n|#&]*)", text)


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_every_command_in_a_page_has_the_flags_that_it_is_given(page: Path) -> None:
    unknown = []
    for line in command_lines(page):
        name = line.split()[0].rstrip(".,:;)")
        parser = generator().commands().get(name)
        flags = re.findall(r"(?<=[\s\[])--[\w-]+", line)
        if parser is None:
            unknown.append(line)
            continue
        legal = {"--help"} | {option for action in parser._actions for option in action.option_strings}
        unknown += [f"{name} {flag}" for flag in flags if flag not in legal]
    assert unknown == []


# The worked example of CONTRIBUTING.md


@pytest.fixture
def copy_with_example(tmp_path: Path) -> Path:
    """A copy of what the example changes and what its tests need, with the example applied."""
    (example,) = re.findall(r"^```diff\n(.*?)^```$", (DOCS / "CONTRIBUTING.md").read_text("utf-8"), re.M | re.S)
    shutil.copytree(ROOT / "sr_core", tmp_path / "sr_core", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests" / "sr_core").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "sr_core" / "test_loss.py", tmp_path / "tests" / "sr_core")
    (tmp_path / "example.diff").write_text(example, encoding="utf-8")
    apply = ["git", "apply", "--unidiff-zero", "example.diff"]
    done = subprocess.run(apply, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return tmp_path


def test_the_example_of_the_contributing_guide_applies_to_the_code(copy_with_example: Path) -> None:
    assert '"huber"' in (copy_with_example / "sr_core" / "config.py").read_text("utf-8")
    assert "HUBER_DELTA" in (copy_with_example / "sr_core" / "training" / "loss.py").read_text("utf-8")


@pytest.mark.slow
def test_the_example_of_the_contributing_guide_passes_its_tests(copy_with_example: Path) -> None:
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    command += ["--import-mode=importlib", "tests/sr_core/test_loss.py", "-k", "huber"]
    environment = {"PYTHONPATH": str(copy_with_example), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=copy_with_example, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) == 4
