"""The end of a study: the winner on whole pictures, and everything that people take away, written to disk."""

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sr_core.config import EvaluationConfig
from sr_core.data.images import Image, read_image
from sr_core.data.sources import Picture, Pictures
from sr_core.durable import write_durably
from sr_core.errors import SuiteError
from sr_core.metrics.evaluate import Score, bicubic_baseline, capped, lr_hr_pair, mean_score, require_finite, score
from sr_core.model.inference import super_resolve
from sr_core.model.network import A2N
from sr_core.model.weights import load_model
from sr_core.names import utf8
from study.events import Concluded
from study.experiment import Experiment
from study.figures import cause, name_in_figure, png
from study.folder import StudyFolder
from study.state import StudyState, TrialState
from study.statistics import roles
from study.statistics.replication import interim
from study.statistics.verdict import Comparison, verdict, words

_DETAIL = 96


@dataclass(frozen=True, slots=True)
class _Seen:
    """One picture as the winner makes it, and what it is compared with."""

    lr: Image
    bicubic: Image
    sr: Image
    hr: Image
    of_bicubic: Score
    of_sr: Score


def conclude(folder: StudyFolder, state: StudyState, experiment: Experiment, pictures: Pictures) -> Concluded:
    """Evaluate the best trial on the whole validation pictures and the benchmarks, write the results, say so.

    Written under `results/`, in this order: best/ with weights and config; with replicates verdict.txt and
    replicates.csv, with comparisons that were asked for also comparisons.csv; ranking.csv; if enough trials finished
    importance.csv; curves.png and comparison.png. A table or figure that cannot be made is a warning among the notes.
    """
    best = state.best()
    assert best is not None and state.opened is not None
    weights = folder.trial(best.number) / "weights.safetensors"
    if not folder.has(weights):
        raise SuiteError(
            f"{weights}: the winner's weights are not in the study's folder; put them back from MLflow or a copy (a "
            "link that leads elsewhere is not followed), then run again"
        )
    model = load_model(weights, best.config.data.scale)
    evaluation = _evaluate(model, pictures, best.config.evaluation)

    written = _Results(folder.results)
    written.write("best/weights.safetensors", weights.read_bytes())
    written.write("best/config.json", (json.dumps(best.proposed.config, indent=2) + "\n").encode())
    _write_verdict(written, state)
    so_far = interim(state)
    written.try_to_write("ranking.csv", lambda: _ranking(state))
    lines = _write_importances(written, state, experiment)
    written.try_to_write("curves.png", lambda: _curves(state, best.number))
    written.try_to_write("comparison.png", lambda: _comparison(model, evaluation.median, best))
    return Concluded(
        time=time.time(),
        best=best.number,
        counted=state.counted,
        replicates=state.replicated,
        scores=evaluation.scores,
        per_image=tuple(evaluation.rows),
        files=tuple(f"results/{name}" for name in written.files),
        missing=tuple(f"results/{name}" for name in written.missing),
        notes=(
            *([f"{so_far}: no verdict yet"] if so_far else ()),
            *roles.sentences(state, experiment),
            *lines,
            *written.warnings,
        ),
    )


