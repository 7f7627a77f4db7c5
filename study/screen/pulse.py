"""How far the running trials are between two validations: a small file beside the journal, for `study.status`."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from study.record.events import Event, SessionEnded, Ticked
from study.record.state import StudyState
from study.statistics.pace import Lap, follow

_SECONDS = 2.0
"""Between two writings: a tick comes every second and slot, and nobody looks as often."""


class Pulse:
    """Writes the file while a session lasts."""

    def __init__(self, journal: Path) -> None:
        self._path = _path(journal)
        self._aside = self._path.with_name(f"{self._path.name}.part")  # always the same, or every kill might leave one
        self._laps: Mapping[int, Lap] = {}
        self._written = 0.0
        self._remove()  # a killed session's is no longer true

    def observe(self, event: Event, state: StudyState) -> None:
        self._laps = follow(self._laps, event)
        if isinstance(event, SessionEnded):
            self._remove()
        elif isinstance(event, Ticked) and state.session and time.monotonic() - self._written >= _SECONDS:
            laps = {number: asdict(lap) for number, lap in self._laps.items()}
            with suppress(OSError):  # it is for information alone
                self._aside.write_text(json.dumps({"epoch": state.session.epoch, "laps": laps}))
                self._aside.replace(self._path)
            self._written = time.monotonic()

    def _remove(self) -> None:
        for path in (self._path, self._aside):
            with suppress(OSError):  # a study does not fail over what is for information alone
                path.unlink(missing_ok=True)


def pulse_of(journal: Path, epoch: int) -> dict[int, Lap]:
    """The trials on a slot as that session last told; empty if nothing of it is known, or nothing that can be read."""
    try:
        told = json.loads(_path(journal).read_text("utf-8"))
        return {int(number): Lap(**lap) for number, lap in told["laps"].items()} if told["epoch"] == epoch else {}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}


def _path(journal: Path) -> Path:
    return journal.with_name(".pulse.json")
