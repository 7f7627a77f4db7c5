"""What MLflow shows of a study: params, tags and points of its runs, as plain values derived from the journal."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sr_core.process.names import printable, visible
from study.record.events import Concluded, Finished, StudyOpened, Validated
from study.record.state import OBJECTIVE, StudyState, TrialState
from study.statistics.verdict import words

GAIN = "val/psnr_gain_over_bicubic"

Tags = dict[str, Any]


class DatasetInput(NamedTuple):
    """Images that a run took in."""

    context: str
    """What for: training, validation."""
    name: str
    digest: str
    source_type: str
    """As MLflow names the kinds of sources."""
    source: str
    """What such a source is made of, as JSON."""
    profile: str
    """What people want to know of it, as JSON."""


class Point(NamedTuple):
    """One value of a curve."""

    key: str
    value: float
    time: float
    step: int
    """Training patches; for a study's own scores, the number of trials they are drawn from."""


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted names. A stored config is shown as it is, even where today's code has other fields."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def plain(value: Any) -> str:
    """A value as MLflow stores it, in text that every database holds."""
    text = json.dumps(value) if isinstance(value, list | tuple | dict) else str(value)
    return printable(text).replace("\0", "\\x00")


def run_name(trial: TrialState) -> str:
    proposed = trial.proposed
    if trial.is_replicate:
        return visible(trial.label)
    return f"reference: {visible(proposed.name)}" if trial.is_reference else f"trial {proposed.trial:04d}"


def trial_tags(trial: TrialState, study: str) -> Tags:
    """How a trial of this study stands, and what it came from."""
    tags: Tags = {
        "study.state": "running" if trial.status == "waiting" else trial.status,
        "study.reason": getattr(trial.end, "reason", ""),
        "study.config_hash": trial.proposed.config_hash,
    }
    if trial.is_reference:
        tags["study.reference"] = trial.proposed.name
    if trial.is_replicate:
        tags |= {"study.replicate_of": trial.proposed.of, "study.replicate": trial.proposed.replicate}
        tags["mlflow.note.content"] = f"Seed {trial.proposed.replicate} of trial {trial.proposed.of} in {study}"
    if trial.starts:
        last = trial.starts[-1]
        tags |= {"study.slot": last.slot, "study.source": last.source, "study.hardware": last.hardware}
    if isinstance(trial.end, Finished):
        tags["study.weights"] = trial.end.weights
    return tags


def curve(progress: Iterable[Validated], baseline: float) -> list[Point]:
    """The points of some validations.

    Args:
        baseline: the objective of bicubic upsampling on the same crops, in dB.
    """
    points = []
    for p in progress:
        values = {"train/loss": p.loss, "train/lr": p.learning_rate, **p.scores}
        values[GAIN] = p.scores[OBJECTIVE] - baseline
        values |= {f"system/{what}": value for what, value in p.load.items()}  # MLflow has a page for such names
        points += [Point(key, value, p.time, p.patches) for key, value in values.items()]
    return points


def rank_tags(trial: TrialState, rank: int, of: int, study: str, baseline: float) -> Tags:
    """Where a trial stands, also in words: the description is shown in lists and at the head of the run's page."""
    assert trial.score is not None
    gain = f"{trial.score:.3f} dB, {trial.score - baseline:+.3f} over bicubic"
    words = f"Rank {rank} of {of} in {study}: {gain} after {trial.patches} patches"
    return {"study.rank": rank, "mlflow.note.content": words if trial.status == "finished" else f"{words} (pruned)"}


def dataset_inputs(opened: StudyOpened) -> list[DatasetInput]:
    """The images of a study: one entry for those that train, one for those that validate.

    Both have the digest of the whole data, the first half of its fingerprint (MLflow takes no more).
    """
    data = opened.data
    if data.get("folder"):
        kind, source = "local", {"uri": data["folder"]}
    else:
        kind, source = "code", {"tags": {"origin": data["origin"]}}  # they lie in an installed package
    inputs = []
    for split, context in (("train", "training"), ("valid", "validation")):
        names = [printable(name) for part, name, _ in data.get("pictures", ()) if part == split]
        profile = {"pictures": len(names), "names": names[:100], "fingerprint": data["fingerprint"]}
        name = printable(f"{data['origin']}: {context}")
        inputs.append(
            DatasetInput(context, name, data["fingerprint"][:32], kind, json.dumps(source), json.dumps(profile))
        )
    return inputs


def costs(end: Finished) -> list[Point]:
    """Where the time of a trial went, in seconds."""
    return [Point(f"seconds/{what}", value, end.time, end.patches) for what, value in end.seconds.items()]


def results(result: Concluded) -> list[Point]:
    """The winner's scores."""
    return [Point(key, value, result.time, result.counted) for key, value in result.scores.items()]


def separate(points: Iterable[Point]) -> tuple[list[Point], Tags]:
    """Points that can be drawn, and tags for those that cannot: one NaN or infinity breaks MLflow's pages."""
    drawn, tags = [], Tags()
    for point in points:
        if math.isfinite(point.value):
            drawn.append(point)
        else:
            tags[f"not_finite.{point.key}"] = f"{point.value} at {point.step}"
    return drawn, tags


def question_params(opened: StudyOpened) -> dict[str, Any]:
    """What all trials share, under the names it has there, so that a filter that finds them finds their parent too."""
    question = dict(opened.question)
    space = question.pop("space")
    del question["references"], question["seed"]  # a trial's param `seed` is its own
    moving = {name for dimension in space.values() for name in dimension["names"]}
    params = {name: value for name, value in flat(question.pop("base")).items() if name not in moving}
    for dimension in space.values():
        content = {k: v for k, v in dimension.items() if k != "names"}
        params["space." + " ".join(dimension["names"])] = json.dumps(content)
    return params | flat(question) | {"experiment": opened.experiment}


def question_tags(opened: StudyOpened) -> Tags:
    return {
        "mlflow.note.content": opened.text,
        "study.experiment": opened.experiment,
        "study.seed": opened.seed,
        "study.digest": opened.digest,
    } | {f"runtime.{key}": value for key, value in flat(opened.runtime).items()}


def study_tags(state: StudyState) -> Tags:
    """How the study stands, and by which code and machine."""
    tags: Tags = {
        "study.state": state.ended.reason if state.ended else "running",
        "study.reason": state.ended.detail if state.ended else "",
        "study.counted": state.counted,
    }
    if state.session:
        long = ("packages", "files")  # an artifact has the former, the journal both
        told = {key: value for key, value in state.session.provenance.items() if key not in long}
        tags |= flat({"study": {"host": state.session.host}, "provenance": told})
        if "provenance.git.commit" in tags:
            tags["mlflow.source.git.commit"] = tags["provenance.git.commit"]
    return tags


def winner_tags(result: Concluded, state: StudyState, run_id: str) -> Tags:
    """Which trial won, with which values, and how far that holds."""
    values = {f"best.{name}": value for name, value in state.trials[result.best].proposed.values.items()}
    if state.replicated:
        values["study.verdict"] = "\n".join(words(state))
    return {"study.best": result.best, "study.best_run": run_id} | values
