"""The verdict of a reproduction: what has changed since the record, whether the numbers agree, and the exit status.

The exit status depends on inputs and numbers. Code or versions that differ are noted, but with equal numbers they only
count as a difference under `--strict`. If this machine cannot restore a setting that affects bits, small differences
are attributed to that setting.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sr_core.training.runtime import Runtime
from study.record import provenance
from study.record.state import StudyState, TrialState
from study.reproduction.retrain import TOLERANCES, ReproducedTrial

NO_MATCH = 4
"""Exit status if the retrained trial differs from the record."""
_MAX_FILES_NAMED = 4
"""Bound on the changed files that one line names."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What has changed since the record, in words. In each field, the likelier cause of a difference comes first."""

    settings: tuple[str, ...]
    """Settings that affect bits and that this machine cannot restore (promise 2)."""
    code: tuple[str, ...]
    """Code that differs from the recorded code."""
    versions: tuple[str, ...]
    """Versions of Python and of the numeric libraries that differ."""
    processor: str = ""
    """The processor, if its model differs: kernels can differ within an instruction set.

    It can explain different numbers. It does not count as a difference by itself."""
    unknown: tuple[str, ...] = ()
    """Settings that affect bits and that the record is too old to name. Like the processor, they only explain."""

    @property
    def lines(self) -> list[str]:
        """Every difference of settings, code and versions."""
        return [*self.settings, *self.code, *self.versions]


def circumstances(state: StudyState, trial: TrialState, runtime: Runtime) -> Circumstances:
    """Settings, code and versions that differ now from those of any session that trained the trial."""
    now = provenance.collect()
    sessions = {s.epoch: s for s in state.sessions}
    code: list[str] = []
    versions: list[str] = []
    settings = runtime.unmet()
    for start in trial.starts:
        session = sessions.get(start.epoch)
        then = dict(session.provenance) if session else {}
        since = f", from {start.patches} patches" if start.patches else ""
        code += _changed_code(start.source, then, now, since)
        # A changed torch is listed among the settings already.
        versions += _changed_versions(then, now, without=("torch",) if _names(settings, "torch") else ())

    here = runtime.here().device_name or provenance.cpu_model()
    recorded = {start.hardware for start in trial.starts if start.hardware}
    others = sorted(recorded - {here})
    processor = f"processor {', '.join(others)} then, {here} here" if others else ""
    return Circumstances(
        settings=tuple(settings),
        code=tuple(dict.fromkeys(code)),
        versions=tuple(dict.fromkeys(versions)),
        processor="" if settings else processor,
        unknown=tuple(runtime.unknown()),
    )


def _names(lines: list[str], setting: str) -> bool:
    return any(line.startswith(f"{setting} ") for line in lines)


def _changed_code(source: str, then: Mapping[str, Any], now: Mapping[str, Any], since: str) -> Iterator[str]:
    """One line if the code differs from the recorded source hash, with the files that differ if they are recorded."""
    if source == now["source"]:
        return
    files_then: Mapping[str, str] = then.get("files", {}) if then.get("source") == source else {}
    files_now: Mapping[str, str] = now["files"]
    text = f"code {source} then{since}, {now['source']} now"
    if files_then:
        names = sorted(files_then.keys() | files_now.keys())
        changed = [name for name in names if files_then.get(name) != files_now.get(name)]
        text += f": {', '.join(changed[:_MAX_FILES_NAMED])}"
        if len(changed) > _MAX_FILES_NAMED:
            text += f" and {len(changed) - _MAX_FILES_NAMED} more"
    yield text


