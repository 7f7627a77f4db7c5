"""`python -m study.run` from the first command to the result, typed again, longer, elsewhere, cut short."""

import itertools
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from study.record.journal import read


def printed_ranking(out: str) -> list[str]:
    """The rows of the ranking as they were printed, its heading first."""
    lines = iter(out.splitlines())
    for line in lines:
        if line.startswith("ranking by"):
            break
    return [line.rstrip() for line in itertools.takewhile(lambda line: " trials: " not in line, lines)]


def test_a_study_ends_with_status_0_and_nothing_on_stderr(finished: Any) -> None:
    assert (finished.ended.status, finished.ended.err) == (0, "")


def test_the_journal_holds_exactly_as_many_trials_as_were_asked_for(finished: Any) -> None:
    state = finished.state
    assert state.counted == len(state.trials) == 7
    assert all(trial.counts for trial in state.trials.values())
    assert state.complete and state.concluded.counted == 7
    assert [type(event).__name__ for event in read(finished.folder.journal)][:3] == [
        "StudyOpened",
        "SessionStarted",
        "Proposed",
    ]


def test_references_run_first_to_the_full_budget_under_the_seed_that_all_trials_share(finished: Any) -> None:
    trials = finished.state.trials
    assert [trials[n].proposed.name for n in range(3)] == ["authors", "blog", ""]
    assert trials[0].status == trials[1].status == "finished"
    assert len({trial.config.seed for trial in trials.values()}) == 1


def test_a_pruned_trial_stops_at_the_rung_and_a_finished_one_at_the_budget(finished: Any) -> None:
    ends = {(t.status, t.patches, tuple(p.patches for p in t.curve)) for t in finished.state.trials.values()}
    assert ends == {("finished", 240, (60, 120, 180, 240)), ("pruned", 120, (60, 120))}


def test_the_ranking_on_the_screen_holds_bicubic_and_both_references_in_order_of_psnr(finished: Any) -> None:
    heading, *rows = printed_ranking(finished.ended.out)
    column = heading.index("PSNR")
    psnr = [float(row[column:].split()[0]) for row in rows]
    assert psnr == sorted(psnr, reverse=True)
    labels = [row[:column].split() for row in rows]
    assert ["bicubic"] in labels
    assert [label[2] for label in labels if len(label) == 3] == ["authors", "blog"]
    assert len(rows) == 1 + sum(t.status == "finished" for t in finished.state.trials.values())


def test_the_screen_names_the_results_the_ui_and_last_the_next_command(finished: Any) -> None:
    lines = finished.ended.out.splitlines()
    assert f"written to {finished.folder.results}" in lines
    assert f"compare the trials in MLflow: python -m study.ui --root {finished.root} --study-name tiny" in lines
    assert any("mlflow ui --backend-store-uri sqlite:///" + str(finished.root) in line for line in lines)
    assert lines[-1] == f"next: python -m study.reproduce best --root {finished.root} --study-name tiny"


def test_one_line_is_printed_for_each_thing_that_happens_to_a_trial(finished: Any) -> None:
    lines = [line.split() for line in finished.ended.out.splitlines() if line.split()[3:4] == ["trial"]]
    for word in ("proposed", "validated", "finished", "pruned"):
        told = sum(line[5] == word for line in lines)
        kinds = sum(type(event).__name__ == word.capitalize() for event in read(finished.folder.journal))
        assert told == kinds > 0


