"""The views of a study, MLflow and Optuna's database: which ones there are, and their upkeep while a session lasts."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sr_core.errors import TakenOverError
from sr_core.process.cli import show_progress
from sr_core.process.redaction import redact
from sr_core.process.stopping import StopSignal
from study.record.events import Event, StudyOpened
from study.record.folder import StudyFolder
from study.record.state import StudyState
from study.record.tail import Reading
from study.tracking.databases import check_address, default_storage, default_tracking_uri
from study.tracking.follow import Sink
from study.tracking.follower import Follower
from study.tracking.held import holds_all

_PREPARE_SECONDS = 60.0
"""How long a session waits for the views' stores to be made."""
_DRAIN_SECONDS, _HURRIED_SECONDS = 60.0, 8.0
"""How long the views may take to catch up at the end: usually, and when their tracker is down or somebody waits."""
_END_SECONDS = 5.0
"""How long all of them together may take for what they are amid."""


def check_addresses(tracking_uri: str | None, storage: str | None, root: Path | None = None) -> None:
    """Raises SuiteError where one can never be that of a view, or where no address can name the root's own store."""
    if root is not None and tracking_uri is None:
        default_tracking_uri(root)
    if root is not None and storage is None:
        default_storage(root)
    if tracking_uri not in (None, "none"):
        check_address("--tracking-uri", str(tracking_uri), server=True)
    if storage not in (None, "none"):
        check_address("--storage", str(storage), server=False)


def addresses_of(folder: StudyFolder, tracking_uri: str | None, storage: str | None) -> dict[str, str]:
    """The views that `--tracking-uri` and `--storage` ask for, with the address of each one's store.

    None is the root's own store, "none" is no view. Optuna's tools know searches alone, so a longer training is not
    among them.
    """
    check_addresses(tracking_uri, storage)
    found: dict[str, str] = {}
    if tracking_uri != "none":
        found["mlflow"] = tracking_uri or default_tracking_uri(folder.root)
    if storage != "none" and not folder.training:
        found["optuna"] = storage or default_storage(folder.root)
    return found


def sinks_of(folder: StudyFolder, tracking_uri: str | None, storage: str | None) -> list[Sink]:
    """The views that `--tracking-uri` and `--storage` ask for, as `addresses_of` has them."""
    addresses = addresses_of(folder, tracking_uri, storage)
    return [LateSink(view, address, folder) for view, address in addresses.items()]


def hold_all(folder: StudyFolder, state: StudyState, tracking_uri: str | None, storage: str | None) -> bool:
    """Whether all the views that are asked for are known to have every event of the study."""
    addresses = addresses_of(folder, tracking_uri, storage)
    return all(holds_all(folder, state, view, address) for view, address in addresses.items())


_LOADING = threading.Lock()
"""One library at a time: those of two views share others, and Python lets two threads meet in a circle of imports."""


class LateSink:
    """A view whose library is loaded when it is first used, by the thread that uses it: MLflow's takes seconds."""

    def __init__(self, view: str, address: str, folder: StudyFolder) -> None:
        self.name = view
        self.where = redact(address)
        self._address, self._folder = address, folder
        self._loaded: Sink | None = None

    def _sink(self) -> Sink:
        if self._loaded is None:
            with _LOADING:
                self._loaded = _load(self.name, self._address, self._folder)
        return self._loaded

    def prepare(self) -> None:
        """As of the view."""
        self._sink().prepare()

    def open(self, opened: StudyOpened) -> int:
        """As of the view."""
        return self._sink().open(opened)

    def take(self, events: Sequence[Event], state: StudyState, upto: int) -> None:
        """As of the view."""
        self._sink().take(events, state, upto)

    def close(self) -> None:
        """As of the view; one that was never used has nothing to close."""
        if self._loaded is not None:
            self._loaded.close()


def _load(view: str, address: str, folder: StudyFolder) -> Sink:
    if view == "optuna":
        from study.tracking.optuna import OptunaSink

        return OptunaSink(address, folder)
    if folder.training:
        from study.tracking.mlflow.training import TrainingSink

        return TrainingSink(address, folder)
    from study.tracking.mlflow.sink import MlflowSink

    return MlflowSink(address, folder)


@contextmanager
def followed(
    folder: StudyFolder, sinks: Sequence[Sink], stop: StopSignal, say: Callable[[str], None]
) -> Iterator[list[Follower]]:
    """Followers that create the views' stores, keep them up to date and, at the end, are given time to finish.

    The journal need not be there yet. If it never comes about, nobody waits for anything.

    Args:
        say: told the name of a view that is not up to date in the end.
    """
    reading = Reading(folder.journal)  # by all of them together
    followers = [Follower(folder.journal, sink, reading) for sink in sinks]
    for follower in followers:
        follower.start()
    patience = 0.0  # Ctrl-C amid the preparation, or a second one: the next session or study.sync goes on
    try:
        yield followers
        patience = _DRAIN_SECONDS
    except TakenOverError:
        raise  # the new owner keeps them now
    except Exception:
        patience = _HURRIED_SECONDS
        raise
    finally:
        begun = time.monotonic()
        for follower in followers:
            if patience and folder.journal.exists():
                _drain(follower, stop, begun, patience, say)
        for follower in followers:
            follower.stop(timeout=0.0)  # all at once: each may be amid a hand-over
        until = time.monotonic() + _END_SECONDS
        for follower in followers:
            follower.stop(timeout=max(0.0, until - time.monotonic()))


def wait_prepared(followers: Sequence[Follower]) -> None:
    """Wait for the views' stores, but not for ever: a disk that hangs delays a view, and not the study."""
    until = time.monotonic() + _PREPARE_SECONDS
    for follower in followers:
        while not follower.wait_prepared(0.2) and (left := until - time.monotonic()) > 0:
            show_progress(f"creating the store of {follower.view}: at most {left:.0f} s")
    show_progress("")


def _drain(follower: Follower, stop: StopSignal, begun: float, patience: float, say: Callable[[str], None]) -> None:
    """Let a view catch up for so many seconds, asked again while it takes them: a signal may come, its tracker go."""
    while not (done := follower.drain(1.0)):
        hurried = stop.reason in ("interrupted", "terminated") or follower.failing
        if time.monotonic() - begun > (min(patience, _HURRIED_SECONDS) if hurried else patience):
            break
        show_progress(f"bringing {follower.view} up to date: {follower.lag()} events to go")
    show_progress("")
    if not done:
        say(follower.view)
