"""The result of a study as its command prints it: after a session, or at once if nothing is left to do.

This module does not import PyTorch, MLflow or Optuna. A command that is repeated on a complete study therefore answers
within a second or two.
"""

import os
import sys
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
from study.session.goal import Goal, Search
from study.session.opening import find_images, known_manifest, question_of
from study.session.options import RunOptions
from study.tracking.views import hold_all

TEMPORARY = 75
"""Exit status after which the same command continues the study (EX_TEMPFAIL)."""
NOTHING_SUCCEEDED = 3
"""Exit status if no trial has succeeded."""
_TAIL_BYTES = 65_536
"""Bytes read from a journal's end; more than the line that ends a session."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """A study that a command runs, and how its result is printed."""

    name: str
    """Name of the experiment."""
    experiment: Experiment
    options: RunOptions
    folder: StudyFolder
    wall_time: WallTime
    placement: Placement = field(default_factory=Placement)
    goal: Goal = field(default_factory=Search)

    @property
    def seed(self) -> int:
        """The study's seed: the option's, or else the experiment's."""
        return self.experiment.base.seed if self.options.seed is None else self.options.seed

    def status(self, state: StudyState) -> int:
        """Return the exit status after a session; prints why it ended, unless it is complete."""
        failure = self.goal.failure(state, self.folder)
        if failure is not None:
            print(failure, file=sys.stderr)
        end = state.ended
        assert end is not None
        if end.reason in ("interrupted", "terminated"):
            print(f"{end.reason}; the same command continues from here", file=sys.stderr)
            return 130 if end.reason == "interrupted" else TEMPORARY
        if end.reason == "timeout":
            none_ended = not any(t.ended for t in state.trials.values())
            before = " before any trial had ended" if none_ended else ""
            print(f"the time is up{before}; the same command continues from here", file=sys.stderr)
            if none_ended:
                return 0  # no trial has failed
        if end.reason == "failures":
            print(f"error: stopped: {end.detail}", file=sys.stderr)
        succeeded = end.reason != "failures" and any(t.counts for t in state.trials.values())
        return 0 if succeeded else NOTHING_SUCCEEDED

    def say_if_fewer(self, out: terminal.Out, state: StudyState) -> None:
        """Print a note if the study already has more trials than --trials asks for."""
        if state.counted > self.options.trials:
            out.print(
                f"the study already has {state.counted} trials and --trials {self.options.trials} asks for fewer: no "
                "trial is added; a larger number continues the search",
                soft_wrap=True,
            )

    def show(self, out: terminal.Out, state: StudyState) -> None:
        """Print the result, the places that hold more of it, and the next command to type."""
        for line in self.goal.result(out, state, self.folder):
            out.print(line, markup=False)  # wrapped between words

        lines: list[str] = []
        if state.concluded is not None:
            lines.append(f"written to {self.folder.results}")
            lines += _gone(self.folder, state)
            if not self.folder.training:
                lines.append(f"make a report to share, one HTML page: python -m study.report{self.study_flags()}")
        if self.options.tracking_uri is None:
            from study.tracking.dashboards import ui_command

            lines.append(f"compare the trials in MLflow: python -m study.ui{self.study_flags()}")
            lines.append(f"  (from any other folder: {ui_command(self.folder.root)})")
        if self.options.profile:
            lines += table(self.wall_time.breakdown(state, self.placement.slots))

        for line in (*lines, f"next: {self.goal.next_command(state, self.study_flags())}"):
            out.print(line, markup=False, soft_wrap=True)  # a command that is broken in two cannot be copied

    def study_flags(self) -> str:
        """The flags that select this study in another command."""
        root = ["--root", str(self.options.root)] if self.options.root else []
        study = ["--study-name", self.folder.study] if self.folder.study != "quickstart" else []
        return typed([*root, *study])


def shown_again(outcome: Outcome) -> int | None:
    """Print the result of a complete study again, and return the exit status.

    The result is None, and nothing is printed, if a session has anything to do or to report: trials or results are
    missing, a view lacks events, images are new or changed, the question differs, or another process owns the study.
    The caller then runs a session, which checks all of this itself.
    """
    folder = outcome.folder
    options = outcome.options
    if not folder.journal.is_file() or folder.published or folder.owner() is not None:
        return None
    if outcome.placement.gpus or outcome.placement.executor == "ray":
        return None  # only a session can check GPUs and clusters
    try:
        if not _has_ended(folder.journal):
            return None
        require_own_name(folder)
        state = fold(read(folder.journal))
        if state.opened is None or not done(folder, state, options.trials):
            return None
        if state.opened.runtime["device"] != "cpu" and outcome.placement.slots > 1:
            return None
        outcome.placement.check(state.opened.runtime, cores())
        manifest = known_manifest(folder.root, find_images(options.data, outcome.experiment))
        if manifest is None:
            return None
        question = question_of(outcome.experiment, outcome.seed, fingerprint(manifest))
        if state.opened.digest != short_digest(question):
            return None
        if not hold_all(folder, state, options.tracking_uri, options.storage):
            return None
    except (SuiteError, OSError):
        return None  # a session meets the same error and reports it

    out = terminal.console()
    outcome.say_if_fewer(out, state)
    outcome.show(out, state)
    return outcome.status(state)


def _has_ended(journal: Path) -> bool:
    """True if the journal's last line says that the study is complete; no other line is read."""
    with journal.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        line = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
    try:
        _, event = decode(line + b"\n")
    except ValueError:
        return False
    return isinstance(event, SessionEnded) and event.reason in ("complete", "exhausted")


def done(folder: StudyFolder, state: StudyState, target: int) -> bool:
    """True if nothing is left to do: all trials have ended, and the results are written.

    Args:
        target: number of trials that --trials asks for.
    """
    assert state.ended is None or state.session is not None
    exhausted = state.ended is not None and state.ended.reason == "exhausted"
    if not state.complete or not (state.counted >= target or exhausted):
        return False
    return state.concluded is None or not lacks_results(folder, state)


def lacks_results(folder: StudyFolder, state: StudyState) -> bool:
    """True if a result file could not be made, or has disappeared and can be made again."""
    last = state.concluded
    if last is None:
        return False
    if last.missing:
        return True
    return bool(_absent(folder, state)) and _weights(folder, state).is_file()


def _absent(folder: StudyFolder, state: StudyState) -> list[str]:
    """Result files that the study wrote and that no longer exist."""
    names = state.concluded.files if state.concluded is not None else ()
    return [name for name in names if folder.holds(name) and not (folder.path / name).is_file()]


def _weights(folder: StudyFolder, state: StudyState) -> Path:
    """Path of the winner's weights, which the results are computed from."""
    assert state.concluded is not None
    best = state.best()
    return folder.trial(state.concluded.best if best is None else best.number) / "weights.safetensors"


def _gone(folder: StudyFolder, state: StudyState) -> list[str]:
    """A warning if result files have disappeared and cannot be made again; else no line."""
    absent = _absent(folder, state)
    if not absent:
        return []
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    return [f"warning: {absent[0]}{more} missing; to make it again, restore the weights {_weights(folder, state)}"]
