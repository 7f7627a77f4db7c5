"""`python -m study.status`: where a study stands, also while it runs and after it died."""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sr_core.cli import Parser, run_command
from study.commandline import add_study_flags, folder_from
from study.folder import StudyFolder
from study.journal import read
from study.state import StudyState, fold


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("python -m study.status", description="where a study stands; reads its journal alone")
    add_study_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)

    def body() -> int:
        folder = folder_from(args).require()
        found = status(folder, fold(read(folder.journal)))
        print(json.dumps(found, indent=2) if args.json else _text(found))
        return 0

    return run_command(body)


def status(folder: StudyFolder, state: StudyState) -> dict[str, Any]:
    """The study in plain values."""
    opened, session, best = state.opened, state.session, state.best()
    if opened is None:
        return {"study": folder.study, "phase": "empty"}
    owner = folder.owner()
    phase = "running" if owner else state.ended.reason if state.ended else "died, resumable"
    starts = [t.starts[0].time for t in state.trials.values() if t.starts]
    asked = session.trials if session else 0
    seconds_each = (state.last_time - session.time) / max(1, _ended_since(state)) if session else 0.0
    return {
        "study": folder.study,
        "phase": phase,
        "owner": owner,
        "asked": asked,
        "counted": state.counted,
        "trials": dict(Counter(t.status for t in state.trials.values() if not t.is_replicate)),
        "replicates": {"ended": state.replicated, "begun": sum(t.is_replicate for t in state.trials.values())},
        "running": [
            {"trial": t.number, "slot": t.starts[-1].slot, "patches": t.patches, "val/psnr": t.score}
            for t in state.trials.values()
            if t.status == "running"
        ],
        "best": best and {"trial": best.number, "val/psnr": best.score, "values": best.proposed.values},
        "bicubic": opened.data["baseline"],
        "started": min(starts, default=opened.time),
        "last_event": state.last_time,
        "seconds_left": seconds_each * (asked - state.counted) if owner and _ended_since(state) else None,
        "warnings": list(state.warnings),
    }


def _ended_since(state: StudyState) -> int:
    """Trials that ended since the last session began."""
    since = state.session.time if state.session else 0.0
    return sum(t.end is not None and t.end.time >= since for t in state.trials.values())


def _text(found: dict[str, Any]) -> str:
    if found["phase"] == "empty":
        return f"{found['study']}: nothing recorded yet"
    counts = {"half done" if s == "running" and not found["owner"] else s: n for s, n in found["trials"].items()}
    trials = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no trial yet"
    lines = [
        f"{found['study']}: {found['phase']}" + (f" ({found['owner']})" if found["owner"] else ""),
        f"{found['counted']} of {found['asked']} trials counted: {trials}",
    ]
    if found["replicates"]["begun"]:
        lines.append(f"replicates of the finalists: {found['replicates']['ended']} ended")
    for trial in found["running"]:
        score = "" if trial["val/psnr"] is None else f", {trial['val/psnr']:.3f} dB"
        where = f"on slot {trial['slot']}" if found["owner"] else "goes on from its checkpoint"
        lines.append(f"trial {trial['trial']} {where}: {trial['patches']} patches{score}")
    if found["best"]:
        number, psnr = found["best"]["trial"], found["best"]["val/psnr"]
        gain = psnr - found["bicubic"]["val/psnr"]
        lines.append(f"best of the search: trial {number}, {psnr:.3f} dB, {gain:+.3f} over bicubic")
    if found["seconds_left"] is not None:
        lines.append(f"about {found['seconds_left'] / 60:.0f} min left")
    lines.append(f"last event {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(found['last_event']))}")
    return "\n".join([*lines, *(f"warning: {w}" for w in found["warnings"][-5:])])


if __name__ == "__main__":
    sys.exit(main())
