"""What a person reads of a study: a line for each event that matters, the ranking and the result in words.

The screen that a terminal shows while a study runs is in study/screen/live.py.
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
"""What is printed on. Callers that only print need not know whose class it is."""

_SHOWN = 10
_PLAIN_WIDTH = 180


class _Lines(logging.Handler):
    """Log lines to what is stdout or stderr by then: a live view takes their place for a while."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=getattr(sys, self._stream), flush=True)


def set_up_logging() -> None:
    """Warnings with where they come from, on stderr; what there is to know about the images as plain lines."""
    format = "%(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.WARNING, format=format, handlers=[_Lines("stderr")])
    for name in ("sr_core.patches.placement", "study.session.leak_check"):
        told = logging.getLogger(name)
        told.setLevel(logging.INFO)
        told.propagate = False
        told.handlers = [_Lines("stdout")]


def console(*, stderr: bool = False) -> Console:
    """A console that does not wrap where its stream is no terminal, or one that knows no cursor; nor colour there."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if is_screen(made) else Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH, soft_wrap=True)


def is_screen(out: Console) -> bool:
    """Whether it is a terminal that can be drawn on: colours may be forced upon a file, TERM may be `dumb`."""
    return out.is_terminal and not out.is_dumb_terminal and out.file.isatty()


def duration(seconds: float) -> str:
    """Seconds as people say them: 48 s, 3 min 20 s, 2 h 05 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class View(Protocol):
    """What shows a study while a session lasts."""

    def observe(self, event: Event, state: StudyState) -> None: ...

    def doing(self, what: str) -> None:
        """Told what the study does from now on that is no training."""

    def close(self) -> None: ...


