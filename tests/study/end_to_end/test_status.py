"""`python -m study.status`: where a study stands, while it runs, after it died, when it is done."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WAITS_AT = """
import time
from study.record.journal import Journal
append = Journal.append
def waiting(self, event):
    append(self, event)
    if self._next == {line}:
        time.sleep(600)
Journal.append = waiting
"""
"""Stays alive, and goes no further, once the journal has this many lines."""


@pytest.fixture
def status(commands: Any) -> Callable[[Path], tuple[str, dict[str, Any]]]:
    """status(root): the text and the JSON that it prints."""

    def ask(root: Path) -> tuple[str, dict[str, Any]]:
        text, plain = (commands.run("study.status", "--root", root, *flags) for flags in ((), ("--json",)))
        assert (text.status, text.err, plain.status, plain.err) == (0, "", 0, "")
        return text.out, json.loads(plain.out)

    return ask


def test_while_a_study_runs_its_owner_running_trial_and_time_left_are_shown(
    tiny: Any, commands: Any, tmp_path: Path, status: Any, wait_until: Any
) -> None:
    root = tmp_path / "root"
    journal = root / "tiny" / "journal.jsonl"
    process = commands.start("study.run", *tiny.argv(root), first=WAITS_AT.format(line=27))
    wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") == 27)
    before = journal.read_bytes()
    text, found = status(root)
    assert journal.read_bytes() == before
    assert found["phase"] == "running" and f"process {process.pid} on" in found["owner"]
    assert (found["asked"], found["counted"]) == (7, 2)
    assert found["trials"] == {"finished": 2, "running": 1}
    (running,) = found["running"]
    assert running["trial"] == 2 and running["patches"] in (60, 120, 180, 240)
    assert 0 < found["seconds_left"] < 600
    assert found["estimated_end"] - found["seconds_left"] == pytest.approx(time.time(), abs=5.0), "from now on"
    assert found["rate"]["patches_per_second"] > 0 and found["rate"]["trials_per_hour"] > 0
    assert found["views"] == {}
    assert f"tiny: running (process {process.pid} on" in text
    assert f"trial 2 on slot 0: {running['patches']} patches, {running['val/psnr']:.3f} dB" in text
    assert "2 of 7 trials counted: 2 finished, 1 running" in text


def test_a_study_that_still_prepares_its_images_says_so(
    tiny: Any, commands: Any, tmp_path: Path, status: Any, wait_until: Any
) -> None:
    slow = (
        "import time, study.session.session as s\n"
        "s.prepare_material = lambda *_: print('now', flush=True) or time.sleep(600)"
    )
    process = commands.start("study.run", *tiny.argv(tmp_path / "root"), first=slow)
    wait_until(lambda: "now" in process.out)
    text, found = status(tmp_path / "root")
    assert (found["study"], found["phase"]) == ("tiny", "preparing")
    assert f"process {process.pid} on" in found["owner"]
    assert text.startswith(f"tiny: preparing (process {process.pid} on")


def test_how_far_the_views_are_and_what_they_cost_is_shown(finished_copy: Any, status: Any) -> None:
    text, found = status(finished_copy.root)
    for view in ("mlflow", "optuna"):
        known = found["views"][view]
        assert (known["lag"], known["error"]) == (0, "")
        assert 0 < known["cpu_seconds"] <= known["busy_seconds"] + 0.1
        assert 0 <= known["waited_seconds"] < known["busy_seconds"]
        assert known["waited_share"] == pytest.approx(
            known["waited_seconds"] / (finished_copy.state.last_time - finished_copy.state.session.time)
        )
    assert "behind" not in text
    standing = finished_copy.folder.path / ".mlflow.json"
    standing.write_text(json.dumps(json.loads(standing.read_text()) | {"events": 3, "error": "MLflow is down"}))
    text, found = status(finished_copy.root)
    assert found["views"]["mlflow"]["lag"] == finished_copy.state.count - 3
    assert f"mlflow is {finished_copy.state.count - 3} events behind: MLflow is down" in text
    standing.write_text("{")
    assert "mlflow" not in status(finished_copy.root)[1]["views"]


def test_a_study_that_has_only_just_begun_can_be_asked(
    tiny: Any, commands: Any, tmp_path: Path, status: Any, wait_until: Any
) -> None:
    for line in (1, 2, 3):
        root = tmp_path / f"root{line}"
        journal = root / "tiny" / "journal.jsonl"
        process = commands.start("study.run", *tiny.argv(root), first=WAITS_AT.format(line=line))
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") == line)  # noqa: B023  # used at once
        _, found = status(root)
        phase = "preparing" if line == 1 else "running"
        assert (found["phase"], found["counted"], found["seconds_left"]) == (phase, 0, None)
        process.kill()


def test_after_a_kill_a_study_is_dead_and_can_be_resumed(
    tiny: Any, commands: Any, tmp_path: Path, status: Any, wait_until: Any
) -> None:
    root = tmp_path / "root"
    process = commands.start("study.run", *tiny.argv(root))
    wait_until(lambda: process.out.count("validated") >= 6)
    process.kill()
    process.wait()
    text, found = status(root)
    assert (found["phase"], found["owner"], found["seconds_left"]) == ("died, resumable", None, None)
    assert 0 < found["counted"] < 7
    assert text.startswith("tiny: died, resumable\n")


def test_a_line_that_a_kill_tore_is_passed_over(finished_copy: Any, status: Any) -> None:
    journal = finished_copy.folder.journal
    journal.write_bytes(journal.read_bytes()[:-30])
    assert status(finished_copy.root)[1]["phase"] == "died, resumable"
    journal.write_bytes(journal.read_bytes()[:100])
    text, found = status(finished_copy.root)
    assert found == {"study": "tiny", "phase": "empty", "owner": None, "trainings": []}
    assert text == "tiny: nothing recorded yet\n"


def test_after_the_end_the_winner_and_what_it_gained_are_shown(finished: Any, status: Any) -> None:
    text, found = status(finished.root)
    best = finished.state.best()
    bicubic = finished.state.opened.data["baseline"]["val/psnr"]
    assert (found["phase"], found["counted"], found["running"]) == ("complete", 7, [])
    assert found["trials"] == {"finished": 6, "pruned": 1}
    assert found["best"] == {"trial": best.number, "val/psnr": best.score, "values": dict(best.proposed.values)}
    assert (
        f"best of the search: trial {best.number}, {best.score:.3f} dB, {best.score - bicubic:+.3f} dB against bicubic"
        in text
    )


def test_a_study_whose_time_was_up_before_a_trial_had_ended_is_no_failure_and_says_so(
    tiny: Any, commands: Any, tmp_path: Path, status: Any
) -> None:
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--timeout", "0.001s"))
    assert ended.status == 0
    assert ended.err == "the time is up before any trial had ended; the same command continues from here\n"
    assert ended.last_line.startswith("next: python -m study.run --experiment")
    assert status(tmp_path / "root")[1]["phase"] == "timeout"
    assert commands.run("study.run", *tiny.argv(tmp_path / "root", trials=1)).status == 0, "it goes on"


@pytest.mark.slow
def test_a_running_trial_is_shown_as_far_as_it_is_and_not_as_its_last_validation(
    tiny: Any, commands: Any, tmp_path: Path, status: Any, wait_until: Any
) -> None:
    root = tmp_path / "root"
    slowly = (
        "import time\nfrom sr_core.training.step import Step\nstep = Step.__call__\n"
        "Step.__call__ = lambda self: (time.sleep(0.4), step(self))"
    )
    process = commands.start("study.run", *tiny.argv(root), first=slowly)
    pulse = root / "tiny" / ".pulse.json"
    wait_until(pulse.exists)
    text, found = status(root)
    (running,) = found["running"]
    assert running["val/psnr"] is None and 0 < running["patches"] < 60, "before its first validation"
    assert found["rate"]["patches_per_second"] > 0 and found["seconds_left"] > 0
    assert re.search(r"trial 0 on slot 0: \d+ patches$", text, re.MULTILINE)
    process.kill(signal.SIGTERM)
    process.wait()
    assert not pulse.exists()


def test_a_study_that_is_begun_again_is_not_shown_as_the_killed_session_left_it(
    tiny: Any, commands: Any, tmp_path: Path, status: Any, wait_until: Any
) -> None:
    root = tmp_path / "root"
    slowly = (
        "import time\nfrom sr_core.training.step import Step\nstep = Step.__call__\n"
        "Step.__call__ = lambda self: (time.sleep(0.4), step(self))"
    )
    process = commands.start("study.run", *tiny.argv(root), first=slowly)
    wait_until((root / "tiny" / ".pulse.json").exists)
    process.kill()
    process.wait()
    prepares = (
        "import time, study.session.session as s\n"
        "s.prepare_material = lambda *_: print('now', flush=True) or time.sleep(600)"
    )
    process = commands.start("study.run", *tiny.argv(root), first=prepares)
    wait_until(lambda: "now" in process.out)
    assert (root / "tiny" / ".pulse.json").exists(), "the killed one's"
    text, found = status(root)
    assert (found["phase"], found["seconds_left"], found["estimated_end"]) == ("preparing", None, None)
    assert f"process {process.pid} on" in found["owner"]
    assert [trial["patches"] for trial in found["running"]] == [0]
    assert "trial 0 has no checkpoint and starts over: 0 patches" in text and "min left" not in text


def test_no_study_is_one_line_and_status_2(commands: Any, finished: Any, tmp_path: Path) -> None:
    for argv, word in ((("--root", tmp_path), str(tmp_path)), (("--root", finished.root, "--study-name", "x"), "tiny")):
        ended = commands.run("study.status", *argv)
        assert (ended.status, ended.out, len(ended.err.splitlines())) == (2, "", 1)
        assert word in ended.err


def test_neither_torch_nor_mlflow_nor_optuna_is_imported_and_the_answer_comes_at_once(finished: Any) -> None:
    look = (
        f"import sys, study.status; study.status.main(['--root', {str(finished.root)!r}]); "
        "print({'torch', 'mlflow', 'optuna', 'numpy', 'pandas'} & set(sys.modules))"
    )
    begun = time.monotonic()
    seen = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert seen.stdout.splitlines()[-1] == "set()"
    assert time.monotonic() - begun < 5, "far above the second that a quiet machine takes"
