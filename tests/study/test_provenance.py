import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study.record import provenance

BINARY = bytes(range(256))


def run_git(folder: Path, *arguments: str) -> str:
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | names).stdout


def commit_all(folder: Path) -> str:
    run_git(folder, "init", "-q")
    run_git(folder, "add", "-A")
    run_git(folder, "commit", "-qm", "first")
    return run_git(folder, "rev-parse", "HEAD").strip()


def code_in(folder: Path) -> Path:
    for name in ("study/record/provenance.py", "sr_core/seed.py", "experiments/mine.py"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text("first\n" * 9)
    (folder / "study" / "icon.bin").write_bytes(BINARY)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own that the code seems to run from."""
    folder = code_in(tmp_path / "checkout")
    monkeypatch.setattr(provenance, "_checkout", lambda: folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def change(folder: Path) -> None:
    (folder / "study" / "record" / "provenance.py").write_text("first\n" * 4 + "second\n" + "first\n" * 5)
    (folder / "study" / "icon.bin").write_bytes(BINARY[::-1])


def test_the_commit_and_the_changes_of_the_checkout_are_recorded(checkout: Path, tmp_path: Path) -> None:
    commit = commit_all(checkout)
    assert provenance._git() == {"commit": commit, "dirty": False}
    provenance.keep_uncommitted_changes(tmp_path / "sessions" / "1.patch")
    assert not (tmp_path / "sessions").exists()
    change(checkout)
    assert provenance._git() == {"commit": commit, "dirty": True}


def test_a_project_around_the_virtual_environment_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "settings.py").write_text("API_KEY = ''\n")
    commit_all(project)
    (project / "settings.py").write_text("API_KEY = 'sk-very-secret'\n")
    packages = code_in(project / ".venv" / "lib" / "site-packages")
    monkeypatch.setattr(provenance, "_checkout", lambda: packages)
    assert provenance._git() is None
    provenance.keep_uncommitted_changes(tmp_path / "sessions" / "1.patch")
    assert not (tmp_path / "sessions").exists()


def test_changes_outside_the_code_are_not_kept(checkout: Path, tmp_path: Path) -> None:
    (checkout / "notes.txt").write_text("first\n")
    commit_all(checkout)
    (checkout / "notes.txt").write_text("password: 1234\n")
    provenance.keep_uncommitted_changes(tmp_path / "1.patch")
    assert not (tmp_path / "1.patch").exists()


HOSTILE_CONFIGURATION = {
    "diff.external": "/bin/true", "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "color.ui": "always",
    "color.diff": "always", "diff.context": "0", "diff.renames": "copies", "diff.relative": "true",
    "status.short": "true", "core.pager": "false", "diff.words.textconv": "cat -n", "diff.algorithm": "patience",
}  # fmt: skip


def test_the_patch_can_be_applied_whatever_git_is_configured_to_show(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".gitattributes").write_text("*.py diff=words\n")
    commit_all(checkout)
    for name, value in HOSTILE_CONFIGURATION.items():
        run_git(checkout, "config", name, value)
    change(checkout)
    other = tmp_path / "other"
    run_git(tmp_path, "init", "-q", str(other))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "/bin/true")
    patch = tmp_path / "sessions" / "1.patch"
    provenance.keep_uncommitted_changes(patch)
    told = provenance._git()
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_EXTERNAL_DIFF"):
        monkeypatch.delenv(name)
    assert told == {"commit": run_git(checkout, "rev-parse", "HEAD").strip(), "dirty": True}
    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "-q", str(checkout), str(clone))
    run_git(clone, "apply", str(patch))
    for name in ("study/record/provenance.py", "study/icon.bin"):
        assert (clone / name).read_bytes() == (checkout / name).read_bytes()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
def test_a_checkout_of_another_user_is_recorded_like_any_other(checkout: Path, tmp_path: Path) -> None:
    commit = commit_all(checkout)
    change(checkout)
    for path in (checkout, *checkout.rglob("*")):
        shutil.chown(path, 65534, 65534)
    assert provenance._git() == {"commit": commit, "dirty": True}
    provenance.keep_uncommitted_changes(tmp_path / "1.patch")
    assert b"second" in (tmp_path / "1.patch").read_bytes()


def test_a_checkout_that_git_cannot_be_asked_about_says_why(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_all(checkout)
    monkeypatch.setenv("PATH", str(checkout))
    assert provenance._git() == {"unknown": "git is not installed"}


def test_the_source_is_that_of_the_running_code_not_of_folders_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("study", "sr_core"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    script = "from study.record import provenance; print(len(provenance.source_paths()), provenance.source_hash())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(provenance.source_paths())), provenance.source_hash()]
    assert len(provenance.source_paths()) > 100
