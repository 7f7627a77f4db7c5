"""A longer training of one trial: a study that asks for a single configuration, with a record of its own.

It lies under its study, in `trainings/TRIAL-PATCHES`, so that the study may go on meanwhile. All that makes a search
resumable and its record trustworthy serves it too; what differs is said here.
"""

import argparse
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
from study.record.ownership import Ownership
from study.record.state import StudyState, TrialState, fold
from study.record.wall_time import WallTime
from study.screen import terminal
from study.session.coordinator import Coordinator
from study.session.opening import ScannedImages
from study.session.session import Session

_LEAST_SHARE = 0.01
"""Of a network's weights that have to fit for a transfer to be one."""


@dataclass(frozen=True, slots=True)
class Start:
    """The network as a training finds it, with what other weights gave it."""

    model: A2N
    digest: str
    """Of all its tensors."""
    origin: Path
    taken: tuple[str, ...]
    """Tensors that came from there."""
    fresh: tuple[str, ...]
    """Tensors that have the first values of the trial's seed."""
    input_range: int | None
    """That those weights learnt with."""

    @property
    def share(self) -> float:
        """Of the network's weights, how many came from there."""
        sizes: dict[str, int] = {name: tensor.numel() for name, tensor in self.model.state_dict().items()}
        return sum(sizes[name] for name in self.taken) / sum(sizes.values())

    def lines(self, config: TrialConfig) -> list[str]:
        """What was carried over and what was not."""
        modules = dict.fromkeys(name.rpartition(".")[0] for name in self.fresh)
        fresh = f"initialised fresh: {', '.join(modules)}" if modules else "nothing initialised fresh"
        tensors = f"{len(self.taken)} of {len(self.taken) + len(self.fresh)} tensors"
        found = [f"carried over from {self.origin}: {tensors}, {self.share:.1%} of the weights; {fresh}"]
        if self.input_range not in (None, config.model.input_range):
            found.append(
                f"warning: those weights learnt with inputs in 0..{self.input_range}, this trial has "
                f"model.input_range {config.model.input_range}"
            )
        return found


def start_from(path: Path, config: TrialConfig) -> Start:
    """The trial's own first weights, overwritten where a tensor of the file has the same name and shape.

    Raises:
        CheckpointError: the file cannot be read, or next to nothing in it fits.
    """
    given, described = read_weights(path, note=say_note)
    model = A2N(config.model, config.data.scale)
    initialise(model, config.seed)
    try:
        report = transfer(model, given)
    except CheckpointError as exc:
        raise CheckpointError(f"{path}: {exc}") from exc
    input_range = RELEASED_INPUT_RANGE if described is None else described.get("model", {}).get("input_range")
    start = Start(model, digest_of(weights_of(model)), path, report.taken, report.fresh, input_range)
    if start.share < _LEAST_SHARE:  # the three biases of the last convolution fit every A2N
        raise CheckpointError(
            f"{path}: only {', '.join(start.taken[:3])} fit this network, {start.share:.2%} of its weights; start from "
            "weights of an A2N of the same width"
        )
    return start


@dataclass(frozen=True, kw_only=True)
class Training(Experiment):
    """The question how far one configuration gets."""

    of: dict[str, Any] = field(default_factory=dict)
    """The study's identity, the trial, its config's hash, and what it starts from."""

    def describe(self) -> dict[str, Any]:
        """What the answer depends on, the origin included."""
        return super().describe() | {"training": self.of}


