"""`study.reproduce --export DIR` writes a self-contained folder that reproduces one trial on another machine."""

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

_PACKAGES = ("torch", "numpy", "h5py", "opencv-python-headless", "pillow", "safetensors", "nvidia-ml-py")
"""Packages that every reproduction needs."""
_IMAGE_PACKAGE = "scikit-image"
"""Also needed if the study was run on the images that this package contains."""
RECORD = "record"
"""The subfolder with the study's record."""


def export(folder: StudyFolder, state: StudyState, trial: TrialState, to: Path) -> list[str]:
    """Write the folder; returns lines for the terminal that describe it.

    The folder contains this code, the trial's lines of the journal, and the same information in readable form. It
    contains the names and checksums of the images, but not the images.

    Raises:
        SuiteError: the folder exists and is not empty, or it cannot be written.
    """
    to = to.expanduser().resolve()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SuiteError(
            f"--export {to}: expected a new or an empty folder, but it exists and is not empty; name another"
        )
    session = _session_of(state, trial)
    # Commands find the study by the name of its folder, even if its record has another name.
    opened = replace(state.opening, study=folder.study)
    files = _files(folder, opened, trial, session)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(to, "export")  # the final name only ever holds a complete folder
        temporary.mkdir()
        try:
            for name, content in files.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if to.exists():
                temporary.chmod(stat.S_IMODE(to.stat().st_mode))
            temporary.replace(to)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as exc:
        raise SuiteError(f"--export {to}: cannot be written ({exc.strerror or exc}); choose another folder") from exc

    megabytes = sum(map(len, files.values())) / 1e6
    lines = [f"exported to {to}: {len(files)} files, {megabytes:.1f} MB"]
    if session is not None and trial.starts[-1].source != provenance.source_hash():
        lines.append(
            f"note: the trial was trained by code {trial.starts[-1].source}, but the exported code is the present one, "
            f"{provenance.source_hash()}"
        )
    data = "" if opened.data["folder"] is None else " --data DIR"
    return [*lines, f"next: python {shlex.quote(str(to / 'reproduce.py'))}{data}"]


def _session_of(state: StudyState, trial: TrialState) -> SessionStarted | None:
    """The last session that trained the trial; None if no session did."""
    epochs = [start.epoch for start in trial.starts]
    return next((s for s in reversed(state.sessions) if s.epoch in epochs), None)


def _files(
    folder: StudyFolder, opened: StudyOpened, trial: TrialState, session: SessionStarted | None
) -> dict[str, bytes]:
    """Every file of the export: path in the folder -> content."""
    record = f"{RECORD}/{folder.study}"
    origin = {} if session is None else dict(session.provenance)
    source = {f"code/{name}": path.read_bytes() for name, path in provenance.source_paths().items()}
    files = {
        "reproduce.py": Path(standalone.__file__).read_bytes(),
        "requirements.txt": "".join(f"{line}\n" for line in requirements(opened, origin)).encode(),
        "trial.json": (json.dumps(described(opened, trial, origin), indent=2) + "\n").encode(),
        "pictures.csv": _images(opened),
        f"{record}/journal.jsonl.gz": gzip.compress(b"".join(_lines_of(read(folder.journal), trial)), mtime=0),
        f"{record}/trials/{trial.number:04d}/config.json": json.dumps(trial.proposed.config, indent=2).encode(),
        **source,
    }
    files["README.md"] = utf8(_readme(opened, trial, origin))
    licence = Path(__file__).resolve().parents[2] / "LICENSE"
    if licence.is_file():
        files["code/LICENSE"] = licence.read_bytes()
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return files | {"SHA256SUMS": sums.encode()}


def _lines_of(events: Iterable[Event], trial: TrialState) -> Iterator[bytes]:
    """The journal lines that concern one trial, renumbered from 0.

    These are the study's first line, the sessions that trained the trial, and the events of the trial.
    """
    epochs = {start.epoch for start in trial.starts}
    number = 0
    for event in events:
        is_its_session = isinstance(event, SessionStarted) and event.epoch in epochs
        is_its_event = isinstance(event, TrialEvent) and event.trial == trial.number
        if is_its_session or is_its_event or isinstance(event, StudyOpened):
            yield encode(number, event)
            number += 1


