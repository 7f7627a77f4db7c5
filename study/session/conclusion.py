"""The end of a study: the winner on whole images, and everything that people take away, written to disk."""

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
from study.session.whole_images import KeptScores, look, score_whole_images
from study.statistics import roles
from study.statistics.replication import interim
from study.statistics.verdict import Comparison, verdict, words

_DETAIL = 96


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
    """Evaluate the best trial on the whole validation images and the benchmarks, write the results, say so.

    Written under `results/`, in this order: best/ with weights and config; with replicates verdict.txt and
    replicates.csv, with comparisons that were asked for also comparisons.csv; ranking.csv; if enough trials finished
    importance.csv; curves.png and comparison.png. A table or figure that cannot be made is a warning among the notes.

    Args:
        device: where the network runs: "cpu" or "cuda:N".
        tell: told how far the scoring of images is.
        check: called often while images are scored; may raise to end the conclusion. The next one continues there.
    """
    best = state.best()
    assert best is not None and isinstance(best.end, Finished) and state.opened is not None
    model, device = on_device(trained_network(folder, best), device)
    kept = KeptScores(folder.path / ".scores.json")
    # Under the study's own setting, and in a thread of its own: the statistics below are computed in this one.
    flush = runtime_of(state.opened).flush_subnormals
    with inference_thread(flush=flush) as thread:
        whole = thread(
            score_whole_images,
            model,
            best.end.weights,
            images,
            best.config.evaluation,
            device=device,
            kept=kept,
            tell=tell,
            check=check,
        )
    kept.sweep()

    written = _Results(folder.results)
    weights = folder.trial(best.number) / "weights.safetensors"
    written.write("best/weights.safetensors", weights.read_bytes())
    written.write("best/config.json", (json.dumps(best.proposed.config, indent=2) + "\n").encode())
    _write_verdict(written, state)
    so_far = interim(state)
    written.try_to_write("ranking.csv", lambda: _ranking(state))
    lines = _write_importances(written, state, experiment)
    written.try_to_write("curves.png", lambda: _curves(state, best.number))
    written.try_to_write("comparison.png", lambda: _comparison(model, whole.median, best, flush))
    return Concluded(
        time=time.time(),
        best=best.number,
        counted=state.counted,
        replicates=state.replicated,
        scores=whole.scores,
        per_image=tuple(whole.rows),
        files=tuple(f"results/{name}" for name in written.files),
        missing=tuple(f"results/{name}" for name in written.missing),
        notes=(
            *([f"{so_far}: no verdict yet"] if so_far else ()),
            *whole.warnings,
            *roles.arm_sentences(state, experiment),
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


def _write_verdict(written: _Results, state: StudyState) -> None:
    """The verdict in words and numbers, of a study with replicates."""
    told = verdict(state)
    if told is None and not state.replicated:
        return
    written.write("verdict.txt", utf8("\n".join(words(state)) + "\n"))
    if told is not None and told.answers:
        written.write("comparisons.csv", _table(told.answers))
    written.try_to_write("replicates.csv", lambda: _replicates(state))


def _write_importances(written: _Results, state: StudyState, experiment: Experiment) -> list[str]:
    """The importances as a table, if enough trials finished; and in words."""
    lines: list[str] = []

    def make() -> bytes | None:
        from study import results
        from study.statistics import importance

        measured = importance.importances(state, experiment)
        lines.extend(importance.importance_sentences(measured, experiment.sampler, importance.stopped(state)))
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


def _comparison(model: A2N, image: SourceImage | None, best: TrialState, flush: bool) -> bytes | None:
    """One image as bicubic and the winner make it, as a PNG file; None if there is none with scores."""
    from study import plots

    if image is None:
        return None
    pixels = read_image(image.path)
    with inference_thread(flush=flush) as thread:
        seen = thread(look, model, pixels, best.config.evaluation, name=image.path, progress=lambda _: None)
    scale = model.scale
    blocks = seen.lr.repeat(scale, axis=0).repeat(scale, axis=1)
    name = name_in_figure(image.name)
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
