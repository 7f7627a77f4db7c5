"""Holds a finished quickstart against what it promises. Usage: check_quickstart.py ROOT."""

import sys
from pathlib import Path

from study.question.budget import MIN_STEPS_AT_A_RUNG
from study.record.journal import read
from study.record.state import fold
from study.statistics.verdict import verdict

_HELD_TO = 20
"""Minutes. This bound only finds what hangs; docs/development/performance.md has the measured figure."""


def main(root: str) -> int:
    state = fold(read(Path(root) / "quickstart" / "journal.jsonl"))
    assert state.opened is not None and state.session is not None and state.ended is not None
    trials = [t for t in state.trials.values() if not t.is_replicate]
    told = verdict(state)
    finished = [t for t in trials if t.status == "finished"]
    pruned = [t for t in trials if t.status == "pruned"]
    best = state.best()
    assert best is not None and best.score is not None
    seen: dict[str, set[object]] = {}
    for trial in trials:
        for name, value in trial.proposed.values.items():
            seen.setdefault(name, set()).add(value)
    few = {name: len(values) for name, values in seen.items() if len(values) < 3 and name != "model.input_range"}
    gain = best.score - state.bicubic["val/psnr"]
    minutes = (state.ended.time - state.opened.time) / 60
    promises = {
        f"50 trials counted: {state.counted}": state.counted == 50,
        f"at least 15 trained to the full budget: {len(finished)}": len(finished) >= 15,
        "every pruned one had 30 steps and 2 validations": all(
            t.patches >= MIN_STEPS_AT_A_RUNG * t.config.train.batch_size and len(t.curve) >= 2 for t in pruned
        ),
        f"at least three values of every swept parameter: {few or 'all'}": not few,
        f"both input ranges: {seen['model.input_range']}": len(seen["model.input_range"]) == 2,
        f"best at least 0.3 dB above bicubic: {gain:+.3f} dB": gain >= 0.3,
        "a verdict against both references, three seeds each": told is not None
        and [c.difference.count for c in told.against] == [3, 3],
        f"no more than {_HELD_TO} minutes, where 10 are the aim: {minutes:.1f}": minutes <= _HELD_TO,
    }
    for promise, kept in promises.items():
        print(f"{'kept' if kept else 'BROKEN'}: {promise}")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
