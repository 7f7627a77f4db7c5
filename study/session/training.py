"""A longer training of one trial's configuration, run as a study with a single trial and a journal of its own.

Its folder is `trainings/TRIAL-PATCHES` in the study's folder, so that the study itself can continue meanwhile. A
training is resumed and recorded like a search. This module holds only what differs.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sr_core.errors import CheckpointError, SuiteError
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.published import RELEASED_INPUT_RANGE
from sr_core.model.weights import read_weights, transfer
from sr_core.process.cli import say_note
from sr_core.store.manifest import fingerprint
from sr_core.store.sources import present_benchmarks
from sr_core.training.checkpoint import digest_of, save_weights, weights_of
from study.commandline import typed
from study.executors.placement import Placement
from study.executors.trial import INITIAL_WEIGHTS
from study.question.config import TrialConfig
from study.question.experiment import Experiment
from study.record.events import Failed, Proposed, StudyOpened, max_bicubic_psnr
from study.record.folder import StudyFolder
from study.record.journal import read, study_id
from study.record.state import StudyState, TrialState, fold
from study.record.wall_time import WallTime
from study.screen import terminal
from study.session.coordinator import Coordinator
from study.session.opening import ScannedImages
from study.session.options import RunOptions
from study.session.session import Session

_MIN_TRANSFERRED_SHARE = 0.01
"""Smallest fraction of a network's weights that a transfer must fill."""


@dataclass(frozen=True, slots=True)
class Start:
    """The network that a training starts from, partly filled with transferred weights."""

    model: A2N
    digest: str
    """Digest of all tensors of the network."""
    origin: Path
    """File of the transferred weights."""
    taken: tuple[str, ...]
    """Names of the tensors that come from the file."""
    fresh: tuple[str, ...]
    """Names of the tensors that are initialised from the trial's seed."""
    input_range: int | None
    """Input range that the transferred weights were trained with: 1 or 255; None if the file does not say."""

    @property
    def share(self) -> float:
        """The fraction of the network's weights that come from the file, in [0, 1]."""
        sizes: dict[str, int] = {name: tensor.numel() for name, tensor in self.model.state_dict().items()}
        return sum(sizes[name] for name in self.taken) / sum(sizes.values())

    def lines(self, config: TrialConfig) -> list[str]:
        """Lines that say which weights were transferred, and a warning if the input range differs."""
        modules = dict.fromkeys(name.rpartition(".")[0] for name in self.fresh)
        fresh = f"newly initialised: {', '.join(modules)}" if modules else "nothing newly initialised"
        tensors = f"{len(self.taken)} of {len(self.taken) + len(self.fresh)} tensors"
        lines = [f"transferred from {self.origin}: {tensors}, {self.share:.1%} of the weights; {fresh}"]
        if self.input_range not in (None, config.model.input_range):
            lines.append(
                f"warning: those weights were trained with inputs in 0..{self.input_range}, this trial has "
                f"model.input_range {config.model.input_range}"
            )
        return lines


def start_from(path: Path, config: TrialConfig) -> Start:
    """The network initialised from the trial's seed, then filled with the file's tensors of equal name and shape.

    Args:
        path: weights file of an A2N, of any scale.
        config: configuration of the network to start.
    Raises:
        CheckpointError: the file cannot be read, or fewer than 1 % of the network's weights fit.
    """
    tensors, description = read_weights(path, note=say_note)
    model = A2N(config.model, config.data.scale)
    initialise(model, config.seed)
    try:
        report = transfer(model, tensors)
    except CheckpointError as exc:
        raise CheckpointError(f"{path}: {exc}") from exc
    if description is None:
        input_range = RELEASED_INPUT_RANGE
    else:
        input_range = description.get("model", {}).get("input_range")
    start = Start(model, digest_of(weights_of(model)), path, report.taken, report.fresh, input_range)
    if start.share < _MIN_TRANSFERRED_SHARE:  # the three biases of the last convolution fit any A2N
        raise CheckpointError(
            f"{path}: only {', '.join(start.taken[:3])} fit this network, {start.share:.2%} of its weights; start from "
            "weights of an A2N of the same width"
        )
    return start


@dataclass(frozen=True, kw_only=True)
class Training(Experiment):
    """An experiment with a single configuration: how good does it get with a larger budget?"""

    of: dict[str, Any] = field(default_factory=dict)
    """The study's identity, the trial, its config hash, and the weights that it starts from."""

    def describe(self) -> dict[str, Any]:
        """Everything that the result depends on, including the origin of the configuration and weights."""
        return super().describe() | {"training": self.of}


