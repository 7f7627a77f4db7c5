"""The end of a study: scores the winner on whole images, and writes tables, figures and the verdict to `results/`."""

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sr_core.images.files import read_image
from sr_core.model.inference import on_device
from sr_core.model.network import A2N
from sr_core.process.durable import write_durably
from sr_core.process.names import utf8
from sr_core.store.sources import ImageSet, SourceImage
from sr_core.training.own_thread import inference_thread
from study.executors.trained import trained_network
from study.plots.figures import cause, name_in_figure, png
from study.question.experiment import Experiment
from study.record.events import Concluded, Finished
from study.record.folder import StudyFolder
from study.record.state import StudyState, TrialState
from study.session.opening import runtime_of
from study.session.whole_images import ScoreCache, score_whole_images, upscale_and_score
from study.statistics import roles
from study.statistics.replication import interim
from study.statistics.verdict import Comparison, verdict, words

_DETAIL_SIDE = 96
"""HR pixels along one side of the detail in comparison.png."""


def conclude(
    folder: StudyFolder,
    state: StudyState,
    experiment: Experiment,
    images: ImageSet,
    *,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Concluded:
    """Score the best trial on whole validation and benchmark images, write the results, and return the event.

    The files under `results/` are written in this order: best/ with weights and config; verdict.txt and replicates.csv
    if there are replicates; comparisons.csv if the experiment names comparisons; ranking.csv; importance.csv if enough
    trials have finished; curves.png and comparison.png. A table or figure that cannot be made becomes a warning among
    the event's notes.

    Args:
        folder: the study's folder.
        state: the study, with at least one finished trial.
        images: validation and benchmark images.
        device: device of the network, "cpu" or "cuda:N".
        tell: called with the progress of scoring, in words.
        check: called often while images are scored. It may raise to end the conclusion; the next conclusion reuses the
            scores that were computed.
    """
    best = state.best()
    assert best is not None and isinstance(best.end, Finished) and state.opened is not None
    model, device = on_device(trained_network(folder, best), device)
    cache = ScoreCache(folder.path / ".scores.json")
    # The study's setting for subnormal numbers holds in a thread of its own: this one computes the statistics below.
    flush = runtime_of(state.opened).flush_subnormals
    with inference_thread(flush=flush) as thread:
        whole = thread(
            score_whole_images,
            model,
            best.end.weights,
            images,
            best.config.evaluation,
            device=device,
            cache=cache,
            tell=tell,
            check=check,
        )
    cache.sweep()

    results = _Results(folder.results)
    weights = folder.trial(best.number) / "weights.safetensors"
    results.write("best/weights.safetensors", weights.read_bytes())
    results.write("best/config.json", (json.dumps(best.proposed.config, indent=2) + "\n").encode())
    _write_verdict(results, state)
    results.try_to_write("ranking.csv", lambda: _ranking(state))
    importance_lines = _write_importances(results, state, experiment)
    results.try_to_write("curves.png", lambda: _curves(state, best.number))
    results.try_to_write("comparison.png", lambda: _comparison(model, whole.median, best, flush))

    notes: list[str] = []
    progress = interim(state)
    if progress:
        notes.append(f"{progress}: no verdict yet")
    notes += whole.warnings
    notes += roles.arm_sentences(state, experiment)
    notes += importance_lines
    notes += results.warnings
    return Concluded(
        time=time.time(),
        best=best.number,
        counted=state.counted,
        replicates=state.replicated,
        scores=whole.scores,
        per_image=tuple(whole.rows),
        files=tuple(f"results/{name}" for name in results.files),
        missing=tuple(f"results/{name}" for name in results.missing),
        notes=tuple(notes),
    )


@dataclass(slots=True)
class _Results:
    """The result files of a conclusion; each is written as soon as it is made."""

    folder: Path
    files: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Files that could not be made."""
    warnings: list[str] = field(default_factory=list)
    """One line per missing file, with the cause."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file and note its name.

        Raises:
            OSError: the file cannot be written.
        """
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
        self.files.append(name)

    def try_to_write(self, name: str, make: Callable[[], bytes | None]) -> None:
        """Write the content that `make` returns, unless it is None.

        A failure of `make` becomes a warning: the numbers are in the journal, and the next conclusion tries again.
        """
        try:
            content = make()
        except Exception as exc:  # any error of a table or figure library: days of training must not depend on it
            self.warnings.append(f"warning: {name} could not be made ({cause(exc)}); the same command retries it")
            self.missing.append(name)
            content = None
        if content is None:
            (self.folder / name).unlink(missing_ok=True)  # a file of an earlier conclusion covers fewer trials
        else:
            self.write(name, content)


def _write_verdict(results: _Results, state: StudyState) -> None:
    """Write the verdict in words and numbers, if the study has replicates."""
    judged = verdict(state)
    if judged is None and not state.replicated:
        return
    results.write("verdict.txt", utf8("\n".join(words(state)) + "\n"))
    if judged is not None and judged.answers:
        results.write("comparisons.csv", _comparisons_table(judged.answers))
    results.try_to_write("replicates.csv", lambda: _replicates(state))


def _write_importances(files: _Results, state: StudyState, experiment: Experiment) -> list[str]:
    """Write the hyperparameter importances as a table, if enough trials have finished; returns them as sentences."""
    lines: list[str] = []

    def make() -> bytes | None:
        from study import results
        from study.statistics import importance

        measured = importance.importances(state, experiment)
        lines.extend(importance.importance_sentences(measured, experiment.sampler, importance.stopped(state)))
        return utf8(results.importances(measured).to_csv(index=False)) if measured else None

    files.try_to_write("importance.csv", make)
    return lines


# The functions below import pandas and Matplotlib, which take seconds to load: not every session concludes.


def _ranking(state: StudyState) -> bytes:
    """All trials of the search as CSV."""
    from study import results

    return utf8(results.trials(state).to_csv(index=False))


def _replicates(state: StudyState) -> bytes:
    """All replicates as CSV."""
    from study import results

    return utf8(results.replicates(state).to_csv(index=False))


def _curves(state: StudyState, best: int) -> bytes:
    """The learning curves of the search as a PNG file."""
    from study import plots, results

    return png(plots.learning_curves(results.curves(state), best=best, bicubic_psnr=state.bicubic["val/psnr"]))


def _comparisons_table(by_question: Mapping[str, Sequence[Comparison]]) -> bytes:
    """One row per comparison, as CSV.

    Columns: `question`, `one`, `other`, `difference` (mean of `one` - `other` [dB]), its confidence interval
    `low` to `high`, `sd` over the seeds, number of `seeds`, Holm's adjusted `p`, and the `family` of the adjustment.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["question", "one", "other", "difference", "low", "high", "sd", "seeds", "p", "family"])
    for question, comparisons in by_question.items():
        for c in comparisons:
            d = c.difference
            writer.writerow([question, c.one.name, c.other.name, d.mean, d.low, d.high, d.sd, d.count, c.p, c.family])
    return utf8(text.getvalue())


def _comparison(model: A2N, image: SourceImage | None, best: TrialState, flush: bool) -> bytes | None:
    """A figure that compares bicubic and the winner on one image, as a PNG file; None without an image."""
    from study import plots

    if image is None:
        return None
    pixels = read_image(image.path)
    with inference_thread(flush=flush) as thread:
        enlarged = thread(
            upscale_and_score, model, pixels, best.config.evaluation, name=image.path, progress=lambda _: None
        )
    scale = model.scale
    blocks = enlarged.lr.repeat(scale, axis=0).repeat(scale, axis=1)
    name = name_in_figure(image.name)
    figure = plots.comparison(
        {
            "LR": (blocks, None),
            "bicubic": (enlarged.bicubic, enlarged.of_bicubic.psnr),
            f"trial {best.number}": (enlarged.sr, enlarged.of_sr.psnr),
            "HR": (enlarged.hr, None),
        },
        box=plots.most_gained(enlarged.hr, enlarged.bicubic, enlarged.sr, _DETAIL_SIDE),
        title=f"{name} at x{scale}, PSNR on Y; below: the detail with the largest gain over bicubic",
    )
    return png(figure)
