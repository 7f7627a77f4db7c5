"""What a reproduction comes to: what was not as it was, a verdict on the numbers, an exit status.

The status follows inputs and numbers. Other code or versions that give the same numbers are told and do no harm,
unless `--strict` is given. Where settings that decide bits cannot be restored, small differences are put down to that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sr_core.training.runtime import Runtime
from study.record import provenance
from study.record.events import SessionStarted
from study.record.state import StudyState, TrialState
from study.reproduction.retrain import TOLERANCES, ReproducedTrial

NO_MATCH = 4
"""Exit status of a reproduction that is not one."""
_MOST_FILES = 4
"""Names of changed files in one line."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is not as it was, each in words, the likelier cause of other numbers first."""

    settings: tuple[str, ...]
    """Settings that decide bits and that this machine cannot restore (contract 2)."""
    code: tuple[str, ...]
    versions: tuple[str, ...]
    """Of Python and of the libraries that numbers pass through."""
    processor: str = ""
    """Another model than the recorded one: kernels may differ within an instruction set. Matters to numbers alone."""
    unknown: tuple[str, ...] = ()
    """Settings that decide bits and that the record is too old to name. They matter to numbers alone."""

    @property
    def lines(self) -> list[str]:
        return [*self.settings, *self.code, *self.versions]


def circumstances(state: StudyState, trial: TrialState, runtime: Runtime) -> Circumstances:
    """Settings, code and versions now that are not those under which the trial was trained, in any of its sessions."""
    now = provenance.collect()
    sessions = {s.epoch: s for s in state.sessions}
    code: list[str] = []
    versions: list[str] = []
    settings = runtime.unmet()
    for start in trial.starts:
        session = sessions.get(start.epoch)
        then = dict(session.provenance) if session else {}
        code += _changed_code(start.source, then, now, where=f", from {start.patches} patches" if start.patches else "")
        versions += _changed_versions(session, now, without=("torch",) if _names(settings, "torch") else ())
    here = runtime.here().device_name or provenance.cpu_model()
    hardware = {start.hardware for start in trial.starts if start.hardware} - {here}
    processor = f"processor {', '.join(sorted(hardware))} then, {here} here" if hardware else ""
    return Circumstances(
        settings=tuple(settings),
        code=tuple(dict.fromkeys(code)),
        versions=tuple(dict.fromkeys(versions)),
        processor="" if settings else processor,
        unknown=tuple(runtime.unknown()),
    )


def _names(lines: list[str], setting: str) -> bool:
    return any(line.startswith(f"{setting} ") for line in lines)


def _changed_code(source: str, then: Mapping[str, Any], now: Mapping[str, Any], where: str) -> Iterator[str]:
    if source == now["source"]:
        return
    before: Mapping[str, str] = then.get("files", {}) if then.get("source") == source else {}
    changed = [n for n in sorted(before.keys() | now["files"].keys()) if before.get(n) != now["files"].get(n)]
    more = f" and {len(changed) - _MOST_FILES} more" if len(changed) > _MOST_FILES else ""
    files = f": {', '.join(changed[:_MOST_FILES])}{more}" if before else ""
    yield f"code {source} then{where}, {now['source']} now{files}"


def _changed_versions(
    session: SessionStarted | None, now: Mapping[str, Any], without: tuple[str, ...]
) -> Iterator[str]:
    then = dict(session.provenance) if session else {}
    before = {"python": then.get("python"), **then.get("versions", {})}
    here = {"python": now["python"], **now["versions"]}
    for name in ("python", *provenance.NUMERIC_LIBRARIES):
        if name not in without and before.get(name) not in (None, here[name]):
            yield f"{name} {before[name]} then, {here[name]} now"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The last lines of a reproduction and its exit status."""

    lines: tuple[str, ...]
    status: int


def different(reasons: list[str], remark: str = "") -> Judgement:
    """No reproduction, for these reasons."""
    return Judgement((*(f"differs: {reason}" for reason in reasons), f"verdict: different{remark}"), NO_MATCH)


def judge(found: ReproducedTrial, around: Circumstances, *, promises_bits: bool, strict: bool) -> Judgement:
    """The verdict on the numbers.

    Args:
        promises_bits: whether the record's settings do, where they can be restored.
        strict: take any difference for one, of numbers, settings, code or versions.
    """
    free = _why_bits_may_differ(around, promises_bits, found.identical)
    if found.identical:
        if strict and around.lines:
            return different(around.lines, " (--strict), though every number is equal to the last bit")
        if free:
            return Judgement((f"verdict: within tolerance: every number is equal, but bits are not promised here "
                              f"({free})",), 0)  # fmt: skip
        weights = "and the weights" if found.finished else "(a trial that did not finish has no weights on record)"
        beside = "; what differs beside them is noted above" if around.lines else ""
        return Judgement((f"verdict: bit-identical, every point of the curve {weights}{beside}",), 0)
    gaps = ", ".join(map(str, found.largest())) if found.whole else ""
    changed = [*around.code, *around.versions]
    # A record that is too old to name a setting always meets other code, so that proves nothing about the code.
    if free and found.close and not strict and (around.unknown or not changed):
        also = "; other code or versions are noted above" if changed else ""
        return Judgement((f"verdict: within tolerance: largest difference {gaps}; bits are not promised here "
                          f"({free}){also}",), 0)  # fmt: skip
    if free and found.close and changed:
        cause = f"{changed[0]}, or {free}: with the recorded code and versions it would tell which"
        return different([found.first_difference(), f"largest difference {gaps}, which other rounding may make",
                          f"likely cause: {cause}"])  # fmt: skip
    reasons = [found.first_difference()]
    if gaps:
        reasons.append(f"largest difference {gaps}{_beyond(found) if free else ''}")
    return different([*reasons, f"likely cause: {_likely_cause(found, around, free)}"])


def _why_bits_may_differ(around: Circumstances, promises_bits: bool, identical: bool) -> str:
    """Empty where every bit has to be equal."""
    reasons = list(around.settings)
    if not reasons and not promises_bits:
        reasons.append("the record's settings leave the order of additions free")
    if not identical:
        reasons += around.unknown
    if not identical and not reasons and around.processor:
        reasons.append(around.processor)
    return "; ".join(reasons)


def _beyond(found: ReproducedTrial) -> str:
    allowed = [f"{size:g}{' dB' if 'psnr' in metric else ''} of {metric}" for metric, size in TOLERANCES.items()]
    return "" if found.close else f", where other rounding makes at most {' and '.join(allowed)}"


def _likely_cause(found: ReproducedTrial, around: Circumstances, free: str) -> str:
    if around.code:
        return around.code[0]
    if around.versions:
        return around.versions[0]
    if free and not found.close:
        return f"settings that were not restored ({free}), or a record that was altered"
    if free:
        return free
    return (
        "images, code, versions and settings are those of the record, so its configuration, seed or numbers were "
        "altered, or this machine does not repeat its own bits"
    )
