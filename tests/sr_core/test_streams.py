"""Closed streams, limited locales and lost terminals do not disturb the work, or end it as they should."""

import errno
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sr_core.images.files import write_png
from sr_core.process.cli import run_command
from sr_core.process.whole_file import whole_file

NeedsName = Callable[[str], None]

POOR = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "0"}


def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which $P stands for this Python."""
    kept = {name: value for name, value in os.environ.items() if name not in ("TERM", "PYTHONIOENCODING")}
    return subprocess.run(
        ["sh", "-c", command],
        env=kept | {"P": sys.executable} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def scoring(tmp_path: Path, needs_name: NeedsName) -> str:
    """A command that scores one image into scores.csv."""
    needs_name("ж")
    (tmp_path / "bench").mkdir()
    write_png(tmp_path / "bench/ж.png", np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    place = f"--benchmark {tmp_path / 'bench'} --csv {tmp_path / 'scores.csv'}"
    return f'"$P" -m sr_core.evaluate --weights bicubic --scale 2 {place}'


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_a_command_whose_streams_are_closed_does_its_work(scoring: str, tmp_path: Path, closed: str) -> None:
    done = run(f"{scoring} {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "scores.csv").read_text("utf-8").startswith("name,psnr,ssim\nж,")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_bad_input_ends_with_its_status_though_nothing_can_be_said(closed: str) -> None:
    assert run(f'"$P" -m sr_core.evaluate --nonsense {closed}').returncode == 2
    assert run(f'"$P" -m study.run --experiment nonsense {closed}').returncode == 2


def test_no_file_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    script = (
        "import os, sys; from sr_core.process.cli import Parser; Parser('x'); data = open(sys.argv[1], 'w');"
        "print('lost', file=sys.stderr, flush=True); os.write(2, b'lost'); print(data.fileno() > 2, file=data)"
    )
    done = run(f'"$P" -c "{script}" {tmp_path / "data"} <&- 2>&-')
    assert (done.returncode, (tmp_path / "data").read_text("utf-8")) == (0, "True\n")


def test_a_reader_of_messages_that_is_gone_ends_nothing() -> None:
    script = (
        "import sys; from sr_core.process.cli import run_command;"
        "sys.exit(run_command(lambda: [print('x' * 9999, file=sys.stderr, flush=True) for _ in range(99)] and 0))"
    )
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run([sys.executable, "-c", script], stderr=theirs, timeout=60)
    os.close(theirs)
    assert done.returncode == 0


def test_a_terminal_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    script = (
        "import signal, sys; from pathlib import Path; from sr_core.process.cli import Parser, run_command; "
        "Parser('x');"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); print('ready', flush=True); sys.stdin.buffer.read(1);"
        "say = lambda: [print('\\u0436', file=file, flush=True) for file in (sys.stdout, sys.stderr)];"
        f"status = run_command(lambda: say() and 0); Path({str(tmp_path / 'done')!r}).touch(); sys.exit(status)"
    )
    ours, theirs = pty.openpty()
    source, start = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", script], stdin=source, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert os.read(ours, 100).startswith(b"ready")
    os.close(ours)  # the terminal is closed
    os.write(start, b"x")
    assert child.wait(60) == 0
    assert (tmp_path / "done").exists()
    os.close(source)
    os.close(start)


@pytest.mark.parametrize("command", ["study.run", "study.train", "sr_core.evaluate", "sr_core.upscale"])
def test_help_shows_in_every_locale(command: str) -> None:
    done = run(f'"$P" -m {command} --help', **POOR)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_and_messages_show_in_every_locale(scoring: str, tmp_path: Path) -> None:
    done = run(scoring, **POOR)
    assert (done.returncode, done.stderr) == (0, "")
    assert "37." in done.stdout or "PSNR" in done.stdout
    assert (tmp_path / "scores.csv").exists()
    done = run(f'"$P" -m study.run --experiment жук.py --root {tmp_path}', **POOR)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_ends_a_command_leaves_no_unfinished_file(
    tmp_path: Path, number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> int:
        with whole_file(tmp_path / "store") as file:
            file.write(b"half")
            signal.raise_signal(number)
        return 0

    assert run_command(body) == status
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "terminated\n"
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_command_under_nohup_does_not_hear_that_its_terminal_closes() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_command(lambda: signal.raise_signal(signal.SIGHUP) or 0) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_full_disk_under_standard_output_is_one_line(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    done = run(f"$P -m sr_core.evaluate --weights bicubic --scale 2 --benchmark {tmp_path} > /dev/full")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr


def test_a_full_disk_elsewhere_leaves_standard_output_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        print("scored")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.csv")

    assert run_command(work) == 2
    print("next", flush=True)
    out, err = capfd.readouterr()
    assert out == "scored\nnext\n"
    assert err == "error: a.csv cannot be written (No space left on device); make room, then run again\n"
