"""`python -m study.reproduce` gives the recorded numbers again and names everything that has changed since."""

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from study.question.config import TrialConfig, short_digest
from study.record.events import stored_name
from study.record.journal import read
from study.search.replicates import trial_seed

ROOT = Path(__file__).resolve().parents[3]


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
    return next(n for n, e in found if stored_name(type(e)) == kind and trial in (None, getattr(e, "trial", None)))


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


def test_without_the_folder_that_the_images_came_from_the_store_is_enough(
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


def image_in(store: Path, name: str) -> tuple[str, int]:
    """(split, number) of an image in a patch store."""
    with h5py.File(store) as file:
        content = json.loads(np.asarray(file["manifest"][()]).tobytes())
    records = [record for record in content["pictures"] if record[0] == name.partition("/")[0]]
    return records[0][0], [record[1] for record in records].index(name)


@pytest.mark.parametrize("recompute", [False, True], ids=["checksum kept", "checksum recomputed"])
@pytest.mark.parametrize("which", ["hr", "lr/x2/matlab_bicubic"])
def test_one_changed_pixel_in_the_store_is_found_and_named(
    which: str, recompute: bool, finished_copy: Any, reproduce: Any
) -> None:
    from sr_core.store.manifest import pixel_digest

    store = finished_copy.root / finished_copy.state.opened.data["store"]
    split, number = image_in(store, "train/train2.png")
    with h5py.File(store, "r+") as file:
        dataset = file[f"{split}/{number}/{which}"]
        dataset[7, 5, 1] = dataset[7, 5, 1] ^ 1
        if recompute:
            dataset.attrs["sha256"] = np.bytes_(pixel_digest(dataset[()]))
    check_different(reproduce("best"), "train/train2.png")


def test_one_changed_pixel_in_a_source_image_is_found_and_the_image_named(
    tiny: Any, reproduce: Any, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny.data, tmp_path / "moved")
    path = data / "valid" / "valid1.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    check_different(reproduce("best", "--data", data), "valid/valid1.png", "source")


def test_an_added_and_a_missing_source_image_are_named(tiny: Any, reproduce: Any, tmp_path: Path) -> None:
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


def check_refused_late(said: Any, *words: str) -> None:
    """The same, once it is known which trial is meant."""
    assert (said.status, len(said.out.splitlines()), len(said.err.splitlines())) == (2, 1, 1)
    for word in words:
        assert word in said.err


# Forged consistently, checksums and hashes included: the record agrees with itself, and only numbers can tell


def forge_value(finished: Any, trial: int, name: str, value: Any) -> None:
    """Another value in a trial's config, and in all that is derived from it."""
    section, key = name.split(".")

    def change(event: dict[str, Any]) -> None:
        event["config"][section][key] = value
        event["values"][name] = value
        event["config_hash"] = TrialConfig.from_json(event["config"]).digest()
        (finished.folder.trial(trial) / "config.json").write_text(json.dumps(event["config"]))

    alter(finished.folder.journal, line_of(finished.folder.journal, "Proposed", trial), change, checksum=True)


def test_a_config_value_forged_with_every_checksum_gives_other_numbers_and_the_record_is_suspected(
    finished_copy: Any, reproduce: Any
) -> None:
    forge_value(finished_copy, finished_copy.state.best().number, "train.adam_eps", 1e-4)
    said = reproduce("best")
    check_different(said, "after 60 patches", "largest difference", "likely cause: images, code, versions and")
    assert "its configuration, seed or numbers were altered" in said.out


def test_a_config_value_that_the_study_never_asked_for_is_named_though_its_hash_is_right(
    finished_copy: Any, reproduce: Any
) -> None:
    best, journal = finished_copy.state.best(), finished_copy.folder.journal
    forge_value(finished_copy, best.number, "train.ema_horizon_patches", 80.0)
    alter(
        journal,
        line_of(journal, "Proposed", best.number),
        lambda event: event["values"].pop("train.ema_horizon_patches"),
        checksum=True,
    )
    check_different(
        reproduce("best"),
        "config: train.ema_horizon_patches is 80.0 in the trial, but the study's question and proposal give 40.0",
    )


def test_another_seed_forged_throughout_gives_other_numbers(finished_copy: Any, reproduce: Any) -> None:
    best, journal = finished_copy.state.best(), finished_copy.folder.journal

    def reseed_study(event: dict[str, Any]) -> None:
        event["seed"] = event["question"]["seed"] = 5
        event["digest"] = short_digest(event["question"])

    def reseed_trial(event: dict[str, Any]) -> None:
        event["config"]["seed"] = trial_seed(5)
        event["config_hash"] = TrialConfig.from_json(event["config"]).digest()

    alter(journal, 1, reseed_study, checksum=True)
    alter(journal, line_of(journal, "Proposed", best.number), reseed_trial, checksum=True)
    (finished_copy.folder.trial(best.number) / "config.json").unlink()
    check_different(reproduce("best"), "after 60 patches", "likely cause: images, code, versions and settings")


def test_a_pixel_checksum_forged_in_the_journal_does_not_pass_for_the_image_that_it_was(
    finished_copy: Any, reproduce: Any
) -> None:
    alter(
        finished_copy.folder.journal,
        1,
        lambda event: event["data"]["pictures"][2].__setitem__(2, "0" * 64),
        checksum=True,
    )
    check_different(reproduce("best"), "data: the list of images in the journal does not match")


def test_final_numbers_that_contradict_the_curve_are_found_without_training(finished_copy: Any, reproduce: Any) -> None:
    best, journal = finished_copy.state.best(), finished_copy.folder.journal
    line = line_of(journal, "Finished", best.number)
    alter(journal, line, lambda event: event["scores"].update({"val/psnr": 40.0}), checksum=True)
    said = reproduce("best")
    check_different(said, "final scores are not those of its last validation", "is not the mean over the single crop")
    assert "PSNR now" not in said.out


# Code and versions


@pytest.mark.parametrize(("library", "flags"), [("numpy", ()), ("numpy", ("--strict",)), ("python", ("--strict",))])
def test_another_version_that_gives_the_same_numbers_is_told_and_strict_makes_it_a_difference(
    library: str, flags: tuple[str, ...], finished_copy: Any, reproduce: Any
) -> None:
    journal = finished_copy.folder.journal

    def change(event: dict[str, Any]) -> None:
        told = event["provenance"] if library == "python" else event["provenance"]["versions"]
        told[library] = "1.0.0"

    alter(journal, line_of(journal, "SessionStarted"), change, checksum=True)
    said = reproduce("best", *flags)
    assert (said.status, said.err) == (4 if flags else 0, "")
    assert f"\nnote: {library} 1.0.0 then, " in said.out
    if flags:
        assert f"\ndiffers: {library} 1.0.0 then, " in said.out
        assert said.last_line == "verdict: different (--strict), though every number is equal to the last bit"
    else:
        assert said.last_line.startswith("verdict: bit-identical, every point of the curve and the weights; other code")


@pytest.mark.parametrize(("gap", "status"), [(0.0, 0), (1e-3, 0), (0.5, 4)])
def test_under_another_torch_build_the_verdict_is_within_tolerance_or_different(
    gap: float, status: int, finished_copy: Any, reproduce: Any
) -> None:
    best, journal = finished_copy.state.best(), finished_copy.folder.journal
    alter(journal, 1, lambda event: event["runtime"].update(torch="2.12.0"), checksum=True)
    alter(
        journal,
        line_of(journal, "Progress", best.number),
        lambda event: event["scores"].update({"val/psnr": event["scores"]["val/psnr"] + gap}),
        checksum=True,
    )
    said = reproduce("best")
    assert (said.status, said.err) == (status, "")
    assert "\nnote: torch 2.12.0 then, 2.1" in said.out
    if status:
        check_different(said, "largest difference 0.5 dB of val/psnr after 60 patches", "likely cause: settings that")
    else:
        expected = f"largest difference {gap:.2g} dB of val/psnr after 60 patches" if gap else "every number is equal"
        assert said.last_line.startswith(f"verdict: within tolerance: {expected}")


def test_where_nothing_differs_strict_agrees(finished: Any, commands: Any) -> None:
    said = commands.run("study.reproduce", 1, "--root", finished.root, "--strict")
    assert (said.status, said.err) == (0, "")
    assert said.last_line == "verdict: bit-identical, every point of the curve and the weights"


@pytest.fixture
def reproduce_with(finished: Any, tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """reproduce_with(file, line, other, *flags): (output, status) without and with each flag, in a process of its own
    that runs a copy of the packages in which one line of one file is another."""

    def run(name: str, line: str, other: str, *flags: str) -> list[tuple[str, str]]:
        code = tmp_path / "code"
        for package in ("sr_core", "study"):
            shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
        content = (code / name).read_text()
        assert content.count(line) == 1
        (code / name).write_text(content.replace(line, other))
        calls = [["best", "--root", str(finished.root), *more] for more in ([], *([flag] for flag in flags))]
        script = f"from study.reproduce import main; [print('status', main(call)) for call in {calls}]"
        done = subprocess.run(
            [sys.executable, "-P", "-c", script],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
        )
        assert done.stderr == ""
        return re.findall(r"(.*?)\nstatus (\d+)\n", done.stdout, re.DOTALL)

    return run


def test_one_source_line_that_changes_numbers_is_a_difference_and_its_file_the_likely_cause(
    reproduce_with: Callable[..., Any],
) -> None:
    ((out, status),) = reproduce_with("sr_core/training/optim.py", "eps=config.adam_eps", "eps=2 * config.adam_eps")
    assert status == "4"
    assert re.search(r"\ndiffers: after 60 patches: val/psnr .*\ndiffers: largest difference .* dB of val/psnr", out)
    assert re.search(r"\ndiffers: likely cause: code \w{16} then, \w{16} now: sr_core/training/optim\.py\n", out)
    assert out.endswith("\nverdict: different")


@pytest.mark.slow
def test_one_source_line_that_changes_nothing_is_told_and_only_strict_makes_it_a_difference(
    reproduce_with: Callable[..., Any],
) -> None:
    line = "import hashlib\n"
    usual, strict = reproduce_with("sr_core/seed.py", line, f"{line}import math  # unused\n", "--strict")
    assert (usual[1], strict[1]) == ("0", "4")
    assert re.search(r"\nnote: code \w{16} then, \w{16} now: sr_core/seed\.py\n", usual[0])
    assert "\nverdict: bit-identical, every point of the curve and the weights; other code" in usual[0]
    assert re.search(r"\ndiffers: code \w{16} then, \w{16} now: sr_core/seed\.py\nverdict: different \(-", strict[0])


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have one set of kernels")
def test_another_instruction_set_rounds_otherwise_and_the_verdict_is_within_tolerance(finished: Any) -> None:
    recorded = finished.state.opened.runtime["cpu_capability"]
    if recorded == "DEFAULT":
        pytest.skip("this processor has no instruction set to leave out")
    done = subprocess.run(
        [sys.executable, "-m", "study.reproduce", "best", "--root", finished.root],
        capture_output=True,
        text=True,
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\nnote: cpu_capability {recorded} then, DEFAULT here\n" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert re.match(r"verdict: within tolerance: largest difference \S+ dB of val/psnr after \d+ patches, ", last)
    assert last.endswith(f"; bits are not promised here (cpu_capability {recorded} then, DEFAULT here)")


# Where the record is all there is


def test_without_store_and_weights_the_images_are_made_ready_again_and_nothing_is_left_behind(
    finished_copy: Any, reproduce: Any, tree_of: Any
) -> None:
    shutil.rmtree(finished_copy.root / "stores")
    shutil.rmtree(finished_copy.folder.path / "trials")
    before = tree_of(finished_copy.root)
    said = reproduce("best", "--strict")
    assert (said.status, said.err) == (0, "")
    assert said.last_line == "verdict: bit-identical, every point of the curve and the weights"
    assert tree_of(finished_copy.root) == before


def test_a_changed_pixel_is_named_where_there_is_no_store(
    tiny: Any, finished_copy: Any, reproduce: Any, tmp_path: Path
) -> None:
    shutil.rmtree(finished_copy.root / "stores")
    data = shutil.copytree(tiny.data, tmp_path / "moved")
    pixels = np.array(Image.open(data / "train" / "train3.png"))
    pixels[5, 7, 2] ^= 1
    Image.fromarray(pixels).save(data / "train" / "train3.png")
    check_different(reproduce("best", "--data", data), "data: train image train/train3.png differs")


def test_a_published_record_is_reproduced_from_its_root_and_stays_as_it_is(
    finished: Any, tiny: Any, commands: Any, tmp_path: Path, tree_of: Any
) -> None:
    root = tmp_path / "records"
    told = commands.run("study.sync", "--root", finished.root, "--publish", root)
    assert (told.status, told.err) == (0, "")
    before = tree_of(root)
    assert {name.rpartition(".")[2] for name in before} == {"gz", "csv", "json"}
    _, python, _, module, *argv = shlex.split(told.last_line)
    assert (python, module) == ("python", "study.reproduce")
    said = commands.run(module, *argv)
    assert (said.status, said.err) == (0, "")
    assert said.last_line == "verdict: bit-identical, every point of the curve and the weights"
    status = commands.run("study.status", "--root", root)
    assert (status.status, status.out.splitlines()[0]) == (0, "tiny: complete")
    check_refused(commands.run("study.run", *tiny.argv(root, trials=9)), "a published record is read-only")
    training = commands.run("study.train", "best", "--patches", 480, "--root", root)
    check_refused(training, "a published record is read-only")
    assert tree_of(root) == before


def test_where_neither_store_nor_images_are_there_data_is_asked_for(
    finished_copy: Any, reproduce: Any, tiny: Any, tmp_path: Path
) -> None:
    shutil.rmtree(finished_copy.root / "stores")
    gone = str(tmp_path / "gone")
    alter(finished_copy.folder.journal, 1, lambda event: event["data"].update(folder=gone), checksum=True)
    check_refused_late(
        reproduce("best"),
        "expected its images (5 to train, 3 to validate) in",
        gone,
        "found neither; pass the folder of the images with --data DIR",
    )
    alter(finished_copy.folder.journal, 1, lambda event: event["data"].update(folder=None), checksum=True)
    check_refused_late(reproduce("best", "--data", tiny.data), "was run on the images of", "leave out --data")
    alter(finished_copy.folder.journal, 1, lambda event: event["data"].update(folder=None), checksum=True)
    check_refused_late(reproduce("best", "--data", tiny.data), "was run on the images of", "leave out --data")


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
