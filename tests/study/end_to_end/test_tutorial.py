"""The tutorial does what it says: its blocks are run in their order, in an empty folder, as a reader would."""

import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

pytestmark = pytest.mark.slow

TUTORIAL = Path(__file__).parents[3] / "docs" / "guides" / "tutorial.md"


@dataclass(frozen=True)
class Block:
    """A fenced block: python or bash to be run, text that the one before it printed."""

    line: int
    language: str
    content: str

    @property
    def file(self) -> str:
        """The name under which it is to be saved, if its first line says so."""
        found = re.match(r"# (\w+\.py)\n", self.content)
        return found[1] if found else ""


def blocks() -> Iterator[Block]:
    text = TUTORIAL.read_text("utf-8")
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(text[: found.start()].count("\n") + 1, found[1], found[2])


def shape(text: str) -> set[str]:
    """Its lines without what varies from machine to machine: digests, numbers, losses, how the verdict came out."""
    lines = set()
    for line in text.splitlines():
        line = re.sub(r'(higher PSNR than|no significant difference from) "usual".*', "VERDICT", line)
        line = re.sub(r"\b[0-9a-f]{16}\b", "DIGEST", line)
        line = re.sub(r"(?<![a-z])[-+]?\d[\d.,e-]*", "#", line)
        line = re.sub(r"\bl[12]\b", "LOSS", line)
        lines.add(" ".join(line.split()))
    return lines - {"", "…"}


def test_every_block_of_the_tutorial_runs_and_prints_what_is_shown(
    commands: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    Image.fromarray(skimage.data.chelsea()[:60, :80]).save("photo.png")
    names: dict[str, Any] = {}
    printed = ""
    for block in blocks():
        if block.language == "text":
            missing = shape(block.content) - shape(printed)
            assert not missing, f"{TUTORIAL.name}:{block.line} shows what was not printed: {missing}\n{printed}"
        elif block.language == "bash":
            printed = "".join(shell(line, commands, tmp_path) for line in block.content.splitlines())
        elif block.file:
            Path(block.file).write_text(block.content)
        else:
            assert block.language == "python"
            with redirect_stdout(io.StringIO()) as out:
                exec(compile(block.content, f"{TUTORIAL.name}:{block.line}", "exec"), names)
            printed = out.getvalue()
    assert Path("enlarged/photo_x2.png").is_file() and Path("curves.png").is_file()
    assert set(names["table"]["model.temperature"]) == {0.1, 1.0, 100.0}
    assert names["sr"].shape == names["hr"].shape


def shell(line: str, commands: Any, folder: Path) -> str:
    """What a shell's line prints; a study command runs as a process that need not import everything again."""
    words = shlex.split(line)
    if words[:2] == ["python", "-m"]:
        ended = commands.run(*words[2:], cwd=folder)
        assert (ended.status, ended.err) == (0, ""), line
        return str(ended.out)
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout
