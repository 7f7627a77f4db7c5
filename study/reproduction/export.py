"""`study.reproduce --export DIR`: one trial as a folder that stands alone and reproduces it on another machine."""

import csv
import gzip
import hashlib
import importlib.metadata
import io
import json
import re
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sr_core.errors import SuiteError
from sr_core.process.durable import temporary_name
from sr_core.process.names import utf8
from study.record import provenance
from study.record.events import Event, SessionStarted, StudyOpened, TrialEvent
from study.record.folder import StudyFolder
from study.record.journal import encode, read
from study.record.state import StudyState, TrialState
from study.reproduction import standalone

_NEEDED = ("torch", "numpy", "h5py", "opencv-python-headless", "pillow", "safetensors", "nvidia-ml-py")
_IMAGES = "scikit-image"
"""Needed beside those where it brings the images."""
RECORD = "record"


def export(folder: StudyFolder, state: StudyState, trial: TrialState, to: Path) -> list[str]:
    """Write the folder; returns lines that say what it is.

    It holds this code, this trial's lines of the journal, and what people and other programs want to read of them; of
    images the names and checksums alone.

    Raises:
        SuiteError: something is there already, or it cannot be written.
    """
    assert state.opened is not None
    to = to.expanduser().resolve()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SuiteError(f"--export {to}: expected a new or an empty folder, and this one is not; name another")
    session = _session_of(state, trial)
    # The folder's name leads commands to the study, whatever its record says.
    opened = replace(state.opened, study=folder.study)
    files = _files(folder, opened, trial, session)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        aside = temporary_name(to, "export")  # complete under its name, or not there
        aside.mkdir()
        try:
            for name, content in files.items():
                path = aside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if to.exists():
                aside.chmod(stat.S_IMODE(to.stat().st_mode))
            aside.replace(to)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as exc:
        raise SuiteError(f"--export {to}: cannot be written ({exc.strerror or exc}); choose another folder") from exc
    lines = [f"exported to {to}: {len(files)} files, {sum(map(len, files.values())) / 1e6:.1f} MB"]
    if session is not None and trial.starts[-1].source != provenance.source_hash():
        lines.append(f"note: the trial was trained by code {trial.starts[-1].source}, what is exported is this code, "
                     f"{provenance.source_hash()}")  # fmt: skip
    data = "" if state.opened.data["folder"] is None else " --data DIR"
    return [*lines, f"next: python {shlex.quote(str(to / 'reproduce.py'))}{data}"]


def _session_of(state: StudyState, trial: TrialState) -> SessionStarted | None:
    """The last session that trained it."""
    epochs = [start.epoch for start in trial.starts]
    return next((s for s in reversed(state.sessions) if s.epoch in epochs), None)


def _files(
    folder: StudyFolder, opened: StudyOpened, trial: TrialState, session: SessionStarted | None
) -> dict[str, bytes]:
    """Path in the folder -> content."""
    place = f"{RECORD}/{folder.study}"
    told = {} if session is None else dict(session.provenance)
    source = {f"code/{name}": path.read_bytes() for name, path in provenance.source_paths().items()}
    files = {
        "reproduce.py": Path(standalone.__file__).read_bytes(),
        "requirements.txt": "".join(f"{line}\n" for line in requirements(opened, told)).encode(),
        "trial.json": (json.dumps(described(opened, trial, told), indent=2) + "\n").encode(),
        "pictures.csv": _images(opened),
        f"{place}/journal.jsonl.gz": gzip.compress(b"".join(_lines_of(read(folder.journal), trial)), mtime=0),
        f"{place}/trials/{trial.number:04d}/config.json": json.dumps(trial.proposed.config, indent=2).encode(),
        **source,
    }
    files["README.md"] = utf8(_readme(opened, trial, told))
    licence = Path(__file__).resolve().parents[2] / "LICENSE"
    if licence.is_file():
        files["code/LICENSE"] = licence.read_bytes()
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return files | {"SHA256SUMS": sums.encode()}


def _lines_of(events: Iterable[Event], trial: TrialState) -> Iterator[bytes]:
    """What the journal says of one trial: its study's first line, the sessions that trained it, its own events."""
    epochs = {start.epoch for start in trial.starts}
    number = 0
    for event in events:
        session = isinstance(event, SessionStarted) and event.epoch in epochs
        own = isinstance(event, TrialEvent) and event.trial == trial.number
        if session or own or isinstance(event, StudyOpened):
            yield encode(number, event)
            number += 1


