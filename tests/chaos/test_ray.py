"""A study on a real Ray cluster of several nodes, which come and go."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from study.record.events import WorkerLost
from study.record.journal import read

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[ray]'"),
]


class Cluster:
    """A head without cores, and nodes of one core each."""

    def __init__(self, hidden: Path) -> None:
        script = [sys.executable, str(Path(__file__).with_name("ray_cluster.py"))]
        # The nodes share no folder with the study: in their view of the file system that one is empty.
        apart = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(hidden)]
        if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
            pytest.skip("nodes that see no folder of the study need the right to mount")
        self._process = subprocess.Popen(
            [*apart, *script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            start_new_session=True,
        )
        self.address = self._line()
        self.add()
        self.add()

    def add(self) -> None:
        self._say("add")

    def remove(self) -> None:
        """Kill the oldest node, with all that runs there."""
        self._say("remove")

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _say(self, what: str) -> None:
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the cluster has died"
        return line


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


def actors() -> set[int]:
    """Processes of slots, on any node."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::RayTrialRunner"):
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def test_nodes_that_vanish_and_a_coordinator_that_is_killed_cost_a_study_nothing(
    cluster: Cluster, hurt: Any, unharmed: Callable[[Any], None], wait_until: Any
) -> None:
    command = hurt("--executor", "ray", "--ray-address", cluster.address)
    command.start()
    assert command.until_further(3), command.err
    cluster.remove()
    assert command.until_further(3), command.err
    cluster.add()
    assert command.until_further(2), command.err
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    wait_until(lambda: not actors(), seconds=5)
    command.start()
    assert command.until_further(2), command.err
    os.kill(command.pid, signal.SIGTERM)
    assert command.wait() == 75, command.err
    command.start()
    assert command.until_further(1), command.err
    os.kill(actors().pop(), signal.SIGKILL)
    command.finish()
    unharmed(command)
    losses = [event for event in read(command.folder.journal) if isinstance(event, WorkerLost)]
    assert len(losses) >= 1
    costs = [
        trial.starts[i].patches
        for trial in command.state.trials.values()
        for i in range(1, len(trial.starts))
        if trial.losses
    ]
    assert any(patches > 0 for patches in costs), "no trial went on from a checkpoint that had left its node"
    assert not actors()