class PlainView:
    """One timestamped line per event that matters; for logs and pipes."""

    def __init__(self, out: Console, asked: int, counted: int = 0) -> None:
        self._out, self._asked = out, asked
        self._counted = counted

    def observe(self, event: Event, state: StudyState) -> None:
        self._counted = state.counted
        line = describe_event(event, state)
        if line:
            self._print(event.time, line)

    def doing(self, what: str) -> None:
        """Say what the study does from now on that is no training."""
        self._print(time.time(), what)

    def _print(self, moment: float, line: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
        self._out.print(f"{stamp}  {self._counted:3d}/{self._asked}  {line}", markup=False)

    def close(self) -> None:
        """Nothing is kept open."""


def settings_in_words(trial: TrialState) -> str:
    """What distinguishes a trial, briefly: a reference's name, or the values that were swept."""
    if trial.is_replicate:
        return f"{trial.label}: trial {trial.proposed.of} again"
    if trial.is_reference:
        return f"reference: {trial.proposed.name}"
    return ", ".join(f"{name.rpartition('.')[2]} {value_in_words(v)}" for name, v in trial.proposed.values.items())


def value_in_words(value: object) -> str:
    """A setting's value, briefly."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe_event(event: Event, state: StudyState) -> str:
    """An event in one line; empty for those that nobody waits for."""
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
            return f"trial {event.trial:3d}  paused     after {event.patches} patches, until it is among the best there"
        case Resumed():
            return f"trial {event.trial:3d}  promoted   from {event.patches} patches"
        case Pruned():
            return f"trial {event.trial:3d}  pruned     {event.reason}"
        case WorkerLost():
            return f"trial {event.trial:3d}  lost       {event.reason}; it goes on from its last checkpoint"
        case Failed():
            return f"trial {event.trial:3d}  failed     {event.cause}: {event.reason}"
        case Warned():
            return f"warning: {event.message}"
        case Concluded():
            return f"evaluated trial {event.best} on whole images"
    return ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A table of scores and settings: a column for each setting, or one for all where the console is too narrow."""

    names: Sequence[str]
    """Of the settings."""
    rows: Sequence[tuple[Sequence[str], Sequence[str]]]
    """Scores and settings of each row."""

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


def ranking_table(state: StudyState, limit: int = _SHOWN) -> Ranking:
    """The best trials, both references and bicubic in one order, by PSNR on the validation crops."""
    names = state.swept
    bicubic = state.bicubic
    finished = [t for t in state.ranking() if t.status == "finished"]
    rows: list[tuple[float, list[str], list[str]]] = [
        (bicubic["val/psnr"], ["", "bicubic", f"{bicubic['val/psnr']:.3f}", f"{bicubic['val/ssim']:.4f}", ""], [])
    ]
    for rank, trial in enumerate(finished, start=1):
        if rank <= limit or trial.is_reference:
            scores, config = trial.scores, trial.config.dotted()
            label = f"{trial.number} {trial.proposed.name}".strip()
            gain = f"{scores['val/psnr'] - bicubic['val/psnr']:+.3f}"
            cells = [str(rank), label, f"{scores['val/psnr']:.3f}", f"{scores['val/ssim']:.4f}", gain]
            rows.append((scores["val/psnr"], cells, [value_in_words(config[name]) for name in names]))
    ordered = sorted(rows, key=lambda row: -row[0])
    return Ranking([name.rpartition(".")[2] for name in names], [(cells, values) for _, cells, values in ordered])


def describe_images(opened: StudyOpened) -> list[str]:
    """What a study is trained and scored on, and what of it is not as one might think."""
    data, base = opened.data, opened.question["base"]
    train, valid = (sum(row[0] == split for row in data["pictures"]) for split in ("train", "valid"))
    side, asked = data["crops"]["lr_side"], base["evaluation.lr_crop_size"]
    lines = [
        f"images: {train} train, {valid} validate ({data['crops']['count']} crops of {side} LR pixels a side), "
        f"from {data['origin']}"
    ]
    if side < asked:
        lines.append(f"warning: no larger crops, {asked} asked for, because a validation image is that small")
    if data["left_out"]:
        counts = ", ".join(f"{len(names)} by {whose}" for whose, names in data["left_out"].items())
        lines.append(f"training images left out, too small for a patch or window: {counts}")
    if flat := data.get("without_detail"):
        some = ", ".join(printable(name) for name in flat[:3]) + (", …" if len(flat) > 3 else "")
        lines.append(f"validation images left out, without detail to score: {len(flat)} ({some})")
    return lines


def summary(state: StudyState) -> list[str]:
    """The outcome in a few lines: counts, the winner against bicubic and the references, with its budget."""
    assert state.opened is not None
    searched = [t for t in state.trials.values() if not t.is_replicate]
    by_state = {s: sum(t.status == s for t in searched) for s in ("finished", "pruned", "paused", "failed")}
    counts = ", ".join(f"{n} {s}" for s, n in by_state.items() if n or s == "finished")
    lines = [f"{state.counted} trials: {counts}"]
    if state.ended is not None and state.ended.reason == "exhausted":
        lines[0] += f"; {state.ended.detail}"
    best = state.best()
    if best is None or best.score is None:
        return lines
    crops, bicubic = state.opened.data["crops"], state.bicubic["val/psnr"]
    against = [("bicubic", bicubic)] + [
        (f"the {t.proposed.name} setting", t.score)
        for t in searched
        if t.is_reference and t.status == "finished" and t.score is not None
    ]
    gains = ", ".join(f"{best.score - other:+.2f} dB against {name}" for name, other in against)
    lines += [
        f"best of the search: trial {best.number}, {best.score:.3f} dB after {best.patches} patches, mean of "
        f"{crops['count']} crops of {crops['pictures']} images; {gains}",
        "references do not compete, and ranking.csv has all their settings",
    ]
    if best.score < bicubic:
        lines.append(
            f"no trial beats bicubic enlargement after {best.patches:,} patches; train longer: raise "
            "train.budget_patches in the experiment"
        )
    lines += words(state)
    if state.concluded is not None:  # the words above say themselves how far the replicates have come
        lines += [note for note in state.concluded.notes if not note.startswith("interim")]
    return lines + on_whole_images(state)


def on_whole_images(state: StudyState) -> list[str]:
    """The winner's scores on whole validation images and each benchmark, bicubic's beside them."""
    s = state.concluded.scores if state.concluded is not None else {}
    return [
        f"{name}: {s[f'{name}/psnr']:.3f} dB / {s[f'{name}/ssim']:.4f} on whole images; "
        f"bicubic {s[f'{name}/psnr_bicubic']:.3f} / {s[f'{name}/ssim_bicubic']:.4f}"
        for name in dict.fromkeys(key.partition("/")[0] for key in s)
    ]
