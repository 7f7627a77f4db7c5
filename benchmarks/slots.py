"""How much faster two slots finish a study than one: the same trials, trained once on each.

    python benchmarks/slots.py [--trials 24]

The study on two slots runs first, so that its trainings have one thread each; the one on a single slot replays it, and
so trains the same configurations to the same counts under the same settings. Printed are the times from the first
trial's start to the last one's end, and of the whole command. Takes some minutes; meaningful on a machine with at least
two cores and nothing else to do.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from study.folder import StudyFolder
from study.journal import read
from study.state import StudyState, fold

EXPERIMENT = """
from dataclasses import replace
from pathlib import Path
from experiments.quickstart import EXPERIMENT as QUICKSTART

EXPERIMENT = replace(QUICKSTART, replicates=0, {how})
"""


def run(root: Path, name: str, how: str, slots: int, trials: int) -> tuple[float, float, StudyState]:
    """(seconds of training, seconds of the command, the study) of a run with so many slots."""
    experiment = root / f"{name}.py"
    experiment.write_text(EXPERIMENT.format(how=how))
    argv = ["--experiment", experiment, "--root", root, "--trials", trials, "--slots", slots]
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "study.run", *map(str, argv)], check=True, stdout=subprocess.DEVNULL)
    whole = time.monotonic() - begun
    state = fold(read(StudyFolder(root, name).journal))
    starts = [trial.starts[0].time for trial in state.trials.values()]
    ends = [trial.end.time for trial in state.trials.values() if trial.end is not None]
    return max(ends) - min(starts), whole, state


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=24)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        two, two_whole, state = run(root, "two", "", 2, trials)
        replay = f'sampler="replay", scheduler="replay", replay=Path({str(root / "two" / "journal.jsonl")!r})'
        one, one_whole, again = run(root, "one", replay, 1, trials)
    assert state.opened is not None and again.opened is not None
    assert state.opened.runtime == again.opened.runtime
    same = all(
        [p.numbers() for p in trial.curve] == [p.numbers() for p in again.trials[number].curve]
        for number, trial in state.trials.items()
    )
    print(f"{trials} trials of {state.opened.runtime['threads']} thread; curves equal bit by bit: {same}")
    print(f"training: one slot {one:.1f} s, two slots {two:.1f} s, {one / two:.2f} times as fast (at least 1.7 wanted)")
    print(f"whole command: one slot {one_whole:.1f} s, two slots {two_whole:.1f} s, {one_whole / two_whole:.2f} times")


if __name__ == "__main__":
    main()
