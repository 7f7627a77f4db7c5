"""What came of a study, as its command shows it at the end; and at once, if there was nothing left to do.

Nothing here imports PyTorch, MLflow or Optuna: a command that is typed again on a finished study answers within a
second or two.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.machine import cores
from sr_core.store.manifest import fingerprint
from study.commandline import typed
from study.executors.placement import Placement
from study.question.config import short_digest
from study.question.experiment import Experiment
from study.record.branching import require_own_name
from study.record.events import SessionEnded
from study.record.folder import StudyFolder
from study.record.journal import decode, read
from study.record.state import StudyState, fold
from study.record.wall_time import WallTime, table
from study.screen import terminal
from study.session.opening import find_images, known_manifest, question_of
from study.tracking.views import hold_all

TEMPORARY = 75
"""Exit status where the same command goes on later (EX_TEMPFAIL)."""
NOTHING_SUCCEEDED = 3
_TAIL_BYTES = 65_536
"""More than the line that ends a session."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """A study that the arguments of `study.run` describe, and how what came of it is shown."""

    name: str
    """Of the experiment."""
    experiment: Experiment
    args: argparse.Namespace
    folder: StudyFolder
    wall_time: WallTime
    placement: Placement = field(default_factory=Placement)

    @property
    def seed(self) -> int:
        """The study's seed."""
        return self.experiment.base.seed if self.args.seed is None else int(self.args.seed)

    def status(self, state: StudyState) -> int:
        """The exit status after a session, whose ending it says where that is no good one."""
        end = state.ended
        assert end is not None
        if end.reason in ("interrupted", "terminated"):
            print(f"{end.reason}; the same command goes on from here", file=sys.stderr)
            return 130 if end.reason == "interrupted" else TEMPORARY
        if end.reason == "timeout":
            early = "" if any(t.ended for t in state.trials.values()) else " before any trial had ended"
            print(f"the time is up{early}; the same command goes on from here", file=sys.stderr)
            if early:
                return 0  # nobody failed
        if end.reason == "failures":
            print(f"error: stopped: {end.detail}", file=sys.stderr)
        succeeded = end.reason != "failures" and any(t.counts for t in state.trials.values())
        return 0 if succeeded else NOTHING_SUCCEEDED

    def say_if_fewer(self, out: terminal.Out, state: StudyState) -> None:
        """Say so if more trials are counted than were asked for."""
        if state.counted > self.args.trials:
            out.print(f"{state.counted} trials are counted already and --trials {self.args.trials} asks for fewer: no "
                      "new one is tried; a larger number searches on", soft_wrap=True)  # fmt: skip

    def show(self, out: terminal.Out, state: StudyState) -> None:
        """The result, where to look at it, and the next command to type."""
        for line in self.result(out, state):
            out.print(line, markup=False)  # wrapped between words
        lines: list[str] = []
        if state.concluded is not None:
            lines.append(f"written to {self.folder.results}")
            lines += _gone(self.folder, state)
            if not self.folder.training:
                lines.append(f"write it up as one page for a colleague: python -m study.report{self.where()}")
        if self.args.tracking_uri is None:
            from study.tracking.dashboards import ui_command

            lines.append(f"compare the trials: python -m study.ui{self.where()}")
            lines.append(f"  (or, in any folder: {ui_command(self.folder.root)})")
        if self.args.profile:
            lines += table(self.wall_time.breakdown(state, self.placement.slots))
        for line in (*lines, f"next: {self.next_command(state)}"):
            out.print(line, markup=False, soft_wrap=True)  # a command that was broken in two cannot be copied

    def result(self, out: terminal.Out, state: StudyState) -> list[str]:
        """What came of it: the table is printed, the sentences are returned."""
        out.print(terminal.ranking_table(state))
        return terminal.summary(state)

    def next_command(self, state: StudyState) -> str:
        """The command to type after this session."""
        if not state.complete:
            return f"python -m study.run{typed(sys.argv[1:])}"
        if state.best() is None:  # references alone: the same command would find nothing to do
            return f"python -m study.run{typed(with_trials(sys.argv[1:], state.counted + 10))}"
        return f"python -m study.reproduce best{self.where()}"

    def where(self) -> str:
        """The flags that lead another command to this study."""
        root = ["--root", str(self.args.root)] if self.args.root else []
        study = ["--study-name", self.folder.study] if self.folder.study != "quickstart" else []
        return typed([*root, *study])


