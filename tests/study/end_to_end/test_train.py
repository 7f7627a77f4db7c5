"""`python -m study.train`: a chosen trial on a longer budget, recorded, resumed and shown as a study is."""

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from study.record.folder import StudyFolder
from study.record.journal import read
from study.record.state import StudyState, TrialState, fold

PATCHES = 480

KILLED_AFTER = """
import os, signal
from study.record.journal import Journal
append = Journal.append
def dying(self, event):
    append(self, event)
    if type(event).__name__ in {kinds}:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.append = dying
"""


@dataclass(frozen=True)
class Trained:
    """A root with the finished study and one longer training of its winner; its images lie next to a benchmark."""

    root: Path
    data: Path
    ended: Any
    number: int
    """Of the winner."""

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.root, "tiny", f"{self.number:04d}-{PATCHES}")

    @property
    def state(self) -> StudyState:
        return fold(read(self.folder.journal))

    @property
    def trial(self) -> TrialState:
        return self.state.trials[self.number]


@pytest.fixture
def trained(_workshop: Path, finished: Any, tiny: Any, commands: Any) -> Trained:
    """The one finished training. Not to be changed: copy its root."""
    root, data, record = _workshop / "trained", _workshop / "with-benchmark", _workshop / "trained.json"
    if not record.exists():
        shutil.copytree(finished.root, root)
        shutil.copytree(tiny.data, data)
        shutil.copytree(tiny.data / "valid", data / "Set5" / "HR")
        for i, path in enumerate(sorted((data / "Set5" / "HR").iterdir())):
            if i:
                path.unlink()
        ended = commands.run("study.train", "best", "--patches", PATCHES, "--root", root, "--data", data)
        record.write_text(json.dumps([ended.status, ended.out, ended.err]))
    return Trained(root, data, json.loads(record.read_text()), finished.state.best().number)


def only_opened(root: Path, training: StudyFolder, to: Path) -> StudyFolder:
    """A copy of a root in which nothing but the training's first line happened: how it computes is settled there."""
    folder = StudyFolder(shutil.copytree(root, to), training.study, training.training)
    first = folder.journal.read_bytes().splitlines(keepends=True)[0]
    shutil.rmtree(folder.path)
    folder.path.mkdir()
    folder.journal.write_bytes(first)
    return folder


def outcome(state: StudyState) -> Any:
    """Every bit that is promised of a training."""
    (trial,) = state.trials.values()
    assert trial.end is not None and state.concluded is not None
    return (
        trial.proposed.config,
        [point.numbers() for point in trial.curve],
        trial.end.weights,  # type: ignore[union-attr]
        state.concluded.scores,
        state.concluded.per_image,
    )


def test_it_trains_the_winners_configuration_with_its_schedule_stretched_over_the_new_budget(
    trained: Trained, finished: Any
) -> None:
    status, out, err = trained.ended
    assert (status, err) == (0, "")
    then, now = finished.state.best(), trained.trial
    assert now.config == then.config.with_values({"train.budget_patches": PATCHES})
    assert (now.status, now.proposed.role) == ("finished", "training")
    assert [p.patches for p in now.curve] == list(range(60, PATCHES + 1, 60))
    from sr_core.training.optim import learning_rate

    batch = now.config.train.batch_size
    assert [p.learning_rate for p in now.curve] == [
        learning_rate(now.config.train, p.patches - batch) for p in now.curve
    ]
    assert f"trial {now.number} of tiny: {now.score:.3f} dB after {PATCHES} patches" in out
    assert f"in the study {then.score:.3f} dB after 240" in out
    assert out.splitlines()[-1] == f"next: python -m study.ui --root {trained.root} --study-name tiny"


def test_it_ends_with_scores_on_whole_images_and_on_the_benchmark_next_to_them(trained: Trained) -> None:
    result = trained.state.concluded
    assert result is not None
    assert {"valid/psnr", "valid/ssim", "set5/psnr", "set5/ssim", "set5/psnr_bicubic"} <= set(result.scores)
    assert [name for name, *_ in result.per_image if name == "Set5"] == ["Set5"]
    assert f"set5: {result.scores['set5/psnr']:.3f} dB" in trained.ended[1]
    for name in ("curves.png", "comparison.png", "best/weights.safetensors", "best/config.json"):
        assert (trained.folder.results / name).is_file()


