"""Where the answer comes from, and the commands that give it again."""

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
    """Question, space, data, code, machine and settings that decide bits."""
    opened = record.opened
    data, session = opened.data, record.state.session
    told: Mapping[str, Any] = session.provenance if session else {}
    train, valid = (sum(row[0] == split for row in data.get("pictures", ())) for split in ("train", "valid"))
    crops = data.get("crops", {})
    commit = told.get("git") or {}
    code = [
        ("commit", _commit(commit) if commit else "unknown: not run from a checkout"),
        ("source of sr_core and study", element("code", told.get("source", ""))),
        ("Python", told.get("python", "")),
        *((name, version) for name, version in told.get("versions", {}).items()),
        ("machine", told.get("platform", "")),
        ("processor", f"{told['cpu']}, {told.get('cores', '?')} cores" if told.get("cpu") else ""),
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
        ("pictures", f"{train} train, {valid} validate, from {data.get('origin', 'an unknown place')}"),
        ("fingerprint", element("code", data.get("fingerprint", ""))),
        ("validation crops", f"{crops['count']} of {crops['lr_side']} LR pixels a side" if "lr_side" in crops else ""),
        ("evaluation kernel", record.base.evaluation.kernel),
        *((_protocol(what), words) for what, words in describe_protocol(record.base.evaluation.protocol).items()),
    ]
    if data.get("leaks"):
        images.append(("training images that show a held-out one", f"{len(data['leaks'])}, allowed by --allow-leak"))
    search = opened.question["search"]
    bits = [(name, readable(value)) for name, value in opened.runtime.items()]
    space = table(
        ("hyperparameter", "range", "values", "role"),
        [(short(d.label), type(d.range).__name__, _values(d), d.role) for d in record.space.dimensions],
        caption="Search space",
    )
    packages = told.get("packages", ())
    everything = element(
        "details", element("summary", f"{len(packages)} installed packages"), element("pre", "\n".join(packages))
    )
    body = [
        _group("Study", study),
        _group("Search", [(name.replace("_", " "), readable(value)) for name, value in search.items()]),
        space,
        _group("Data", images),
        _group("Code and machine of the last session", code),
        _group("Settings that decide bits", bits),
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
    """Exact commands."""
    lines = []
    for comment, command in commands(record):
        lines.append(element("p", comment))
        lines.append(element("pre", element("code", command), tabindex=0))
    return Section("reproduce", "How to reproduce", joined(lines))


def commands(record: StudyRecord) -> Iterator[tuple[str, str]]:
    """What each command is for, and the command."""
    opened, where = record.opened, where_of(record)
    session = record.state.session
    commit = (session.provenance.get("git") or {}).get("commit") if session else None
    if commit:
        yield "The code of the last session, in a checkout of the project:", f"git checkout {shlex.quote(commit)}"
    yield "The versions that were tested together:", "pip install -c constraints.txt -e ."
    if record.best is not None and record.folder.training == "":
        yield (
            "Train the winner again on the recorded settings and compare every number:",
            f"python -m study.reproduce best{where}",
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
    whose = "" if name == opened.experiment else " (the experiment's file is the one that this study was run from)"
    yield f"The whole search again, as a study of its own{whose}:", f"python -m study.run {shlex.join(arguments)}"
    yield "This report:", f"python -m study.report{where}"
    if record.state.concluded is not None:
        weights = record.folder.results / "best" / "weights.safetensors"
        yield (
            "Enlarge images of your own with the winner:",
            f"python -m sr_core.upscale --weights {shlex.quote(_from_root(record, weights))} holiday/ --out enlarged",
        )


def where_of(record: StudyRecord) -> str:
    """The flags that lead a command to this study."""
    folder = record.folder
    root = [] if folder.root == default_root() else ["--root", str(folder.root)]
    return f" {shlex.join([*root, '--study-name', folder.study])}"


def _from_root(record: StudyRecord, path: object) -> str:
    at = str(path)
    root = default_root()
    return at.removeprefix(f"{root.parent}/") if record.folder.root == root else at