def described(opened: StudyOpened, trial: TrialState, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs and the results of a trial as plain values.

    Args:
        origin: provenance of the session that trained it; empty if there was none.
    """
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
        "python": origin.get("python"),
        "versions": origin.get("versions"),
        "hardware": trial.starts[-1].hardware,
        "curve": [
            {"patches": p.patches, **p.scores, "train/loss": p.loss, "train/lr": p.learning_rate} for p in trial.curve
        ],
        "state": trial.status,
        "weights": getattr(end, "weights", None),
        "per_crop": [list(row) for row in getattr(end, "per_image", ())],
    }


def requirements(opened: StudyOpened, origin: Mapping[str, Any]) -> list[str]:
    """The lines of requirements.txt: every package that the reproduction needs, with its version.

    The version is the recorded one or, if none is recorded, the one installed here. A package index does not offer
    local builds such as `torch 2.13.0+cpu`, so a comment names the build.
    """
    versions = provenance.recorded_versions(origin.get("packages", ()))
    packages = list(_PACKAGES)
    if opened.data["folder"] is None:
        packages.append(_IMAGE_PACKAGE)
    lines = []
    for name in _with_dependencies(packages):
        version = versions.get(name) or importlib.metadata.version(name)
        public, _, build = version.partition("+")
        comment = f"  # recorded: the build {version}" if build else ""
        lines.append(f"{name}=={public}{comment}")
    return lines


def _with_dependencies(names: Iterable[str]) -> list[str]:
    """These packages and all their dependencies that are installed here, sorted by name."""
    packages: set[str] = set()
    pending = [provenance.plain_name(name) for name in names]
    while pending:
        name = pending.pop()
        if name in packages:
            continue
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # required on another platform only
        packages.add(name)
        for line in requires:
            match = re.match(r"[A-Za-z0-9._-]+", line)
            if match and "extra" not in line.partition(";")[2]:
                pending.append(provenance.plain_name(match[0]))
    return sorted(packages)


def _images(opened: StudyOpened) -> bytes:
    """The content of pictures.csv."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["split", "picture", "sha256 of shape and pixels"])
    rows.writerows(opened.data["pictures"])
    return utf8(text.getvalue())


def _readme(opened: StudyOpened, trial: TrialState, origin: Mapping[str, Any]) -> str:
    score = f"{trial.score:.4f} dB" if trial.score is not None else "no score"
    splits = [split for split, _, _ in opened.data["pictures"]]
    counts = f"{splits.count('train')} images train, {splits.count('valid')} validate"
    if opened.data["folder"] is None:
        command = "python reproduce.py"
        data = f"those of {opened.data['origin']}, which is installed ({counts})."
    else:
        command = "python reproduce.py --data DIR"
        data = (
            f"`DIR` is the folder of images that the study had as `--data` ({counts}). This folder does not contain "
            "them. `pictures.csv` lists their names and checksums, and each image is compared with its checksum."
        )
    here = provenance.source_hash()
    then = trial.starts[-1].source
    code = "the code in this folder" if here == then else f"code {then}; this folder contains code {here}"
    hardware = trial.starts[-1].hardware or "an unnamed processor"
    return f"""# Trial {trial.number} of study {opened.study}

{trial.patches} training patches gave {score} (validation PSNR on Y). This command retrains the trial and compares every
number with the record:

```
{command}
```

The first run creates `.venv` in this folder and installs `requirements.txt` with pip. If your environment already has
the packages, add `--no-venv`. Use that also if you need a build of torch that pip does not install: install it yourself
first.

- Trained by {code}, with Python {origin.get("python", "3")} and torch {opened.runtime["torch"]}, on {hardware}.
- Images: {data}

The last line is the verdict. The exit status is

- 0 if the result is bit-identical, or within tolerance if this machine cannot restore a setting that affects bits
  (`runtime` in `trial.json`);
- 4 if it differs; the lines above then name the first difference and its likely cause;
- 2 if an image or a package is missing.

With `--strict`, code or versions that differ also count as a difference.

| file | content |
|---|---|
| `trial.json` | complete configuration, seeds, resolved settings, versions, the recorded curve and checksums |
| `pictures.csv` | names and checksums of the images |
| `requirements.txt` | the packages with their versions |
| `record/` | the trial's lines of the study's journal, with checksums; the comparison reads them |
| `code/` | the packages `sr_core` and `study` |
| `SHA256SUMS` | checksums of all files (`sha256sum -c SHA256SUMS`) |
"""