def test_its_weights_score_what_it_says(trained: Trained, commands: Any) -> None:
    assert trained.state.concluded is not None
    weights = trained.folder.results / "best" / "weights.safetensors"
    argv = ("--weights", weights, "--benchmark", trained.data / "Set5" / "HR", "--scale", 2, "--json")
    found = json.loads(commands.run("sr_core.evaluate", *argv).out)
    assert found["mean"]["psnr"] == pytest.approx(trained.state.concluded.scores["set5/psnr"], abs=1e-9)


def test_the_studys_own_record_is_left_as_it_was(trained: Trained, finished: Any) -> None:
    of_study = trained.root / "tiny" / "journal.jsonl"
    assert of_study.read_bytes() == finished.folder.journal.read_bytes()


@pytest.mark.slow
def test_killed_after_every_line_that_tells_something_new_it_comes_out_the_same(
    trained: Trained, tmp_path: Path, commands: Any
) -> None:
    folder = only_opened(trained.root, trained.folder, tmp_path / "root")
    argv = ("best", "--patches", PATCHES, "--root", folder.root, "--data", trained.data, "--tracking-uri", "none")
    deaths = 0
    for kinds in (("SessionStarted",), ("Proposed",), ("Started",)):
        died = commands.run("study.train", *argv, first=KILLED_AFTER.format(kinds=kinds))
        assert died.status == -signal.SIGKILL, kinds
    new = ("Validated", "Checkpointed", "Finished", "Concluded", "SessionEnded")
    while commands.run("study.train", *argv, first=KILLED_AFTER.format(kinds=new)).status == -signal.SIGKILL:
        deaths += 1
        assert deaths < 50, "a session that is killed makes no progress"
    state = fold(read(folder.journal))
    assert state.complete and outcome(state) == outcome(trained.state)
    told = [type(event).__name__ for event in read(folder.journal)]
    assert told.count("Proposed") == told.count("Finished") == told.count("Concluded") == 1
    assert told.count("Validated") == 8 and deaths == 8 + 7 + 3
    for name in ("weights.safetensors", "config.json"):
        mine, theirs = (f.trial(trained.number) / name for f in (folder, trained.folder))
        assert mine.read_bytes() == theirs.read_bytes()
    assert not list(folder.path.rglob("*checkpoint*"))


def test_asked_to_stop_it_names_the_command_that_continues_this_trial_even_if_another_one_wins(
    trained: Trained, finished_copy: Any, commands: Any, wait_until: Any
) -> None:
    argv = ("best", "--patches", 240 * 20, "--root", finished_copy.root, "--tracking-uri", "none")
    process = commands.start("study.train", *argv)
    wait_until(lambda: process.out.count("validated") >= 2)
    process.kill(signal.SIGTERM)
    ended = process.wait()
    assert ended.status == 75
    assert ended.err.splitlines()[-1] == "terminated; the same command continues from here"
    assert ended.last_line.startswith(f"next: python -m study.train {trained.number} --patches 4800 ")


def test_typed_again_it_trains_nothing_and_prints_the_same(trained: Trained, commands: Any) -> None:
    before = trained.folder.journal.read_bytes()
    argv = ("best", "--patches", PATCHES, "--root", trained.root, "--data", trained.data)
    again = commands.run("study.train", *argv)
    assert (again.status, again.err) == (0, "")
    assert again.out == trained.ended[1][trained.ended[1].index(f"trial {trained.number} of tiny:") :]
    assert trained.folder.journal.read_bytes() == before


def test_status_shows_the_training_under_its_study(trained: Trained, commands: Any) -> None:
    text, plain = (commands.run("study.status", "--root", trained.root, *flags).out for flags in ((), ("--json",)))
    assert f"training {trained.folder.training}: complete, 480 patches, {trained.trial.score:.3f} dB" in text
    (found,) = json.loads(plain)["trainings"]
    assert (found["training"], found["phase"], found["patches"]) == (trained.folder.training, "complete", PATCHES)
    assert found["budget_patches"] == PATCHES


# MLflow


