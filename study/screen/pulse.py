"""Writes how far the running trials are to a small file next to the journal, for `study.status`.

The journal alone shows progress only at each validation.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from study.record.events import Event, SessionEnded, Ticked
from study.record.state import StudyState
from study.statistics.pace import Lap, follow

_WRITE_INTERVAL_SECONDS = 2.0
"""Least time between two writes. Each slot sends a tick every second, which is more often than needed."""


class Pulse:
    """Writes the progress of running trials during a session."""

    def __init__(self, journal: Path) -> None:
        self._path = _path(journal)
        # One fixed name, so that killed sessions leave at most one temporary file.
        self._temporary = self._path.with_name(f"{self._path.name}.part")
        self._laps: Mapping[int, Lap] = {}
        self._written = 0.0
        self._remove()  # the file of a killed session is out of date

    def observe(self, event: Event, state: StudyState) -> None:
        self._laps = follow(self._laps, event)
        if isinstance(event, SessionEnded):
            self._remove()
        elif isinstance(event, Ticked) and state.session and self._due():
            self._write(state.session.epoch)

    def _due(self) -> bool:
        return time.monotonic() - self._written >= _WRITE_INTERVAL_SECONDS

    def _write(self, epoch: int) -> None:
        laps = {number: asdict(lap) for number, lap in self._laps.items()}
        with suppress(OSError):  # the file is only informative, so the study continues without it
            self._temporary.write_text(json.dumps({"epoch": epoch, "laps": laps}))
            self._temporary.replace(self._path)
        self._written = time.monotonic()

    def _remove(self) -> None:
        for path in (self._path, self._temporary):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def pulse_of(journal: Path, epoch: int) -> dict[int, Lap]:
    """Return the progress of each running trial as that session last wrote it; empty if the file is not readable.

    Args:
        epoch: number of the session. The file of another session is ignored.
    """
    try:
        content = json.loads(_path(journal).read_text("utf-8"))
        if content["epoch"] != epoch:
            return {}
        return {int(number): Lap(**lap) for number, lap in content["laps"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}


def _path(journal: Path) -> Path:
    return journal.with_name(".pulse.json")
