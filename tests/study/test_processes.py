"""What a worker process and its coordinator say to each other through a pipe."""

import logging
import multiprocessing
import pickle
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from study.executors.processes import ProcessWorker, _PipeChannel
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
    told = [ours.recv() for _ in range(60)]
    for thread in threads:
        thread.join()
    assert all(message == Logged(message.logger, logging.WARNING, text) for message in told)
    assert sorted(message.logger for message in told) == ["0"] * 20 + ["1"] * 20 + ["2"] * 20


def test_a_message_of_which_only_a_part_came_through_is_a_lost_worker() -> None:
    ours, theirs = multiprocessing.Pipe()
    process: Any = SimpleNamespace(join=lambda seconds: None, exitcode=-9)
    theirs.send_bytes(pickle.dumps("a message")[:7])
    with pytest.raises(WorkerGoneError):
        ProcessWorker(process, ours).receive()
