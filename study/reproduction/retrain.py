"""Retrains a recorded trial and compares its numbers with the record, point by point."""

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

_MAX_MEAN_ROUNDING_DB = 1e-9
"""Bound in dB on the difference between two ways to compute the same mean."""
TOLERANCES = {OBJECTIVE: 0.25, "val/ssim": 0.005}
"""Largest difference allowed anywhere on the curve if bits cannot be restored, by metric (dB for PSNR).

Three standard deviations of the difference between two seeds. Measurements showed that rounding alone changes a metric
by about as much (docs/concepts/reproduction.md has the figures)."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest difference of one metric between two curves."""

    metric: str
    size: float
    """In the metric's unit."""
    patches: int
    """Training patches at this point of the curve."""

    def __str__(self) -> str:
        unit = " dB" if self.metric.endswith("psnr") else ""
        return f"{self.size:.2g}{unit} of {self.metric} after {self.patches} patches"


@dataclass(slots=True)
class ReproducedTrial:
    """The numbers of the record and of the second training, side by side."""

    points: list[tuple[Validated, Validated | None]] = field(default_factory=list)
    """(then, now) for every validation of the record."""
    finished: tuple[Finished, Finished | None] | None = None
    """(then, now) for the result; None if the recorded trial did not finish."""
    failure: str = ""
    """Why the second training failed; empty if it did not."""

    @property
    def identical(self) -> bool:
        """True if every number is equal to the last bit."""
        same_curve = all(now is not None and then.numbers() == now.numbers() for then, now in self.points)
        return not self.failure and same_curve and not self._different_results()

    def _different_results(self) -> list[str]:
        """The parts of the final result that differ, in words."""
        if self.finished is None:
            return []
        then, now = self.finished
        if now is None:
            return ["result is missing"]
        differs = {
            "weights": then.weights != now.weights,
            "scores": dict(then.scores) != dict(now.scores),
            "scores of single crops": then.per_image != now.per_image,
        }
        parts = [part for part, is_different in differs.items() if is_different]
        return [f"{' and the final '.join(parts)} differ"] if parts else []

    @property
    def whole(self) -> bool:
        """True if the second training came as far as the first."""
        ended = self.finished is None or self.finished[1] is not None
        return ended and not self.failure and all(now is not None for _, now in self.points)

    def largest(self) -> list[Gap]:
        """The largest difference of each metric along the curve, sorted by name. Requires that `whole` is True."""
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
        """True if the second training came as far as the first and every difference is within its tolerance."""
        return self.whole and all(gap.size <= TOLERANCES.get(gap.metric, 0.0) for gap in self.largest())

    def table(self) -> list[str]:
        """Both curves and both digests of the weights as lines of text."""
        lines = [f"{'patches':>8}  {'PSNR then [dB]':>18}  {'PSNR now [dB]':>18}  {'SSIM then':>12}  {'SSIM now':>12}"]
        missing = {"val/psnr": float("nan"), "val/ssim": float("nan")}
        for then, now in self.points:
            old = then.scores
            new = now.scores if now else missing
            lines.append(
                f"{then.patches:>8}  {old['val/psnr']:>18.12f}  {new['val/psnr']:>18.12f}  "
                f"{old['val/ssim']:>12.10f}  {new['val/ssim']:>12.10f}"
            )
        if self.finished is not None:
            recorded, retrained = self.finished
            weights = retrained.weights[:16] if retrained else "none"
            lines.append(f" weights  {recorded.weights[:16]} then, {weights} now")
        return lines

    def first_difference(self) -> str:
        """The first difference between the two trainings, in words; empty if there is none."""
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
        results = self._different_results()
        return f"the curve is equal, but the final {results[0]}" if results else ""


def retrain(
    folder: StudyFolder,
    trial: TrialState,
    store: PatchStore,
    runtime: Runtime,
    watch: Callable[[TrialEvent], None],
    *,
    max_bicubic_psnr: float | None,
) -> ReproducedTrial:
    """Train the trial's config again from scratch, as far as the recorded trial came, and compare both curves.

    Args:
        runtime: the recorded settings, as far as this machine can restore them.
        watch: called with every event of the second training.
        max_bicubic_psnr: the study's bound for validation crops in dB; None if it has none.
    """
    now: dict[int, Validated] = {}
    comparison = ReproducedTrial()
    end: Finished | None = None
    with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
        # A published record is never changed. The root of any other study keeps compiled code for later runs.
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
        context = TrialContext(store, runtime, max_bicubic_psnr=max_bicubic_psnr)
        with needing_gpu(runtime.device), closing(InlineExecutor(context)) as executor:
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
    comparison.points = [(then, now.get(then.patches)) for then in _points_before_the_weights(trial)]
    if isinstance(trial.end, Finished):
        comparison.finished = (trial.end, end)
    return comparison


def _points_before_the_weights(trial: TrialState) -> tuple[Validated, ...]:
    """The points of the curve that belong to the final weights.

    After a resume, the trial's end can repeat the last validation with different bits. It then replaces that point.
    """
    replaced = trial.last_repeated and dict(trial.scores) != dict(trial.curve[-1].scores)
    return trial.curve[:-1] if replaced else trial.curve


def contradictions(trial: TrialState) -> list[str]:
    """Contradictions within the record: between the end of the curve, the result and the scores of single crops."""
    if not isinstance(trial.end, Finished) or not trial.curve:
        return []
    problems = []
    if dict(trial.end.scores) != dict(trial.curve[-1].scores) and not trial.last_repeated:
        problems.append("record: the trial's final scores are not those of its last validation")
    mean = sum(psnr for _, psnr, _ in trial.end.per_image) / max(1, len(trial.end.per_image))
    if abs(mean - trial.end.scores[OBJECTIVE]) > _MAX_MEAN_ROUNDING_DB:
        problems.append(f"record: the final {OBJECTIVE} is not the mean over the single crops")
    return problems


def find_trial(state: StudyState, which: str, study: str) -> TrialState:
    """The trial that `best` or a number names.

    Raises:
        SuiteError: there is no such trial, or it has no validation.
    """
    if which == "best":
        best = state.best()
        if best is None:
            raise SuiteError(
                f"study {study!r} has no finished trial yet that could be the best; continue the study with "
                "python -m study.run, or name a trial by its number"
            )
        return best
    number = int(which)
    if number not in state.trials:
        last = max(state.trials, default=0)
        if len(state.trials) == last + 1:
            numbers = f"0 to {last}"
        else:
            numbers = ", ".join(map(str, state.trials)) or "no other"
        raise SuiteError(f"study {study!r} has no trial {number}: expected best, or {numbers}")
    if not state.trials[number].curve:
        raise SuiteError(f"trial {number} of study {study!r} has no validation to compare with")
    return state.trials[number]
