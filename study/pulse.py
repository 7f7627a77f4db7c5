"""How far the running trials are between two validations: a small file beside the journal, for `study.status`."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from study.events import Event, SessionEnded, Ticked
from study.pace import Lap, follow
from study.state import StudyState

_SECONDS = 2.0
"""Between two writings: a tick comes every second and slot, and nobody looks as often."""


class Pulse:
    """Writes the file while a session lasts."""

    def __init__(self, journal: Path) -> None:
        self._path = _path(journal)
        self._laps: Mapping[int, Lap] = {}
        self._written = 0.0
        with suppress(OSError):  # a killed session's is no longer true
            self._path.unlink(missing_ok=True)

    def observe(self, event: Event, state: StudyState) -> None:
        self._laps = follow(self._laps, event)
        if isinstance(event, SessionEnded):
            self._path.unlink(missing_ok=True)
        elif isinstance(event, Ticked) and time.monotonic() - self._written >= _SECONDS:
            aside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            with suppress(OSError):  # it is for information alone
                aside.write_text(json.dumps({number: asdict(lap) for number, lap in self._laps.items()}))
                aside.replace(self._path)
            self._written = time.monotonic()


def pulse_of(journal: Path) -> dict[int, Lap]:
    """The trials on a slot as they last told; empty if nothing is known, or nothing that can be read."""
    try:
        return {int(number): Lap(**lap) for number, lap in json.loads(_path(journal).read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _path(journal: Path) -> Path:
    return journal.with_name(".pulse.json")
