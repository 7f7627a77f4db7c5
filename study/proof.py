"""Whether a trial comes out the same: its inputs against the record, then a second training, point by point."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sr_core.data.manifest import manifest_of
from sr_core.data.sources import embedded_pictures, folder_pictures
from sr_core.data.store import PatchStore, load_store, verify
from sr_core.errors import ConfigError, SuiteError
from sr_core.training.compiled import keep_compiled_in
from sr_core.training.runtime import Runtime
from study import provenance
from study.config import TrialConfig, differences, short_digest
from study.events import Failed, Finished, Progress, StudyOpened, Ticked, TrialEvent
from study.finalists import trial_seed
from study.folder import StudyFolder
from study.state import OBJECTIVE, StudyState, TrialState
from study.trial import Bench, TrialTask, run_trial

TOLERANCE_DB = 0.1
"""How far a score may move where the machine or a library differs and bits are not promised: below the spread
between seeds of a small budget, well above what another rounding order does."""


@dataclass(slots=True)
class Comparison:
    """What a second training gave beside the first."""

    points: list[tuple[Progress, Progress | None]] = field(default_factory=list)
    """(then, now) for every validation of the record."""
    finished: tuple[Finished, Finished | None] | None = None
    failure: str = ""

    @property
    def identical(self) -> bool:
        same_curve = all(now is not None and then.numbers() == now.numbers() for then, now in self.points)
        return not self.failure and same_curve and self._same_end()

    def _same_end(self) -> bool:
        if self.finished is None:
            return True
        then, now = self.finished
        return now is not None and (then.weights, dict(then.scores), then.per_image) == (
            now.weights,
            dict(now.scores),
            now.per_image,
        )

    @property
    def largest_db(self) -> float:
        """The largest difference of a validation PSNR, in dB; infinite where one is missing."""
        if any(now is None for _, now in self.points):
            return float("inf")
        gaps = [abs(then.scores[OBJECTIVE] - now.scores[OBJECTIVE]) for then, now in self.points if now]
        return max(gaps, default=float("inf"))

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
        return "" if self._same_end() else "the curve is equal, the final weights are not"


def changed_inputs(folder: StudyFolder, state: StudyState, trial: TrialState, data: Path | None) -> list[str]:
    """Config, seed and data that are not what the record says, each named; empty where all are."""
    assert state.opened is not None
    opened = state.opened
    found: list[str] = []
    recorded = trial.config
    if recorded.digest() != trial.proposed.config_hash:
        found.append(f"config: the journal's own config no longer matches its hash {trial.proposed.config_hash}")
    if short_digest(opened.question) != opened.digest:
        found.append("question: the journal's question no longer matches its digest")
    if recorded.seed != trial_seed(opened.seed, trial.proposed.replicate):
        found.append(f"seed: {recorded.seed} is not derived from the study's seed {opened.seed}")
    found += _changed_config(folder.trial(trial.number) / "config.json", recorded)
    found += _changed_data(folder, opened, data)
    return found


def _changed_config(path: Path, recorded: TrialConfig) -> list[str]:
    if not path.exists():
        return []  # a copy for people; the journal holds the config
    try:
        stored = TrialConfig.from_json(json.loads(path.read_text("utf-8")))
    except (ValueError, ConfigError) as exc:
        return [f"config: {path.name} of the trial cannot be read ({exc})"]
    changed = differences(recorded, stored)
    return [f"{name}: {then!r} in the journal, {now!r} in config.json" for name, (then, now) in changed.items()]


def _changed_data(folder: StudyFolder, opened: StudyOpened, data: Path | None) -> list[str]:
    """Pictures whose pixels differ from the record's, in the store and where they came from."""
    recorded = {(split, name): digest for split, name, digest in opened.data["pictures"]}
    store = load_store(folder.root / opened.data["store"])
    found = [f"data: {name} in the patch store does not match its checksum" for name in verify(store.path)]
    present = {(r.split, r.name): r.sha256 for r in store.manifest}
    if opened.data["folder"] is None:
        sources = embedded_pictures()
    elif data is not None or Path(opened.data["folder"]).is_dir():
        sources = folder_pictures(data or Path(opened.data["folder"]), opened.question["benchmarks"])
    else:
        sources = None
    for where, pictures in (
        ("the patch store", present),
        ("its source", {(r.split, r.name): r.sha256 for r in manifest_of(sources)} if sources else recorded),
    ):
        changed = sorted(key for key in recorded.keys() | pictures.keys() if recorded.get(key) != pictures.get(key))
        found += [f"data: {split} picture {name} differs in {where}" for split, name in changed]
    return found


def other_circumstances(state: StudyState, trial: TrialState, runtime: Runtime) -> list[str]:
    """Code and versions that are not those of the record; they matter only if the numbers differ."""
    epoch = trial.starts[-1].epoch if trial.starts else 0
    then: dict[str, Any] = next((dict(s.provenance) for s in state.sessions if s.epoch == epoch), {})
    now = provenance.collect()
    found = list(runtime.unmet())
    source = trial.starts[-1].source if trial.starts else then.get("source")
    if source != now["source"]:
        found.append(f"code {source} then, {now['source']} now")
    versions = then.get("versions", {})
    found += [
        f"{name} {versions[name]} then, {now['versions'][name]} now"
        for name in now["versions"]
        if name != "torch" and name in versions and versions[name] != now["versions"][name]
    ]
    return found


def retrain(
    folder: StudyFolder, opened: StudyOpened, trial: TrialState, watch: Callable[[TrialEvent], None]
) -> Comparison:
    """Train the trial's config again as far as it came, from nothing, and put both curves beside each other."""
    keep_compiled_in(folder.root / "compiled")
    runtime = Runtime.from_json(dict(opened.runtime)).here()
    runtime.apply()
    store: PatchStore = load_store(folder.root / opened.data["store"])
    now: dict[int, Progress] = {}
    comparison = Comparison()
    end: Finished | None = None
    with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
        task = TrialTask(
            number=trial.number,
            config=trial.config,
            config_hash=trial.proposed.config_hash,
            folder=Path(scratch),
            epoch=0,
            slot=0,
            source=provenance.source_hash(),
            reductions=trial.reductions,
        )
        for event in run_trial(task, Bench(store, runtime)):
            watch(event)
            match event:
                case Progress():
                    now[event.patches] = event
                    if trial.status != "finished" and event.patches >= trial.patches:
                        break
                case Finished():
                    end = event
                case Failed():
                    comparison.failure = f"{event.cause}: {event.reason}"
                case Ticked() | _:
                    pass
    comparison.points = [(then, now.get(then.patches)) for then in trial.curve]
    if isinstance(trial.end, Finished):
        comparison.finished = (trial.end, end)
    return comparison


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
        raise SuiteError(f"study {study!r} has no trial {number}: expected best, or 0 to {len(state.trials) - 1}")
    if not state.trials[number].curve:
        raise SuiteError(f"trial {number} of study {study!r} has no validation to compare with")
    return state.trials[number]