def runs_of(root: Path) -> tuple[Any, dict[tuple[str, str], Any]]:
    """A client, and every run of the study by role and trial."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    found = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        key = run.data.tags["study.role"], run.data.tags.get("study.trial", "")
        assert key not in found, f"{key} is doubled"
        found[key] = run
    return client, found


def check_mlflow(trained: Trained, root: Path) -> None:
    """One run has all of the training, and the three runs name each other."""
    client, runs = runs_of(root)
    run = runs["training", str(trained.number)]
    of_trial, of_study = runs[trained_role(runs, trained.number), str(trained.number)], runs["study", ""]
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == run.data.tags["study.trial_run"] == of_trial.info.run_id
    assert run.data.tags["study.study_run"] == of_study.info.run_id
    for other in (of_trial, of_study):
        assert other.data.tags[f"study.training.{trained.folder.training}"] == run.info.run_id
    dotted = trained.trial.config.dotted()
    assert {name: run.data.params[name] for name in dotted} == {name: str(value) for name, value in dotted.items()}
    for key in ("val/psnr", "val/ssim"):
        points = client.get_metric_history(run.info.run_id, key)
        assert [(p.step, p.value) for p in points] == [(p.patches, p.scores[key]) for p in trained.trial.curve]
    assert trained.state.concluded is not None
    for key, value in trained.state.concluded.scores.items():
        assert [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)] == [(PATCHES, value)]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    files |= {file.path for file in client.list_artifacts(run.info.run_id, "results")}
    assert {"weights.safetensors", "config.json", "results/curves.png", "results/comparison.png"} <= files


def trained_role(runs: dict[tuple[str, str], Any], number: int) -> str:
    return next(role for role, trial in runs if trial == str(number) and role != "training")


def test_mlflow_has_it_as_a_run_of_its_own_linked_with_its_trial_and_study(trained: Trained, tmp_path: Path) -> None:
    check_mlflow(trained, trained.root)
    client, runs = runs_of(trained.root)
    path = client.download_artifacts(runs["training", str(trained.number)].info.run_id, "weights.safetensors", tmp_path)
    assert Path(path).read_bytes() == (trained.folder.trial(trained.number) / "weights.safetensors").read_bytes()


@pytest.mark.slow
def test_a_deleted_store_is_rebuilt_with_the_training_in_it(trained: Trained, commands: Any, tmp_path: Path) -> None:
    root = shutil.copytree(trained.root, tmp_path / "root")
    (root / "mlflow.db").unlink()
    shutil.rmtree(root / "artifacts")
    said = commands.run("study.sync", "--root", root)
    assert (said.status, said.err) == (0, "")
    assert f"mlflow, training {trained.folder.training}: " in said.out
    check_mlflow(trained, root)
    assert "was up to date" in commands.run("study.sync", "--root", root).out
    check_mlflow(trained, root)


@pytest.mark.slow
def test_where_mlflow_lacks_the_study_it_comes_with_its_training(
    trained: Trained, tmp_path: Path, commands: Any
) -> None:
    root = shutil.copytree(trained.root, tmp_path / "root")
    (root / "mlflow.db").unlink()
    shutil.rmtree(root / "artifacts")
    argv = ("best", "--patches", PATCHES, "--root", root, "--data", trained.data)
    assert commands.run("study.train", *argv).status == 0
    check_mlflow(trained, root)


@pytest.mark.slow
def test_killed_while_mlflow_is_written_and_resumed_it_is_one_run(
    trained: Trained, finished_copy: Any, commands: Any, wait_until: Any
) -> None:
    argv = ("best", "--patches", PATCHES, "--root", finished_copy.root, "--data", trained.data)
    slow = (
        "import time, study.session.session as s\n"
        "s.conclude = lambda *_, **__: print('now', flush=True) or time.sleep(60)"
    )
    process = commands.start("study.train", *argv, first=slow)

    def shown() -> bool:
        return "now" in process.out and ("training", str(trained.number)) in runs_of(finished_copy.root)[1]

    wait_until(shown)
    process.kill()
    assert process.wait().status == -signal.SIGKILL
    assert commands.run("study.train", *argv).status == 0
    check_mlflow(trained, finished_copy.root)


def test_its_run_cannot_be_taken_for_its_trials(trained: Trained, commands: Any) -> None:
    _, runs = runs_of(trained.root)
    run = runs["training", str(trained.number)].info.run_id
    refused = commands.run("study.reproduce", run, "--root", trained.root)
    assert refused.status == 2
    assert f"is a longer training; reproduce its trial by its number, {trained.number}" in refused.err


# Transfer


@dataclass(frozen=True)
class TimesFour:
    """A finished study at x4 of the same tiny network."""

    root: Path
    data: Path


@pytest.fixture
def times_four(_workshop: Path, tiny: Any, commands: Any) -> TimesFour:
    made = TimesFour(_workshop / "x4", _workshop / "larger")
    if not made.root.exists():
        for path in sorted(tiny.data.rglob("*.png")):
            target = made.data / path.relative_to(tiny.data)
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.resize((160, 128 + 16 * int(path.stem[-1])), Image.Resampling.BICUBIC).save(target)
        experiment = _workshop / "tiny4.py"
        experiment.write_text(tiny.experiment.read_text().replace("scale=2", "scale=4"))
        argv = ("--experiment", experiment, "--data", made.data, "--root", made.root, "--trials", 3)
        ended = commands.run("study.run", *argv, "--tracking-uri", "none", "--storage", "none")
        assert (ended.status, ended.err) == (0, "")
    return made


@pytest.mark.slow
def test_x4_starts_from_x2_weights_where_names_and_shapes_fit_and_says_what_is_fresh(
    times_four: TimesFour, finished: Any, commands: Any, tmp_path: Path
) -> None:
    from sr_core.model.initial import initialise
    from sr_core.model.network import A2N
    from sr_core.model.weights import read_weights

    root = shutil.copytree(times_four.root, tmp_path / "root")
    source = finished.folder.results / "best" / "weights.safetensors"
    argv = (2, "--patches", 120, "--root", root, "--transfer-from", source, "--tracking-uri", "none")
    for kinds in (("StudyOpened",), ("Proposed",), ("Checkpointed",)):
        died = commands.run("study.train", *argv, first=KILLED_AFTER.format(kinds=kinds))
        assert died.status == -signal.SIGKILL, kinds
    ended = commands.run("study.train", *argv)
    assert (ended.status, ended.err) == (0, "")
    (folder,) = StudyFolder(root, "tiny4").trainings()
    (trial,) = fold(read(folder.journal)).trials.values()
    given, _ = read_weights(source)
    used, _ = read_weights(folder.trial(2) / "initial.safetensors")
    own = A2N(trial.config.model, 4)
    initialise(own, trial.config.seed)
    fresh = [name for name in used if name not in given or given[name].shape != used[name].shape]
    assert 0 < len(fresh) < len(used)
    for name, tensor in used.items():
        assert torch.equal(tensor, own.state_dict()[name] if name in fresh else given[name]), name
    modules = dict.fromkeys(name.rpartition(".")[0] for name in own.state_dict() if name in fresh)
    said = f"transferred from {source}: {len(used) - len(fresh)} of {len(used)} tensors, "
    share = 1 - sum(used[name].numel() for name in fresh) / sum(tensor.numel() for tensor in used.values())
    assert f"{said}{share:.1%} of the weights; newly initialised: {', '.join(modules)}\n" in ended.out

    other = only_opened(root, folder, tmp_path / "uninterrupted")
    again = other.root
    argv = ("2", "--patches", 120, "--root", again, "--transfer-from", source, "--tracking-uri", "none")
    assert commands.run("study.train", *argv).status == 0
    assert outcome(fold(read(other.journal))) == outcome(fold(read(folder.journal)))
    from_seed = commands.run("study.train", 2, "--patches", 120, "--root", again, "--tracking-uri", "none")
    assert from_seed.status == 0
    plain = StudyFolder(again, "tiny4", "0002-120")
    assert outcome(fold(read(plain.journal)))[1] != outcome(fold(read(other.journal)))[1], "it was of no effect"


# What is refused


def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(
    finished: Any, tiny: Any, commands: Any, tmp_path: Path
) -> None:
    from sr_core.config import ModelConfig
    from sr_core.model.network import A2N
    from sr_core.training.checkpoint import save_weights

    wide = tmp_path / "weights.safetensors"
    save_weights(wide, A2N(ModelConfig(n_feats=12, upsampler_feats=10, n_blocks=1), 2))
    (tmp_path / "config.json").write_text("{}")
    others = tmp_path / "others"
    shutil.copytree(tiny.data, others)
    (others / "train" / "train0.png").unlink()
    for argv, message in (
        (("99", "--patches", 480), "study 'tiny' has no trial 99: expected best, or 0 to 6"),
        (
            ("best", "--patches", 479),
            "train.budget_patches is 479 patches: expected a multiple of evaluation.every_patches (60)",
        ),
        (("best", "--patches", 480, "--transfer-from", tmp_path / "gone.pt"), "no such weights file"),
        (("best", "--patches", 480, "--transfer-from", wide), f"{wide}: only "),
        (("best", "--patches", 480, "--data", others), "these are not the images of study 'tiny'"),
        (("best", "--patches", 480, "--slots", 2), "a training uses one slot, got 2"),
        (("best", "--patches", 480, "--gpus", "99"), "--gpus 99: CUDA finds none of them"),
        (("best", "--patches", 480, "--study-name", "other"), "no study 'other'"),
    ):
        refused = commands.run("study.train", *argv, "--root", finished.root)
        assert (refused.status, refused.err.count("\n")) == (2, 1), (argv, refused.err)
        assert message in refused.err
    assert not (finished.folder.path / "trainings").exists()