def _changed_versions(then: Mapping[str, Any], now: Mapping[str, Any], without: tuple[str, ...]) -> Iterator[str]:
    """One line for each version that differs from the recorded one. A version that is not recorded is skipped."""
    versions_then = {"python": then.get("python"), **then.get("versions", {})}
    versions_now = {"python": now["python"], **now["versions"]}
    for name in ("python", *provenance.NUMERIC_LIBRARIES):
        if name not in without and versions_then.get(name) not in (None, versions_now[name]):
            yield f"{name} {versions_then[name]} then, {versions_now[name]} now"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The last lines of a reproduction and its exit status."""

    lines: tuple[str, ...]
    status: int
    """0 or NO_MATCH."""


def different(reasons: list[str], remark: str = "") -> Judgement:
    """The judgement that the trial differs from the record, with the reasons."""
    return Judgement((*(f"differs: {reason}" for reason in reasons), f"verdict: different{remark}"), NO_MATCH)


def judge(reproduced: ReproducedTrial, changes: Circumstances, *, promises_bits: bool, strict: bool) -> Judgement:
    """The verdict on the numbers of a retrained trial.

    Args:
        promises_bits: True if equal bits are promised as long as the recorded settings can be restored.
        strict: also judge settings, code or versions that differ as a difference.
    """
    excuse = _why_bits_may_differ(changes, promises_bits, reproduced.identical)
    if reproduced.identical:
        return _judge_equal_numbers(reproduced, changes, excuse, strict=strict)

    largest = ", ".join(map(str, reproduced.largest())) if reproduced.whole else ""
    changed = [*changes.code, *changes.versions]
    # A record that is too old to name a setting always meets newer code, so that code says nothing about the cause.
    if excuse and reproduced.close and not strict and (changes.unknown or not changed):
        noted = "; other code or versions are noted above" if changed else ""
        text = f"largest difference {largest}; bits are not promised here ({excuse}){noted}"
        return Judgement((f"verdict: within tolerance: {text}",), 0)
    if excuse and reproduced.close and changed:
        return different([
            reproduced.first_difference(),
            f"largest difference {largest}, which rounding can explain",
            f"likely cause: {changed[0]}, or {excuse}; retrain with the recorded code and versions to find out which",
        ])  # fmt: skip

    reasons = [reproduced.first_difference()]
    if largest:
        reasons.append(f"largest difference {largest}{_beyond_tolerance(reproduced) if excuse else ''}")
    reasons.append(f"likely cause: {_likely_cause(reproduced, changes, excuse)}")
    return different(reasons)


def _judge_equal_numbers(
    reproduced: ReproducedTrial, changes: Circumstances, excuse: str, *, strict: bool
) -> Judgement:
    """The verdict if every number is equal to the last bit."""
    if strict and changes.lines:
        return different(changes.lines, " (--strict), though every number is equal to the last bit")
    if excuse:
        text = f"every number is equal, but bits are not promised here ({excuse})"
        return Judgement((f"verdict: within tolerance: {text}",), 0)
    weights = "and the weights" if reproduced.finished else "(an unfinished trial has no recorded weights)"
    noted = "; other code or versions are noted above" if changes.lines else ""
    return Judgement((f"verdict: bit-identical, every point of the curve {weights}{noted}",), 0)


def _why_bits_may_differ(changes: Circumstances, promises_bits: bool, identical: bool) -> str:
    """The reasons why bits may differ from the record. Empty if every bit must be equal."""
    reasons = list(changes.settings)
    if not reasons and not promises_bits:
        reasons.append("the record's settings do not fix the order of additions")
    if not identical:
        reasons += changes.unknown
    if not identical and not reasons and changes.processor:
        reasons.append(changes.processor)
    return "; ".join(reasons)


def _beyond_tolerance(reproduced: ReproducedTrial) -> str:
    """States the tolerance if a difference exceeds it."""
    if reproduced.close:
        return ""
    bounds = []
    for metric, bound in TOLERANCES.items():
        unit = " dB" if "psnr" in metric else ""
        bounds.append(f"{bound:g}{unit} of {metric}")
    return f", more than rounding can explain (at most {' and '.join(bounds)})"


def _likely_cause(reproduced: ReproducedTrial, changes: Circumstances, excuse: str) -> str:
    if changes.code:
        return changes.code[0]
    if changes.versions:
        return changes.versions[0]
    if excuse and not reproduced.close:
        return f"settings that were not restored ({excuse}), or an altered record"
    if excuse:
        return excuse
    return (
        "images, code, versions and settings are those of the record, so its configuration, seed or numbers were "
        "altered, or this machine does not reproduce its own bits"
    )