def shown_again(outcome: Outcome) -> int | None:
    """Show a study that is finished, as the same command did; the exit status.

    None, and nothing is shown, if anything is left to do or to say: trials, results, a view that lacks events, images
    that are new or have changed, another question, another owner. Whoever asks then runs a session, which looks again.
    """
    folder, args = outcome.folder, outcome.args
    if not folder.journal.is_file() or folder.published or folder.owner() is not None:
        return None
    if outcome.placement.gpus or outcome.placement.executor == "ray":
        return None  # what there is of those a session knows
    try:
        if not _has_ended(folder.journal):
            return None
        require_own_name(folder)
        state = fold(read(folder.journal))
        if state.opened is None or not done(folder, state, args.trials):
            return None
        if state.opened.runtime["device"] != "cpu" and outcome.placement.slots > 1:
            return None
        outcome.placement.check(state.opened.runtime, cores())
        manifest = known_manifest(folder.root, find_images(args.data, outcome.experiment))
        if manifest is None:
            return None
        question = question_of(outcome.experiment, outcome.seed, fingerprint(manifest))
        if state.opened.digest != short_digest(question):
            return None
        if not hold_all(folder, state, args.tracking_uri, args.storage):
            return None
    except (SuiteError, OSError):
        return None  # a session meets the same, and says it
    out = terminal.console()
    outcome.say_if_fewer(out, state)
    outcome.show(out, state)
    return outcome.status(state)


def _has_ended(journal: Path) -> bool:
    """Whether the record's last line says that its study is complete; reads no other line."""
    with journal.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        line = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
    try:
        _, event = decode(line + b"\n")
    except ValueError:
        return False
    return isinstance(event, SessionEnded) and event.reason in ("complete", "exhausted")


def done(folder: StudyFolder, state: StudyState, asked: int) -> bool:
    """Whether there is nothing left to do, not even a conclusion."""
    assert state.ended is None or state.session is not None
    enough = state.counted >= asked or (state.ended is not None and state.ended.reason == "exhausted")
    return state.complete and enough and not (state.concluded is not None and lacks_results(folder, state))


def lacks_results(folder: StudyFolder, state: StudyState) -> bool:
    """Whether a file of the conclusion could not be made, or is gone and can be made again."""
    last = state.concluded
    return last is not None and bool(last.missing or (_absent(folder, state) and _weights(folder, state).is_file()))


def _absent(folder: StudyFolder, state: StudyState) -> list[str]:
    """Files of the conclusion that are no longer there."""
    names = state.concluded.files if state.concluded is not None else ()
    return [name for name in names if folder.holds(name) and not (folder.path / name).is_file()]


def _weights(folder: StudyFolder, state: StudyState) -> Path:
    """The winner's weights, which a conclusion is made from."""
    assert state.concluded is not None
    best = state.best()
    return folder.trial(state.concluded.best if best is None else best.number) / "weights.safetensors"


def _gone(folder: StudyFolder, state: StudyState) -> list[str]:
    """A line if results are no longer there and cannot be made again."""
    absent = _absent(folder, state)
    if not absent:
        return []
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    return [f"warning: {absent[0]}{more} missing; needs the winner's weights: put back {_weights(folder, state)}"]


def with_trials(arguments: Sequence[str], trials: int) -> list[str]:
    """The same arguments, with another number of trials."""
    kept = [argument for argument in arguments if not argument.startswith("--trials=")]
    if "--trials" in kept:
        place = kept.index("--trials")
        del kept[place : place + 2]
    return [*kept, "--trials", str(trials)]
