"""Measures how long readers of a journal with thousands of trials take: fold, views, tables, report and screen.

    python benchmarks/journal_costs.py [--trials 1000 3000] [--repeats 5] [--out benchmarks/out]

Nothing is trained. Studies are written with the journal's own encoder. They have proposals, validations with realistic
seconds and load, checkpoints, pauses at a rung, promotions, and pruned and finished trials, on eight slots. A trial has
20 validations on average: every third one reaches the budget of 30, the others are pruned after 15.
"""

import argparse
import gc
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sr_core.config import DataConfig, EvaluationConfig, TrainConfig
from study import results
from study.question.config import TrialConfig, short_digest
from study.question.experiment import Experiment
from study.question.space import Choice, Float
from study.record import events as ev
from study.record.folder import StudyFolder
from study.record.journal import encode, read
from study.record.provenance import cpu_model
from study.record.state import StudyState, fold
from study.record.tail import Reading
from study.report.ranking import ranking
from study.report.record import record_of
from study.screen.live_table import ScreenState, screen
from study.statistics.pace import Lap
from study.tracking.follow import Keeper, sync

EVERY = 480
"""Training patches between two validations."""
CROPS = 6
VALIDATIONS = 30
"""Validations of a trial that is trained to its budget."""
RUNG = 15
"""The validation after which trials pause."""
SLOTS = 8
LINES_PER_BATCH = 20
"""Lines that a live study writes between two reads of a follower, which are at least two seconds apart."""
STEPS = {
    "fold": "reading and folding the journal",
    "follow at once": "a view that reads the whole journal",
    "follow live": "a view that reads it 20 lines at a time",
    "apply": "the coordinator's state, event by event",
    "trials": "results.trials",
    "ranking": "the report's ranking",
    "drawing": "one drawing of the live screen",
}
TARGETS = {"fold": 5.0, "follow at once": 5.0, "follow live": 5.0, "trials": 1.0, "ranking": 2.0}
"""Upper bounds in seconds, with 3,000 trials."""
MAX_GROWTH = 3.5
"""Upper bound for the ratio of the times with 3,000 and with 1,000 trials."""

BASE = TrialConfig(
    data=DataConfig(scale=2),
    train=TrainConfig(budget_patches=VALIDATIONS * EVERY, batch_size=16),
    evaluation=EvaluationConfig(every_patches=EVERY, crops=CROPS),
    seed=1,
)
EXPERIMENT = Experiment(
    question="What does a long journal cost?",
    base=BASE,
    nuisance={
        "train.learning_rate": Float(1e-4, 1e-2, log=True),
        "model.temperature": Float(0.1, 100.0, log=True),
        "train.loss": Choice("l1", "l2", "charbonnier"),
    },
    references={"authors": BASE.with_values({"train.learning_rate": 5e-4})},
    sampler="random",
    scheduler="asha",
    rungs=(RUNG * EVERY,),
    replicates=0,
)


class Nowhere:
    """A view that shows nothing, so that only the reading is measured."""

    where = ""

    def __init__(self, name: str = "nowhere") -> None:
        self.name = name

    def prepare(self) -> None: ...

    def open(self, opened: ev.StudyOpened) -> int:
        return 0

    def take(self, events: Sequence[ev.Event], state: StudyState, upto: int) -> None: ...

    def close(self) -> None: ...


def study(trials: int) -> Iterator[ev.Event]:
    """Yields the events of a complete study. Its first trial is a reference."""
    draw = random.Random(trials)
    moment = 1_700_000_000.0
    question = EXPERIMENT.describe() | {"seed": 1, "data": {"fingerprint": "cafe"}}
    yield ev.StudyOpened(
        time=moment,
        format=ev.FORMAT,
        study="costs",
        experiment="costs",
        seed=1,
        question=question,
        digest=short_digest(question),
        text=EXPERIMENT.question,
        runtime={"threads": 1, "device": "cpu"},
        data={"baseline": {"val/psnr": 28.0, "val/ssim": 0.8}, "crops": {"count": CROPS, "pictures": 3}},
    )
    yield ev.SessionStarted(time=moment, epoch=1, host="here", pid=1, trials=trials, provenance={"source": "feed"})
    waiting = iter(range(trials))
    slots: list[Iterator[ev.Event]] = [iter(())] * SLOTS
    busy = True
    while busy:
        busy = False
        for slot in range(SLOTS):
            event = next(slots[slot], None)
            number = next(waiting, None) if event is None else None
            if number is not None:
                slots[slot] = _trial(number, slot, draw)
                event = next(slots[slot])
            if event is not None:
                busy = True
                moment += 0.25
                yield replace(event, time=moment)
    yield ev.SessionEnded(time=moment, epoch=1, reason="complete")