def described(opened: StudyOpened, trial: TrialState, told: Mapping[str, Any]) -> dict[str, Any]:
    """All that the trial came from and came to, as plain values."""
    end = trial.end
    return {
        "study": opened.study,
        "trial": trial.number,
        "role": trial.proposed.role,
        "config": trial.proposed.config,
        "config_hash": trial.proposed.config_hash,
        "seeds": {"study": opened.seed, "trial": trial.config.seed, "replicate": trial.proposed.replicate},
        "data": {
            "origin": opened.data["origin"],
            "fingerprint": opened.data["fingerprint"],
            "pictures": "pictures.csv",
        },
        "runtime": dict(opened.runtime),
        "micro_batches": [list(reduction) for reduction in trial.micro_batch_changes],
        "code": trial.starts[-1].source,
        "python": told.get("python"),
        "versions": told.get("versions"),
        "hardware": trial.starts[-1].hardware,
        "curve": [
            {"patches": p.patches, **p.scores, "train/loss": p.loss, "train/lr": p.learning_rate} for p in trial.curve
        ],
        "state": trial.status,
        "weights": getattr(end, "weights", None),
        "per_crop": [list(row) for row in getattr(end, "per_image", ())],
    }


def requirements(opened: StudyOpened, told: Mapping[str, Any]) -> list[str]:
    """Every package that the reproduction needs, pinned to the version of the record, else to that of here.

    Versions of other builds (`torch 2.13.0+cpu`) have no place in an index of packages: they are named beside the pin.
    """
    versions = provenance.recorded_versions(told.get("packages", ()))
    wanted = [*_NEEDED, *((_IMAGES,) if opened.data["folder"] is None else ())]
    lines = []
    for name in _with_dependencies(wanted):
        version = versions.get(name) or importlib.metadata.version(name)
        public, _, build = version.partition("+")
        lines.append(f"{name}=={public}" + (f"  # recorded: the build {version}" if build else ""))
    return lines


def _with_dependencies(names: Iterable[str]) -> list[str]:
    """These packages and all that they require, as far as it is installed here, by name."""
    found: set[str] = set()
    todo = [provenance.plain_name(name) for name in names]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        found.add(name)
        for line in requires:
            stem = re.match(r"[A-Za-z0-9._-]+", line)
            if stem and "extra" not in line.partition(";")[2]:
                todo.append(provenance.plain_name(stem[0]))
    return sorted(found)


def _images(opened: StudyOpened) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["split", "picture", "sha256 of shape and pixels"])
    rows.writerows(opened.data["pictures"])
    return utf8(text.getvalue())


def _readme(opened: StudyOpened, trial: TrialState, told: Mapping[str, Any]) -> str:
    score = f"{trial.score:.4f} dB" if trial.score is not None else "no score"
    splits = [split for split, _, _ in opened.data["pictures"]]
    counts = f"{splits.count('train')} images train, {splits.count('valid')} validate"
    if opened.data["folder"] is None:
        command, data = "python reproduce.py", f"those of {opened.data['origin']}, which is installed ({counts})."
    else:
        command = "python reproduce.py --data DIR"
        data = (f"`DIR` is the folder of images that the study had as `--data` ({counts}). They are not in here: "
                "`pictures.csv` has the name and the checksum of each, and each is compared.")  # fmt: skip
    here, then = provenance.source_hash(), trial.starts[-1].source
    code = "the code in here" if here == then else f"other code ({then}) than is in here ({here})"
    hardware = trial.starts[-1].hardware or "an unnamed processor"
    return f"""# Trial {trial.number} of study {opened.study}

{trial.patches} training patches gave {score} (validation PSNR on Y). This trains the trial again and compares every
number:

```
{command}
```

The first time, it makes `.venv` in here and installs `requirements.txt` with pip. In an environment that has the
packages already, add `--no-venv`. Where this build of torch is not the one that pip installs, install it first, too.

- Trained by {code}, with Python {told.get("python", "3")} and torch {opened.runtime["torch"]}, on {hardware}.
- Images: {data}

The last line is the verdict. Exit status 0: bit-identical, or within tolerance where the machine cannot restore what
decides bits (`runtime` in `trial.json`); 4: different, with the first point of difference and its likely cause; 2: an
image or package is missing. With `--strict`, other code or versions are a difference too.

| file | holds |
|---|---|
| `trial.json` | complete configuration, seeds, resolved settings, versions, the recorded curve and checksums |
| `pictures.csv` | the images by name, with checksums |
| `requirements.txt` | the packages, pinned |
| `record/` | the trial's lines of the study's journal, checksummed: what the comparison reads |
| `code/` | the packages `sr_core` and `study` |
| `SHA256SUMS` | of all files (`sha256sum -c SHA256SUMS`) |
"""
