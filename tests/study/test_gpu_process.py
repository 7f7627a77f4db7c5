"""Until its workers have the GPUs, a session uses them in a process of its own, which ends before they start."""

import errno
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sr_core.errors import ConfigError, SuiteError
from sr_core.evaluate import main as evaluate
from sr_core.images.files import write_png
from sr_core.model.inference import on_device
from sr_core.training import choice
from sr_core.training.memory import needing_gpu
from sr_core.training.runtime import Runtime, resolve
from sr_core.upscale import main as upscale
from study.executors import opening as executors
from study.executors import trial
from study.executors.placement import Placement
from study.executors.separate import THIS_PROCESS, SeparateProcess, runner_for
from study.executors.trial import TrialTask
from study.question.config import TrialConfig
from study.question.experiment import Experiment

TAKEN = RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nSearch for `cudaErrorDevices")
GPUS = Placement(executor="processes", slots=2, gpus=("0", "1"))


# The process


def numbers(of: int, *, factor: int = 1) -> tuple[int, int]:
    logging.getLogger("sr_core.somewhere").warning("seen: %d", of)
    logging.getLogger("sr_core.somewhere").info("seen in detail")
    warnings.warn("a part of torch\nis old", UserWarning, stacklevel=2)
    return os.getpid(), of * factor


def fails(kind: str) -> None:
    if kind == "dies":
        os._exit(3)
    if kind == "is refused":
        raise ConfigError("expected one GPU, got none")
    raise UntoldError("no", "argument")


class UntoldError(Exception):
    """One that does not come through a pipe: it cannot be made again from its text."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def test_work_runs_in_one_other_process_and_what_is_logged_or_raised_there_is_so_here(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    run = SeparateProcess()
    try:
        pid, product = run(numbers, 3, factor=2)
        with pytest.raises(ConfigError, match=r"^expected one GPU, got none$"):
            run(fails, "is refused")
        with pytest.raises(RuntimeError, match=r"^UntoldError: no argument$"):
            run(fails, "is a bug")
        again, _ = run(numbers, 4)
        assert capfd.readouterr().err == "", "nothing goes past the log"
        with pytest.raises(SuiteError, match="the process that tests the GPUs ended with status 3"):
            run(fails, "dies")
    finally:
        run.close()
    assert (product, again) == (6, pid)
    assert pid != os.getpid()
    told = [(r.name, r.levelname, r.getMessage()) for r in caplog.records if r.levelno >= logging.WARNING]
    assert told[:2] == [
        ("sr_core.somewhere", "WARNING", "seen: 3"),
        ("warnings", "WARNING", "UserWarning: a part of torch is old"),
    ]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    run.close()


@pytest.mark.parametrize(
    ("executor", "device", "apart"),
    [("processes", "cuda", True), ("processes", "cpu", False), ("inline", "cuda", False), ("ray", "cuda", False)],
)
def test_only_a_session_with_worker_processes_on_gpus_needs_it(executor: Any, device: str, apart: bool) -> None:
    run = runner_for(Placement(executor=executor), device)
    assert isinstance(run, SeparateProcess) is apart
    assert (run is THIS_PROCESS) is not apart


# The opening


class Elsewhere:
    """Stands for the other process: notes what runs there, and lets it find the GPUs."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.inside = False

    def __call__(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.ran.append(work.__name__)
        self.inside = True
        try:
            return work(*args, **kwargs)
        finally:
            self.inside = False

    def close(self) -> None:
        pass


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """A machine with GPUs, which this process must not touch."""
    other = Elsewhere()
    gpu = replace(resolve(threads=1), device="cuda", device_name="a GPU", cudnn="91900")

    def there(result: Any) -> Callable[..., Any]:
        def look(*_: Any, **__: Any) -> Any:
            assert other.inside, "this process has used a GPU"
            return result

        return look

    monkeypatch.setattr(torch.cuda, "_lazy_init", there(None))
    monkeypatch.setattr(torch.cuda, "init", there(None))
    monkeypatch.setattr(torch.cuda, "mem_get_info", there((60 << 30, 72 << 30)))
    monkeypatch.setattr(torch.cuda, "get_device_name", there("a GPU"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", there((9, 0)))
    monkeypatch.setattr(torch.cuda, "device_count", there(2))
    monkeypatch.setattr("sr_core.training.runtime.resolve", there(gpu))
    monkeypatch.setattr(choice, "choose", there(gpu))
    return other


def test_a_study_with_worker_processes_on_gpus_is_opened_without_touching_them(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sr_core.training.runtime import gpu_models
    from study.session import session

    store: Any = SimpleNamespace(path=Path("store.h5"), lr=(), records=lambda split: ())
    setups: list[Any] = []
    monkeypatch.setattr(executors, "ProcessPool", setups.append)
    experiment = Experiment(question="?", base=TrialConfig(seed=7), rungs=(960,))
    assert elsewhere(gpu_models) == ["a GPU", "a GPU"]
    runtime = executors.runtime_for(experiment, 3, GPUS, store, elsewhere)
    executors.open_executor(GPUS, store, runtime, 2, 50.0, elsewhere)
    assert elsewhere(session._not_restored, runtime) == []
    assert setups[0].runtime.device == "cuda"
    assert setups[0].source_name == "device"
    assert len(elsewhere.ran) == 4


def test_without_the_other_process_the_same_would_touch_them(elsewhere: Elsewhere) -> None:
    experiment = Experiment(question="?", base=TrialConfig(seed=7), rungs=(960,))
    store: Any = SimpleNamespace(path=Path("store.h5"), lr=(), records=lambda split: ())
    with pytest.raises(AssertionError, match="this process has used a GPU"):
        executors.runtime_for(experiment, 3, GPUS, store)


# A GPU that another process has


def test_a_gpu_that_another_process_has_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = replace(resolve(threads=1), device="cuda", device_name="a GPU")

    def taken(*_: Any, **__: Any) -> Any:
        raise TAKEN

    monkeypatch.setattr(choice, "resolve", lambda **_: gpu)
    monkeypatch.setattr(Runtime, "apply", lambda self: None)
    monkeypatch.setattr(Runtime, "here", lambda self: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", taken)
    base = TrialConfig()
    with pytest.raises(ConfigError, match=r"device cuda is taken: .* nvidia-smi shows which"):
        choice.choose(base.model, base.data, base.train, device="cuda")
    store: Any = SimpleNamespace(path=Path("store.h5"), lr=(), records=lambda split: ())
    with pytest.raises(ConfigError, match="device cuda is taken"):
        executors.open_executor(GPUS, store, gpu, 2, 50.0)


def test_a_conclusion_on_a_gpu_that_another_process_has_is_drawn_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network:
        def to(self, device: str) -> "Network":
            if device != "cpu":
                raise TAKEN
            return self

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    network: Any = Network()
    assert on_device(network, "cuda") == (network, "cpu")


def test_a_trial_on_a_gpu_that_another_process_has_stops_the_study_which_can_go_on_later(tmp_path: Path) -> None:
    config = TrialConfig()
    task = TrialTask(number=3, config=config, config_hash=config.digest(), folder=tmp_path, epoch=1, slot=0, source="")
    with pytest.raises(OSError, match="another process uses it") as caught:
        trial._failure(task, TAKEN)
    assert caught.value.errno == errno.EBUSY
    with pytest.raises(ConfigError, match="device cuda is taken"), needing_gpu("cuda"):  # as in a reproduction
        trial._failure(task, TAKEN)


def test_upscale_and_evaluate_on_a_gpu_that_another_process_has_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Network:
        def to(self, device: str) -> None:
            raise TAKEN

    gpu = replace(resolve(threads=1), device="cuda:0")
    monkeypatch.setattr("sr_core.training.runtime.resolve", lambda **_: gpu)
    monkeypatch.setattr("sr_core.model.weights.load_model", lambda *_, **__: Network())
    write_png(tmp_path / "a.png", np.zeros((96, 96, 3), np.uint8))
    given = ["--weights", "a2n.safetensors", "--scale", "2", "--device", "cuda:0"]
    assert upscale([str(tmp_path), *given, "--out", str(tmp_path / "out")]) == 2
    assert evaluate([*given, "--benchmark", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: device cuda:0 is taken: expected a free GPU") for line in lines] == [True, True]
    assert not (tmp_path / "out").exists()
