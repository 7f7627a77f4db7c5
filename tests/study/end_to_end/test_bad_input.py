"""What bad input gets: exit status 2, one line on stderr that says what and where, and nothing half-written."""

import errno
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from study.record.events import FORMAT

Refused = Callable[..., str]


@pytest.fixture
def refused(commands: Any, tree_of: Any) -> Refused:
    """refused(argv, root, *words): study.run refuses these, changes nothing under root; the line it printed."""

    def contents(root: Path) -> dict[str, bytes]:
        return {name: content for name, content in tree_of(root).items() if Path(name).name != "lock"}

    def check(argv: list[object], root: Path, *words: str) -> str:
        before = contents(root)
        ended = commands.run("study.run", *argv)
        assert (ended.status, ended.out) == (2, ""), ended.err
        assert len(ended.err.splitlines()) == 1 and ended.err.startswith("error: ")
        for word in words:
            assert word in ended.err
        assert contents(root) == before
        assert root.exists() == bool(before), "the root came about"
        return str(ended.err)

    return check


def save(path: Path, height: int, width: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


# Images


def test_a_missing_folder_is_named(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    refused(tiny.argv(tmp_path / "root", "--data", missing), tmp_path / "root", str(missing), "no such folder")


def test_an_empty_folder_is_named_with_what_was_expected_in_it(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(tiny.argv(tmp_path / "root", "--data", empty), tmp_path / "root", str(empty), "no image", ".png")


def test_a_folder_without_any_image_is_as_empty(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no image")
    refused(tiny.argv(tmp_path / "root", "--data", tmp_path / "texts"), tmp_path / "root", "no image", ".png")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_an_image_that_does_not_decode_is_named(
    damage: str, split: str, tiny: Any, refused: Refused, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "damaged")
    path = data / split / f"{split}1.png"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "text": b"not an image", "empty": b""}[damage])
    refused(tiny.argv(tmp_path / "root", "--data", data), tmp_path / "root", str(path))


def test_images_that_are_all_too_small_are_refused(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    data = tmp_path / "small"
    for i in range(3):
        save(data / "train" / f"{i}.png", 15, 40, i)
        save(data / "valid" / f"{i}.png", 80, 80, i)
    refused(
        tiny.argv(tmp_path / "root", "--data", data),
        tmp_path / "root",
        "no training image is large enough",
        "16 HR pixels",
    )


def test_validation_images_that_are_too_small_are_refused(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "small")
    save(data / "valid" / "tiny.png", 15, 40)
    refused(tiny.argv(tmp_path / "root", "--data", data), tmp_path / "root", "tiny.png")


def test_some_images_that_are_too_small_are_left_out_counted_in_one_line_and_recorded(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "mixed")
    save(data / "train" / "small1.png", 15, 40)
    save(data / "train" / "small2.png", 40, 15)
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--data", data, trials=1))
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.count("left out") == 1
    assert "left out, too small for a patch or window: 2 by the search" in ended.out
    left_out = state_of(tmp_path / "root").opened.data["left_out"]
    assert left_out["the search"] == ["train/small1.png", "train/small2.png"]


def test_what_of_a_folder_is_not_used_is_told_once_and_recorded(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    data = tmp_path / "paired"
    for split in ("train", "valid"):
        shutil.copytree(tiny.data / split, data / split / "HR")
        for path in sorted((data / split / "HR").glob("*.png")):
            with Image.open(path) as hr:
                small = hr.resize((hr.width // 2, hr.height // 2))
            (data / split / "LR").mkdir(exist_ok=True)
            small.save(data / split / "LR" / path.name)
    (data / "train" / "HR" / "b.gif").touch()
    line = "left out: 1 GIF file (train/HR/b.gif), 2 LR folders (train/LR, valid/LR)\n"
    planned = commands.run("study.run", *tiny.argv(tmp_path / "root", "--data", data, "--dry-run"))
    assert (planned.status, planned.err) == (0, line)
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--data", data, trials=1))
    assert (ended.status, ended.err) == (0, line)
    opened = state_of(tmp_path / "root").opened
    assert opened.data["not_used"]["LR folder"] == {"count": 2, "first": "train/LR"}
    assert all("/HR/" in name for _, name, _ in opened.data["pictures"])


@pytest.mark.parametrize("where", ["train", "valid"])
def test_an_image_that_is_a_dangling_link_is_refused(where: str, tiny: Any, refused: Refused, tmp_path: Path) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "linked")
    (data / where / "z.png").symlink_to("gone.png")
    refused(tiny.argv(tmp_path / "root", "--data", data), tmp_path / "root", f"{where}/z.png", "is a link to gone.png")


def test_two_validation_folders_are_refused(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "both")
    shutil.copytree(data / "valid", data / "val")
    refused(tiny.argv(tmp_path / "root", "--data", data), tmp_path / "root", "found valid and val")


# The patch store


@pytest.fixture
def with_store(finished: Any, tmp_path: Path) -> tuple[Path, Path]:
    """(root, store): a root that holds the tiny study's patch store and no study."""
    root = tmp_path / "root"
    shutil.copytree(finished.root / "stores", root / "stores")
    return root, next((root / "stores").glob("*.h5"))


def test_a_truncated_store_is_named_with_the_way_out(
    tiny: Any, refused: Refused, commands: Any, with_store: tuple[Path, Path]
) -> None:
    root, store = with_store
    content = store.read_bytes()
    for size in (0, 100, len(content) // 2, len(content) - 1):
        store.write_bytes(content[:size])
        refused(tiny.argv(root), root, str(store), "delete it and run again")
    store.unlink()
    assert commands.run("study.run", *tiny.argv(root, trials=1)).status == 0


def test_a_foreign_file_in_place_of_a_store_is_named(
    tiny: Any, refused: Refused, with_store: tuple[Path, Path]
) -> None:
    root, store = with_store
    store.unlink()
    with h5py.File(store, "w") as file:
        file["something"] = np.arange(5)
    refused(tiny.argv(root), root, str(store), "not a patch store")
    store.write_bytes(b"no HDF5 either")
    refused(tiny.argv(root), root, str(store))


def test_a_store_with_a_changed_pixel_ends_the_study_with_the_images_name(
    tiny: Any, commands: Any, tmp_path: Path
) -> None:
    data, root = shutil.copytree(tiny.data, tmp_path / "unique"), tmp_path / "root"
    # Pixels that no other process on this machine has in memory: a study would rightly go on with those.
    save(data / "train" / "new.png", 64, 64, seed=time.time_ns())
    argv = tiny.argv(root, "--data", data)
    assert commands.run("study.run", *argv, "--study-name", "first", "--trials", 1).status == 0
    store = next((root / "stores").glob("*.h5"))
    with h5py.File(store, "r+") as file:
        for image in file["train"].values():
            image["hr"][3, 3, 0] ^= 1
    ended = commands.run("study.run", *argv)
    assert ended.status in (2, 3)
    assert "does not match its checksum" in ended.err and "Traceback" not in ended.err
    assert str(store) in ended.err


# The question


def test_an_unknown_experiment_is_told_those_that_there_are(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    root = tmp_path / "root"
    refused(tiny.argv(root, "--experiment", "nope"), root, "nope", "quickstart", "a2n_x2", ".py file")
    refused(tiny.argv(root, "--experiment", tmp_path / "gone.py"), root, str(tmp_path / "gone.py"), "no such file")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('"model.temperature": Grid', '"model.temprature": Grid',
         ("model.temprature", "did you mean model.temperature")),
        ('"matlab_bicubic", "pillow_bicubic"', '"matlab_bicubic", "bicubik"',
         ("data.train_kernel", "bicubik", "pillow_lanczos")),
        ("Grid(0.1, 1.0, 10.0)", "Grid(0.0, 1.0, 10.0)", ("model.temperature", "> 0")),
        ("Grid(0.1, 1.0, 10.0)", "Grid(float('nan'), 1.0)", ("model.temperature",)),
        ("Grid(0.1, 1.0, 10.0)", "Grid(10.0, 1.0)", ("ascending",)),
        ("Grid(2, 4, 8)", "Grid(2, 4, 9)", ("model.reduction", "at most model.n_feats (8), got 9")),
        ("budget_patches=240, batch_size=4", "budget_patches=250, batch_size=4", ("budget_patches", "250")),
        ("(2, 1e-3), (4, 1e-3)", "(7, 1e-3), (4, 1e-3)", ("train.batch_size", "7")),
        ("rungs=(120,)", "rungs=(130,)", ("rung", "130")),
        ("rungs=(120,)", "rungs=(60,)", ("first rung", "60", "at least 120")),
        ("lr_crop_size=24", "lr_crop_size=8", ("evaluation.lr_crop_size", "24")),
        ("learning_rate=2e-3", "learning_rate=-1", ("train.learning_rate", "> 0")),
        ("learning_rate=2e-3", "learnin_rate=2e-3", ("learnin_rate",)),
        ("seed=1", "seed=-1", ("seed",)),
        ("EXPERIMENT = ", "EXPERIMENTS = ", ("EXPERIMENT = Experiment",)),
        ("BASE = ", "BASE = 1 / 0\nBASE = ", ("ZeroDivisionError",)),
        ("BASE = ", "BASE = = ", ("SyntaxError",)),
        ("BASE = ", "import nowhere_to_be_found\nBASE = ", ("nowhere_to_be_found",)),
    ],
)  # fmt: skip
def test_a_mistake_in_an_experiments_file_is_shown_before_the_first_trial(
    before: str, after: str, words: tuple[str, ...], tiny: Any, refused: Refused, tmp_path: Path
) -> None:
    text = tiny.experiment.read_text()
    assert before in text
    wrong = tmp_path / "wrong.py"
    wrong.write_text(text.replace(before, after, 1))
    root = tmp_path / "root"
    refused(tiny.argv(root, "--experiment", wrong), root, "wrong.py", *words)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("Grid(0.1, 1.0, 10.0)", "Grid(0.1, 1.0, 20.0)", ("model.temperature", "20.0")),
        ("n_blocks=1", "n_blocks=2", ("base.model.n_blocks: 1 then, 2 now",)),
        ("reduction_factor=2.0", "reduction_factor=3.0", ("search.reduction_factor: 2.0 then, 3.0 now",)),
        ("seed=1", "seed=3", ("seed: 1 then, 3 now",)),
    ],
)
def test_a_changed_question_under_an_old_name_is_shown_and_another_name_suggested(
    before: str, after: str, words: tuple[str, ...], tiny: Any, refused: Refused, finished_copy: Any, tmp_path: Path
) -> None:
    text = tiny.experiment.read_text()
    assert before in text
    changed = tmp_path / "changed" / "tiny.py"
    changed.parent.mkdir()
    changed.write_text(text.replace(before, after, 1))
    argv = tiny.argv(finished_copy.root, "--experiment", changed)
    refused(argv, finished_copy.root, "asks another question", "--study-name tiny-2", *words)


def test_other_images_or_another_seed_are_another_question(
    tiny: Any, refused: Refused, finished_copy: Any, tmp_path: Path
) -> None:
    root = finished_copy.root
    refused(tiny.argv(root, "--seed", 9), root, "seed: 1 then, 9 now", "--study-name tiny-2")
    data = shutil.copytree(tiny.data, tmp_path / "more")
    save(data / "train" / "another.png", 64, 64)
    refused(tiny.argv(root, "--data", data), root, "data.fingerprint", "--study-name tiny-2")


# How to run


def test_a_root_that_cannot_be_written_is_named(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    ended = refused(tiny.argv(file / "root"), file / "root", f"--root {file / 'root'}", "cannot be written")
    assert "choose another folder" in ended
    refused(tiny.argv(file), tmp_path / "absent", f"--root {file}")


@pytest.mark.parametrize(
    "name", ["..", ".", "a/b", "../x", "artifacts", "stores", "Artifacts", "a b", ".hidden", "x.", "ä", "x" * 101]
)
def test_a_study_name_that_is_no_plain_name_is_refused(name: str, tiny: Any, refused: Refused, tmp_path: Path) -> None:
    refused(tiny.argv(tmp_path / "root", "--study-name", name), tmp_path / "root", "study name", repr(name))


@pytest.mark.parametrize(
    "argv",
    [
        ("--trials", "0"), ("--trials", "-1"), ("--trials", "many"), ("--trials", "1.5"), ("--trials", "²"),
        ("--timeout", "0"), ("--timeout", "soon"), ("--timeout", "-5m"), ("--timeout", "5 m"), ("--timeout", ""),
        ("--seed", "x"), ("--seed", "-1"), ("--seed", str(2**63)), ("--gpus", "x"), ("--gpus", "-1"),
        ("--gpus", "0,0"), ("--gpus", "0,"), ("--slots", "0"), ("--trials-per-gpu", "0"), ("--retries", "-1"),
        ("--executor", "threads"), ("--hang-timeout", "0"), ("--trial-timeout", "soon"),
        ("--trial", "3"), ("extra",), ("--unknown-flag",),
    ],
)  # fmt: skip
def test_a_flag_with_an_impossible_value_is_refused(
    argv: tuple[str, ...], tiny: Any, refused: Refused, tmp_path: Path
) -> None:
    line = refused(tiny.argv(tmp_path / "root", *argv), tmp_path / "root")
    assert argv[-1] in line or argv[0] in line


def test_more_gpus_than_there_are_are_refused(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    refused(tiny.argv(tmp_path / "root", "--gpus", 99), tmp_path / "root", "99")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--slots", 2, "--gpus", 0), "with --gpus, use --trials-per-gpu"),
        (("--trials-per-gpu", 2), "--trials-per-gpu needs --gpus"),
        (("--executor", "inline", "--slots", 2), "--executor inline has one slot, 2 were asked for"),
        (("--trial-timeout", "1h"), "add --executor processes"),
        (
            ("--slots", 999),
            "--slots 999: expected at most 1, because each slot needs 1 thread and the machine has 1 core",
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_slots_that_contradict_each_other_or_the_machine_are_refused(
    argv: tuple[object, ...], said: str, tiny: Any, refused: Refused, tmp_path: Path
) -> None:
    refused(tiny.argv(tmp_path / "root", *argv), tmp_path / "root", said)


@pytest.mark.parametrize("argv", [("--tracking-uri", "foo://bar"), ("--storage", "foo"), ("--storage", "http://x")])
def test_an_address_that_no_tracker_can_have_is_refused(
    argv: tuple[str, ...], tiny: Any, refused: Refused, tmp_path: Path
) -> None:
    refused(tiny.argv(tmp_path / "root", *argv, views=True), tmp_path / "root", f"{argv[0]}: expected ")


@pytest.mark.slow
def test_a_tracker_that_cannot_be_used_does_not_cost_the_study(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    argv = ["--tracking-uri", f"sqlite:///{file}/mlflow.db", "--storage", "none"]
    impatient = "import study.tracking.views; study.tracking.views._DRAIN_SECONDS = 1.0"
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", *argv, trials=3, views=True), first=impatient)
    assert ended.status == 0
    assert state_of(tmp_path / "root").counted == 3
    assert "study.sync" in ended.out and "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == 1 and "mlflow" in ended.err


def test_help_and_usage_errors_come_within_a_second_without_torch_and_mlflow() -> None:
    look = (
        "import sys; import study.run; code = 0\ntry: study.run.main({argv})\nexcept SystemExit as exc: code = exc.code"
    )
    look += "\nprint({{'torch', 'mlflow', 'optuna'}} & set(sys.modules), code)"
    for argv, code in ((["--help"], 0), (["--trials", "0"], 2)):
        begun = time.monotonic()
        seen = subprocess.run([sys.executable, "-c", look.format(argv=argv)], capture_output=True, text=True)
        assert seen.stdout.splitlines()[-1] == f"set() {code}"
        assert time.monotonic() - begun < 5, "far above the second that a quiet machine takes"


# The record


def test_a_damaged_line_in_the_record_is_named_and_the_study_left_alone(
    tiny: Any, refused: Refused, finished_copy: Any
) -> None:
    journal = finished_copy.folder.journal
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[9] = lines[9].replace(b"trial", b"trail", 1)
    journal.write_bytes(b"".join(lines))
    refused(tiny.argv(finished_copy.root, trials=9), finished_copy.root, f"{journal}: line 10", "checksum")


def test_a_record_of_another_format_is_refused(tiny: Any, refused: Refused, finished_copy: Any) -> None:
    import hashlib

    journal = finished_copy.folder.journal
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    body = first.replace(b'"format":%d' % FORMAT, b'"format":99', 1).rpartition(b',"sum":"')[0]
    assert b'"format":99' in body
    first = body + b',"sum":"' + hashlib.blake2b(body, digest_size=8).hexdigest().encode() + b'"}\n'
    journal.write_bytes(first + b"".join(rest))
    refused(tiny.argv(finished_copy.root), finished_copy.root, f"format {FORMAT}", "99")


def test_weights_that_were_removed_before_the_conclusion_are_named(
    tiny: Any, commands: Any, finished_copy: Any
) -> None:
    journal, best = finished_copy.folder.journal, finished_copy.state.best()
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-2]))
    weights = finished_copy.folder.trial(best.number) / "weights.safetensors"
    weights.unlink()
    ended = commands.run("study.run", *tiny.argv(finished_copy.root))
    assert ended.status == 2
    assert str(weights) in ended.err and len(ended.err.splitlines()) == 1


# Trials that fail


DIVERGING = "(4, 1e-3), (4, 4e-3)]"


def test_a_trial_whose_loss_is_no_number_any_more_fails_as_diverged_and_the_study_goes_on(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    text = tiny.experiment.read_text()
    assert DIVERGING in text
    absurd = tmp_path / "absurd.py"
    absurd.write_text(text.replace(DIVERGING, "(4, 1e30), (4, 4e-3)]"))
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--experiment", absurd, trials=8))
    assert (ended.status, ended.err) == (0, "")
    state = state_of(tmp_path / "root", "absurd")
    assert state.counted == 8 and state.complete
    failed = [trial for trial in state.trials.values() if trial.status == "failed"]
    assert failed
    for trial in failed:
        assert trial.config.train.learning_rate == 1e30
        assert trial.end.cause == "diverged"
        assert re.search(r"is (nan|inf) after \d+ patches", trial.end.reason)
        assert f"trial {trial.number:3d}  failed     diverged: {trial.end.reason}" in ended.out
        assert not (tmp_path / "root" / "absurd" / "trials" / f"{trial.number:04d}" / "weights.safetensors").exists()
    assert f"{len(failed)} failed" in ended.out
    said = commands.run("study.reproduce", failed[0].number, "--root", tmp_path / "root")
    assert said.status == 2 and len(said.err.splitlines()) == 1


def test_a_study_in_which_everything_fails_ends_with_status_3_and_the_reason(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    text = tiny.experiment.read_text()
    hopeless = tmp_path / "hopeless.py"
    text = text.replace("[(2, 1e-3), (4, 1e-3), (4, 4e-3)]", "[(2, 1e30), (4, 1e29), (4, 1e30)]")
    hopeless.write_text(re.sub(r"references=.*\n", "", text))
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--experiment", hopeless))
    assert ended.status == 3
    assert "Traceback" not in ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("error: stopped: 5 trials failed in a row, the last one: ")
    state = state_of(tmp_path / "root", "hopeless")
    assert (state.counted, len(state.trials), state.ended.reason) == (0, 5, "failures")
    shown = commands.run("study.status", "--root", tmp_path / "root")
    assert shown.status == 0 and "5 failed" in shown.out


BUG = """
import sr_core.training.fit as fit
class Broken(fit.Step):
    def __call__(self):
        if self._config.batch_size == 2 and self._state.patches >= 60:
            raise KeyError("a bug of ours")
        super().__call__()
fit.Step = Broken
"""


def test_a_bug_in_one_trial_fails_it_with_its_traceback_and_the_same_bug_in_another_stops_the_study(
    tiny: Any, commands: Any, tmp_path: Path, state_of: Any
) -> None:
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", trials=40), first=BUG)
    assert ended.status == 3
    state = state_of(tmp_path / "root")
    failed = [trial for trial in state.trials.values() if trial.status == "failed"]
    assert len(failed) == 2
    assert {trial.end.cause for trial in failed} == {"bug"}
    assert all("a bug of ours" in trial.end.traceback for trial in failed)
    assert f"trials {failed[0].number} and {failed[1].number} failed alike" in ended.err
    again = commands.run("study.run", *tiny.argv(tmp_path / "root", trials=state.counted + 1))
    assert again.status == 0, "mended, the study goes on"


# A full disk


FULL = """
import errno, os
written, write = [0], os.fsync
def full(number):
    written[0] += 1
    if written[0] > {count}:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return write(number)
os.fsync = full
"""


def check_full(ended: Any) -> None:
    assert ended.status == 75, ended.err
    assert len(ended.err.splitlines()) == 1 and "Traceback" not in ended.err
    assert "No space left on device" in ended.err and "same command" in ended.err


@pytest.mark.slow
def test_a_full_disk_at_any_moment_ends_with_status_75_and_the_same_command_goes_on(
    finished: Any, tiny: Any, commands: Any, tmp_path: Path, outcome_of: Any
) -> None:
    argv = tiny.argv(tmp_path / "root")
    for count in (0, 1, 2, 3, 5, 8, 9, 10, 12, 15):
        check_full(commands.run("study.run", *argv, first=FULL.format(count=count)))
    ended = commands.run("study.run", *argv)
    assert (ended.status, ended.err) == (0, "")
    assert outcome_of(tmp_path / "root") == outcome_of(finished.root)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full_ends_with_status_75_and_the_same_command_goes_on_with_room(
    finished: Any, tiny: Any, commands: Any, small_disk: Path, outcome_of: Any
) -> None:
    root, ballast = small_disk / "root", small_disk / "ballast"
    argv = tiny.argv(root)

    def leave(room: int) -> None:
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as exc:
                assert exc.errno == errno.ENOSPC
        size = ballast.stat().st_size
        with ballast.open("r+b") as file:
            file.truncate(max(0, size - room))

    store = next((finished.root / "stores").glob("*.h5")).stat().st_size
    for room in (0, store // 2):
        leave(room)
        check_full(commands.run("study.run", *argv))
        ballast.unlink()
    shutil.copytree(finished.root / "stores", root / "stores", dirs_exist_ok=True)
    reached = []
    for room in range(10_000, 400_000, 20_000):
        leave(room)
        ended = commands.run("study.run", *argv)
        ballast.unlink()
        if ended.status == 0:
            break
        check_full(ended)
        journal = root / "tiny" / "journal.jsonl"
        reached.append(journal.read_bytes().count(b"\n") if journal.exists() else 0)
    assert len(set(reached)) > 3 and reached == sorted(reached), reached
    ended = commands.run("study.run", *argv)
    assert (ended.status, ended.err) == (0, "")
    assert outcome_of(root) == outcome_of(finished.root)


@pytest.mark.slow
def test_a_root_that_is_lost_ends_with_status_75_and_the_study_goes_on_when_it_is_back(
    finished: Any, tiny: Any, commands: Any, tmp_path: Path, outcome_of: Any, wait_until: Any
) -> None:
    root, away = tmp_path / "root", tmp_path / "away"
    process = commands.start("study.run", *tiny.argv(root))
    wait_until(lambda: process.out.count("validated") >= 3)
    root.rename(away)
    ended = process.wait()
    assert ended.status == 75, ended.err
    assert len(ended.err.splitlines()) == 1 and str(root) in ended.err
    assert not root.exists()
    away.rename(root)
    again = commands.run("study.run", *tiny.argv(root))
    assert (again.status, again.err) == (0, "")
    assert outcome_of(root) == outcome_of(finished.root)


def test_a_command_whose_reader_went_away_ends_quietly(finished: Any, tiny: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "study.status", "--root", str(finished.root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() in (141, -signal.SIGPIPE)
