"""The layout of a study's files under the root."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.process.locks import unique_name
from study.record.claims import Claims
from study.record.ownership import Ownership, owned, owner

_DATABASES = ("mlflow.db", "optuna.db")
"""Files under the root. SQLite creates other files next to them whose names start with these."""
_RESERVED = {"artifacts", "compiled", "stores", *_DATABASES}
_SESSION = re.compile(rb'\{"seq":\d+,"event":"SessionStarted","time":[^,]+,"epoch":(\d+),')
JOURNALS = ("journal.jsonl", "journal.jsonl.gz")
"""File names of a record: as it is written, and as it is published."""
CHECKPOINT = "checkpoint.safetensors"
"""The file name of a trial's checkpoint in the trial's folder."""


def default_root() -> Path:
    """The default for --root.

    In a checkout it is `mlruns` next to the packages, so that every command finds it from any folder. Otherwise it is
    `./mlruns`.
    """
    checkout = Path(__file__).resolve().parents[2]
    return checkout / "mlruns" if (checkout / "pyproject.toml").is_file() else Path.cwd() / "mlruns"


def recorded(folder: Path) -> list[str]:
    """The names of the subfolders that hold a journal, compressed or not. Skips hidden ones: unfinished copies."""
    return sorted({path.parent.name for name in JOURNALS for path in folder.glob(f"[!.]*/{name}")})


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The paths of one study."""

    root: Path
    """Absolute."""
    study: str
    training: str = ""
    """Name of a longer training of one of its trials, which has its own record. Empty for the study itself."""

    def __post_init__(self) -> None:
        name = self.study
        taken = name.lower() in _RESERVED or name.lower().startswith(_DATABASES)
        if taken or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name) or name[-1] == ".":
            raise SuiteError(
                f"study name {name!r}: expected 1 to 100 letters, digits, '.', '_' or '-', not starting or ending with "
                f"'.', and none of {', '.join(sorted(_RESERVED))}"
            )

    @property
    def path(self) -> Path:
        """The folder of the study or of the longer training."""
        study = self.root / self.study
        return study / "trainings" / self.training if self.training else study

    def trainings(self) -> list["StudyFolder"]:
        """The folders of the longer trainings of its trials."""
        return [replace(self, training=name) for name in recorded(self.path / "trainings")]

    @property
    def journal(self) -> Path:
        """The record. For a published study, it is the compressed one."""
        live, compressed = (self.path / name for name in JOURNALS)
        return compressed if compressed.is_file() and not live.is_file() else live

    @property
    def owners(self) -> Path:
        """The folder with one file per owner, named by its epoch. It stops earlier owners from writing checkpoints."""
        return self.path / "owners"

    @property
    def fence(self) -> Path:
        """The file with the epoch of the current owner, for processes of version 0.1, which do not read `owners`."""
        return self.path / "epoch"

    @property
    def results(self) -> Path:
        """The folder of the study's results."""
        return self.path / "results"

    @property
    def report(self) -> Path:
        """The page that study.report writes."""
        return self.path / "report" / "report.html"

    def changes(self, epoch: int) -> Path:
        """The patch with the uncommitted changes of a session's code. It is missing if there were none."""
        return self.path / "sessions" / f"{epoch:04d}.patch"

    def holds(self, name: str) -> bool:
        """True if a file name from a record stays inside the study's folder. A forged record can name other files."""
        inside = (self.path / name).resolve().is_relative_to(self.path.resolve())
        return inside and ".." not in Path(name).parts and not Path(name).is_absolute()

    def has(self, path: Path) -> bool:
        """True if the file exists and lies in the study's folder. A link that leads out of the folder does not count.

        Check this before a file is uploaded, published, exported or copied: the folder may come from someone else.
        """
        return path.is_file() and path.resolve().is_relative_to(self.path.resolve())

    def written(self, names: Iterable[str]) -> dict[str, Path]:
        """The existing files in the study's folder among those that a record names, by name."""
        files = {}
        for name in names:
            path = self.path / name
            if self.holds(name) and self.has(path):
                files[name] = path
        return files

    def trial(self, number: int) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / f"{number:04d}"

    def require(self) -> "StudyFolder":
        """Return the folder itself if it holds a study.

        Raises:
            SuiteError: there is no such study. The message lists the studies under the root.
        """
        if self.journal.is_file():
            return self
        studies = recorded(self.root)
        if studies:
            hint = f"; there: {', '.join(studies)}; choose one with --study-name"
        else:
            hint = "; start one with study.run"
        raise SuiteError(f"no study {self.study!r} under {self.root}{hint}")

    @property
    def published(self) -> bool:
        """True for a published record (study.sync --publish), which commands read and never change."""
        return replace(self, training="").journal.suffix == ".gz"

    def require_unpublished(self) -> None:
        """Check that the study can be continued here.

        Raises:
            SuiteError: this is a published record. The message says how to continue with a copy.
        """
        if self.published:
            raise SuiteError(
                f"{replace(self, training='').journal}: a published record is read-only; to continue study "
                f"{self.study!r}, copy its folder into another --root and unpack it there (gunzip journal.jsonl.gz)"
            )

    def create(self) -> None:
        """Create the root and the study's folder.

        Raises:
            SuiteError: they cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = unique_name(self.path / "probe")
            probe.touch()
            probe.unlink()
        except OSError as exc:
            raise SuiteError(f"--root {self.root}: cannot be written ({exc.strerror}); choose another folder") from exc

    @contextmanager
    def owned(self, *, take_over: bool = False) -> Iterator[Ownership]:
        """Create the folder and own it while the block runs. Removes it again if no journal was started.

        Args:
            take_over: take it even from a live owner.
        Raises:
            SuiteError: a live process owns it, or it cannot be written.
        """
        new_folders = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.create()
        with self.lock(take_over=take_over) as ownership:
            try:
                yield replace(ownership, checkpoints=self._tidy())
            finally:
                if ownership.lasts and not self.journal.exists():
                    (self.path / "lock").unlink(missing_ok=True)
                    Claims(self.owners).forget(ownership.epoch)
                    with suppress(OSError):  # a folder that holds other files by now stays
                        for path in new_folders:
                            path.rmdir()

    def lock(self, *, take_over: bool = False) -> AbstractContextManager[Ownership]:
        """Own the study while the block runs. The study is released even if this process is killed.

        Raises:
            SuiteError: a live process owns the study. The message names that process.
        """
        what = f"training {self.training}" if self.training else f"study {self.study!r}"
        return owned(self.path / "lock", what, self.journal, take_over=take_over, after=self._recorded_epoch())

    def owner(self) -> str | None:
        """A description of the live process that owns the study; None if there is none."""
        return owner(self.path / "lock")

    def _recorded_epoch(self) -> int:
        """The highest epoch of a session in the record. A copied folder may lack the files of its owners."""
        last = 0
        if self.journal.suffix == ".gz" or not self.journal.is_file():
            return last
        with self.journal.open("rb") as file:
            for line in file:
                match = _SESSION.match(line)
                if match:
                    last = max(last, int(match[1]))
        return last

    def _tidy(self) -> frozenset[int] | None:
        """Remove unfinished files that killed owners left; returns the numbers of the trials that have a checkpoint.

        Returns None if the trials lie elsewhere, behind a link. All of this is done in one walk, because listing a
        folder is slow on a network file system. The walk skips longer trainings, which have their own owners, and the
        report, which has none.
        """
        trials = self.path / "trials"
        with_checkpoint: set[int] = set()
        for place, folders, names in os.walk(self.path):
            folder = Path(place)
            if folder == self.path:
                folders[:] = [name for name in folders if name not in ("trainings", self.report.parent.name)]
            for name in names:
                if name.startswith(".") and name.endswith(".writing"):
                    (folder / name).unlink(missing_ok=True)
                elif name.endswith(CHECKPOINT) and folder.parent == trials and folder.name.isdecimal():
                    with_checkpoint.add(int(folder.name))
        return None if trials.is_symlink() else frozenset(with_checkpoint)