def _trial(number: int, slot: int, draw: random.Random) -> Iterator[ev.Event]:
    """Yields the events of one trial in order. Their times are not set yet."""
    common: dict[str, Any] = {"time": 0.0, "trial": number}
    values: dict[str, Any] = {}
    config = EXPERIMENT.references["authors"]
    if number:
        values = {
            "train.learning_rate": 10 ** draw.uniform(-4, -2),
            "model.temperature": 10 ** draw.uniform(-1, 2),
            "train.loss": draw.choice(["l1", "l2", "charbonnier"]),
        }
        config = EXPERIMENT.base.with_values(values)
    config = replace(config, seed=99)
    yield ev.Proposed(
        role="search" if number else "reference",
        name="" if number else "authors",
        config=config.to_json(),
        config_hash=config.digest(),
        values=values,
        **common,
    )
    yield ev.Started(slot=slot, epoch=1, patches=0, source="feed", hardware="a CPU", **common)
    level = draw.gauss(31, 1)
    yield from _validations(range(1, RUNG + 1), level, draw, common)
    if number:
        yield ev.Paused(patches=RUNG * EVERY, **common)
    if number % 3:
        yield ev.Pruned(patches=RUNG * EVERY, reason="31.00 dB after 7200 patches is not among the best 1/3", **common)
        return
    if number:
        yield ev.Resumed(patches=RUNG * EVERY, **common)
        yield ev.Started(slot=slot, epoch=1, patches=RUNG * EVERY, source="feed", hardware="a CPU", **common)
    yield from _validations(range(RUNG + 1, VALIDATIONS + 1), level, draw, common)
    yield ev.Finished(
        patches=VALIDATIONS * EVERY,
        scores={"val/psnr": level - 1 / VALIDATIONS, "val/ssim": 0.9 - 0.1 / VALIDATIONS},
        per_image=tuple((f"{crop:04d}.png", draw.gauss(level, 2), draw.uniform(0.8, 1)) for crop in range(CROPS)),
        weights=f"{draw.getrandbits(128):032x}",
        seconds={"steps": 12.25, "validations": 1.125, "start-up": 0.5, "recording": 0.75},
        **common,
    )


def _validations(points: range, level: float, draw: random.Random, common: dict[str, Any]) -> Iterator[ev.Event]:
    """Yields validations, each with its checkpoint."""
    for point in points:
        yield ev.Validated(
            patches=point * EVERY,
            scores={"val/psnr": level - 1 / point, "val/ssim": 0.9 - 0.1 / point},
            loss=draw.uniform(0.01, 0.1),
            learning_rate=draw.uniform(1e-5, 1e-3),
            seconds={
                "steps": 0.4 * point + draw.random() / 9,
                "validations": 0.03 * point + draw.random() / 99,
                "start-up": draw.uniform(0.4, 0.6),
                "recording": 0.02 * point + draw.random() / 99,
            },
            load={"cpu_utilization_percentage": draw.uniform(40, 60), "memory_usage_megabytes": draw.uniform(380, 390)},
            **common,
        )
        yield ev.Checkpointed(patches=point * EVERY, **common)


def write(folder: StudyFolder, trials: int) -> list[bytes]:
    """Writes a study's journal and returns its lines. The journal's own writer would take hours, because it waits for
    the disk after each line.
    """
    folder.create()
    lines = [encode(seq, event) for seq, event in enumerate(study(trials))]
    folder.journal.write_bytes(b"".join(lines))
    return lines


