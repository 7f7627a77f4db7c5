"""Plain English: words that readers stumble over are in no page, docstring or message (docs/development/style.md)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("sr_core", "study", "experiments", "benchmarks", "tests", "docs", ".ci")

INSTEAD = {
    "beside": "next to, compared with",
    "anew": "again",
    "amid": "during",
    "whoever": "the user who, a process that",
    "nobody": "no user, no process",
    "so many": "this number of",
    "picture": "image",
    "pictures": "images",
}
"""Words that are not used, and what to write instead."""

STORED_NAMES = (
    "--no-pictures",
    "mlflow-pictures",
    "/pictures",
    "pictures.csv",
    ".pictures.json",
    ".known-pictures.json",
    '"pictures"',
    '\\"picture\\"',
    '"picture"',
    "'picture'",
    "'pictures'",
    "`picture`",
    "`pictures`",
    "Do sub-images, without the pictures smaller than one, beat all pictures whole (the base)?",
)
"""Flags, files, keys, columns and a recorded question, which stay as they are."""

STORED_VALUES = ("picture", "pictures")
"""String literals that are such a key or column and nothing else."""

WORD = re.compile(rf"\b({'|'.join(INSTEAD)})\b", re.IGNORECASE)
EXEMPT = ("tests/test_language.py", "tests/data/")
"""This list of words itself, and what earlier versions left on a user's disk."""


def words_in(text: str) -> list[str]:
    """Return the words of a text that are not used, without those that are parts of stored names."""
    for name in STORED_NAMES:
        text = text.replace(name, "")
    return [match[0].lower() for match in WORD.finditer(" ".join(text.split()))]


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every docstring, message and other string literal of a Python file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in STORED_VALUES:
            yield node.lineno, node.value


def python_files(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    return [path for path in files if not path.relative_to(ROOT).as_posix().startswith(EXEMPT)]


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_has_none_of_the_words(page: Path) -> None:
    lines = enumerate(page.read_text("utf-8").splitlines(), 1)
    assert {number: words for number, line in lines if (words := words_in(line))} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_and_messages_have_none_of_the_words(folder: str) -> None:
    places = []
    for path in python_files(folder):
        for line, text in literals(path):
            places += [f"{path.relative_to(ROOT).as_posix()}:{line}: {word}" for word in words_in(text)]
    assert places == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_there_is_something_to_read(folder: str) -> None:
    assert python_files(folder)


@pytest.mark.parametrize("word", INSTEAD)
def test_a_word_is_found_in_a_sentence_in_any_case_and_across_lines(word: str) -> None:
    assert words_in(f"It is {word.upper().replace(' ', chr(10))}, as one says.") == [word]


def test_stored_names_are_not_words() -> None:
    assert words_in("study.report --no-pictures; a2n_x2_small_pictures; FILE.pictures.json; {'picture': 1}") == []
