"""A small recorded study, made by hand: what happened is known, and no network was trained."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.quickstart import EXPERIMENT
from study.executors import trained
from study.question.config import TrialConfig, short_digest
from study.question.experiment import Experiment
from study.record import events as ev
from study.record.folder import StudyFolder
from study.record.images import image_file
from study.record.journal import Journal
from study.record.state import StudyState
from study.search.replicates import trial_seed

BASELINE = 28.0
"""Of bicubic, in dB."""
OPENED_AT = 1_700_000_000.0


class Story:
    """Writes a study event by event, one second apart."""

    def __init__(self, folder: StudyFolder, *, points: int = 4, scores: int = 2) -> None:
        folder.create()
        self.folder = folder
        self.points, self.scores = points, scores
        self.state = StudyState()
        self.now = OPENED_AT
        self._journal = Journal(folder.journal)

    def tell(self, kind: type[ev.Event], **values: Any) -> None:
        self.now += 1
        event = kind(time=self.now, **values)
        self._journal.append(event)
        self.state = self.state.apply(event)

    def close(self) -> None:
        self._journal.close()

    def carry_to(self, root: Path) -> None:
        """Move everything to another root, and go on there."""
        self.close()
        shutil.move(self.folder.root, root)
        self.folder = StudyFolder(root, self.folder.study)
        self._journal = Journal(self.folder.journal)

    def open(self) -> None:
        question = EXPERIMENT.describe() | {"seed": 1, "data": {"fingerprint": "cafe"}}
        self.tell(
            ev.StudyOpened,
            format=ev.FORMAT,
            study=self.folder.study,
            experiment="quickstart",
            seed=1,
            question=question,
            digest=short_digest(question),
            text="Which one?",
            runtime={"threads": 1, "device": "cpu"},
            data={
                "origin": "nowhere",
                "folder": None,
                "fingerprint": "cafe",
                "pictures": [["train", "a", "1"], ["train", "b", "2"], ["valid", "c", "3"]],
                "baseline": {"val/psnr": BASELINE, "val/ssim": 0.8},
            },
        )

    def session(self, trials: int, epoch: int = 1) -> None:
        provenance = {
            "source": "feed",
            "git": {"commit": "0" * 40, "dirty": False},
            "versions": {"torch": "2.13.0"},
            "packages": ["h5py==3.0.1", "torch==2.13.0+cpu"],
        }
        self.tell(ev.SessionStarted, epoch=epoch, host="here", pid=1, trials=trials, provenance=provenance)

    def end_session(self, reason: str, epoch: int = 1) -> None:
        self.tell(ev.SessionEnded, epoch=epoch, reason=reason)

    def propose(self, reference: str = "", **values: Any) -> int:
        number = len(self.state.trials)
        base: TrialConfig = EXPERIMENT.references[reference] if reference else EXPERIMENT.base
        config = replace(base.with_values({k.replace("__", "."): v for k, v in values.items()}), seed=99)
        self.tell(
            ev.Proposed,
            trial=number,
            role="reference" if reference else "search",
            name=reference,
            config=config.to_json(),
            config_hash=config.digest(),
            values={} if reference else {k: v for k, v in config.dotted().items() if k in EXPERIMENT.space.names},
        )
        return number

    def start(self, number: int, patches: int = 0) -> None:
        self.tell(ev.Started, trial=number, slot=0, epoch=1, patches=patches, source="feed", hardware="a fast one")

        if not patches:
            self.image(number, 0)

    def image(self, number: int, patches: int) -> None:
        path = image_file(self.folder.trial(number), patches)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, patches % 256, 0)).save(path)

    def progress(self, number: int, patches: int, psnr: float) -> None:
        more = {f"val/more{i}": psnr + i for i in range(self.scores - 2)}
        scores = {"val/psnr": psnr, "val/ssim": 0.8} | more
        self.image(number, patches)
        rest = {"loss": 1 / patches, "learning_rate": 1e-3, "load": {"memory_usage_megabytes": 500.0}}
        self.tell(ev.Validated, trial=number, patches=patches, scores=scores, **rest)

    def train(self, number: int, psnr: float, points: int | None = None) -> int:
        """Patches after a start and some validations, each with its checkpoint; the last one scores `psnr`."""
        self.start(number)
        count = self.points if points is None else points
        for i in range(1, count + 1):
            self.progress(number, 480 * i, psnr - 0.1 * (count - i))
            self.tell(ev.Checkpointed, trial=number, patches=480 * i)
        return 480 * count

    def finish(self, number: int, psnr: float) -> None:
        patches = self.train(number, psnr)
        weights = self.folder.trial(number) / "weights.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_bytes(b"weights of %d" % number)
        self.tell(
            ev.Finished,
            trial=number,
            patches=patches,
            scores={"val/psnr": psnr},
            per_image=(("a", psnr, 0.8),),
            weights="beef",
            seconds={"train": 3.0, "validate": 1.0},
        )

    def prune(self, number: int, psnr: float) -> None:
        patches = self.train(number, psnr, points=2)
        self.tell(ev.Pruned, trial=number, patches=patches, reason="not among the best")

    def fail(self, number: int) -> None:
        self.start(number)
        self.tell(ev.Failed, trial=number, cause="bug", reason="KeyError: 'x'", traceback="Traceback: here")

    def conclude(self) -> None:
        best = self.state.best()
        assert best is not None
        for name in ("results/ranking.csv", "results/best/config.json"):
            path = self.folder.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        self.tell(
            ev.Concluded,
            best=best.number,
            counted=self.state.counted,
            scores={"valid/psnr": 30.0, "valid/psnr_bicubic": 28.5},
            per_image=(("valid", "a", 30.0, 0.9),),
            files=("results/ranking.csv", "results/best/config.json"),
        )

    def whole(self) -> "Story":
        """A reference, and trials that finished, were pruned and failed; complete."""
        self.open()
        self.session(trials=4)
        self.finish(self.propose("authors"), 29.0)
        self.finish(self.propose(model__temperature=0.3), 30.0)
        self.prune(self.propose(model__reduction=8), 28.5)
        self.fail(self.propose(train__loss="l2"))
        self.finish(self.propose(train__batch_size=32, train__learning_rate=4e-3), 29.5)
        self.conclude()
        self.end_session("complete")
        return self


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without studies, to be copied. It is made once, because MLflow takes seconds for it."""
    from study.tracking.mlflow.store import prepare_mlflow_store

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare_mlflow_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Story]]:
    """Makes an empty study under tmp_path, to be told: story() or story("name", points=100, scores=6).

    The weights of a story are a few words, and no digest of them is recorded.
    """
    monkeypatch.setattr(trained, "trained_network", lambda folder, trial: None)
    made: list[Story] = []

    def make(name: str = "small", **shape: int) -> Story:
        made.append(Story(StudyFolder(tmp_path / "root", name), **shape))
        return made[-1]

    yield make
    for one in made:
        one.close()


