"""Reports where the answer comes from, and the commands that reproduce it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sr_core.metrics.evaluate import describe_protocol
from study.question.experiment import available
from study.question.space import Dimension
from study.record.folder import default_root
from study.report.markup import Html, element, joined, pairs, readable, table
from study.report.page import Section
from study.report.record import StudyRecord, moment, short


def provenance(record: StudyRecord) -> Section:
    """Return the section with the question, space, data, code, machine and settings that decide bits."""
    opened = record.opened
    data = opened.data
    session = record.state.session
    origin: Mapping[str, Any] = session.provenance if session else {}
    train = sum(row[0] == "train" for row in data.get("pictures", ()))
    valid = sum(row[0] == "valid" for row in data.get("pictures", ()))
    crops = data.get("crops", {})
    commit = origin.get("git") or {}
    code = [
        ("commit", _commit(commit) if commit else "unknown: not run from a checkout"),
        ("source of sr_core and study", element("code", origin.get("source", ""))),
        ("Python", origin.get("python", "")),
        *((name, version) for name, version in origin.get("versions", {}).items()),
        ("machine", origin.get("platform", "")),
        ("processor", f"{origin['cpu']}, {origin.get('cores', '?')} cores" if origin.get("cpu") else ""),
    ]

    changed = [s.start.epoch for s in record.sessions if record.folder.changes(s.start.epoch).is_file()]
    if changed:
        files = ", ".join(f"sessions/{epoch:04d}.patch" for epoch in changed)
        code.append(("uncommitted changes", f"kept in {files}"))

    study = [
        ("study", opened.study),
        ("experiment", opened.experiment),
        ("opened", moment(opened.time)),
        ("seed", opened.seed),
        ("digest of the question", element("code", opened.digest)),
        ("journal", f"{record.state.count:,} events"),
    ]
    images = [
        ("images", f"{train} train, {valid} validate, from {data.get('origin', 'an unknown place')}"),
        ("fingerprint", element("code", data.get("fingerprint", ""))),
        ("validation crops", f"{crops['count']} of {crops['lr_side']} LR pixels a side" if "lr_side" in crops else ""),
        ("evaluation kernel", record.base.evaluation.kernel),
        *((_protocol(what), words) for what, words in describe_protocol(record.base.evaluation.protocol).items()),
    ]
    if data.get("leaks"):
        images.append(
            ("training images that also occur in held-out sets", f"{len(data['leaks'])}, allowed by --allow-leak")
        )

    search = opened.question["search"]
    bits = [(name, readable(value)) for name, value in opened.runtime.items()]
    space = table(
        ("hyperparameter", "range", "values", "role"),
        [(short(d.label), type(d.range).__name__, _values(d), d.role) for d in record.space.dimensions],
        caption="Search space",
    )
    packages = origin.get("packages", ())
    everything = element(
        "details", element("summary", f"{len(packages)} installed packages"), element("pre", "\n".join(packages))
    )
    body = [
        _group("Study", study),
        _group("Search", [(name.replace("_", " "), readable(value)) for name, value in search.items()]),
        space,
        _group("Data", images),
        _group("Code and machine of the last session", code),
        _group("Settings that decide the bits of results", bits),
        everything if packages else None,
    ]
    return Section("provenance", "Provenance", joined(body))


def _protocol(what: str) -> str:
    return what if what == "protocol" else f"protocol, {what}"


def _group(heading: str, rows: Sequence[tuple[str, object]]) -> Html:
    return joined([element("h3", heading), pairs((name, value) for name, value in rows if value not in ("", None))])


def _commit(git: Mapping[str, Any]) -> Html:
    if "unknown" in git:
        return joined([f"unknown: {git['unknown']}"])
    dirty = ", with uncommitted changes" if git.get("dirty") else ""
    return joined([element("code", git.get("commit", "")), dirty])


def _values(dimension: Dimension) -> str:
    content = dimension.describe()
    if "values" in content:
        return "; ".join(str(readable(value)) for value in content["values"])
    return f"{content['low']:g} to {content['high']:g}" + (", logarithmic" if content["log"] else "")


def reproduce_section(record: StudyRecord) -> Section:
    """Return the section with the commands that reproduce the results."""
    lines = []
    for comment, command in commands(record):
        lines.append(element("p", comment))
        lines.append(element("pre", element("code", command), tabindex=0))
    return Section("reproduce", "How to reproduce", joined(lines))


def commands(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """Yield what each command is for, and the command."""
    opened = record.opened
    flags = where_of(record)
    session = record.state.session
    commit = (session.provenance.get("git") or {}).get("commit") if session else None
    if commit:
        yield (
            "Check out the code of the last session, in a clone of the project:",
            f"git checkout {shlex.quote(commit)}",
        )
    yield "Install the tested versions:", "pip install -c constraints.txt -e ."
    if record.best is not None and record.folder.training == "":
        yield (
            "Retrain the winner with the recorded settings and compare every number:",
            f"python -m study.reproduce best{flags}",
        )

    name = opened.experiment if opened.experiment in available() else f"{opened.experiment}.py"
    asked = session.trials if session else 50
    arguments = [
        "--experiment",
        name,
        "--trials",
        str(asked),
        "--seed",
        str(opened.seed),
        "--study-name",
        f"{opened.study}-again",
    ]
    if opened.data.get("folder"):
        arguments += ["--data", opened.data["folder"]]
    note = "" if name == opened.experiment else " (with the experiment file from which this study was run)"
    yield f"Repeat the whole search as a separate study{note}:", f"python -m study.run {shlex.join(arguments)}"
    yield "Write this report:", f"python -m study.report{flags}"
    if record.state.concluded is not None:
        weights = record.folder.results / "best" / "weights.safetensors"
        yield (
            "Enlarge your own images with the winner:",
            f"python -m sr_core.upscale --weights {shlex.quote(_from_root(record, weights))} holiday/ --out enlarged",
        )


def where_of(record: StudyRecord) -> str:
    """Return the flags that select this study, with a leading space."""
    folder = record.folder
    root = [] if folder.root == default_root() else ["--root", str(folder.root)]
    return f" {shlex.join([*root, '--study-name', folder.study])}"


def _from_root(record: StudyRecord, path: object) -> str:
    """Return a path relative to the working directory if the study has the default root."""
    root = default_root()
    return str(path).removeprefix(f"{root.parent}/") if record.folder.root == root else str(path)
