"""Where a study's files lie under the root."""

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
"""Files under the root; SQLite puts others next to them whose names start the same."""
_RESERVED = {"artifacts", "compiled", "stores", *_DATABASES}
_SESSION = re.compile(rb'\{"seq":\d+,"event":"SessionStarted","time":[^,]+,"epoch":(\d+),')
JOURNALS = ("journal.jsonl", "journal.jsonl.gz")
"""The record as it is written, and as it is published."""
CHECKPOINT = "checkpoint.safetensors"
"""The name of a trial's checkpoint, in its folder."""


def default_root() -> Path:
    """`mlruns` beside the packages in a checkout, so that every command finds it from any folder; else `./mlruns`."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout / "mlruns" if (checkout / "pyproject.toml").is_file() else Path.cwd() / "mlruns"


def recorded(folder: Path) -> list[str]:
    """Names of the folders in it that hold a journal, compressed or not; hidden ones are unfinished copies."""
    return sorted({path.parent.name for name in JOURNALS for path in folder.glob(f"[!.]*/{name}")})


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The paths of one study."""

    root: Path
    """Absolute."""
    study: str
    training: str = ""
    """A longer training of one of its trials, with a record of its own; empty: the study itself."""

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
        study = self.root / self.study
        return study / "trainings" / self.training if self.training else study

    def trainings(self) -> list["StudyFolder"]:
        """The longer trainings of its trials."""
        return [replace(self, training=name) for name in recorded(self.path / "trainings")]

    @property
    def journal(self) -> Path:
        """The record; of a published study, which has no other, the compressed one."""
        live, packed = (self.path / name for name in JOURNALS)
        return packed if packed.is_file() and not live.is_file() else live

    @property
    def owners(self) -> Path:
        """Holds a file for each owner, named by its epoch: an earlier one, should it wake, writes no checkpoint."""
        return self.path / "owners"

    @property
    def fence(self) -> Path:
        """Holds the epoch of the present owner for processes of version 0.1, which do not look at `owners`."""
        return self.path / "epoch"

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def report(self) -> Path:
        """The page that study.report writes."""
        return self.path / "report" / "report.html"

    def changes(self, epoch: int) -> Path:
        """How a session's code differed from its commit, if it did."""
        return self.path / "sessions" / f"{epoch:04d}.patch"

    def holds(self, name: str) -> bool:
        """Whether a file that a record names lies in the study: a forged record may name others."""
        inside = (self.path / name).resolve().is_relative_to(self.path.resolve())
        return inside and ".." not in Path(name).parts and not Path(name).is_absolute()

    def has(self, path: Path) -> bool:
        """Whether that file is there and lies in the study's folder: a link that leads out of it does not count.

        Ask this before a file is uploaded, published, exported or copied: the folder may come from others.
        """
        return path.is_file() and path.resolve().is_relative_to(self.path.resolve())

    def written(self, names: Iterable[str]) -> dict[str, Path]:
        """Those files that a record names and that are here, in the study."""
        return {name: path for name in names if self.holds(name) and self.has(path := self.path / name)}

    def trial(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04d}"

    def require(self) -> "StudyFolder":
        """Itself, if there is a study here. Raises SuiteError that names the studies that are."""
        if self.journal.is_file():
            return self
        here = recorded(self.root)
        hint = f"; there: {', '.join(here)}; say which with --study-name" if here else "; start one with study.run"
        raise SuiteError(f"no study {self.study!r} under {self.root}{hint}")

    @property
    def published(self) -> bool:
        """Whether this is a study's published record (study.sync --publish): read by every command, changed by none."""
        return replace(self, training="").journal.suffix == ".gz"

    def require_unpublished(self) -> None:
        """Raises SuiteError where this is a published record: whoever goes on with the study does so with a copy."""
        if self.published:
            raise SuiteError(
                f"{replace(self, training='').journal}: a published record is only read; to go on with study "
                f"{self.study!r}, copy its folder below another --root and unpack it there (gunzip journal.jsonl.gz)"
            )

    def create(self) -> None:
        """Make the root and the study's folder. Raises SuiteError where that cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = unique_name(self.path / "probe")
            probe.touch()
            probe.unlink()
        except OSError as exc:
            raise SuiteError(f"--root {self.root}: cannot be written ({exc.strerror}); choose another folder") from exc

    @contextmanager
    def owned(self, *, take_over: bool = False) -> Iterator[Ownership]:
        """The folder, made and locked; removed again if not even the journal's first line came about."""
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.create()
        with self.lock(take_over=take_over) as ownership:
            try:
                yield replace(ownership, checkpoints=self._tidy())
            finally:
                if ownership.lasts and not self.journal.exists():
                    (self.path / "lock").unlink(missing_ok=True)
                    Claims(self.owners).forget(ownership.epoch)
                    with suppress(OSError):  # there is more in it by now
                        for path in made:
                            path.rmdir()

    def lock(self, *, take_over: bool = False) -> AbstractContextManager[Ownership]:
        """Own the study while the block runs; it is free again however this process ends.

        Raises:
            SuiteError: a live process owns it; names it.
        """
        what = f"training {self.training}" if self.training else f"study {self.study!r}"
        return owned(self.path / "lock", what, self.journal, take_over=take_over, after=self._recorded_epoch())

    def owner(self) -> str | None:
        """The live process that owns the study, in words; None if there is none."""
        return owner(self.path / "lock")

    def _recorded_epoch(self) -> int:
        """The epoch of the last session in the record: a folder may be carried without its owners' files."""
        last = 0
        if self.journal.suffix == ".gz" or not self.journal.is_file():
            return last
        with self.journal.open("rb") as file:
            for line in file:
                if found := _SESSION.match(line):
                    last = max(last, int(found[1]))
        return last

    def _tidy(self) -> frozenset[int] | None:
        """Remove what kills left of files that the study's owner writes; the trials that have a checkpoint.

        One walk, because each folder that is listed costs a moment on a network file system. Not what others write: a
        longer training has an owner of its own, and a report has none. None if the trials lie elsewhere, behind a link.
        """
        trials = self.path / "trials"
        found: set[int] = set()
        for place, folders, names in os.walk(self.path):
            at = Path(place)
            if at == self.path:
                folders[:] = [name for name in folders if name not in ("trainings", self.report.parent.name)]
            for name in names:
                if name.startswith(".") and name.endswith(".writing"):
                    (at / name).unlink(missing_ok=True)
                elif name.endswith(CHECKPOINT) and at.parent == trials and at.name.isdecimal():
                    found.add(int(at.name))
        return None if trials.is_symlink() else frozenset(found)
