"""The end of a study: the winner on whole pictures, and everything that people take away, written to disk."""

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sr_core.config import EvaluationConfig
from sr_core.data.images import Image, read_image
from sr_core.data.sources import Picture, Pictures
from sr_core.durable import write_durably
from sr_core.errors import SuiteError
from sr_core.metrics.evaluate import Score, bicubic_baseline, lr_hr_pair, mean_score, score
from sr_core.model.inference import super_resolve
from sr_core.model.network import A2N
from sr_core.model.weights import load_model
from sr_core.training.own_thread import OwnThread, inference_thread
from study.events import Concluded
from study.experiment import Experiment
from study.folder import StudyFolder
from study.state import StudyState
from study.statistics import roles
from study.statistics.verdict import Comparison, sentences, verdict

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

    Written under `results/`: ranking.csv, curves.png, comparison.png, and best/ with weights and config; with
    replicates also replicates.csv and verdict.txt, with comparisons that were asked for also comparisons.csv; where
    enough trials finished also importance.csv.
    """
    best = state.best()
    assert best is not None and state.opened is not None
    config = best.config
    weights = folder.trial(best.number) / "weights.safetensors"
    if not folder.has(weights):
        raise SuiteError(
            f"{weights}: the winner's weights are not in the study's folder; put them back from MLflow or a copy (a "
            "link that leads elsewhere is not followed), then run again"
        )
    model = load_model(weights, config.data.scale)
    rows: list[tuple[str, str, float, float]] = []
    # pandas, Matplotlib and scikit-learn take seconds to load, and not every session concludes.
    from study import plots, results
    from study.statistics import importance

    scores: dict[str, float] = {}
    gains: list[tuple[float, str, Picture]] = []
    # Under the study's own setting, and in a thread of its own: the statistics below are computed in this one.
    with inference_thread(flush=bool(state.opened.runtime.get("flush_subnormals"))) as thread:

        def look(picture: Picture) -> _Seen:
            return _look(model, picture, config.evaluation, thread)

        for name, members in {"valid": pictures.valid, **pictures.benchmarks}.items():
            ours, bicubic = [], []
            for picture in members:
                seen = look(picture)  # one at a time: sets are large, pictures too
                ours.append(seen.of_sr)
                bicubic.append(seen.of_bicubic)
                rows.append((name, picture.name, seen.of_sr.psnr, seen.of_sr.ssim))
                if name == "valid":
                    gains.append((seen.of_sr.psnr - seen.of_bicubic.psnr, picture.name, picture))
            for suffix, mean in (("", mean_score(ours)), ("_bicubic", mean_score(bicubic))):
                scores |= {f"{name.lower()}/psnr{suffix}": mean.psnr, f"{name.lower()}/ssim{suffix}": mean.ssim}
        _, _, shown = sorted(gains, key=lambda gain: gain[:2])[len(gains) // 2]  # the median picture, not the luckiest
        of_median = look(shown)
    files = {
        "ranking.csv": results.trials(state).to_csv(index=False).encode(),
        "curves.png": plots.png(
            plots.learning_curves(results.curves(state), best=best.number, bicubic_psnr=state.bicubic["val/psnr"])
        ),
        "comparison.png": _comparison(shown.name, of_median, best.number),
        "best/weights.safetensors": weights.read_bytes(),
        "best/config.json": (json.dumps(best.proposed.config, indent=2) + "\n").encode(),
    }
    measured = importance.importances(state, experiment)
    if measured:
        files["importance.csv"] = results.importances(measured).to_csv(index=False).encode()
    told = verdict(state)
    if told is not None:
        files |= {
            "replicates.csv": results.replicates(state).to_csv(index=False).encode(),
            "verdict.txt": ("\n".join(sentences(told, state)) + "\n").encode(),
        }
        if told.asked:
            files["comparisons.csv"] = _table(told.asked)
    for name, content in files.items():
        path = folder.results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
    return Concluded(
        time=time.time(),
        best=best.number,
        counted=state.counted,
        replicates=state.replicated,
        scores=scores,
        per_image=tuple(rows),
        files=tuple((Path("results") / name).as_posix() for name in files),
        notes=(
            *roles.sentences(state, experiment),
            *importance.sentences(measured, experiment.sampler, importance.stopped(state)),
        ),
    )


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
    return text.getvalue().encode()


def _look(model: A2N, picture: Picture, evaluation: EvaluationConfig, thread: OwnThread) -> _Seen:
    scale = model.scale
    lr, hr = lr_hr_pair(read_image(picture.path), scale, evaluation.kernel, evaluation.protocol)
    raw = thread(super_resolve, model, lr)
    bicubic = bicubic_baseline(lr, scale)
    return _Seen(
        lr=lr,
        bicubic=bicubic,
        sr=np.clip(np.rint(raw), 0, 255).astype(np.uint8),
        hr=hr,
        of_bicubic=score(bicubic.astype(np.float64), hr, scale=scale, protocol=evaluation.protocol),
        of_sr=score(raw, hr, scale=scale, protocol=evaluation.protocol),
    )


def _comparison(name: str, seen: _Seen, trial: int) -> bytes:
    """The pictures beside each other, as a PNG file."""
    scale = seen.hr.shape[0] // seen.lr.shape[0]
    blocks = seen.lr.repeat(scale, axis=0).repeat(scale, axis=1)
    from study import plots

    figure = plots.comparison(
        {
            "LR": (blocks, None),
            "bicubic": (seen.bicubic, seen.of_bicubic.psnr),
            f"trial {trial}": (seen.sr, seen.of_sr.psnr),
            "HR": (seen.hr, None),
        },
        box=plots.most_gained(seen.hr, seen.bicubic, seen.sr, _DETAIL),
        title=f"{name} at x{scale}, PSNR on Y; below: the detail in which the network gains most over bicubic",
    )
    return plots.png(figure)