def test_nothing_but_the_results_is_left_under_the_root(finished: Any) -> None:
    files = {path.relative_to(finished.root).as_posix() for path in finished.root.rglob("*") if path.is_file()}
    of_trials = {f"tiny/trials/{n:04d}/config.json" for n in range(7)}
    weights = {f"tiny/trials/{n:04d}/weights.safetensors" for n, t in finished.state.trials.items() if t.score_at(240)}
    results = {f"tiny/results/{name}" for name in finished.state.concluded.files}
    results |= {f"tiny/{name}" for name in finished.state.concluded.files}
    images = {
        f"tiny/trials/{n:04d}/pictures/{patches:09d}.png"
        for n, t in finished.state.trials.items()
        for patches in (0, *(point.patches for point in t.curve))
    }
    expected = of_trials | weights | results | images | {"tiny/sessions/0001.patch"}  # where the code was changed
    others = {file for file in files - expected if not file.startswith("artifacts/")}
    assert of_trials | weights | images <= files
    assert {file for file in others if not Path(file).name.startswith(".")} == {
        "mlflow.db",
        "optuna.db",
        "tiny/epoch",
        "tiny/journal.jsonl",
        "tiny/lock",
        "tiny/owners/1",
        f"{finished.state.opened.data['store']}",
    }
    assert {file for file in others if Path(file).name.startswith(".")} <= {
        "tiny/.mlflow.lock",
        "tiny/.mlflow.json",
        "tiny/.scores.json",
        "tiny/.optuna.lock",
        "tiny/.optuna.json",
        "stores/.pictures.json",
        *(f"stores/{path.name}" for path in finished.root.glob("stores/.leaks-*.json")),
    }


@pytest.mark.slow
def test_typed_again_it_trains_nothing_and_prints_the_same(finished: Any, tiny: Any, tmp_path: Path) -> None:
    before = finished.folder.journal.read_bytes()
    command = [sys.executable, "-m", "study.run", *map(str, tiny.argv(finished.root, views=True))]
    before_it = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert spent.ru_utime - before_it.ru_utime < 20, "seconds of a processor, whatever else it does"
    assert (again.returncode, again.stderr) == (0, "")
    result = finished.ended.out.index("ranking by")
    assert again.stdout == finished.ended.out[result:]
    assert finished.folder.journal.read_bytes() == before
    assert list(tmp_path.glob("ml*")) == [], "a stray database or folder of MLflow"


def test_fewer_trials_than_there_are_print_the_same_result(finished: Any, tiny: Any, commands: Any) -> None:
    before = finished.folder.journal.read_bytes()
    again = commands.run("study.run", *tiny.argv(finished.root, trials=5))
    assert again.status == 0
    assert again.out.startswith("the study already has 7 trials and --trials 5 asks for fewer: ")
    assert printed_ranking(again.out) == printed_ranking(finished.ended.out)
    assert finished.folder.journal.read_bytes() == before


@pytest.mark.slow
def test_a_larger_number_goes_on_as_if_it_had_been_asked_for_at_once(
    finished_copy: Any, tiny: Any, commands: Any, tmp_path: Path, outcome_of: Any, state_of: Any
) -> None:
    before = finished_copy.folder.journal.read_bytes()
    longer = commands.run("study.run", *tiny.argv(finished_copy.root, trials=9, views=False))
    assert longer.status == 0
    assert finished_copy.folder.journal.read_bytes().startswith(before)
    assert finished_copy.state.counted == finished_copy.state.concluded.counted == 9
    at_once = commands.run("study.run", *tiny.argv(tmp_path / "at-once", trials=9))
    assert outcome_of(finished_copy.root) == outcome_of(tmp_path / "at-once")
    assert printed_ranking(longer.out) == printed_ranking(at_once.out)


def test_the_same_seed_gives_the_same_bits_under_another_root_name_and_place_of_the_images(
    finished: Any, tiny: Any, commands: Any, tmp_path: Path, outcome_of: Any
) -> None:
    moved = shutil.copytree(tiny.data, tmp_path / "moved images")
    root = tmp_path / "another root"
    other = commands.run("study.run", *tiny.argv(root, "--study-name", "other", "--data", moved), cwd=tmp_path)
    assert (other.status, other.err) == (0, "")
    assert outcome_of(root, "other") == outcome_of(finished.root)
    for number in (0, 1, 6):
        name = f"trials/{number:04d}/weights.safetensors"
        assert (root / "other" / name).read_bytes() == (finished.folder.path / name).read_bytes()


def test_the_first_result_with_a_path_that_has_a_space_names_a_command_that_can_be_typed(
    finished_copy: Any, tiny: Any, commands: Any, tmp_path: Path
) -> None:
    root = finished_copy.root.rename(tmp_path / "a root")
    shown = commands.run("study.run", *tiny.argv(root))
    assert shown.last_line == f"next: python -m study.reproduce best --root '{root}' --study-name tiny"


