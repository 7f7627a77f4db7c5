"""`python -m study.reproduce`: a recorded trial comes out the same, and whatever was changed since is named."""

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from study.journal import read


@pytest.fixture
def reproduce(commands: Any, finished_copy: Any) -> Callable[..., Any]:
    """reproduce(trial, *argv): what it says about a trial of the copied study."""
    return lambda which, *argv: commands.run("study.reproduce", which, "--root", finished_copy.root, *argv)


def alter(journal: Path, line: int, change: Callable[[dict[str, Any]], None], *, checksum: bool) -> None:
    """Changes one line of a journal (counted from 1), with a right checksum or with the old one."""
    lines = journal.read_bytes().splitlines(keepends=True)
    content = json.loads(lines[line - 1])
    old = content.pop("sum")
    change(content)
    body = json.dumps(content, separators=(",", ":"))[:-1].encode()
    new = hashlib.blake2b(body, digest_size=8).hexdigest() if checksum else old
    lines[line - 1] = body + f',"sum":"{new}"}}\n'.encode()
    journal.write_bytes(b"".join(lines))


def line_of(journal: Path, kind: str, trial: int | None = None) -> int:
    """The first line of a kind (and trial), counted from 1."""
    found = enumerate(read(journal), start=1)
    return next(n for n, e in found if type(e).__name__ == kind and trial in (None, getattr(e, "trial", None)))


def test_the_command_that_a_study_prints_last_reproduces_its_winner_bit_for_bit(finished: Any, commands: Any) -> None:
    _, python, _, module, *argv = shlex.split(finished.ended.last_line)
    assert (python, module) == ("python", "study.reproduce")
    before = finished.folder.journal.read_bytes()
    said = commands.run(module, *argv)
    assert (said.status, said.err) == (0, "")
    assert said.last_line == "verdict: bit-identical, every point of the curve and the weights"
    best = finished.state.best()
    assert said.out.startswith(f"trial {best.number} of tiny: config {best.proposed.config_hash}, 240 patches\n")
    for point in best.curve:
        psnr = f"{point.scores['val/psnr']:.12f}"
        assert re.search(rf"^ *{point.patches} +{psnr} +{psnr} ", said.out, re.MULTILINE)
    assert f"{best.end.weights[:16]} then, {best.end.weights[:16]} now" in said.out
    assert finished.folder.journal.read_bytes() == before


@pytest.mark.parametrize(("number", "what"), [(1, "the reference with another kernel"), (3, "a pruned trial")])
def test_any_trial_is_reproduced_by_its_number_as_far_as_it_came(
    number: int, what: str, finished: Any, reproduce: Any
) -> None:
    trial = finished.state.trials[number]
    assert (trial.status == "pruned") == ("pruned" in what)
    said = reproduce(number)
    assert (said.status, said.err) == (0, "")
    assert f"{trial.patches} patches" in said.out.splitlines()[0]
    assert said.last_line.startswith("verdict: bit-identical")


def test_a_trial_is_found_by_its_run_in_mlflow_and_the_studys_own_run_stands_for_its_winner(
    finished_copy: Any, reproduce: Any
) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{finished_copy.root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    runs = {run.data.tags.get("study.trial"): run.info.run_id for run in client.search_runs([experiment.experiment_id])}
    for key, number in (("2", 2), (None, finished_copy.state.best().number)):
        said = reproduce(runs[key])
        assert (said.status, said.err) == (0, "")
        assert said.out.startswith(f"trial {number} of tiny")


def test_without_the_folder_that_the_pictures_came_from_the_store_is_enough(
    tiny: Any, commands: Any, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "moved")
    assert commands.run("study.run", *tiny.argv(tmp_path / "root", "--data", data, trials=1)).status == 0
    shutil.rmtree(data)
    said = commands.run("study.reproduce", 0, "--root", tmp_path / "root")
    assert (said.status, said.err) == (0, "")
    moved = commands.run("study.reproduce", 0, "--root", tmp_path / "root", "--data", tiny.data)
    assert (moved.status, moved.err) == (0, "")


def check_different(said: Any, *names: str) -> None:
    """Status 4, the verdict last, and each of these named in a line that says what differs."""
    assert (said.status, said.err) == (4, "")
    assert said.last_line == "verdict: different"
    differs = [line for line in said.out.splitlines() if line.startswith("differs: ")]
    for name in names:
        assert any(name in line for line in differs), (name, differs)


def picture_in(store: Path, name: str) -> tuple[str, int]:
    """(split, number) of a picture in a patch store."""
    with h5py.File(store) as file:
        content = json.loads(np.asarray(file["manifest"][()]).tobytes())
    records = [record for record in content["pictures"] if record[0] == name.partition("/")[0]]
    return records[0][0], [record[1] for record in records].index(name)


@pytest.mark.parametrize("recompute", [False, True], ids=["checksum kept", "checksum recomputed"])
@pytest.mark.parametrize("which", ["hr", "lr/x2/matlab_bicubic"])
def test_one_changed_pixel_in_the_store_is_found_and_named(
    which: str, recompute: bool, finished_copy: Any, reproduce: Any
) -> None:
    from sr_core.data.manifest import pixel_digest

    store = finished_copy.root / finished_copy.state.opened.data["store"]
    split, number = picture_in(store, "train/train2.png")
    with h5py.File(store, "r+") as file:
        dataset = file[f"{split}/{number}/{which}"]
        dataset[7, 5, 1] = dataset[7, 5, 1] ^ 1
        if recompute:
            dataset.attrs["sha256"] = np.bytes_(pixel_digest(dataset[()]))
    check_different(reproduce("best"), "train/train2.png")


def test_one_changed_pixel_in_a_source_picture_is_found_and_the_picture_named(
    tiny: Any, reproduce: Any, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "moved")
    path = data / "valid" / "valid1.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    check_different(reproduce("best", "--data", data), "valid/valid1.png", "source")


def test_an_added_and_a_missing_source_picture_are_named(tiny: Any, reproduce: Any, tmp_path: Path) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "moved")
    (data / "train" / "train0.png").rename(data / "train" / "renamed.png")
    check_different(reproduce("best", "--data", data), "train/train0.png", "train/renamed.png")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("train", "learning_rate", 0.5), ("model", "temperature", 2.0), ("data", "train_kernel", "pillow_box"),
     (None, "seed", 7)],
)  # fmt: skip
def test_a_value_changed_in_the_trials_config_file_is_named_with_both_values(
    section: str | None, key: str, value: Any, finished_copy: Any, reproduce: Any
) -> None:
    best = finished_copy.state.best()
    path = finished_copy.folder.trial(best.number) / "config.json"
    config = json.loads(path.read_text())
    part = config[section] if section else config
    before, part[key] = part[key], value
    path.write_text(json.dumps(config))
    name = f"{section}.{key}" if section else key
    check_different(reproduce("best"), f"{name}: {before!r} in the journal, {value!r} in config.json")


