"""Describes a study in text: a line for each important event, the ranking, and the result in words.

The full-screen view of a running study is in study/screen/live.py.
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

from sr_core.process.names import printable
from study.record.events import (
    Concluded,
    Event,
    Failed,
    Finished,
    Paused,
    Proposed,
    Pruned,
    Resumed,
    Started,
    StudyOpened,
    Validated,
    Warned,
    WorkerLost,
)
from study.record.state import StudyState, TrialState
from study.statistics.verdict import words

Out = Console
"""Where text is printed. Callers that only print need not import Rich."""

_MAX_RANKING_ROWS = 10
_PLAIN_WIDTH = 180
"""Columns of output that does not go to a terminal."""


class _Lines(logging.Handler):
    """Prints log lines to the current stdout or stderr, which a live view replaces for a while."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=getattr(sys, self._stream), flush=True)


def set_up_logging() -> None:
    """Print warnings to stderr with their origin, and information about the images to stdout as plain lines."""
    format = "%(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.WARNING, format=format, handlers=[_Lines("stderr")])
    for name in ("sr_core.patches.placement", "study.session.leak_check"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.handlers = [_Lines("stdout")]


def console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr. If its stream is not a terminal, it does not wrap lines."""
    terminal = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if is_screen(terminal):
        return terminal
    return Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH, soft_wrap=True)


def is_screen(out: Console) -> bool:
    """Return True if the console writes to a terminal with a cursor.

    Rich's own answer is not enough: colours may be forced for a file, and TERM may be `dumb`.
    """
    return out.is_terminal and not out.is_dumb_terminal and out.file.isatty()


def duration(seconds: float) -> str:
    """Return a duration in words, such as 48 s, 3 min 20 s or 2 h 05 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class View(Protocol):
    """Shows a study during a session."""

    def observe(self, event: Event, state: StudyState) -> None:
        """Show an event and the state after it."""

    def doing(self, what: str) -> None:
        """Show what the study does from now on instead of training."""

    def close(self) -> None:
        """Leave the terminal as it was before."""


class PlainView:
    """Prints one timestamped line per important event, for logs and pipes."""

    def __init__(self, out: Console, asked: int, counted: int = 0) -> None:
        self._out = out
        self._asked = asked
        self._counted = counted

    def observe(self, event: Event, state: StudyState) -> None:
        self._counted = state.counted
        line = describe_event(event, state)
        if line:
            self._print(event.time, line)

    def doing(self, what: str) -> None:
        """Print what the study does from now on instead of training."""
        self._print(time.time(), what)

    def _print(self, moment: float, line: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
        self._out.print(f"{stamp}  {self._counted:3d}/{self._asked}  {line}", markup=False)

    def close(self) -> None:
        """Do nothing: this view changes no settings of the terminal."""


def settings_in_words(trial: TrialState) -> str:
    """Return what distinguishes a trial: the name of a reference, or the values of the searched hyperparameters."""
    if trial.is_replicate:
        return f"{trial.label}: trial {trial.proposed.of} again"
    if trial.is_reference:
        return f"reference: {trial.proposed.name}"
    return ", ".join(f"{name.rpartition('.')[2]} {value_in_words(v)}" for name, v in trial.proposed.values.items())


def value_in_words(value: object) -> str:
    """Return the value of a hyperparameter as text, floats with six significant digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_event(event: Event, state: StudyState) -> str:
    """Return a line about an event; empty for events that are not worth a line."""
    match event:
        case Proposed():
            return f"trial {event.trial:3d}  proposed   {settings_in_words(state.trials[event.trial])}"
        case Started(patches=patches) if patches:
            return f"trial {event.trial:3d}  resumed    from {patches} patches"
        case Validated():
            return f"trial {event.trial:3d}  validated  {event.scores['val/psnr']:.3f} dB after {event.patches} patches"
        case Finished():
            return f"trial {event.trial:3d}  finished   {event.scores['val/psnr']:.3f} dB"
        case Paused():
            return f"trial {event.trial:3d}  paused     after {event.patches} patches, until it ranks among the best"
        case Resumed():
            return f"trial {event.trial:3d}  promoted   from {event.patches} patches"
        case Pruned():
            return f"trial {event.trial:3d}  pruned     {event.reason}"
        case WorkerLost():
            return f"trial {event.trial:3d}  lost       {event.reason}; the trial resumes from its last checkpoint"
        case Failed():
            return f"trial {event.trial:3d}  failed     {event.cause}: {event.reason}"
        case Warned():
            return f"warning: {event.message}"
        case Concluded():
            return f"evaluated trial {event.best} on whole images"
    return ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A table of scores and settings.

    Each setting has its own column. On a narrow console, all settings share one column.
    """

    names: Sequence[str]
    """Names of the settings."""
    rows: Sequence[tuple[Sequence[str], Sequence[str]]]
    """Scores and settings of each row, as text."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = self._table(self.names, [cells for _, cells in self.rows])
        unbounded = options.update_width(10_000)
        if Measurement.get(console, unbounded, wide).maximum <= options.max_width:
            yield wide
        else:
            yield self._table([", ".join(self.names)], [[", ".join(cells)] for _, cells in self.rows])

    def _table(self, names: Sequence[str], settings_in_words: Sequence[Sequence[str]]) -> Table:
        title = "ranking by PSNR on the validation crops"
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for heading in ("rank", "trial", r"PSNR \[dB]", "SSIM", r"gain \[dB]"):
            table.add_column(heading, no_wrap=True)
        for name in names:
            table.add_column(name)
        for (scores, _), cells in zip(self.rows, settings_in_words, strict=True):
            table.add_row(*scores, *cells)
        return table


def ranking_table(state: StudyState, limit: int = _MAX_RANKING_ROWS) -> Ranking:
    """Return the best `limit` trials, all references and bicubic, sorted by PSNR on the validation crops."""
    names = state.swept
    bicubic = state.bicubic
    finished = [t for t in state.ranking() if t.status == "finished"]
    rows: list[tuple[float, list[str], list[str]]] = [
        (bicubic["val/psnr"], ["", "bicubic", f"{bicubic['val/psnr']:.3f}", f"{bicubic['val/ssim']:.4f}", ""], [])
    ]
    for rank, trial in enumerate(finished, start=1):
        if rank <= limit or trial.is_reference:
            scores = trial.scores
            config = trial.config.dotted()
            label = f"{trial.number} {trial.proposed.name}".strip()
            gain = f"{scores['val/psnr'] - bicubic['val/psnr']:+.3f}"
            cells = [str(rank), label, f"{scores['val/psnr']:.3f}", f"{scores['val/ssim']:.4f}", gain]
            rows.append((scores["val/psnr"], cells, [value_in_words(config[name]) for name in names]))
    ordered = sorted(rows, key=lambda row: -row[0])
    return Ranking([name.rpartition(".")[2] for name in names], [(cells, values) for _, cells, values in ordered])


def describe_images(opened: StudyOpened) -> list[str]:
    """Return lines about the images that a study trains and validates on, with warnings about those left out."""
    data = opened.data
    side = data["crops"]["lr_side"]
    requested_side = opened.question["base"]["evaluation.lr_crop_size"]
    train = sum(row[0] == "train" for row in data["pictures"])
    valid = sum(row[0] == "valid" for row in data["pictures"])
    lines = [
        f"images: {train} train, {valid} validate ({data['crops']['count']} crops of {side} LR pixels a side), "
        f"from {data['origin']}"
    ]

    if side < requested_side:
        lines.append(
            f"warning: crops of {side} LR pixels a side instead of {requested_side}, because a validation image is "
            "that small"
        )
    if data["left_out"]:
        counts = ", ".join(f"{len(names)} by {whose}" for whose, names in data["left_out"].items())
        lines.append(f"training images left out, too small for a patch or window: {counts}")
    flat = data.get("without_detail")
    if flat:
        examples = ", ".join(printable(name) for name in flat[:3])
        ellipsis = ", …" if len(flat) > 3 else ""
        lines.append(f"validation images left out, without detail to score: {len(flat)} ({examples}{ellipsis})")
    return lines


def summary(state: StudyState) -> list[str]:
    """Return the outcome in lines: counts, the winner compared with bicubic and the references, and the verdict."""
    assert state.opened is not None
    searched = [t for t in state.trials.values() if not t.is_replicate]
    by_status = {s: sum(t.status == s for t in searched) for s in ("finished", "pruned", "paused", "failed")}
    counts = ", ".join(f"{n} {s}" for s, n in by_status.items() if n or s == "finished")
    lines = [f"{state.counted} trials: {counts}"]
    if state.ended is not None and state.ended.reason == "exhausted":
        lines[0] += f"; {state.ended.detail}"
    best = state.best()
    if best is None or best.score is None:
        return lines

    crops = state.opened.data["crops"]
    bicubic = state.bicubic["val/psnr"]
    against = [("bicubic", bicubic)]
    for trial in searched:
        if trial.is_reference and trial.status == "finished" and trial.score is not None:
            against.append((f"the {trial.proposed.name} setting", trial.score))
    gains = ", ".join(f"{best.score - other:+.2f} dB against {name}" for name, other in against)
    lines += [
        f"best of the search: trial {best.number}, {best.score:.3f} dB after {best.patches} patches, mean of "
        f"{crops['count']} crops of {crops['pictures']} images; {gains}",
        "references cannot win the search; ranking.csv lists all their settings",
    ]
    if best.score < bicubic:
        lines.append(
            f"no trial beats bicubic enlargement after {best.patches:,} patches; to train longer, raise "
            "train.budget_patches in the experiment"
        )

    lines += words(state)
    if state.concluded is not None:  # the verdict's own lines already say how many replicates have ended
        lines += [note for note in state.concluded.notes if not note.startswith("interim")]
    return lines + on_whole_images(state)


def on_whole_images(state: StudyState) -> list[str]:
    """Return the winner's and bicubic's scores on whole images, a line for the validation set and each benchmark."""
    scores = state.concluded.scores if state.concluded is not None else {}
    lines = []
    for name in dict.fromkeys(key.partition("/")[0] for key in scores):
        psnr, ssim = scores[f"{name}/psnr"], scores[f"{name}/ssim"]
        bicubic_psnr, bicubic_ssim = scores[f"{name}/psnr_bicubic"], scores[f"{name}/ssim_bicubic"]
        lines.append(
            f"{name}: {psnr:.3f} dB / {ssim:.4f} on whole images; bicubic {bicubic_psnr:.3f} / {bicubic_ssim:.4f}"
        )
    return lines
