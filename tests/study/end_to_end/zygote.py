"""Imports once what the study commands import, then forks a process for every command that it is told to run.

Importing takes longer than all the rest of a small study. Each command is a process of its own all the same, with
its own output files or terminal and its own signals; only the imports are shared. One
request a line on stdin, one answer a line on stdout, both JSON: {"module", "argv", "cwd", "first", "out", "err"} or
{"module", …, "terminal"} is answered by {"pid"}, and {"poll": pid} by {"status"}, null while it runs.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import sys
import termios
import threading
import traceback
from typing import Any, NoReturn

WARM = (
    "study.session.session",
    "study.plots",
    "study.results",
    "study.statistics.importance",
    "study.session.dry_run",
    "study.reproduction.retrain",
    "study.session.training",
    "study.tracking.mlflow.training",
    # What is imported late, by us and by the libraries:
    "study.tracking.mlflow.sink",
    "study.tracking.optuna",
    "optuna.samplers._tpe.sampler",
    "scipy.optimize",
    "scipy.stats",
    "torch._inductor.config",
)


def serve() -> dict[str, Any] | None:
    """Answers requests; returns in each child with its request, and here, at the end of the input, with None."""
    while line := sys.stdin.readline():
        request: dict[str, Any] = json.loads(line)
        if "poll" in request:
            pid, code = os.waitpid(request["poll"], os.WNOHANG)
            answer = {"status": os.waitstatus_to_exitcode(code) if pid else None}
        elif (pid := os.fork()) == 0:
            return request
        else:
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """Makes this process look like a fresh one that somebody started for the command."""
    os.setsid()
    if "terminal" in request:
        out = err = source = os.open(request["terminal"], os.O_RDWR)
        fcntl.ioctl(source, termios.TIOCSCTTY, 0)
    else:
        out, err = (os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("out", "err"))
        source = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((source, out, err)):
        os.dup2(file, number)
    os.closerange(3, max(source, out, err) + 1)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", 1 if os.isatty(1) else -1, "utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, "utf-8", closefd=False)
    if hasattr(os, "sched_setaffinity"):  # on one core there is no choice of threads, so every run has the same bits
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    sys.argv = [request["module"], *request["argv"]]
    sys.path[0] = request["cwd"]


def leave(status: int) -> NoReturn:
    """Ends as an interpreter does, but for taking apart every module, which costs a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    for name in WARM:
        importlib.import_module(name)
    # Layouts are timed when a study begins, and two studies that are compared bit by bit might differ in theirs.
    choice = importlib.import_module("sr_core.training.choice")
    choice.__dict__["_with_layout"] = lambda model, data, train, runtime, *rest: runtime
    gc.freeze()  # what is shared stays shared
    print(json.dumps({"ready": os.getpid()}), flush=True)
    request = serve()
    status = 0
    if request is not None:
        become(request)
        status = 1
        try:
            exec(request["first"], {})
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        except BaseException:
            traceback.print_exc()
    leave(status)


if __name__ == "__main__":
    main()
