"""What a worker process and its coordinator say to each other through a pipe."""

import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sr_core.training.runtime import Runtime, resolve
from study.executors import processes
from study.executors.processes import ProcessWorker, ProcessWorkerSetup, _PipeChannel
from study.executors.raw_output import followed_output, write_to
from study.executors.remote import WorkerGoneError
from study.executors.worker import Logged, LogUp


def test_threads_that_log_at_once_tear_no_message() -> None:
    ours, theirs = multiprocessing.Pipe()
    channel = _PipeChannel(theirs)
    text = "x" * 100_000  # longer than what one write to a pipe takes

    def log(number: int) -> None:
        for _ in range(20):
            LogUp(channel).emit(logging.LogRecord(str(number), logging.WARNING, "", 0, text, None, None))

    threads = [threading.Thread(target=log, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    messages = [ours.recv() for _ in range(60)]
    for thread in threads:
        thread.join()
    assert all(message == Logged(message.logger, logging.WARNING, text) for message in messages)
    assert sorted(message.logger for message in messages) == ["0"] * 20 + ["1"] * 20 + ["2"] * 20


def test_a_message_of_which_only_a_part_came_through_is_a_lost_worker() -> None:
    ours, theirs = multiprocessing.Pipe()
    process: Any = SimpleNamespace(join=lambda seconds: None, exitcode=-9)
    theirs.send_bytes(pickle.dumps("a message")[:7])
    with pytest.raises(WorkerGoneError):
        ProcessWorker(process, ours).receive()


def writes_and_crashes(output: Any) -> None:
    write_to(output)
    print("by Python", file=sys.stderr, flush=True)
    subprocess.run(["sh", "-c", "echo by a compiler that it started >&2"], check=True)
    os.write(2, b"\n\xff by a library, and then it dies\nhalf a line")
    os.abort()


def test_what_a_worker_writes_past_its_log_comes_up_as_lines_of_the_log_also_when_it_crashes(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    spawn = multiprocessing.get_context("spawn")
    output = followed_output(spawn, "slot 3")
    process = spawn.Process(target=writes_and_crashes, args=(output,))
    process.start()
    output.close()
    process.join()
    for thread in threading.enumerate():
        if thread.name == "output of slot 3":
            thread.join(10)
    assert process.exitcode == -signal.SIGABRT
    assert caplog.messages == [
        "slot 3: by Python",
        "slot 3: by a compiler that it started",
        "slot 3: \\xff by a library, and then it dies",
        "slot 3: half a line",
    ]
    assert capfd.readouterr().err == ""


def test_a_worker_keeps_to_its_share_of_the_gpu_before_it_allocates(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []

    def noted(name: str) -> Any:
        return lambda *arguments, **_: done.append((name, arguments[0]) if name == "share" else name)

    for name in ("end_with_parent", "write_to", "log_warnings", "check_that_threads_agree", "serve"):
        monkeypatch.setattr(processes, name, noted(name))
    monkeypatch.setattr(processes, "keep_to_share", noted("share"))
    monkeypatch.setattr(processes, "TrialContext", noted("TrialContext"))
    monkeypatch.setattr(Runtime, "apply", noted("settings"))
    monkeypatch.setattr(signal, "signal", noted("signal"))
    monkeypatch.setattr(logging, "basicConfig", noted("logging"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    setup = ProcessWorkerSetup(
        store=cast(Any, None), runtime=replace(resolve(threads=1), device="cuda"), source_name="device",
        max_bicubic_psnr=None, gpus=("1", "1", "1"), gpu_share=0.25,
    )  # fmt: skip
    ours, theirs = multiprocessing.Pipe()
    processes._main(theirs, cast(Any, None), setup, 0)
    ours.close()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    after = done[done.index("settings") :]
    assert after == ["settings", "check_that_threads_agree", ("share", 0.25), "TrialContext", "serve"]
