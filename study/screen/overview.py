"""Summarises the state of a study from its journal and the files next to it, while it runs or at any time later."""

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
    """Return the state of a study as JSON-compatible values. Times are Unix times in seconds."""
    opened = state.opened
    session = state.session
    best = state.best()
    owner = folder.owner()
    if opened is None:
        phase = "preparing" if owner else "empty"
        return {"study": folder.study, "phase": phase, "owner": owner}

    begun = session is not None and has_begun(folder.path / "lock", session.host, session.pid, session.time)
    if owner:  # until the owner's session has begun, the last recorded session is an earlier one
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
    views = {view: standing for view in VIEWS if (standing := _view(folder, view, state))}

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
        "views": views,
        "warnings": list(state.warnings),
        "next": None if folder.training else next_command(folder, state, running=bool(owner)),
    }


def overview_of_training(folder: StudyFolder, state: StudyState) -> dict[str, Any]:
    """Return the state of a longer training of one trial as JSON-compatible values."""
    trial = next(iter(state.trials.values()), None)
    whole = overview(folder, state)
    return {
        "training": folder.training,
        "phase": whole["phase"],
        "owner": whole["owner"],
        "patches": trial.patches if trial else 0,
        "budget_patches": trial.config.train.budget_patches if trial else None,
        "val/psnr": trial.score if trial else None,
    }


def _view(folder: StudyFolder, view: str, state: StudyState) -> dict[str, Any] | None:
    """Return how far a view has been written; None if the study has never had it."""
    standing = standing_of(folder.journal, view)
    if standing is None:
        return None

    wall = state.last_time - state.session.time if state.session else 0.0
    store = standing.missing_store(folder.journal)
    return {
        "lag": max(0, state.count - standing.events),
        "busy_seconds": standing.busy_seconds,
        "cpu_seconds": standing.cpu_seconds,
        "waited_seconds": standing.waited_seconds,
        "waited_share": standing.waited_seconds / wall if wall > 0 else 0.0,
        "error": standing.error,
        "as_of": standing.time,
        "missing_store": None if store is None else str(store),
        "rebuild": f"python -m study.sync{flags_of(folder)}",
    }


def _ended_since(state: StudyState) -> int:
    """Return the number of trials that have ended since the last session began."""
    since = state.session.time if state.session else 0.0
    return sum(t.end is not None and t.end.time >= since for t in state.trials.values())


def as_text(values: dict[str, Any]) -> str:
    """Return the values of `overview` as lines for people to read."""
    if values["phase"] == "empty":
        return f"{values['study']}: nothing recorded yet"
    if "asked" not in values:
        return f"{values['study']}: preparing ({values['owner']}); no trial yet"

    lines = _progress_lines(values)
    lines += [_trial_line(trial, running=values["phase"] == "running") for trial in values["running"]]
    if values["best"]:
        number, psnr = values["best"]["trial"], values["best"]["val/psnr"]
        gain = psnr - values["bicubic"]["val/psnr"]
        lines.append(f"best of the search: trial {number}, {psnr:.3f} dB, {gain:+.3f} dB against bicubic")
    lines += values["replicates"]["failures"]

    rate = values["rate"]
    if values["phase"] == "running" and rate["patches_per_second"]:
        lines.append(f"{rate['patches_per_second']:.0f} patches/s, {rate['trials_per_hour']:.1f} trials/h")
    if values["seconds_left"] is not None:
        lines.append(f"about {values['seconds_left'] / 60:.0f} min left, until {_clock(values['estimated_end'])}")
    for view, standing in values["views"].items():
        lines += _view_lines(view, standing, running=bool(values["owner"]))
    lines += [_training_line(training) for training in values["trainings"]]

    lines.append(f"last event {_clock(values['last_event'])}")
    lines += [f"warning: {warning}" for warning in values["warnings"][-5:]]
    if values["next"]:
        lines.append(f"next: {values['next']}")
    return "\n".join(lines)


def _progress_lines(values: dict[str, Any]) -> list[str]:
    """Return the phase of the study, and how many trials and replicates there are."""
    counts = dict(values["trials"])
    if values["phase"] != "running" and "running" in counts:
        counts["half done"] = counts.pop("running")
    trials = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no trial yet"
    owner = f" ({values['owner']})" if values["owner"] else ""
    lines = [
        f"{values['study']}: {values['phase']}{owner}",
        f"{values['counted']} of {values['asked']} trials counted: {trials}",
    ]

    replicates = values["replicates"]
    if replicates["begun"]:
        interim_note = f" ({replicates['interim']})" if replicates["interim"] else ""
        lines.append(f"replicates of the finalists: {replicates['ended']} ended{interim_note}")
    return lines


def _trial_line(trial: dict[str, Any], *, running: bool) -> str:
    """Return the line about a trial that has begun and not ended."""
    if running:
        where = f"on slot {trial['slot']}"
    elif trial["patches"]:
        where = "resumes from its checkpoint"
    else:
        where = "has no checkpoint and starts over"
    replicate = f" ({trial['again']})" if trial["again"] else ""
    score = "" if trial["val/psnr"] is None else f", {trial['val/psnr']:.3f} dB"
    return f"trial {trial['trial']}{replicate} {where}: {trial['patches']} patches{score}"


def _view_lines(view: str, standing: dict[str, Any], *, running: bool) -> list[str]:
    """Return what is wrong with a view; empty if it is up to date."""
    lines = []
    if standing["lag"] or standing["error"]:
        why = f": {standing['error']}" if standing["error"] else ""
        lines.append(f"{view} is {standing['lag']} events behind{why}")
    if standing["missing_store"]:
        how = "the running session rebuilds it" if running else f"rebuild it: {standing['rebuild']}"
        lines.append(f"{view}: {standing['missing_store']} is missing; {how}")
    return lines


def _training_line(training: dict[str, Any]) -> str:
    """Return the line about a longer training of a trial."""
    score = "" if training["val/psnr"] is None else f", {training['val/psnr']:.3f} dB"
    owner = f" ({training['owner']})" if training["owner"] else ""
    return f"training {training['training']}: {training['phase']}{owner}, {training['patches']} patches{score}"


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