@dataclass(kw_only=True)
class TrainingSession(Session):
    """A session that trains one trial's configuration."""

    study: StudyOpened
    trial: TrialState
    beginning: Start | None

    def run(self, found: ScannedImages, ownership: Ownership) -> int:
        """As for any study, once said what it starts from."""
        for line in self.beginning.lines(self.experiment.base) if self.beginning else ():
            print(line)
        return super().run(found, ownership)

    def check(self, state: StudyState, seed: int, found: ScannedImages) -> None:
        """As for any study; besides, the images have to be the study's."""
        if fingerprint(found.manifest) != self.study.data["fingerprint"]:
            raise SuiteError(
                f"{found.images.origin}: these are not the images of study {self.folder.study!r} "
                f"({self.study.data['origin']}); give them with --data DIR"
            )
        super().check(state, seed, found)

    def new_bound(self) -> float | None:
        """The study's bound, so that the training is scored on the study's crops."""
        return max_bicubic_psnr(self.study)

    def start(self, coordinator: Coordinator, unmet: list[str]) -> None:
        """Record the one trial, where it is not, and lay ready the weights that it starts from."""
        super().start(coordinator, unmet)
        number, config = self.trial.number, self.experiment.base
        digest = self.beginning.digest if self.beginning else ""
        if not coordinator.state.trials:
            coordinator.record(
                Proposed(
                    time=time.time(),
                    trial=number,
                    role="training",
                    name="",
                    config=config.to_json(),
                    config_hash=config.digest(),
                    values=self.trial.proposed.values,
                    initial=digest,
                )
            )
        if self.beginning and not coordinator.state.trials[number].ended:
            folder = self.folder.trial(number)
            folder.mkdir(parents=True, exist_ok=True)
            save_weights(folder / INITIAL_WEIGHTS, self.beginning.model)

    def result(self, out: Console, state: StudyState) -> list[str]:
        """How far it came, beside the trial and bicubic."""
        now, then = state.trials.get(self.trial.number), self.trial
        if now is None or now.score is None:
            return []
        bicubic = self.study.data["baseline"]["val/psnr"]
        before = "" if then.score is None else f" (in the study {then.score:.3f} dB after {then.patches})"
        line = f"trial {now.number} of {self.folder.study}: {now.score:.3f} dB after {now.patches} patches{before}, "
        notes = state.concluded.notes if state.concluded is not None else ()
        warnings = [note for note in notes if note.startswith("warning: ")]
        return [f"{line}{now.score - bicubic:+.3f} dB against bicubic", *terminal.on_whole_images(state), *warnings]

    def next_command(self, state: StudyState) -> str:
        """The UI; where something is left to train, the same command."""
        if state.complete:
            return f"python -m study.ui{self.where()}"
        given = [str(self.trial.number) if argument == "best" else argument for argument in sys.argv[1:]]
        return f"python -m study.train{typed(given)}"

    def status(self, state: StudyState) -> int:
        """As for any study; says why it failed, if it did."""
        trial = state.trials.get(self.trial.number)
        if trial is not None and isinstance(trial.end, Failed):
            print(
                f"error: the training failed ({trial.end.cause}): {trial.end.reason}; to try again, remove "
                f"{self.folder.path}",
                file=sys.stderr,
            )
        return super().status(state)


def training_session(
    study: StudyFolder, args: argparse.Namespace, placement: Placement, wall_time: WallTime
) -> TrainingSession:
    """The session that the arguments of `study.train` describe.

    Raises:
        SuiteError: the trial, its images or the weights to start from are not there, or the budget is not legal.
    """
    state = fold(read(study.journal))
    opened, trial = state.opened, _trial(state, args.trial, study.study)
    assert opened is not None
    config = trial.config.with_values({"train.budget_patches": args.patches})
    start = start_from(args.transfer_from, config) if args.transfer_from else None
    data = _images(opened, args.data, study.study)
    training = Training(
        question=f"How far does trial {trial.number} of study {study.study} get with {args.patches} patches"
        f"{f', starting from {start.origin.name}' if start else ''}?",
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
    name = f"{trial.number:04d}-{args.patches}" + (f"-from-{start.digest[:8]}" if start else "")
    given = {"trials": 1, "seed": opened.seed, "storage": "none", "allow_leak": bool(opened.data.get("leaks"))}
    return TrainingSession(
        name=opened.experiment,
        experiment=training,
        args=argparse.Namespace(**{**vars(args), **given, "data": data}),
        folder=replace(study, training=name),
        placement=placement,
        wall_time=wall_time,
        study=opened,
        trial=trial,
        beginning=start,
    )


def _trial(state: StudyState, which: str, study: str) -> TrialState:
    if which == "best":
        best = state.best()
        if best is None:
            raise SuiteError(f"study {study!r} has no finished trial yet; give a trial's number, or run it first")
        return best
    if int(which) not in state.trials:
        raise SuiteError(f"study {study!r} has no trial {which}: expected best, or 0 to {len(state.trials) - 1}")
    return state.trials[int(which)]


def _images(opened: StudyOpened, given: Path | None, study: str) -> Path | None:
    """The folder with the study's images; None for those inside scikit-image's wheel."""
    recorded = opened.data["folder"]
    if recorded is None:
        if given is not None:
            raise SuiteError(f"study {study!r} was run on the images of {opened.data['origin']}; leave out --data")
        return None
    if given is None and not Path(recorded).is_dir():
        raise SuiteError(f"{recorded}: the images of study {study!r} are no longer there; give them with --data DIR")
    return given or Path(recorded)


def _benchmarks(asked: Sequence[str], data: Path | None) -> tuple[str, ...]:
    """The test sets of the study, and those that lie beside its images."""
    beside = present_benchmarks(data) if data is not None and data.is_dir() else ()
    return tuple(dict.fromkeys([*asked, *(name for name in beside if name not in asked)]))
