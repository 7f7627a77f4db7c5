"""Measures hyperparameter importances while a study runs, in a process of the lowest priority.

One measurement over fifty trials takes seconds of CPU time, including the import of scikit-learn
(docs/development/performance.md). In a thread it would hold Python's lock and slow down the study's loop and, with
one slot, the training itself.
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
"""As in study.statistics.importance, whose import would be slow here."""
_GROWTH_FACTOR = 1.5
"""Importances are measured again when the number of finished trials has grown by this factor."""


class BackgroundImportance:
    """Holds the latest importances of a study, and starts a new measurement when one is due."""

    def __init__(self, experiment: Experiment, journal: Path) -> None:
        self._experiment = experiment
        self._journal = journal
        self._spawn = get_context("spawn")
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Sequence[str], Sequence[str]] | None = None
        self._trials_measured = 0
        self._latest: list[str] = []
        self._closed = False

    def sentences(self, state: StudyState) -> Sequence[str]:
        """Return the latest importances in words, without waiting; empty until enough trials have finished."""
        if self._pipe is not None:
            if self._pipe.poll():
                with suppress(EOFError):  # the process died: a later measurement replaces this one
                    self._latest = [*self._pipe.recv()] or self._latest
                self._end()
            return self._latest

        finished = sum(t.status == "finished" and t.proposed.role == "search" for t in state.trials.values())
        if not self._closed and finished >= max(FEWEST_TRIALS, _GROWTH_FACTOR * self._trials_measured):
            self._trials_measured = finished
            ours, theirs = self._spawn.Pipe(duplex=False)
            process = self._spawn.Process(
                target=_measure, args=(theirs, self._experiment, self._journal), name="importance", daemon=True
            )
            with theirs:
                _start(process)
            self._process = process
            self._pipe = ours
        return self._latest

    def close(self) -> None:
        """End a running measurement, and start no more."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def _start(process: SpawnProcess) -> None:
    """Start the process with Ctrl-C and SIGTERM blocked, because the study handles them and ends the process."""
    # Otherwise `process.start` would start the tracker, which unblocks both signals (Python 3.11).
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _measure(pipe: "Connection[Sequence[str], Sequence[str]]", experiment: Experiment, journal: Path) -> None:
    """Measure the importances once and send them. This is all that the process does."""
    from sr_core.process.parent import end_with_parent

    end_with_parent()
    os.nice(19)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    from study.record.journal import read
    from study.record.state import fold

    pipe.send(_describe(fold(read(journal)), experiment))


def _describe(state: StudyState, experiment: Experiment) -> Sequence[str]:
    """Return the importances in words. The first line gives the number of trials, references in the space included."""
    from study.statistics import importance

    lines = importance.importance_sentences(
        importance.importances(state, experiment), experiment.sampler, importance.stopped(state)
    )
    points, _ = importance.located(state, experiment.space, experiment.base.dotted())
    return [f"after {len(points)} finished trials, {lines[0]}", *lines[1:]] if lines else []
