"""`sr-study COMMAND` is `python -m study.COMMAND`; both packages say that they are typed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from study import __main__ as sr_study
from study.record.state import StudyState
from study.session.goal import Search

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT.parent)


@pytest.mark.parametrize("command", sr_study.COMMANDS)
def test_every_command_shows_its_own_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        sr_study.main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m study.{command} ")


def test_the_status_and_the_arguments_are_those_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sr_study.main(["status", "--root", str(tmp_path), "--study-name", "none-here"]) == 2
    assert f"no study 'none-here' under {tmp_path}" in capsys.readouterr().err


def test_the_command_to_type_next_does_not_repeat_the_command_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    suggested: list[str] = []
    unfinished = StudyState()
    monkeypatch.setattr("study.run.main", lambda argv: suggested.append(Search().next_command(unfinished, "")) or 0)
    monkeypatch.setattr(sys, "argv", ["sr-study", "run", "--seed", "2"])
    assert sr_study.main() == 0
    assert suggested == ["python -m study.run --seed 2"]
    assert sys.argv == ["sr-study", "run", "--seed", "2"]


@pytest.mark.parametrize("arguments", [[], ["rum"], ["--root", "x"]])
def test_without_a_command_the_error_is_one_line_that_lists_all(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sr_study.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(f"error: expected one of {', '.join(sr_study.COMMANDS)}, got ")


def test_help_lists_every_command_with_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert sr_study.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command, purpose in sr_study.COMMANDS.items():
        assert f"  {command:<11}{purpose}" in lines


def test_python_m_study_starts_the_same_and_loads_nothing_heavy() -> None:
    heavy = ("torch", "mlflow", "optuna", "pandas", "matplotlib", "numpy")
    code = (
        "import runpy, sys; sys.argv = ['study', '--help']\ntry:\n    runpy.run_module('study', run_name='__main__')\n"
    )
    code += f"except SystemExit as end:\n    print(end.code, [name for name in {heavy!r} if name in sys.modules])"
    done = run("-c", code)
    assert done.stdout.splitlines()[0] == "usage: sr-study COMMAND …"
    assert done.stdout.splitlines()[-1] == "0 []"


def test_the_project_declares_the_script_and_ships_the_types() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert settings["project"]["scripts"] == {"sr-study": "study.__main__:main"}
    for package in ("sr_core", "study"):
        assert settings["tool"]["setuptools"]["package-data"][package] == ["py.typed"]
        assert (ROOT / package / "py.typed").is_file()


def test_the_checks_before_a_commit_run_from_the_environment() -> None:
    """No hook is fetched from elsewhere, so the versions are those of constraints.txt."""
    text = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert text.count("- repo: local") == text.count("repo:") == 1
    assert "://" not in text
    for entry in ("ruff check", "ruff format", "mypy", "codespell"):
        assert f"entry: {entry}" in text
