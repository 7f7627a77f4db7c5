"""A second training of a recorded trial, its numbers beside those of the record, point by point."""

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.store.hdf5 import PatchStore
from sr_core.training.compiled import keep_compiled_in
from sr_core.training.memory import needing_gpu
from sr_core.training.runtime import Runtime
from study.executors.inline import InlineExecutor
from study.executors.trial import TrialContext, TrialTask
from study.record import provenance
from study.record.events import Failed, Finished, TrialEvent, Validated
from study.record.folder import StudyFolder
from study.record.state import OBJECTIVE, StudyState, TrialState

_ROUNDING = 1e-9
"""Between two ways to add up a mean, in dB."""
TOLERANCES = {OBJECTIVE: 0.25, "val/ssim": 0.005}
"""How far a metric may move anywhere on the curve where bits cannot be restored: three standard deviations of the
difference of two seeds, for other rounding was measured to do about as much (docs/REPRODUCTION.md has the figures)."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference of one metric between two curves."""

    metric: str
    size: float
    """In the metric's unit."""
    patches: int
    """Where on the curve."""

    def __str__(self) -> str:
        unit = " dB" if self.metric.endswith("psnr") else ""
        return f"{self.size:.2g}{unit} of {self.metric} after {self.patches} patches"


@dataclass(slots=True)
class ReproducedTrial:
    """What a second training gave beside the first."""

    points: list[tuple[Validated, Validated | None]] = field(default_factory=list)
    """(then, now) for every validation of the record."""
    finished: tuple[Finished, Finished | None] | None = None
    failure: str = ""

    @property
    def identical(self) -> bool:
        same_curve = all(now is not None and then.numbers() == now.numbers() for then, now in self.points)
        return not self.failure and same_curve and self._same_end()

    def _same_end(self) -> bool:
        return not self._different_at_the_end()

    def _different_at_the_end(self) -> list[str]:
        """What of the result differs, in words."""
        if self.finished is None:
            return []
        then, now = self.finished
        if now is None:
            return ["result, which is missing"]
        found = {
            "weights": then.weights != now.weights,
            "scores": dict(then.scores) != dict(now.scores),
            "scores of single crops": then.per_image != now.per_image,
        }
        return [what for what, differs in found.items() if differs]

    @property
    def whole(self) -> bool:
        """Whether the second training came as far as the first."""
        ended = self.finished is None or self.finished[1] is not None
        return ended and not self.failure and all(now is not None for _, now in self.points)

    def largest(self) -> list[Gap]:
        """The largest difference of each metric along the curve, by name; every point has to be there."""
        gaps: dict[str, Gap] = {}
        pairs: list[tuple[Validated | Finished, Validated | Finished | None]] = [*self.points]
        pairs += [self.finished] if self.finished else []
        for then, now in pairs:
            assert now is not None
            for metric in then.scores:
                size = abs(then.scores[metric] - now.scores[metric])
                if metric not in gaps or size > gaps[metric].size:
                    gaps[metric] = Gap(metric, size, then.patches)
        return [gaps[metric] for metric in sorted(gaps)]

    @property
    def close(self) -> bool:
        """Whether no difference is larger than other rounding makes."""
        return self.whole and all(gap.size <= TOLERANCES.get(gap.metric, 0.0) for gap in self.largest())

    def table(self) -> list[str]:
        """Both curves and both digests of the weights, line by line."""
        lines = [f"{'patches':>8}  {'PSNR then [dB]':>18}  {'PSNR now [dB]':>18}  {'SSIM then':>12}  {'SSIM now':>12}"]
        nothing = {"val/psnr": float("nan"), "val/ssim": float("nan")}
        for then, now in self.points:
            a, b = then.scores, now.scores if now else nothing
            lines.append(
                f"{then.patches:>8}  {a['val/psnr']:>18.12f}  {b['val/psnr']:>18.12f}  "
                f"{a['val/ssim']:>12.10f}  {b['val/ssim']:>12.10f}"
            )
        if self.finished is not None:
            before, after = self.finished
            lines.append(f" weights  {before.weights[:16]} then, {after.weights[:16] if after else 'none'} now")
        return lines

    def first_difference(self) -> str:
        """Where the two part, in words."""
        if self.failure:
            return self.failure
        for then, now in self.points:
            if now is None:
                return f"no validation after {then.patches} patches"
            if then.numbers() != now.numbers():
                return (
                    f"after {then.patches} patches: {OBJECTIVE} {then.scores[OBJECTIVE]!r} then, "
                    f"{now.scores[OBJECTIVE]!r} now; train/loss {then.loss!r} then, {now.loss!r} now"
                )
        end = self._different_at_the_end()
        return f"the curve is equal, at its end differ the final {', '.join(end)}" if end else ""