def measure(folder: StudyFolder, lines: Sequence[bytes], repeats: int) -> dict[str, float]:
    """Returns the median CPU seconds of each step. Other work on the machine does not count."""
    events = list(read(folder.journal))
    state = fold(events)
    record = record_of(folder, events, None)
    on_slots = {number: Lap(number, 0, state.last_time - 60, 960, state.last_time) for number in range(1, SLOTS)}

    def follow_live() -> None:
        growing = folder.journal.with_name("growing.jsonl")
        growing.write_bytes(b"")
        keeper = Keeper(growing, Nowhere())
        with growing.open("ab", buffering=0) as file:
            for first in range(0, len(lines), LINES_PER_BATCH):
                file.write(b"".join(lines[first : first + LINES_PER_BATCH]))
                keeper.advance()
        assert keeper.count == len(lines)
        keeper.close()

    def apply_each() -> None:
        current = StudyState()
        for event in events:
            current = current.apply(event)
        assert current.count == state.count

    def draw() -> None:
        shown = ScreenState(
            state=replace(state),
            asked=len(state.trials) + SLOTS,
            slots=SLOTS,
            laps=on_slots,
            now=state.last_time,
        )
        screen(shown, 140, 50)

    # Each call gets a copy of the state, because a state caches what it has computed.
    steps: dict[str, Callable[[], object]] = {
        "fold": lambda: fold(read(folder.journal)),
        "follow at once": lambda: sync(folder.journal, Nowhere()),
        "follow live": follow_live,
        "apply": apply_each,
        "trials": lambda: results.trials(replace(state)),
        "ranking": lambda: ranking(replace(record, state=replace(state))),
        "drawing": draw,
    }
    return {name: _median(step, repeats) for name, step in steps.items()}


def _median(step: Callable[[], object], repeats: int) -> float:
    """Returns the median CPU seconds of `repeats` calls."""
    seconds = []
    for _ in range(repeats):
        gc.collect()
        gc.freeze()  # a reader's garbage collector would not have to visit the objects of this script
        begun = time.process_time()
        step()
        seconds.append(time.process_time() - begun)
        gc.unfreeze()
    return statistics.median(seconds)


def memory(journal: Path) -> float:
    """Returns the megabytes of a study in a session: the coordinator's state, and two views that have read it."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_hold, args=(theirs, journal))
    process.start()
    theirs.close()
    megabytes: float = ours.recv()
    process.join()
    return megabytes


def _hold(pipe: Any, journal: Path) -> None:
    """Loads a study in a process of its own, and sends by how many megabytes the process grew."""
    before = _resident()
    state = fold(read(journal))
    reading = Reading(journal)
    keepers = [Keeper(journal, Nowhere(name), reading) for name in ("one", "other")]
    while sum(keeper.advance() for keeper in keepers):
        pass
    gc.collect()
    pipe.send((_resident() - before) / 1e6)
    assert all(keeper.count == state.count for keeper in keepers)


def _resident() -> int:
    """Returns the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--trials", type=int, nargs="+", default=[1000, 3000], help="trials of each study; default: 1000 3000"
    )
    parser.add_argument("--repeats", type=int, default=5, help="calls of each step, for the median; default: 5")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "out", metavar="DIR", help="folder for the results"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    costs: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="journal-costs-") as root:
        for trials in args.trials:
            print(f"{trials:,} trials …", file=sys.stderr)
            folder = StudyFolder(Path(root), f"costs{trials}")
            lines = write(folder, trials)
            sizes = {"lines": float(len(lines)), "megabytes": folder.journal.stat().st_size / 1e6}
            costs[trials] = sizes | {"memory": memory(folder.journal)} | measure(folder, lines, args.repeats)
    report = {"machine": cpu_model(), "cores": os.cpu_count(), "repeats": args.repeats, "trials": costs}
    (args.out / "journal_costs.json").write_text(json.dumps(report, indent=1))
    print(table(costs, args.repeats))


def table(costs: dict[int, dict[str, float]], repeats: int) -> str:
    """Returns the costs as text, with their growth and, with 3,000 trials, whether they meet their targets.

    Args:
        costs: number of trials -> the costs of such a study.
    """
    first, last = min(costs), max(costs)
    lines = [f"{cpu_model()}, {os.cpu_count()} cores; medians of {repeats} calls, in CPU seconds", ""]
    for trials, of_study in costs.items():
        lines.append(
            f"{trials:,} trials: journal of {of_study['lines']:,.0f} lines and {of_study['megabytes']:.0f} MB; "
            f"a session takes {of_study['memory']:.0f} MB of memory for it"
        )
    heads = "".join(f"{f'{trials:,} trials':>15}" for trials in costs)
    lines += ["", f"{'':42}{heads}{'growth':>9}  {'target at 3,000'}"]
    for step, description in STEPS.items():
        times = "".join(f"{of_study[step]:>13.3f} s" for of_study in costs.values())
        growth = costs[last][step] / costs[first][step]
        target = ""
        if (first, last) == (1000, 3000) and step in TARGETS:
            is_met = costs[last][step] <= TARGETS[step] and growth <= MAX_GROWTH
            target = f"{TARGETS[step]:g} s, growth {MAX_GROWTH:g}: {'met' if is_met else 'MISSED'}"
        lines.append(f"{description:42}{times}{growth:>9.2f}  {target}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    main()
