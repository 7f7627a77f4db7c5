"""Where a study stands, from its journal and the files beside it alone: also while it runs and after it died."""

import time
from collections import Counter
from typing import Any

from study.record.folder import StudyFolder
from study.record.ownership import has_begun
from study.record.standing import VIEWS, standing_of
from study.record.state import StudyState
from study.screen.next_step import flags_of, next_command
from study.screen.pulse import pulse_of
from study.statistics import pace
from study.statistics.replication import interim
from study.statistics.wording import failures


def overview(folder: StudyFolder, state: StudyState) -> dict[str, Any]:
    """The study in plain values."""
    opened, session, best, owner = state.opened, state.session, state.best(), folder.owner()
    if opened is None:
        phase = "preparing" if owner else "empty"
        return {"study": folder.study, "phase": phase, "owner": owner}
    begun = session is not None and has_begun(folder.path / "lock", session.host, session.pid, session.time)
    if owner:  # until it has begun, the last session in the record is another one's
        phase = "running" if begun else "preparing"
    else:
        phase = state.ended.reason if state.ended else "died, resumable"
    starts = [t.starts[0].time for t in state.trials.values() if t.starts]
    asked = session.trials if session else 0
    laps = pulse_of(folder.journal, session.epoch) if session and begun else {}
    now = max(state.last_time, time.time()) if begun else state.last_time
    seconds = now - session.time if session else 0.0
    ended = _ended_since(state)
    left = pace.seconds_left(state, asked, laps, now) if begun else None
    return {
        "study": folder.study,
        "phase": phase,
        "owner": owner,
        "asked": asked,
        "counted": state.counted,
        "trials": dict(Counter(t.status for t in state.trials.values() if not t.is_replicate)),
        "replicates": {
            "ended": state.replicated,
            "begun": sum(t.is_replicate for t in state.trials.values()),
            "interim": interim(state),
            "failures": failures(state),
        },
        "running": [
            {
                "trial": t.number,
                "again": t.label if t.is_replicate else "",
                "slot": t.starts[-1].slot,
                "patches": pace.reached(t, laps) if begun else t.checkpoint,
                "val/psnr": t.score,
            }
            for t in state.trials.values()
            if t.status == "running"
        ],
        "rate": {
            "patches_per_second": pace.patches_per_second(state, laps, now),
            "trials_per_hour": 3600 * ended / seconds if seconds else 0.0,
        },
        "best": best and {"trial": best.number, "val/psnr": best.score, "values": best.proposed.values},
        "bicubic": opened.data["baseline"],
        "started": min(starts, default=opened.time),
        "last_event": state.last_time,
        "seconds_left": left,
        "estimated_end": None if left is None else now + left,
        "views": {view: found for view in VIEWS if (found := _view(folder, view, state))},
        "warnings": list(state.warnings),
        "next": None if folder.training else next_command(folder, state, running=bool(owner)),
    }


def overview_of_training(folder: StudyFolder, state: StudyState) -> dict[str, Any]:
    """A longer training of one trial in plain values."""
    trial, found = next(iter(state.trials.values()), None), overview(folder, state)
    return {
        "training": folder.training,
        "phase": found["phase"],
        "owner": found["owner"],
        "patches": trial.patches if trial else 0,
        "budget_patches": trial.config.train.budget_patches if trial else None,
        "val/psnr": trial.score if trial else None,
    }


def _view(folder: StudyFolder, view: str, state: StudyState) -> dict[str, Any] | None:
    """How a view stands, None where nobody ever kept it."""
    known = standing_of(folder.journal, view)
    if known is None:
        return None
    wall = state.last_time - state.session.time if state.session else 0.0
    store = known.missing_store(folder.journal)
    return {
        "lag": max(0, state.count - known.events),
        "busy_seconds": known.busy_seconds,
        "cpu_seconds": known.cpu_seconds,
        "waited_seconds": known.waited_seconds,
        "waited_share": known.waited_seconds / wall if wall > 0 else 0.0,
        "error": known.error,
        "as_of": known.time,
        "missing_store": None if store is None else str(store),
        "rebuild": f"python -m study.sync{flags_of(folder)}",
    }


def _ended_since(state: StudyState) -> int:
    """Trials that ended since the last session began."""
    since = state.session.time if state.session else 0.0
    return sum(t.end is not None and t.end.time >= since for t in state.trials.values())


def as_text(found: dict[str, Any]) -> str:
    """The same for people to read."""
    if found["phase"] == "empty":
        return f"{found['study']}: nothing recorded yet"
    if "asked" not in found:
        return f"{found['study']}: preparing ({found['owner']}); no trial yet"
    runs = found["phase"] == "running"
    counts = {"half done" if s == "running" and not runs else s: n for s, n in found["trials"].items()}
    trials = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no trial yet"
    lines = [
        f"{found['study']}: {found['phase']}" + (f" ({found['owner']})" if found["owner"] else ""),
        f"{found['counted']} of {found['asked']} trials counted: {trials}",
    ]
    if found["replicates"]["begun"]:
        lines.append(f"replicates of the finalists: {found['replicates']['ended']} ended")
        if found["replicates"]["interim"]:
            lines[-1] += f" ({found['replicates']['interim']})"
    for trial in found["running"]:
        score = "" if trial["val/psnr"] is None else f", {trial['val/psnr']:.3f} dB"
        where = f"on slot {trial['slot']}" if runs else "goes on from its checkpoint"
        if not runs and not trial["patches"]:
            where = "has no checkpoint and starts over"
        again = f" ({trial['again']})" if trial["again"] else ""
        lines.append(f"trial {trial['trial']}{again} {where}: {trial['patches']} patches{score}")
    if found["best"]:
        number, psnr = found["best"]["trial"], found["best"]["val/psnr"]
        gain = psnr - found["bicubic"]["val/psnr"]
        lines.append(f"best of the search: trial {number}, {psnr:.3f} dB, {gain:+.3f} dB against bicubic")
    lines += found["replicates"]["failures"]
    rate = found["rate"]
    if runs and rate["patches_per_second"]:
        lines.append(f"{rate['patches_per_second']:.0f} patches/s, {rate['trials_per_hour']:.1f} trials/h")
    if found["seconds_left"] is not None:
        lines.append(f"about {found['seconds_left'] / 60:.0f} min left, until {_clock(found['estimated_end'])}")
    for view, known in found["views"].items():
        if known["lag"] or known["error"]:
            why = f": {known['error']}" if known["error"] else ""
            lines.append(f"{view} lacks {known['lag']} events{why}")
        if known["missing_store"]:
            how = "the running session makes it again" if found["owner"] else f"make it again: {known['rebuild']}"
            lines.append(f"{view}: {known['missing_store']} is gone; {how}")
    for t in found["trainings"]:
        score = "" if t["val/psnr"] is None else f", {t['val/psnr']:.3f} dB"
        owner = f" ({t['owner']})" if t["owner"] else ""
        lines.append(f"training {t['training']}: {t['phase']}{owner}, {t['patches']} patches{score}")
    lines.append(f"last event {_clock(found['last_event'])}")
    lines += [f"warning: {warning}" for warning in found["warnings"][-5:]]
    if found["next"]:
        lines.append(f"next: {found['next']}")
    return "\n".join(lines)


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
