"""experiments/answer.sh: which trainings it runs, in which order, and how it ends."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import experiments
from experiments.seeds import parser as seeds_parser
from experiments.transferred import parser as transferred_parser
from study.run import parser as run_parser
from study.train import parser as train_parser

Answer = Callable[..., tuple[int, list[list[str]]]]
"""Exit status, and the arguments of every call of python."""
SCRIPT = Path(experiments.__path__[0]) / "answer.sh"

FAKE_PYTHON = """#!/usr/bin/env bash
# Records its arguments. A study has a journal after its run, and two trials share their seeds with x2 trials.
asked=$2
(IFS=$'\t'; echo "$*") >> "$ASKED"
while [ $# -gt 0 ]; do
    case $1 in --study-name) name=$2 ;; --root) root=$2 ;; esac
    shift
done
mkdir -p "$root/$name" && touch "$root/$name/journal.jsonl"
[ "$asked" != experiments.seeds ] || printf '%s\n' "0 $root/x 2/12.safetensors" "1 $root/x 2/13.safetensors"
[ "$(wc -l < "$ASKED")" != "${FAILS_AT:-}" ] || exit 75
"""


@pytest.fixture
def answer(tmp_path: Path) -> Answer:
    """Runs the script with a python that only records its arguments. Returns exit status and argument lists."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").write_text(FAKE_PYTHON)
    (programs / "python").chmod(0o755)

    def run(*argv: object, fails_at: int | None = None) -> tuple[int, list[list[str]]]:
        asked = tmp_path / "asked"
        asked.write_text("")
        path = f"{programs}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "ASKED": str(asked), "FAILS_AT": str(fails_at or "")}
        ended = subprocess.run(["bash", SCRIPT, *map(str, argv)], env=env, capture_output=True, text=True, check=False)
        return ended.returncode, [line.split("\t")[1:] for line in asked.read_text().splitlines()]

    return run


def test_every_step_is_a_command_that_exists(answer: Answer, tmp_path: Path) -> None:
    status, asked = answer("cpu", tmp_path / "data", tmp_path / "root")
    assert status == 0
    parsers = {"study.run": run_parser(), "study.train": train_parser()}
    for module, *argv in asked:
        if module in parsers:
            parsed = parsers[module].parse_args(argv)
            assert (parsed.data, parsed.root) == (tmp_path / "data", tmp_path / "root")
    assert [a for a in asked if a[0] == "study.run" for a in [a[a.index("--experiment") + 1]]] == [
        "a2n_x2_cpu",
        "claims_x2_cpu",
        "kernels_x2_cpu",
        "scratch_x4_cpu",
    ]
    assert [a[1] for a in asked if a[0] == "study.train"] == ["best", "0", "1", "0", "1"]


@pytest.mark.parametrize(("kind", "suffix", "patches"), [("cpu", "_cpu", 3_840), ("gpu", "", 128_000)])
def test_x4_starts_from_the_weights_that_the_journals_name(
    answer: Answer, tmp_path: Path, kind: str, suffix: str, patches: int
) -> None:
    _, asked = answer(kind, tmp_path / "data", tmp_path / "root")
    named, *trained, compared = asked[-4:]
    x2_and_x4 = [(tmp_path / "root", f"scratch_x4{suffix}", f"claims_x2{suffix}")] * 2
    assert (named[0], compared[0]) == ("experiments.seeds", "experiments.transferred")
    parsed = [seeds_parser().parse_args(named[1:]), transferred_parser().parse_args(compared[1:])]
    assert [(a.root, a.study_name, a.x2) for a in parsed] == x2_and_x4
    for number, (_, *argv) in enumerate(trained):
        a = train_parser().parse_args(argv)
        assert (a.trial, a.study_name, a.patches) == (str(number), f"scratch_x4{suffix}", patches)
        assert a.transfer_from == tmp_path / "root" / "x 2" / f"{12 + number}.safetensors"


def test_no_array_that_may_be_empty_ends_it_in_bash_3() -> None:
    text = SCRIPT.read_text()
    expanded = re.findall(r'(\$\{(\w+)\[@\]\+)?"\$\{(\w+)\[@\]\}"', re.sub(r"#.*", "", text))
    assert sorted(name for _, _, name in expanded) == ["where"]
    assert all(guard == name for _, guard, name in expanded)


def test_a_gpu_is_named_for_every_training(answer: Answer, tmp_path: Path) -> None:
    status, asked = answer("gpu", tmp_path / "data", tmp_path / "root")
    assert status == 0
    trained = [a for a in asked if a[0].startswith("study.")]
    assert len(trained) == 9
    assert all(a[a.index("--gpus") + 1] == "0" for a in trained)


def test_a_step_that_was_stopped_ends_it_with_that_status(answer: Answer, tmp_path: Path) -> None:
    status, asked = answer("gpu", tmp_path / "data", tmp_path / "root", fails_at=2)
    assert status == 75
    assert [a[0] for a in asked] == ["study.run", "study.train"]


def test_a_comparison_that_is_refused_ends_it_with_that_status(answer: Answer, tmp_path: Path) -> None:
    status, asked = answer("gpu", tmp_path / "data", tmp_path / "root", fails_at=12)
    assert status == 75
    assert [a[0] for a in asked[11:]] == ["experiments.transferred"]


def test_another_kind_is_refused(answer: Answer, tmp_path: Path) -> None:
    assert answer("tpu", tmp_path, tmp_path) == (2, [])