@pytest.mark.parametrize("content", ["{", "[]", '"text"', "{}", '{"seed": 1}', None])
def test_a_config_file_that_is_none_is_said_to_be(content: str | None, finished_copy: Any, reproduce: Any) -> None:
    best = finished_copy.state.best()
    path = finished_copy.folder.trial(best.number) / "config.json"
    path.write_text(content or path.read_text().replace('"adam_beta1": 0.9', '"adam_beta1": "0.9"'))
    check_different(reproduce("best"), "config.json")


def test_an_altered_line_of_the_journal_is_named(finished_copy: Any, reproduce: Any) -> None:
    journal = finished_copy.folder.journal
    line = line_of(journal, "Progress", trial=3)
    alter(journal, line, lambda event: event["scores"].update({"val/psnr": 99.0}), checksum=False)
    check_different(reproduce("best"), f"line {line} ")


def test_a_config_value_altered_in_the_journal_with_its_checksum_is_found_and_named(
    finished_copy: Any, reproduce: Any
) -> None:
    best, journal = finished_copy.state.best(), finished_copy.folder.journal
    alter(
        journal,
        line_of(journal, "Proposed", best.number),
        lambda event: event["config"]["model"].update(temperature=3.0),
        checksum=True,
    )
    check_different(reproduce("best"), "config", "model.temperature: 3.0 in the journal, 1.0 in config.json")


def test_a_study_seed_altered_in_the_journal_with_its_checksum_is_found_and_named(
    finished_copy: Any, reproduce: Any
) -> None:
    alter(finished_copy.folder.journal, 1, lambda event: event.update(seed=5), checksum=True)
    check_different(reproduce("best"), "seed")


def test_a_question_altered_in_the_journal_with_its_checksum_is_found(finished_copy: Any, reproduce: Any) -> None:
    alter(finished_copy.folder.journal, 1, lambda event: event["question"].update(seed=5), checksum=True)
    check_different(reproduce("best"), "question")


def test_a_score_altered_in_the_journal_with_its_checksum_differs_from_the_second_training(
    finished_copy: Any, reproduce: Any
) -> None:
    best, journal = finished_copy.state.best(), finished_copy.folder.journal
    alter(
        journal,
        line_of(journal, "Progress", best.number) + 2,  # a checkpoint lies between two validations
        lambda event: event["scores"].update({"val/psnr": event["scores"]["val/psnr"] + 1e-9}),
        checksum=True,
    )
    check_different(reproduce("best"), "after 120 patches")


def test_weights_altered_in_the_journal_with_its_checksum_differ(finished_copy: Any, reproduce: Any) -> None:
    best, journal = finished_copy.state.best(), finished_copy.folder.journal
    line = line_of(journal, "Finished", best.number)
    alter(journal, line, lambda event: event.update(weights="0" * 64), checksum=True)
    check_different(reproduce("best"), "final weights")


def check_refused(said: Any, *words: str) -> None:
    """Status 2 and one line on stderr that has these words."""
    assert (said.status, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    for word in words:
        assert word in said.err


def test_an_unknown_trial_is_refused(reproduce: Any) -> None:
    check_refused(reproduce(99), "no trial 99", "best, or 0 to 6")
    check_refused(reproduce("nonsense"), "expected best, a trial's number or an MLflow run id", "nonsense")
    check_refused(reproduce("0" * 32), "0" * 32)
    check_refused(reproduce("-1"), "-1")


def test_where_there_is_no_study_those_that_are_there_are_named(commands: Any, finished: Any, tmp_path: Path) -> None:
    check_refused(commands.run("study.reproduce", "best", "--root", tmp_path), str(tmp_path))
    other = commands.run("study.reproduce", "best", "--root", finished.root, "--study-name", "other")
    check_refused(other, "'other'", "there: tiny")
    assert not (tmp_path / "mlflow.db").exists() and not (tmp_path / "quickstart").exists()


def test_a_trial_that_was_never_validated_is_refused(tiny: Any, commands: Any, tmp_path: Path) -> None:
    ended = commands.run("study.run", *tiny.argv(tmp_path / "root", "--timeout", "0.001s"))
    assert ended.status == 0
    check_refused(commands.run("study.reproduce", "best", "--root", tmp_path / "root"), "no finished trial")
    check_refused(commands.run("study.reproduce", 0, "--root", tmp_path / "root"), "trial 0")
