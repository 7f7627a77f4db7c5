"""Checks that a finished quickstart keeps its promises. Usage: check_quickstart.py ROOT."""

import sys
from pathlib import Path

from study.question.budget import MIN_STEPS_AT_A_RUNG
from study.record.journal import read
from study.record.state import fold
from study.statistics.verdict import verdict

_MAX_MINUTES = 20
"""Finds a quickstart that hangs. Times on a shared machine say little. docs/development/performance.md has a
measured one."""


def main(root: str) -> int:
    """Prints each promise of the quickstart with `kept` or `BROKEN`. Returns 1 if one is broken, else 0."""
    state = fold(read(Path(root) / "quickstart" / "journal.jsonl"))
    assert state.opened is not None and state.session is not None and state.ended is not None
    trials = [t for t in state.trials.values() if not t.is_replicate]
    result = verdict(state)
    finished = [t for t in trials if t.status == "finished"]
    pruned = [t for t in trials if t.status == "pruned"]
    best = state.best()
    assert best is not None and best.score is not None

    tried_values: dict[str, set[object]] = {}
    for trial in trials:
        for name, value in trial.proposed.values.items():
            tried_values.setdefault(name, set()).add(value)
    counts = {name: len(values) for name, values in tried_values.items() if name != "model.input_range"}
    few = {name: count for name, count in counts.items() if count < 3}
    input_ranges = tried_values["model.input_range"]

    gain = best.score - state.bicubic["val/psnr"]
    minutes = (state.ended.time - state.opened.time) / 60
    promises = {
        f"50 trials counted: {state.counted}": state.counted == 50,
        f"at least 15 trials trained to the full budget: {len(finished)}": len(finished) >= 15,
        "every pruned trial had 30 steps and 2 validations": all(
            t.patches >= MIN_STEPS_AT_A_RUNG * t.config.train.batch_size and len(t.curve) >= 2 for t in pruned
        ),
        f"at least three values of every swept parameter: {few or 'all'}": not few,
        f"both input ranges: {input_ranges}": len(input_ranges) == 2,
        f"best trial at least 0.3 dB above bicubic: {gain:+.3f} dB": gain >= 0.3,
        "a verdict against both references, three seeds each": result is not None
        and [c.difference.count for c in result.against] == [3, 3],
        f"at most {_MAX_MINUTES} minutes (the aim is 10): {minutes:.1f}": minutes <= _MAX_MINUTES,
    }
    for promise, is_kept in promises.items():
        print(f"{'kept' if is_kept else 'BROKEN'}: {promise}")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
