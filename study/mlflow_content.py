"""What MLflow shows of a study: params, tags and points of its runs, as plain values derived from the journal."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from study.events import Concluded, Finished, Progress, StudyOpened
from study.state import OBJECTIVE, StudyState, TrialState
from study.verdict import sentences, verdict

GAIN = "val/psnr_gain_over_bicubic"

Tags = dict[str, Any]


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
    """A value as MLflow stores it."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else str(value)


def run_name(trial: TrialState) -> str:
    proposed = trial.proposed
    if trial.is_replicate:
        return f"{proposed.name} / seed {proposed.replicate}"
    return f"reference: {proposed.name}" if trial.is_reference else f"trial {proposed.trial:04d}"


def trial_tags(trial: TrialState) -> Tags:
    """How a trial stands, and what it came from."""
    tags: Tags = {
        "study.state": "running" if trial.status == "waiting" else trial.status,
        "study.reason": getattr(trial.end, "reason", ""),
        "study.config_hash": trial.proposed.config_hash,
    }
    if trial.is_reference:
        tags["study.reference"] = trial.proposed.name
    if trial.is_replicate:
        tags |= {"study.replicate_of": trial.proposed.of, "study.replicate": trial.proposed.replicate}
    if trial.starts:
        tags |= {"study.slot": trial.starts[-1].slot, "study.source": trial.starts[-1].source}
    if isinstance(trial.end, Finished):
        tags["study.weights"] = trial.end.weights
    return tags


def curve(progress: Iterable[Progress], baseline: float) -> list[Point]:
    """The points of some validations.

    Args:
        baseline: the objective of bicubic upsampling on the same crops, in dB.
    """
    points = []
    for p in progress:
        values = {"train/loss": p.loss, "train/lr": p.learning_rate, **p.scores}
        values[GAIN] = p.scores[OBJECTIVE] - baseline
        points += [Point(key, value, p.time, p.patches) for key, value in values.items()]
    return points


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


def experiment_tags(opened: StudyOpened) -> dict[str, str]:
    """What MLflow's UI needs to know to show training runs, not traces of language models."""
    return {
        "study.name": opened.study,
        "mlflow.note.content": opened.text,
        "mlflow.experimentKind": "custom_model_development",
    }


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
        tags |= flat({"study": {"host": state.session.host}, "provenance": state.session.provenance})
        if "provenance.git.commit" in tags:
            tags["mlflow.source.git.commit"] = tags["provenance.git.commit"]
    return tags


def winner_tags(result: Concluded, state: StudyState, run_id: str) -> Tags:
    """Which trial won, with which values, and how far that holds."""
    values = {f"best.{name}": value for name, value in state.trials[result.best].proposed.values.items()}
    told = verdict(state)
    if told is not None:
        values["study.verdict"] = "\n".join(sentences(told, state))
    return {"study.best": result.best, "study.best_run": run_id} | values
