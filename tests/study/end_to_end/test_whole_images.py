"""The conclusion's scores on whole images: of the recorded weights, once each, and interrupted at any image."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from sr_core.images.files import Image
from sr_core.process.stopping import StoppedError, StopSignal
from study.question.experiment import load_experiment
from study.record.journal import read
from study.record.state import StudyState, fold
from study.session import conclusion as winner
from study.session import whole_images
from study.session.opening import find_images
from study.session.whole_images import ScoreCache


@pytest.fixture
def conclude(finished_copy: Any, tiny: Any) -> Any:
    """conclude(**options): the conclusion of a copy of the finished study, once more."""
    _, experiment = load_experiment(str(tiny.experiment))
    images = find_images(tiny.data, experiment)

    def run(**options: Any) -> Any:
        return winner.conclude(finished_copy.folder, finished_copy.state, experiment, images, **options)

    return run


def exchange_weights(study: Path, state: StudyState) -> int:
    """Put another finished trial's weights into the winner's place; the winner's number."""
    best = state.best()
    assert best is not None
    other = next(t.number for t in state.trials.values() if t.status == "finished" and t.number != best.number)
    shutil.copyfile(
        study / "trials" / f"{other:04d}" / "weights.safetensors",
        study / "trials" / f"{best.number:04d}" / "weights.safetensors",
    )
    return best.number


def test_weights_of_another_trial_in_the_winner_s_place_are_refused(finished_copy: Any, conclude: Any) -> None:
    number = exchange_weights(finished_copy.folder.path, finished_copy.state)
    before = (finished_copy.folder.results / "best" / "weights.safetensors").read_bytes()
    with pytest.raises(Exception, match=f"not the weights of trial {number} that the journal records"):
        conclude()
    assert (finished_copy.folder.results / "best" / "weights.safetensors").read_bytes() == before


def test_exchanged_weights_are_not_registered_with_the_tracker(finished_copy: Any) -> None:
    from study.tracking.mlflow.registry import champion_of

    state = finished_copy.state
    exchange_weights(finished_copy.folder.path, state)
    with pytest.raises(Exception, match="that the journal records"):
        champion_of(finished_copy.folder, state, state.concluded, "1", "run", "id")


def test_a_second_conclusion_scores_no_image_again_and_comes_to_the_same(
    finished_copy: Any, conclude: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = conclude()
    monkeypatch.setattr(whole_images, "upscale_and_score", None)
    second = conclude()
    assert (second.scores, second.per_image) == (first.scores, first.per_image)
    assert first.scores == finished_copy.state.concluded.scores


def test_a_signal_ends_the_conclusion_and_the_next_one_continues_with_the_images_left(
    finished_copy: Any, conclude: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finished_copy.folder.path / ".scores.json").unlink(missing_ok=True)
    stop, looked = StopSignal(), list[str]()
    real = whole_images.upscale_and_score

    def scoring(model: Any, image: Image, *args: Any, name: Any, **options: Any) -> Any:
        looked.append(str(name))
        if len(looked) == 2:
            stop.reason = "terminated"
        return real(model, image, *args, name=name, **options)

    monkeypatch.setattr(whole_images, "upscale_and_score", scoring)
    with pytest.raises(StoppedError):
        conclude(check=stop.check)
    interrupted = list(looked)
    stop.reason = None
    concluded = conclude(check=stop.check)
    assert len(interrupted) == 2
    assert interrupted[0] not in looked[2:], "the image that was scored is known"
    assert interrupted[1] == looked[2], "the image at which the signal came is scored now"
    assert concluded.scores == finished_copy.state.concluded.scores


def test_the_end_of_the_time_does_not_end_a_conclusion() -> None:
    StopSignal(reason="timeout").check()


def test_an_image_on_which_the_network_overflows_is_in_no_mean_and_named(
    finished_copy: Any, conclude: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (finished_copy.folder.path / ".scores.json").unlink(missing_ok=True)
    real, calls = whole_images.super_resolve, list[int]()

    def overflowing(model: Any, lr: Image, **options: Any) -> Any:
        calls.append(1)
        return real(model, lr, **options) * (float("inf") if len(calls) == 1 else 1)

    monkeypatch.setattr(whole_images, "super_resolve", overflowing)
    concluded = conclude()
    names = [name for _, name, _, _ in finished_copy.state.concluded.per_image]
    assert [name for _, name, _, _ in concluded.per_image] == names[1:]
    (warning,) = [note for note in concluded.notes if "the means leave out" in note]
    assert names[0] in warning


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": [1, 2]}', b'{"a": [1.0, 2.0, NaN, 1.0]}', b"\xff"])
def test_a_damaged_file_of_scores_is_computed_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".scores.json"
    path.write_bytes(content)
    assert ScoreCache(path).get("a") is None


SLOW_IMAGES = """
import time
from study.session import whole_images
real = whole_images.upscale_and_score
def scoring(*args, **options):
    for _ in range(100):
        time.sleep(0.1)
        options["progress"](0.5)
    return real(*args, **options)
whole_images.upscale_and_score = scoring
"""


@pytest.mark.slow
def test_sigterm_in_the_conclusion_gives_75_at_once_and_the_same_command_concludes(
    commands: Any, tiny: Any, wait_until: Any, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    running = commands.start("study.run", *tiny.argv(root), first=SLOW_IMAGES)
    wait_until(lambda: "concluding" in running.out)
    os.kill(running.pid, signal.SIGTERM)
    assert running.wait().status == 75
    state = fold(read(root / "tiny" / "journal.jsonl"))
    assert state.concluded is None and state.ended is not None and state.ended.reason == "terminated"
    again = commands.run("study.run", *tiny.argv(root))
    assert (again.status, again.err) == (0, "")
    last = json.loads((root / "tiny" / "journal.jsonl").read_text().splitlines()[-2])
    assert last["event"] == "Concluded"
