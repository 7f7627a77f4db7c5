"""The views of a study, in MLflow and in Optuna's database: which ones a session has, and how it keeps them current."""

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
"""How long a session waits for the creation of the views' stores."""
_DRAIN_SECONDS = 60.0
"""How long the views may take to catch up at the end of a session."""
_HURRIED_SECONDS = 8.0
"""The same if their tracker is down or the user has interrupted the session."""
_END_SECONDS = 5.0
"""How long all followers together may take to finish their last hand-over."""


def check_addresses(tracking_uri: str | None, storage: str | None, root: Path | None = None) -> None:
    """Raises SuiteError if no view can have one of these addresses, or no address can name the root's own store."""
    if root is not None and tracking_uri is None:
        default_tracking_uri(root)
    if root is not None and storage is None:
        default_storage(root)
    if tracking_uri not in (None, "none"):
        check_address("--tracking-uri", str(tracking_uri), server=True)
    if storage not in (None, "none"):
        check_address("--storage", str(storage), server=False)


def addresses_of(folder: StudyFolder, tracking_uri: str | None, storage: str | None) -> dict[str, str]:
    """Returns the views that `--tracking-uri` and `--storage` name: "mlflow" or "optuna" -> the store's address.

    None stands for the root's own store, "none" for no view. A longer training has no Optuna view, because Optuna's
    tools show searches only.
    """
    check_addresses(tracking_uri, storage)
    addresses: dict[str, str] = {}
    if tracking_uri != "none":
        addresses["mlflow"] = tracking_uri or default_tracking_uri(folder.root)
    if storage != "none" and not folder.training:
        addresses["optuna"] = storage or default_storage(folder.root)
    return addresses


def sinks_of(folder: StudyFolder, tracking_uri: str | None, storage: str | None) -> list[Sink]:
    """Returns a sink for each view of `addresses_of`."""
    addresses = addresses_of(folder, tracking_uri, storage)
    return [LateSink(view, address, folder) for view, address in addresses.items()]


def hold_all(folder: StudyFolder, state: StudyState, tracking_uri: str | None, storage: str | None) -> bool:
    """Returns True if every view of `addresses_of` is known to hold every event of the study."""
    addresses = addresses_of(folder, tracking_uri, storage)
    return all(holds_all(folder, state, view, address) for view, address in addresses.items())


_LOADING = threading.Lock()
"""Held while a view's library loads. Two views share libraries, and circular imports in two threads can fail."""


class LateSink:
    """A sink that loads its library at its first use, in the thread that uses it. MLflow's takes seconds to load."""

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
        """Loads the view's sink and calls its `prepare`."""
        self._sink().prepare()

    def open(self, opened: StudyOpened) -> int:
        """Loads the view's sink and calls its `open`."""
        return self._sink().open(opened)

    def take(self, events: Sequence[Event], state: StudyState, upto: int) -> None:
        """Loads the view's sink and calls its `take`."""
        self._sink().take(events, state, upto)

    def close(self) -> None:
        """Closes the view's sink if it was loaded."""
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
    """Yields followers that create the views' stores and keep them up to date. They get time to catch up at the end.

    The journal need not exist yet. If it never does, the end waits for nothing.

    Args:
        say: called with the name of each view that is not up to date at the end.
    """
    reading = Reading(folder.journal)  # shared by all followers
    followers = [Follower(folder.journal, sink, reading) for sink in sinks]
    for follower in followers:
        follower.start()
    patience = 0.0  # after Ctrl-C during the preparation, or a second one: the next session or study.sync continues
    try:
        yield followers
        patience = _DRAIN_SECONDS
    except TakenOverError:
        raise  # the new owner keeps the views now
    except Exception:
        patience = _HURRIED_SECONDS
        raise
    finally:
        began = time.monotonic()
        for follower in followers:
            if patience and folder.journal.exists():
                _drain(follower, stop, began, patience, say)
        for follower in followers:
            follower.stop(timeout=0.0)  # tell all of them first: each may be in the middle of a hand-over
        deadline = time.monotonic() + _END_SECONDS
        for follower in followers:
            follower.stop(timeout=max(0.0, deadline - time.monotonic()))


def wait_prepared(followers: Sequence[Follower]) -> None:
    """Waits at most _PREPARE_SECONDS for the views' stores. A disk that hangs delays a view, not the study."""
    deadline = time.monotonic() + _PREPARE_SECONDS
    for follower in followers:
        while not follower.wait_prepared(0.2):
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                break
            show_progress(f"creating the store of {follower.view}: at most {seconds_left:.0f} s")
    show_progress("")


def _drain(follower: Follower, stop: StopSignal, began: float, patience: float, say: Callable[[str], None]) -> None:
    """Lets a view catch up until `patience` seconds after `began`, and calls `say` if it does not.

    The limit is shorter as soon as the user interrupts or the tracker fails.
    """
    done = follower.drain(1.0)
    while not done:
        hurried = stop.reason in ("interrupted", "terminated") or follower.failing
        limit = min(patience, _HURRIED_SECONDS) if hurried else patience
        if time.monotonic() - began > limit:
            break
        show_progress(f"updating {follower.view}: {follower.lag()} events left")
        done = follower.drain(1.0)
    show_progress("")
    if not done:
        say(follower.view)