@dataclass(frozen=True, kw_only=True, slots=True)
class LongerTraining:
    """The goal of `study.train`: train one configuration with a larger budget."""

    study: StudyOpened
    """The study that the configuration comes from."""
    trial: TrialState
    """The trial of that study."""
    config: TrialConfig
    """The trial's configuration with the larger budget."""
    start: Start | None
    """The network to start from; None starts from the trial's seed."""

    def introduction(self) -> list[str]:
        """Lines that say which weights are transferred."""
        return [] if self.start is None else self.start.lines(self.config)

    def check_images(self, scanned: ScannedImages, folder: StudyFolder) -> None:
        """Check that the images are the study's.

        Raises:
            SuiteError: they differ.
        """
        if fingerprint(scanned.manifest) != self.study.data["fingerprint"]:
            raise SuiteError(
                f"{scanned.images.origin}: these are not the images of study {folder.study!r} "
                f"({self.study.data['origin']}); pass their folder with --data DIR"
            )

    def max_bicubic_psnr(self, experiment: Experiment) -> float | None:
        """The study's bound [dB], so that the training is scored on the same crops."""
        return max_bicubic_psnr(self.study)

    def begin(self, coordinator: Coordinator, folder: StudyFolder) -> None:
        """Record the single trial, unless it is recorded already, and save the weights that it starts from."""
        number = self.trial.number
        if not coordinator.state.trials:
            coordinator.record(
                Proposed(
                    time=time.time(),
                    trial=number,
                    role="training",
                    name="",
                    config=self.config.to_json(),
                    config_hash=self.config.digest(),
                    values=self.trial.proposed.values,
                    initial=self.start.digest if self.start else "",
                )
            )
        if self.start and not coordinator.state.trials[number].ended:
            trial_folder = folder.trial(number)
            trial_folder.mkdir(parents=True, exist_ok=True)
            save_weights(trial_folder / INITIAL_WEIGHTS, self.start.model)

    def result(self, out: Console, state: StudyState, folder: StudyFolder) -> list[str]:
        """Sentences with the score, compared with the trial's score in the study and with bicubic."""
        now = state.trials.get(self.trial.number)
        if now is None or now.score is None:
            return []

        then = self.trial
        bicubic = self.study.data["baseline"]["val/psnr"]
        before = "" if then.score is None else f" (in the study {then.score:.3f} dB after {then.patches})"
        line = f"trial {now.number} of {folder.study}: {now.score:.3f} dB after {now.patches} patches{before}, "
        notes = state.concluded.notes if state.concluded is not None else ()
        warnings = [note for note in notes if note.startswith("warning: ")]
        return [
            f"{line}{now.score - bicubic:+.3f} dB against bicubic",
            *terminal.on_whole_images(state),
            *warnings,
        ]

    def failure(self, state: StudyState, folder: StudyFolder) -> str | None:
        """An error line with the cause if the training failed; else None."""
        trial = state.trials.get(self.trial.number)
        if trial is None or not isinstance(trial.end, Failed):
            return None
        return f"error: the training failed ({trial.end.cause}): {trial.end.reason}; to retry it, delete {folder.path}"

    def next_command(self, state: StudyState, study_flags: str) -> str:
        """The UI if the training is complete, else the same command with the trial's number for `best`."""
        if state.complete:
            return f"python -m study.ui{study_flags}"
        arguments = [str(self.trial.number) if argument == "best" else argument for argument in sys.argv[1:]]
        return f"python -m study.train{typed(arguments)}"


def training_session(
    study: StudyFolder,
    which: str,
    *,
    patches: int,
    transfer_from: Path | None,
    options: RunOptions,
    placement: Placement,
    wall_time: WallTime,
) -> Session:
    """The session of a longer training.

    Args:
        which: `best`, or a trial's number.
        patches: training budget.
        transfer_from: file of the weights to start from; None starts from the trial's seed.
        options: as given; the seed, and whether leaks are allowed, are then taken from the study.
    Raises:
        SuiteError: the trial, its images or the weights are missing, or the budget is illegal.
    """
    state = fold(read(study.journal))
    trial = _trial(state, which, study.study)
    opened = state.opened
    assert opened is not None
    config = trial.config.with_values({"train.budget_patches": patches})
    start = start_from(transfer_from, config) if transfer_from else None
    data = _images(opened, options.data, study.study)
    origin = f", starting from {start.origin.name}" if start else ""
    training = Training(
        question=f"How far does trial {trial.number} of study {study.study} get with {patches} patches{origin}?",
        base=config,
        scheduler="none",
        replicates=0,
        benchmarks=_benchmarks(opened.question["benchmarks"], data),
        of={
            "study": study_id(opened),
            "trial": trial.number,
            "config_hash": trial.proposed.config_hash,
            "start": start.digest if start else "",
            "taken": len(start.taken) if start else 0,
            "fresh": list(start.fresh) if start else [],
        },
    )
    name = f"{trial.number:04d}-{patches}"
    if start is not None:
        name += f"-from-{start.digest[:8]}"
    return Session(
        name=opened.experiment,
        experiment=training,
        options=replace(options, seed=opened.seed, data=data, allow_leak=bool(opened.data.get("leaks"))),
        folder=replace(study, training=name),
        placement=placement,
        wall_time=wall_time,
        goal=LongerTraining(study=opened, trial=trial, config=config, start=start),
    )


def _trial(state: StudyState, which: str, study: str) -> TrialState:
    """The trial that `best` or a number names.

    Raises:
        SuiteError: there is no such trial.
    """
    if which == "best":
        best = state.best()
        if best is None:
            raise SuiteError(f"study {study!r} has no finished trial yet; name a trial by its number, or run the study")
        return best
    if int(which) not in state.trials:
        raise SuiteError(f"study {study!r} has no trial {which}: expected best, or 0 to {len(state.trials) - 1}")
    return state.trials[int(which)]


def _images(opened: StudyOpened, data: Path | None, study: str) -> Path | None:
    """The folder of the study's images, from --data or the record; None for the photographs in scikit-image's wheel.

    Raises:
        SuiteError: the recorded folder is missing, or --data was given for a study on scikit-image's photographs.
    """
    recorded = opened.data["folder"]
    if recorded is None:
        if data is not None:
            raise SuiteError(f"study {study!r} was run on the images of {opened.data['origin']}; leave out --data")
        return None
    if data is None and not Path(recorded).is_dir():
        raise SuiteError(f"{recorded}: the images of study {study!r} are missing; pass their folder with --data DIR")
    return data or Path(recorded)


def _benchmarks(of_study: Sequence[str], data: Path | None) -> tuple[str, ...]:
    """The study's benchmarks, then the other benchmarks in the folder of its images."""
    present = present_benchmarks(data) if data is not None and data.is_dir() else ()
    return tuple(dict.fromkeys([*of_study, *present]))