def retrain(
    folder: StudyFolder,
    trial: TrialState,
    store: PatchStore,
    runtime: Runtime,
    watch: Callable[[TrialEvent], None],
    *,
    max_bicubic_psnr: float | None,
) -> ReproducedTrial:
    """Train the trial's config again as far as it came, from nothing, and put both curves beside each other.

    Args:
        runtime: settings that this machine can restore.
        max_bicubic_psnr: the study's bound for validation crops.
    """
    now: dict[int, Validated] = {}
    comparison = ReproducedTrial()
    end: Finished | None = None
    with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
        # A published record stays as it is; a study's own root keeps what was compiled for it.
        keep_compiled_in(Path(scratch) if folder.published else folder.root / "compiled")
        task = TrialTask(
            number=trial.number,
            config=trial.config,
            config_hash=trial.proposed.config_hash,
            folder=Path(scratch),
            epoch=0,
            slot=0,
            source=provenance.source_hash(),
            micro_batch_changes=trial.micro_batch_changes,
        )
        bench = TrialContext(store, runtime, max_bicubic_psnr=max_bicubic_psnr)
        with needing_gpu(runtime.device), closing(InlineExecutor(bench)) as executor:
            executor.start(task)
            while (event := executor.next_event()) is not None:
                watch(event)
                match event:
                    case Validated():
                        now[event.patches] = event
                        if trial.status != "finished" and event.patches >= trial.patches:
                            break
                    case Finished():
                        end = event
                    case Failed():
                        comparison.failure = f"{event.cause}: {event.reason}"
    comparison.points = [(then, now.get(then.patches)) for then in _points_of_the_weights(trial)]
    if isinstance(trial.end, Finished):
        comparison.finished = (trial.end, end)
    return comparison


def _points_of_the_weights(trial: TrialState) -> tuple[Validated, ...]:
    """The curve, without its last point if the end repeated that validation with other bits, and so replaced it."""
    replaced = trial.last_repeated and dict(trial.scores) != dict(trial.curve[-1].scores)
    return trial.curve[:-1] if replaced else trial.curve


def contradictions(trial: TrialState) -> list[str]:
    """Numbers of the record that do not agree with each other: the curve's end, the result, the mean over crops."""
    if not isinstance(trial.end, Finished) or not trial.curve:
        return []
    found = []
    if dict(trial.end.scores) != dict(trial.curve[-1].scores) and not trial.last_repeated:
        found.append("record: the trial's final scores are not those of its last validation")
    mean = sum(psnr for _, psnr, _ in trial.end.per_image) / max(1, len(trial.end.per_image))
    if abs(mean - trial.end.scores[OBJECTIVE]) > _ROUNDING:
        found.append(f"record: the final {OBJECTIVE} is not the mean of those of single crops")
    return found


def find_trial(state: StudyState, which: str, study: str) -> TrialState:
    """The trial that `best` or a number names. Raises SuiteError where there is none that was trained."""
    if which == "best":
        best = state.best()
        if best is None:
            raise SuiteError(f"study {study!r} has no finished trial yet that could win; "
                             "go on with python -m study.run, or name a trial by its number")  # fmt: skip
        return best
    number = int(which)
    if number not in state.trials:
        last = max(state.trials, default=0)
        there = f"0 to {last}" if len(state.trials) == last + 1 else ", ".join(map(str, state.trials)) or "no other"
        raise SuiteError(f"study {study!r} has no trial {number}: expected best, or {there}")
    if not state.trials[number].curve:
        raise SuiteError(f"trial {number} of study {study!r} has no validation to compare with")
    return state.trials[number]