def test_another_seed_gives_another_study(finished: Any, tiny: Any, commands: Any, tmp_path: Path) -> None:
    other = commands.run("study.run", *tiny.argv(tmp_path / "root", "--seed", 2, trials=3))
    assert other.status == 0
    weights = "tiny/trials/0000/weights.safetensors"
    assert (tmp_path / "root" / weights).read_bytes() != (finished.root / weights).read_bytes()


def test_a_root_carried_elsewhere_goes_on_there(finished_copy: Any, tiny: Any, commands: Any, tmp_path: Path) -> None:
    moved = finished_copy.root.rename(tmp_path / "carried")
    shutil.rmtree(tmp_path / "copied-root", ignore_errors=True)
    ended = commands.run("study.run", *tiny.argv(moved, trials=8))
    assert (ended.status, ended.err) == (0, "")
    assert "trial   7  proposed" in ended.out and "trial   6  proposed" not in ended.out
    assert not (tmp_path / "copied-root").exists()


def test_without_root_a_study_goes_to_the_folder_that_the_help_names(commands: Any) -> None:
    shown = commands.run("study.run", "--help")
    assert shown.status == 0
    assert "mlruns" in shown.out


@pytest.mark.slow
def test_a_timeout_ends_the_search_with_a_ranking_and_status_0(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--timeout", "3s", trials=300))
    assert (ended.status, ended.err) == (0, "the time is up; the same command continues from here\n")
    state = state_of(tmp_path / "root")
    assert 0 < state.counted < 300
    assert state.ended.reason == "timeout"
    assert "bicubic" in "\n".join(printed_ranking(ended.out))
    assert ended.last_line.startswith("next: python -m study.run --experiment")
    asked = state.counted + 1
    again = commands.run("study.run", *tiny.argv(tmp_path / "root", trials=asked))
    assert again.status == 0
    assert state_of(tmp_path / "root").counted == asked


SMALL_SPACE = """
from dataclasses import replace
from study.question.experiment import Experiment
from study.question.space import Choice
import importlib.util
spec = importlib.util.spec_from_file_location("tiny", {tiny!r})
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
EXPERIMENT = Experiment(
    question="Which loss?", base=tiny.BASE, nuisance={{"train.loss": Choice("l1", "l2", "charbonnier")}},
    scheduler="none", replicates=0,
)
"""


def test_a_space_with_nothing_left_to_try_is_complete_and_says_so(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    experiment = tmp_path / "small.py"
    experiment.write_text(SMALL_SPACE.format(tiny=str(tiny.experiment)))
    argv = tiny.argv(tmp_path / "root", "--experiment", experiment, trials=50)
    ended = commands.run("study.run", *argv)
    assert (ended.status, ended.err) == (0, "")
    state = state_of(tmp_path / "root", "small")
    assert {t.config.train.loss for t in state.trials.values()} == {"l1", "l2", "charbonnier"}
    assert state.counted == 3
    assert "every configuration of the space has been tried" in ended.out
    assert ended.last_line.startswith("next: python -m study.reproduce best")
    before = (tmp_path / "root" / "small" / "journal.jsonl").read_bytes()
    assert commands.run("study.run", *argv).status == 0
    assert (tmp_path / "root" / "small" / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize("trials", [1, 2])
def test_a_study_of_references_alone_ends_and_asks_for_more_trials(
    trials: int, tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    argv = tiny.argv(tmp_path / "root", trials=trials)
    ended = commands.run("study.run", *argv)
    assert (ended.status, ended.err) == (0, "")
    assert state_of(tmp_path / "root").counted == trials
    assert ended.last_line.startswith("next: python -m study.run")
    assert ended.last_line != "next: python -m study.run " + " ".join(map(str, argv)), "that would change nothing"


@pytest.mark.slow
def test_two_studies_under_one_root_run_side_by_side(
    finished: Any, tiny: Any, commands: Any, tmp_path: Path, outcome_of: Any
) -> None:
    root = tmp_path / "root"
    names = ("one", "two")
    started = [commands.start("study.run", *tiny.argv(root, "--study-name", name, views=True)) for name in names]
    for name, process in zip(names, started, strict=True):
        ended = process.wait()
        assert (ended.status, ended.err) == (0, "")
        assert outcome_of(root, name) == outcome_of(finished.root)
    assert len(list((root / "stores").glob("*.h5*"))) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file name is Unicode")
def test_an_image_whose_name_no_encoding_has_trains_and_is_named(tiny: Any, commands: Any, tmp_path: Path) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "odd")
    for split in ("train", "valid"):
        (data / split / f"{split}1.png").rename(data / split / os.fsdecode(b"\xff '\".png"))
    argv = tiny.argv(tmp_path / "root", "--data", data, trials=3, views=True)
    ended = commands.run("study.run", *argv)
    assert (ended.status, ended.err) == (0, "")
    assert "not up to date" not in ended.out
    said = commands.run("study.reproduce", "best", "--root", tmp_path / "root", "--data", tiny.data)
    assert (said.status, said.err) == (4, "")
    assert "train image train/\\udcff" in said.out


def test_a_store_that_was_removed_is_built_again_and_the_study_goes_on(
    finished_copy: Any, tiny: Any, commands: Any, tree_of: Any
) -> None:
    stores = finished_copy.root / "stores"
    before = tree_of(stores)
    shutil.rmtree(stores)
    assert commands.run("study.run", *tiny.argv(finished_copy.root)).status == 0
    assert not stores.exists(), "nothing had to be trained"
    ended = commands.run("study.run", *tiny.argv(finished_copy.root, trials=8))
    assert (ended.status, ended.err) == (0, "")
    remade = {name for name in before if not name.startswith(".leaks-")}  # an open study is not compared again
    assert set(tree_of(stores)) == remade


def test_a_dry_run_shows_the_study_and_writes_nothing(tiny: Any, commands: Any, tmp_path: Path, finished: Any) -> None:
    here = tmp_path / "here"
    here.mkdir()
    shown = commands.run("study.run", *tiny.argv(here / "root", "--dry-run"), cwd=here)
    assert (shown.status, shown.err) == (0, "")
    assert "324 configurations" in shown.out
    assert list(here.iterdir()) == []
    first = finished.state.trials[2].proposed.values
    lines = shown.out.splitlines()
    assert lines[lines.index("first proposals:") + 1] == f"  {', '.join(f'{k} {v}' for k, v in first.items())}"
    assert "(nuisance: tuned to its best value" in shown.out
    assert "finalists: none; with replicates=0 the result is a ranking of single runs without a verdict" in lines
    assert (
        "a single run per trial gives a ranking, not a verdict; for a verdict, start a new study with replicates=3"
        in finished.ended.out
    )
    assert "to make it shorter" not in shown.out
    assert "validated every 60" in shown.out
    same = shlex.join(map(str, tiny.argv(here / "root")))
    assert shown.last_line == f"next: python -m study.run {same}", "of the same images under the same root"


def test_the_profile_names_every_part_of_the_wall_time_and_they_add_up(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    begun = time.monotonic()
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--profile", trials=3))
    took = time.monotonic() - begun
    assert (ended.status, ended.err) == (0, "")
    heading = re.search(r"^wall time (\S+) s$", ended.out, re.MULTILINE)
    assert heading is not None
    rows = re.findall(r"^  (\S.*?) +([\d.]+)% +([\d.]+) s\b", ended.out, re.MULTILINE)
    assert [name for name, _, _ in rows] == [
        "training steps", "validations", "start-up", "recording", "conclusion", "idle"
    ]  # fmt: skip
    wall = float(heading[1])
    assert wall <= took + 0.1
    assert sum(float(seconds) for _, _, seconds in rows) == pytest.approx(wall, abs=0.05 * 7), "each is rounded"
    assert sum(float(percent) for _, percent, _ in rows) == pytest.approx(100, abs=0.05 * 7)
    of_steps = sum(t.curve[-1].seconds["steps"] for t in state_of(tmp_path / "root").trials.values())
    assert float(rows[0][2]) == pytest.approx(of_steps, abs=0.06)
    assert ended.last_line.startswith("next: ")
