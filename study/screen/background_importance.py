"""Importances while a study runs, measured in a process of the lowest priority: not even Python's lock is shared.

One measure of fifty trials takes seconds of a core (docs/PERFORMANCE.md), scikit-learn's import among them. A thread
would take them from the study's loop and, with one slot, from the training itself.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from study.question.experiment import Experiment
from study.record.state import StudyState

FEWEST_TRIALS = 10
"""As in study.statistics.importance, which is not imported here."""
_GROWTH = 1.5
"""By how many times the finished trials have to grow until they are looked at again."""


class BackgroundImportance:
    """The last importances that were measured of a study; starts the next measure when it is due."""

    def __init__(self, experiment: Experiment, journal: Path) -> None:
        self._experiment, self._journal = experiment, journal
        self._spawn = get_context("spawn")
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Sequence[str], Sequence[str]] | None = None
        self._measured, self._known = 0, list[str]()
        self._closed = False

    def sentences(self, state: StudyState) -> Sequence[str]:
        """What the hyperparameters matter, in words; empty until enough trials finished. Never waits."""
        if self._pipe is not None:
            if self._pipe.poll():
                with suppress(EOFError):  # it died: the next one will tell
                    self._known = [*self._pipe.recv()] or self._known
                self._end()
            return self._known
        finished = sum(t.status == "finished" and t.proposed.role == "search" for t in state.trials.values())
        if not self._closed and finished >= max(FEWEST_TRIALS, _GROWTH * self._measured):
            self._measured = finished
            ours, theirs = self._spawn.Pipe(duplex=False)
            process = self._spawn.Process(
                target=_measure, args=(theirs, self._experiment, self._journal), name="importance", daemon=True
            )
            with theirs:
                _start(process)
            self._process, self._pipe = process, ours
        return self._known

    def close(self) -> None:
        """End a measure that is under way."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def _start(process: SpawnProcess) -> None:
    """Start it where it does not hear the terminal's Ctrl-C: that is for the study, which ends it."""
    resource_tracker.ensure_running()  # by itself it would be started below, and unblock both signals (Python 3.11)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _measure(pipe: "Connection[Sequence[str], Sequence[str]]", experiment: Experiment, journal: Path) -> None:
    """A process's life."""
    from sr_core.process.parent import end_with_parent

    end_with_parent()
    os.nice(19)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    from study.record.journal import read
    from study.record.state import fold

    pipe.send(_told(fold(read(journal)), experiment))


def _told(state: StudyState, experiment: Experiment) -> Sequence[str]:
    """The importances in words, and the number of points they are from: references in the space are among them."""
    from study.statistics import importance

    lines = importance.importance_sentences(
        importance.importances(state, experiment), experiment.sampler, importance.stopped(state)
    )
    points, _ = importance.located(state, experiment.space, experiment.base.dotted())
    return [f"after {len(points)} finished trials, {lines[0]}", *lines[1:]] if lines else []
