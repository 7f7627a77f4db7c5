"""A study on a file system that has no locks: Lustre without its `flock` option, some NFS and FUSE mounts."""

from pathlib import Path
from typing import Any

NO_LOCKS = """
import errno, fcntl, os
def flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
"""

NO_EXCLUSIVE_FILES = """
def opened(path, flags, *rest, real=os.open, **named):
    if flags & os.O_EXCL and "/owners/" in str(path):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(path))
    return real(path, flags, *rest, **named)
os.open = opened
"""


def test_without_locks_a_study_runs_and_goes_on(
    finished: Any, tiny: Any, commands: Any, tmp_path: Path, state_of: Any, outcome_of: Any
) -> None:
    root = tmp_path / "root"
    first = commands.run("study.run", *tiny.argv(root, trials=2), first=NO_LOCKS)
    assert (first.status, first.err) == (0, "")
    assert [path.name for path in (root / "stores").iterdir() if not path.name.startswith(".")] == [
        Path(state_of(root).opened.data["store"]).name
    ], "no folder of parts is left"
    again = commands.run("study.run", *tiny.argv(root), first=NO_LOCKS)
    assert (again.status, again.err) == (0, "")
    assert [session.epoch for session in state_of(root).sessions] == [1, 2]
    assert outcome_of(root) == outcome_of(finished.root)


def test_where_neither_locks_nor_claims_work_one_line_says_so_and_what_helps(
    tiny: Any, commands: Any, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    ended = commands.run("study.run", *tiny.argv(root), first=NO_LOCKS + NO_EXCLUSIVE_FILES)
    assert (ended.status, ended.out) == (2, "")
    [line] = ended.err.splitlines()
    assert line.startswith(f"error: {root / 'tiny' / 'owners'}: this file system can neither lock a file nor create")
    assert "Lustre: option flock" in line and "local disk" in line
    assert not (root / "tiny" / "journal.jsonl").exists()
