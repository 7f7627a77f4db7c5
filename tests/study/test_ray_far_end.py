"""The far end of a Ray slot on a cluster that only pretends: its pixels, its folder, and a node that fails."""

import importlib
import os
import queue
import socket
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sr_core.process import parent
from sr_core.training.runtime import resolve
from study.executors.worker import Broken, Ready
from study.record import provenance


class Ray(types.ModuleType):
    """As much of Ray as the far end asks for."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = types.ModuleType("ray.exceptions")
        self.exceptions.RayError = type("RayError", (Exception,), {})  # type: ignore[attr-defined]
        self.exceptions.RayTaskError = type("RayTaskError", (self.exceptions.RayError,), {})  # type: ignore[attr-defined]
        self.node, self.cores, self.gpu = "node-1", 4.0, [0]

    def method(self, **_: Any) -> Any:
        return lambda function: function

    def get(self, value: Any) -> Any:
        return value

    def get_runtime_context(self) -> Any:
        return types.SimpleNamespace(get_node_id=lambda: self.node)

    def get_gpu_ids(self) -> list[int]:
        return self.gpu

    def nodes(self) -> list[dict[str, Any]]:
        other = {"NodeID": "node-2", "Resources": {"CPU": 64.0}}
        return [other, {"NodeID": self.node, "Resources": {"CPU": self.cores}}]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    fake_ray = Ray()
    monkeypatch.setitem(sys.modules, "ray", fake_ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", fake_ray.exceptions)
    return fake_ray


@pytest.fixture
def far(ray: Ray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[types.ModuleType]:
    """The module of the far end, whose temporary folders go to one of this test."""
    for name in ("study.executors.ray_actor", "study.executors.ray"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module("study.executors.ray_actor")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "load_store", lambda path: types.SimpleNamespace(fingerprint="f"))
    monkeypatch.setattr(module, "LogUp", lambda channel: None)
    monkeypatch.setattr(module.logging, "basicConfig", lambda **_: None)
    yield module
    for name in ("study.executors.ray_actor", "study.executors.ray"):
        sys.modules.pop(name, None)


def setup(far: types.ModuleType, **options: Any) -> Any:
    common = {"store": Path("store.h5"), "fingerprint": "f", "runtime": resolve(threads=1), "scale": 2}
    common["max_bicubic_psnr"] = 50.0
    return far.RayWorkerSetup(
        **{
            **common,
            "source": provenance.source_hash(),
            "slots": 8,
            "slots_per_gpu": 1,
            "max_bicubic_psnr": 50.0,
            **options,
        }
    )


class Chosen:
    """Notes with what shares a home is chosen."""

    def __init__(self, source_name: str) -> None:
        self.source_name = source_name
        self.shares: list[tuple[str, int, int]] = []

    def __call__(self, store: object, scale: int, device: str, *, slots: int, slots_per_device: int) -> str:
        self.shares.append((device, slots, slots_per_device))
        return self.source_name


def next_message(actor: Any) -> Any:
    return actor._up.get(timeout=20)


def test_an_actor_chooses_the_home_of_its_pixels_with_the_share_of_its_slot_and_takes_what_the_node_has(
    far: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = Chosen("disk")
    contexts: list[Any] = []
    monkeypatch.setattr(far, "choose_patch_source", choice)
    monkeypatch.setattr(far, "TrialContext", lambda *arguments, **options: contexts.append(arguments))
    monkeypatch.setattr(far, "serve", lambda channel, context: channel.send(Ready()))
    actor = far.RayTrialRunner(setup(far, slots_per_gpu=3))
    assert next_message(actor) == far.SuitableSources("node-1", "disk")
    actor.tell(far.ChosenPatchSource("host"))  # the first actor of this node has said so
    assert next_message(actor).message == Ready()
    assert choice.shares == [("cpu", 4, 3)], "the node has four cores, so no more than four of the eight slots"
    assert contexts[0][2] == "host"


def test_a_trial_that_is_told_before_the_home_waits_its_turn(
    far: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far, "choose_patch_source", Chosen("host"))
    monkeypatch.setattr(far, "TrialContext", lambda *_, **options: None)
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    monkeypatch.setattr(far, "serve", lambda channel, context: orders.put(channel.receive()))
    actor = far.RayTrialRunner(setup(far))
    actor.tell("a trial")
    assert isinstance(next_message(actor), far.SuitableSources)
    actor.tell(far.ChosenPatchSource("host"))
    assert orders.get(timeout=20) == "a trial"


def test_actors_that_share_a_gpu_are_told_from_those_of_another_on_the_node(far: types.ModuleType, ray: Ray) -> None:
    first, ray.gpu = far._machine("cuda:0"), [1]
    assert (first, far._machine("cuda:0"), far._machine("cpu")) == ("node-1 GPU 0", "node-1 GPU 1", "node-1")


def test_the_first_actor_of_a_node_decides_for_all_of_it(far: types.ModuleType, ray: Ray) -> None:
    near = importlib.import_module("study.executors.ray")
    sent: list[Any] = []
    arriving: list[Any] = []
    method = types.SimpleNamespace
    actor = method(next=method(remote=lambda: arriving.pop(0)), tell=method(remote=sent.append))
    sources: dict[str, Any] = {}
    for machine, source_name in (("n1", "device"), ("n1", "host"), ("n2", "disk")):
        arriving[:] = [far.SuitableSources(machine, source_name), None]
        near.RayWorker(actor, None, sources).receive()
    assert sent == [far.ChosenPatchSource("device"), far.ChosenPatchSource("device"), far.ChosenPatchSource("disk")]


def test_a_full_disk_of_the_node_is_told_as_the_node_s_and_not_as_an_error_of_the_code(
    far: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr(far, "choose_patch_source", Chosen("host"))
    monkeypatch.setattr(far, "TrialContext", lambda *_, **options: None)
    monkeypatch.setattr(far, "serve", lambda *_: full(Path()))
    actor = far.RayTrialRunner(setup(far))
    next_message(actor)
    actor.tell(far.ChosenPatchSource("host"))
    assert next_message(actor).message == Broken(28, "No space left on device", "/tmp/x")


# Folders of processes that are gone


def test_only_folders_of_this_host_s_dead_processes_are_removed(
    far: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.kill

    def kill(pid: int, number: int) -> None:
        if pid == 1:
            raise PermissionError(1, "Operation not permitted")
        real(pid, number)

    monkeypatch.setattr(os, "kill", kill)
    own = f"a2n-study-{os.getuid()}-{socket.gethostname()}"
    dead = 2**22 + 17  # above the largest number that Linux gives
    staying = [f"{own}-1-x", f"{own}-{os.getpid()}-x", f"{own}-{'9' * 40}-x", f"{own}-²-x", f"{own}--x", f"{own}-abc"]
    staying += [f"a2n-study-{os.getuid()}-elsewhere-{dead}-x", f"a2n-study-{os.getuid()}-1-x"]
    for name in (*staying, f"{own}-{dead}-x"):
        (tmp_path / name).mkdir()
    fake_ray = far._own_folder()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*staying, fake_ray.name])
    assert fake_ray.name.startswith(f"{own}-{os.getpid()}-")


@pytest.mark.parametrize("pid", ["", "x", "-1", "²", "9" * 40, "1.5"])
def test_a_text_that_is_no_process_number_is_not_taken_for_a_dead_process(pid: str) -> None:
    assert not parent.is_dead(pid)
