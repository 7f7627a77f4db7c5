"""Derives what MLflow shows of a study from the journal: params, tags and points of its runs, as plain values."""

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
    """The images that a run uses for one purpose."""

    context: str
    """The purpose: training or validation."""
    name: str
    digest: str
    source_type: str
    """MLflow's name for the kind of source."""
    source: str
    """The source in MLflow's JSON form for its kind."""
    profile: str
    """Facts about the images for people, as JSON."""


class Point(NamedTuple):
    """One value of a metric's curve."""

    key: str
    value: float
    time: float
    """Unix time in seconds."""
    step: int
    """Training patches. For a study's own scores, the number of trials that they come from."""


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested sections as dotted names -> values.

    A stored config keeps its own fields, even if today's code has others.
    """
    dotted: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            dotted |= flat(value, f"{prefix}{key}.")
        else:
            dotted[prefix + key] = value
    return dotted


def plain(value: Any) -> str:
    """Returns a value as MLflow stores it, in text that every database accepts."""
    text = json.dumps(value) if isinstance(value, list | tuple | dict) else str(value)
    return printable(text).replace("\0", "\\x00")


def run_name(trial: TrialState) -> str:
    """Returns the name of a trial's run."""
    proposed = trial.proposed
    if trial.is_replicate:
        return visible(trial.label)
    return f"reference: {visible(proposed.name)}" if trial.is_reference else f"trial {proposed.trial:04d}"


def trial_tags(trial: TrialState, study: str) -> Tags:
    """Returns the tags of a trial's run: its state, its configuration's hash and where it was trained.

    Args:
        study: the study's name.
    """
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
    """Returns the points of validations: losses, learning rates, scores, gain over bicubic and system load.

    Args:
        baseline: the objective of bicubic upsampling on the same crops, in dB.
    """
    points = []
    for validated in progress:
        values = {"train/loss": validated.loss, "train/lr": validated.learning_rate, **validated.scores}
        values[GAIN] = validated.scores[OBJECTIVE] - baseline
        for name, value in validated.load.items():
            values[f"system/{name}"] = value  # MLflow has a page for metrics with this prefix
        points += [Point(key, value, validated.time, validated.patches) for key, value in values.items()]
    return points


def rank_tags(trial: TrialState, rank: int, of: int, study: str, baseline: float) -> Tags:
    """Returns a trial's rank as tags, also in words. MLflow shows a run's description in lists and on its page.

    Args:
        of: the number of ranked trials.
        study: the study's name.
        baseline: the objective of bicubic upsampling on the same crops, in dB.
    """
    assert trial.score is not None
    gain = f"{trial.score:.3f} dB, {trial.score - baseline:+.3f} over bicubic"
    description = f"Rank {rank} of {of} in {study}: {gain} after {trial.patches} patches"
    if trial.status != "finished":
        description += " (pruned)"
    return {"study.rank": rank, "mlflow.note.content": description}


def dataset_inputs(opened: StudyOpened) -> list[DatasetInput]:
    """Returns the images of a study: one entry for the training images, one for the validation images.

    Both have the digest of all images, the first half of their fingerprint. MLflow accepts no longer one.
    """
    data = opened.data
    if data.get("folder"):
        kind, source = "local", {"uri": data["folder"]}
    else:
        kind, source = "code", {"tags": {"origin": data["origin"]}}  # the images of an installed package
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
    """Returns how a trial's time was spent, in seconds per activity."""
    return [Point(f"seconds/{what}", value, end.time, end.patches) for what, value in end.seconds.items()]


def results(result: Concluded) -> list[Point]:
    """Returns the winner's scores."""
    return [Point(key, value, result.time, result.counted) for key, value in result.scores.items()]


def separate(points: Iterable[Point]) -> tuple[list[Point], Tags]:
    """Returns the finite points, and tags for the others. A single NaN or infinity breaks MLflow's pages."""
    finite = []
    tags = Tags()
    for point in points:
        if math.isfinite(point.value):
            finite.append(point)
        else:
            tags[f"not_finite.{point.key}"] = f"{point.value} at {point.step}"
    return finite, tags


def question_params(opened: StudyOpened) -> dict[str, Any]:
    """Returns the params that all trials share, and the search space.

    They have the names that they have in the trials' runs, so a filter that finds those also finds their parent.
    """
    question = dict(opened.question)
    space = question.pop("space")
    del question["references"], question["seed"]  # a trial's param `seed` is its own
    searched = {name for dimension in space.values() for name in dimension["names"]}
    params = {name: value for name, value in flat(question.pop("base")).items() if name not in searched}
    for dimension in space.values():
        description = {key: value for key, value in dimension.items() if key != "names"}
        params["space." + " ".join(dimension["names"])] = json.dumps(description)
    return params | flat(question) | {"experiment": opened.experiment}


def question_tags(opened: StudyOpened) -> Tags:
    """Returns the tags that identify a study's question and the runtime it was opened with."""
    return {
        "mlflow.note.content": opened.text,
        "study.experiment": opened.experiment,
        "study.seed": opened.seed,
        "study.digest": opened.digest,
    } | {f"runtime.{key}": value for key, value in flat(opened.runtime).items()}


def study_tags(state: StudyState) -> Tags:
    """Returns the tags for a study's state, and for the code and machine of its last session."""
    tags: Tags = {
        "study.state": state.ended.reason if state.ended else "running",
        "study.reason": state.ended.detail if state.ended else "",
        "study.counted": state.counted,
    }
    if state.session:
        too_long = ("packages", "files")  # an artifact has the former, the journal both
        provenance = {key: value for key, value in state.session.provenance.items() if key not in too_long}
        tags |= flat({"study": {"host": state.session.host}, "provenance": provenance})
        if "provenance.git.commit" in tags:
            tags["mlflow.source.git.commit"] = tags["provenance.git.commit"]
    return tags


def winner_tags(result: Concluded, state: StudyState, run_id: str) -> Tags:
    """Returns the tags for the winning trial: its number, its run, its values and, after replicates, the verdict."""
    values = {f"best.{name}": value for name, value in state.trials[result.best].proposed.values.items()}
    if state.replicated:
        values["study.verdict"] = "\n".join(words(state))
    return {"study.best": result.best, "study.best_run": run_id} | values