class History:
    """What happened in a study, event by event, in memory: scores are given, nothing is trained or written."""

    def __init__(self, experiment: Experiment, *, seed: int = 1) -> None:
        self.experiment = experiment
        self.events: list[ev.Event] = []
        self.state = StudyState()
        question = experiment.describe() | {"seed": seed, "data": {"fingerprint": "cafe"}}
        self.tell(
            ev.StudyOpened,
            format=ev.FORMAT,
            study="small",
            experiment="small",
            seed=seed,
            question=question,
            digest=short_digest(question),
            text=experiment.question,
            runtime={},
            data={"baseline": {"val/psnr": BASELINE, "val/ssim": 0.8}, "crops": {"count": 6, "pictures": 3}},
        )

    def tell(self, kind: type[ev.Event], **values: Any) -> None:
        event = kind(time=OPENED_AT + len(self.events), **values)
        self.events.append(event)
        self.state = self.state.apply(event)

    def session(self, trials: int = 50, epoch: int = 1) -> None:
        self.tell(ev.SessionStarted, epoch=epoch, host="here", pid=1, trials=trials, provenance={})

    def propose(self, values: Mapping[str, Any] | None = None, *, reference: str = "") -> int:
        number = len(self.state.trials)
        config = self.experiment.references[reference] if reference else self.experiment.base.with_values(values or {})
        config = replace(config, seed=99)
        self.tell(
            ev.Proposed,
            trial=number,
            role="reference" if reference else "search",
            name=reference,
            config=config.to_json(),
            config_hash=config.digest(),
            values=dict(values or {}),
        )
        return number

    def start(self, number: int, patches: int = 0) -> None:
        self.tell(ev.Started, trial=number, slot=0, epoch=1, patches=patches, source="feed")

    def validate(self, number: int, *psnrs: float) -> None:
        """Its next validations, one a score."""
        every = self.experiment.base.evaluation.every_patches
        for psnr in psnrs:
            patches = self.state.trials[number].patches + every
            scores = {"val/psnr": psnr, "val/ssim": 0.8}
            self.tell(ev.Validated, trial=number, patches=patches, scores=scores, loss=1.0, learning_rate=1e-3)

    def pause(self, number: int) -> None:
        self.tell(ev.Paused, trial=number, patches=self.state.trials[number].patches)

    def resume(self, number: int) -> None:
        patches = self.state.trials[number].patches
        self.tell(ev.Resumed, trial=number, patches=patches)
        self.start(number, patches)

    def end(self, number: int, how: str = "finished", cause: str = "diverged") -> None:
        trial = self.state.trials[number]
        match how:
            case "finished":
                scores = trial.curve[-1].scores
                crops = (("crop", trial.score, 0.8),)
                rest = {"scores": scores, "per_image": crops, "weights": "beef", "seconds": {}}
                self.tell(ev.Finished, trial=number, patches=trial.patches, **rest)
            case "pruned":
                self.tell(ev.Pruned, trial=number, patches=trial.patches, reason="others stood better")
            case "failed":
                self.tell(ev.Failed, trial=number, cause=cause, reason="no luck")
            case _:
                raise ValueError(how)

    def replicate(self, due: Any, score: float | None, crops: Sequence[tuple[str, float]] = ()) -> int:
        """A whole re-training that `study.search.replicates.due` asked for; it fails if the score is None."""
        number = len(self.state.trials)
        config = replace(due.of.config, seed=trial_seed(self.state.opened.seed, due.number))  # type: ignore[union-attr]
        self.tell(
            ev.Proposed,
            trial=number,
            role="replicate",
            name=due.name,
            config=config.to_json(),
            config_hash=config.digest(),
            values=due.of.proposed.values,
            of=due.of.number,
            replicate=due.number,
        )
        self.start(number)
        if score is None:
            self.end(number, "failed")
            return number
        base = self.experiment.base
        self.validate(number, *[score] * (base.train.budget_patches // base.evaluation.every_patches))
        self.tell(
            ev.Finished,
            trial=number,
            patches=base.train.budget_patches,
            scores=self.state.trials[number].curve[-1].scores,
            per_image=tuple((name, psnr, 0.8) for name, psnr in crops or [("crop", score)]),
            weights="beef",
            seconds={},
        )
        return number

    def try_out(self, values: Mapping[str, Any], psnr: float, how: str = "finished") -> int:
        """A whole trial: to the first rung if it is pruned, to no validation if it fails, else to the budget."""
        number = self.propose(values)
        self.start(number)
        base = self.experiment.base
        last = {"finished": base.train.budget_patches, "pruned": self.experiment.rungs[0], "failed": 0}[how]
        self.validate(number, *[psnr] * (last // base.evaluation.every_patches))
        self.end(number, how)
        return number


@pytest.fixture(scope="session")
def history() -> type[History]:
    """Makes a study in memory, to be told: history(experiment)."""
    return History


TINY_EXPERIMENT = '''
"""A question that trains in a fraction of a second a trial."""

from experiments.literature import references
from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.search.replicates import trial_seed
from study.question.space import Choice, Grid, Together

BASE = TrialConfig(
    model=ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=1, temperature=1.0),
    data=DataConfig(scale=2, lr_patch_size=8, subimage_window=48, subimage_step=24),
    train=TrainConfig(budget_patches=240, batch_size=4, learning_rate=2e-3, ema_horizon_patches=40.0),
    evaluation=EvaluationConfig(every_patches=60, crops=4, lr_crop_size=24),
    seed=1,
)
# The recipes' batches of 32 do not divide this budget: they are written for a longer one, then shortened.
LONGER = BASE.with_values({"train.budget_patches": 960, "evaluation.every_patches": 480})
SHORTER = {"train.batch_size": 4, "train.budget_patches": 240, "evaluation.every_patches": 60}

EXPERIMENT = Experiment(
    question="Which of these lets a tiny A2N learn x2 fastest?",
    base=BASE,
    nuisance={
        "train.loss": Choice("l1", "l2", "charbonnier"),
        Together("train.batch_size", "train.learning_rate"): [(2, 1e-3), (4, 1e-3), (4, 4e-3)],
        "model.temperature": Grid(0.1, 1.0, 10.0),
        "model.input_range": Choice(1, 255),
        "model.reduction": Grid(2, 4, 8),
        "data.train_kernel": Choice("matlab_bicubic", "pillow_bicubic"),
    },
    references={name: config.with_values(SHORTER) for name, config in references(LONGER).items()},
    rungs=(120,),
    reduction_factor=2.0,
    replicates=0,
)
'''


@pytest.fixture
def tiny_experiment_file(tmp_path: Path) -> Path:
    """An experiment of 324 configurations and both recipes: tiny network, 240 patches, rung 120, validation each 60."""
    path = tmp_path / "tiny.py"
    path.write_text(TINY_EXPERIMENT.lstrip(), "utf-8")
    return path


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder for `--data`: five small images in train/, three in valid/, with the spectrum and edges of photos."""
    folder = tmp_path / "pictures"
    for split, count in (("train", 5), ("valid", 3)):
        (folder / split).mkdir(parents=True)
        for i in range(count):
            _image(split == "valid", i).save(folder / split / f"{split}{i}.png")
    return folder


def _image(valid: bool, number: int) -> Image.Image:
    """Grey clouds with amplitude 1/f, tinted, behind a few rectangles: smooth parts, texture, edges."""
    generator = np.random.default_rng([valid, number])
    height, width = 64 + 8 * number, 80
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    noise = np.fft.rfft2(generator.standard_normal((height, width)))
    clouds = np.fft.irfft2(noise / np.maximum(frequency, 1 / width), (height, width))
    clouds = 128 + 40 * (clouds - clouds.mean()) / clouds.std()
    image = clouds[..., None] * generator.uniform(0.7, 1.2, 3)
    for _ in range(6):
        y, x = generator.integers(0, (height - 16, width - 16))
        h, w = generator.integers(6, 28, 2)
        image[y : y + h, x : x + w] += generator.uniform(-70, 70, 3)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))