@dataclass(slots=True)
class _Results:
    """The files of a conclusion, each written as soon as it is made."""

    folder: Path
    files: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Files that could not be made."""
    warnings: list[str] = field(default_factory=list)
    """Why, one line each."""

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
        self.files.append(name)

    def try_to_write(self, name: str, make: Callable[[], bytes | None]) -> None:
        """Write what `make` returns, if anything. Its failure is a warning: the numbers are in the journal."""
        try:
            content = make()
        except Exception as exc:  # whatever a library of tables or figures raises: days of training do not hang on it
            self.warnings.append(f"warning: {name} could not be made ({cause(exc)}); the same command tries it again")
            self.missing.append(name)
            content = None
        if content is None:
            (self.folder / name).unlink(missing_ok=True)  # one of an earlier conclusion shows fewer trials
        else:
            self.write(name, content)


@dataclass(slots=True)
class _Evaluation:
    """The winner on whole pictures."""

    scores: dict[str, float]
    rows: list[tuple[str, str, float, float]]
    """(set, picture, PSNR in dB, SSIM)."""
    median: Picture
    """The validation picture with the median gain over bicubic, which is not the luckiest."""


def _evaluate(model: A2N, pictures: Pictures, evaluation: EvaluationConfig) -> _Evaluation:
    scores: dict[str, float] = {}
    rows: list[tuple[str, str, float, float]] = []
    gains: list[tuple[float, str, Picture]] = []
    for name, members in {"valid": pictures.valid, **pictures.benchmarks}.items():
        ours, bicubic = [], []
        for picture in members:
            seen = _look(model, picture, evaluation)  # one at a time: sets are large, pictures too
            ours.append(seen.of_sr)
            bicubic.append(seen.of_bicubic)
            rows.append((name, picture.name, seen.of_sr.psnr, seen.of_sr.ssim))
            if name == "valid":
                gain = seen.of_sr.psnr - seen.of_bicubic.psnr
                gains.append((0.0 if math.isnan(gain) else gain, picture.name, picture))  # both right: a flat picture
        for suffix, mean in (("", mean_score(ours)), ("_bicubic", mean_score(bicubic))):
            scores |= {f"{name.lower()}/psnr{suffix}": mean.psnr, f"{name.lower()}/ssim{suffix}": mean.ssim}
    _, _, median = sorted(gains, key=lambda gain: gain[:2])[len(gains) // 2]
    return _Evaluation(scores, rows, median)


def _write_verdict(written: _Results, state: StudyState) -> None:
    """The verdict in words and numbers, of a study with replicates."""
    told = verdict(state)
    if told is None and not state.replicated:
        return
    written.write("verdict.txt", utf8("\n".join(words(state)) + "\n"))
    if told is not None and told.asked:
        written.write("comparisons.csv", _table(told.asked))
    written.try_to_write("replicates.csv", lambda: _replicates(state))


def _write_importances(written: _Results, state: StudyState, experiment: Experiment) -> list[str]:
    """The importances as a table, if enough trials finished; and in words."""
    lines: list[str] = []

    def make() -> bytes | None:
        from study import results
        from study.statistics import importance

        measured = importance.importances(state, experiment)
        lines.extend(importance.sentences(measured, experiment.sampler, importance.stopped(state)))
        return utf8(results.importances(measured).to_csv(index=False)) if measured else None

    written.try_to_write("importance.csv", make)
    return lines


# pandas, Matplotlib and scikit-learn take seconds to load, and not every session concludes.


def _ranking(state: StudyState) -> bytes:
    from study import results

    return utf8(results.trials(state).to_csv(index=False))


def _replicates(state: StudyState) -> bytes:
    from study import results

    return utf8(results.replicates(state).to_csv(index=False))


def _curves(state: StudyState, best: int) -> bytes:
    from study import plots, results

    return png(plots.learning_curves(results.curves(state), best=best, bicubic_psnr=state.bicubic["val/psnr"]))


def _table(asked: Mapping[str, Sequence[Comparison]]) -> bytes:
    """One row a comparison, as CSV: the mean difference `one` - `other` [dB], its interval, and Holm's p."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["question", "one", "other", "difference", "low", "high", "sd", "seeds", "p", "family"])
    for question, comparisons in asked.items():
        for c in comparisons:
            d = c.difference
            numbers = (d.mean, d.low, d.high, d.sd)
            writer.writerow([question, c.one.name, c.other.name, *numbers, d.count, c.p, c.family])
    return utf8(text.getvalue())


def _look(model: A2N, picture: Picture, evaluation: EvaluationConfig) -> _Seen:
    scale = model.scale
    lr, hr = lr_hr_pair(read_image(picture.path), scale, evaluation.kernel, evaluation.protocol)
    raw, bicubic = super_resolve(model, lr), bicubic_baseline(lr, scale)
    require_finite(raw, picture.path)
    return _Seen(
        lr=lr,
        bicubic=bicubic,
        sr=np.clip(np.rint(raw), 0, 255).astype(np.uint8),
        hr=hr,
        of_bicubic=capped(score(bicubic.astype(np.float64), hr, scale=scale, protocol=evaluation.protocol)),
        of_sr=capped(score(raw, hr, scale=scale, protocol=evaluation.protocol)),
    )


def _comparison(model: A2N, picture: Picture, best: TrialState) -> bytes:
    """One picture as bicubic and the winner make it, as a PNG file."""
    from study import plots

    seen = _look(model, picture, best.config.evaluation)
    scale = model.scale
    blocks = seen.lr.repeat(scale, axis=0).repeat(scale, axis=1)
    name = name_in_figure(picture.name)
    figure = plots.comparison(
        {
            "LR": (blocks, None),
            "bicubic": (seen.bicubic, seen.of_bicubic.psnr),
            f"trial {best.number}": (seen.sr, seen.of_sr.psnr),
            "HR": (seen.hr, None),
        },
        box=plots.most_gained(seen.hr, seen.bicubic, seen.sr, _DETAIL),
        title=f"{name} at x{scale}, PSNR on Y; below: the detail in which the network gains most over bicubic",
    )
    return png(figure)
