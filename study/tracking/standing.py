"""How far a view is and what it costs: a small file beside the journal, for `study.status` and for measurements."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sr_core.durable import temporary_name

VIEWS = ("mlflow", "optuna")


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What whoever keeps a view last knew of it."""

    time: float
    """Unix time of this knowledge."""
    events: int = 0
    """How many of the journal's events the view holds."""
    busy_seconds: float = 0.0
    """Wall time that was spent handing over, by this session or this study.sync."""
    cpu_seconds: float = 0.0
    """Processor time of the same."""
    waited_seconds: float = 0.0
    """Wall time for which the study's loop waited for that, in this session."""
    error: str = ""
    """Why the last attempt to hand over failed, in one line without passwords; empty if it did not."""

    def save(self, journal: Path, view: str) -> None:
        """Put it beside the journal. Where that cannot be written nothing happens: it is for information alone."""
        path = _path(journal, view)
        aside = temporary_name(path)
        with suppress(OSError):
            aside.write_text(json.dumps(asdict(self)))
            aside.replace(path)


def standing_of(journal: Path, view: str) -> Standing | None:
    """What is known of a view; None if nothing is, or nothing that can be read."""
    try:
        return Standing(**json.loads(_path(journal, view).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _path(journal: Path, view: str) -> Path:
    return journal.with_name(f".{view}.json")
