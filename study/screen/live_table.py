"""Lays out the live view of a running study for a given number of columns and rows, without writing anything.

Lines are cut to the width. If there are too few rows, the least important sections lose theirs first: the best trials
and the importances, then the slots, and last the state of the study as a whole.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from study.record.state import StudyState, TrialState
from study.screen.sparkline import SparklineScale, cells_of, scale_of, sparkline
from study.screen.terminal import duration, settings_in_words, value_in_words
from study.statistics import pace
from study.statistics.replication import interim
from study.statistics.wording import lost_winner

_SILENT_SECONDS = 20.0
"""If a slot sends no message for longer, its row says so. A trial sends a tick every second."""
_ASCII = str.maketrans("▁▂▃▄▅▆▇█·━─–…", "_.-~=+*#.#-->")
"""Replacements for terminals whose encoding lacks these characters."""
_MAX_BEST_ROWS = 10
_MAX_MESSAGE_ROWS = 6
_SEPARATOR = " · "
_MIN_SETTINGS_COLUMNS = 12
"""If fewer columns are left for the settings, they are omitted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreenState:
    """Everything that the live view shows. Times are Unix times in seconds."""

    state: StudyState
    asked: int
    """Number of trials that the user asked for."""
    slots: int
    laps: Mapping[int, pace.Lap] = field(default_factory=dict)
    last_heard: Mapping[int, float] = field(default_factory=dict)
    """When each trial on a slot sent its last message, by this machine's clock."""
    doing: str = ""
    """What the study does while no trial runs, or why it starts no more trials; empty during the search."""
    deadline: float | None = None
    """When the time limit ends the session; None without a limit."""
    importance: Sequence[str] = ()
    """Importances in words, the conditions first."""
    problems: Sequence[str] = ()
    """A line for each view that cannot be written at the moment."""
    messages: Sequence[str] = ()
    now: float = 0.0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in screen(self, options.max_width, options.size.height):
            if options.ascii_only:
                line.plain = line.plain.translate(_ASCII)
            yield line


def screen(shown: ScreenState, width: int, height: int) -> list[Text]:
    """Return the lines to show, at most `height` lines of at most `width` columns."""
    scale = scale_of(shown.state)  # once for all rows, because it reads every validation of the study
    importance_lines = [line for sentence in shown.importance for line in wrap(sentence, width)]
    messages = (*shown.messages[-_MAX_MESSAGE_ROWS:], *shown.problems)
    sections = {
        "head": _head(shown, width),
        "slots": _slots(shown, scale, width, height),
        "best": _best(shown, scale, width),
        "importance": [Text(line, style="dim") for line in importance_lines],
        "messages": [Text(message, style="yellow") for message in messages],
    }

    rows = _share_out({name: len(lines) for name, lines in sections.items()}, height)
    visible: dict[str, list[Text]] = {}
    for name, lines in sections.items():
        if not rows[name]:
            continue
        if name == "messages":
            visible[name] = lines[-rows[name] :]  # the latest ones
        elif name == "slots" and rows[name] == 1:
            visible[name] = lines[1:2]  # the first slot rather than a heading without rows
        else:
            visible[name] = lines[: rows[name]]

    spare_rows = height - sum(map(len, visible.values()))
    screen_lines: list[Text] = []
    for lines in visible.values():
        if screen_lines and spare_rows > 0:
            screen_lines.append(Text(""))
            spare_rows -= 1
        screen_lines += lines
    for line in screen_lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return screen_lines


def _share_out(wanted: Mapping[str, int], height: int) -> dict[str, int]:
    """Return how many of the `height` rows each section gets. The best trials get at least a heading and two rows."""
    granted = dict.fromkeys(wanted, 0)
    free = height
    steps = [
        ("head", 1),
        ("slots", 99),
        ("messages", 1),
        ("head", 9),
        ("best", 4),
        ("importance", 9),
        ("messages", 3),
        ("best", 99),
        ("messages", 99),
    ]
    for name, limit in steps:
        fewest = 3 if name == "best" else 1
        more = min(min(limit, wanted[name]) - granted[name], free)
        if more > 0 and granted[name] + more >= fewest:
            granted[name] += more
            free -= more
    return granted


def _head(shown: ScreenState, width: int) -> list[Text]:
    state = shown.state
    assert state.opened is not None
    begun = state.session.time if state.session else shown.now
    left = pace.seconds_left(state, shown.asked, shown.laps, shown.now)
    rate = pace.patches_per_second(state, shown.laps, shown.now)
    name = state.opened.study

    lines = [Text.assemble((f"{name}: ", "bold"), _phase(shown)), _bar(shown, min(width, 72))]
    parts = [f"{duration(shown.now - begun)} so far"]
    if left is not None and (left > 0 or not shown.doing):
        parts[0] += f", about {duration(left)} left"
    if shown.deadline is not None:
        parts.append(f"time limit in {duration(shown.deadline - shown.now)}")
    if rate:
        parts.append(f"{rate:,.0f} patches/s")
        saved = pace.saved_wall_seconds(state, rate)
        if saved:
            parts.append(f"pruning saved {duration(saved)} (wall)")

    best = state.best()
    if best is not None and best.score is not None:
        gain = best.score - state.bicubic["val/psnr"]
        parts.append(f"best: trial {best.number}, {best.score:.3f} dB, {gain:+.3f} dB over bicubic")
        if state.replicated:
            so_far = interim(state)
            if so_far:
                parts.append(f"{so_far}: no verdict yet")
            lost = lost_winner(state)
            if lost:
                parts.append(lost)
    return lines + [Text(line) for line in _flow(parts, width)]


def _phase(shown: ScreenState) -> str:
    state = shown.state
    counts = f"{state.counted} of {shown.asked} trials"
    replicates = [t for t in state.trials.values() if t.is_replicate]
    if replicates:
        ended = sum(t.ended for t in replicates)
        counts += f", {ended} of {len(replicates) + pace.replicates_to_come(state)} replicates"
    if shown.doing:
        return f"{shown.doing}; {counts}"
    longer = next((t for t in state.trials.values() if t.proposed.role == "training"), None)
    if longer is not None:  # a study.train session has only this trial
        return f"training trial {longer.number} with {pace.budget_of(longer):,} patches"
    active = [t for t in state.trials.values() if t.status in ("waiting", "running")]
    if replicates and all(t.is_replicate for t in active):  # otherwise the search was extended after its replicates
        return f"training the finalists again; {counts}"
    return f"searching; {counts}"


def _bar(shown: ScreenState, width: int) -> Text:
    """Return a progress bar by training patches, replicates included."""
    done = sum(pace.reached(t, shown.laps) for t in shown.state.trials.values())
    left = pace.to_do(shown.state, shown.asked, shown.laps)
    full = round(width * done / (done + left)) if done + left else width
    return Text.assemble(("━" * full, "cyan"), ("─" * (width - full), "dim"))


def _slots(shown: ScreenState, scale: SparklineScale | None, width: int, height: int) -> list[Text]:
    """Return a heading and a row for each slot. If the screen is too short, the last row counts the other slots."""
    state = shown.state
    cells = cells_of(state)
    on_slots = {lap.slot: state.trials[number] for number, lap in shown.laps.items() if number in state.trials}
    waiting = [t for t in state.trials.values() if t.status in ("waiting", "running") and t.number not in shown.laps]
    names, values = _settings(state, [*on_slots.values(), *waiting])
    rows: list[Sequence[str] | str] = []
    for slot in range(shown.slots):
        trial = on_slots.get(slot)
        if trial is not None:
            rows.append(_running(shown, trial, sparkline(trial, scale, cells), values[trial.number]))
        elif waiting and not shown.doing:  # the coordinator fills free slots in ascending order
            trial = waiting.pop(0)
            rows.append(f"{slot:<4}  {trial.number:<5}  starting: {values[trial.number]}")
        else:
            rows.append(f"{slot:<4}  idle")

    max_rows = max(1, height - 2)  # below the first line and the heading
    if len(rows) > max_rows:
        first, others = rows[: max_rows - 1], rows[max_rows - 1 :]
        counts = {"training": sum(not isinstance(row, str) for row in others)}
        for what in ("starting", "idle"):
            counts[what] = sum(isinstance(row, str) and what in row for row in others)
        summary = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        more = "more " if first else ""
        rows = [*first, f"{len(others)} {more}slots: {summary}"]

    headings = ["slot", "trial", _curve_heading(scale), "PSNR [dB]", "patches/s", "patches", names]
    return _columns(headings, rows, width)


def _running(shown: ScreenState, trial: TrialState, curve: str, values: str) -> list[str]:
    lap = shown.laps[trial.number]
    silent_seconds = shown.now - shown.last_heard.get(trial.number, shown.now)
    rate = ""
    if silent_seconds > _SILENT_SECONDS:
        rate = f"silent {duration(silent_seconds)}"
    elif lap.rate:
        rate = f"{lap.rate:,.0f}"

    return [
        str(lap.slot),
        str(trial.number),
        curve,
        "" if trial.score is None else f"{trial.score:.3f}",
        rate,
        f"{lap.patches}/{pace.budget_of(trial)}",
        values,
    ]


def _best(shown: ScreenState, scale: SparklineScale | None, width: int) -> list[Text]:
    """Return a heading and rows of the best trials so far and of every reference, by rank."""
    state = shown.state
    cells = cells_of(state)
    bicubic = state.bicubic["val/psnr"]
    best = state.best()
    finished = enumerate((t for t in state.ranking() if t.status == "finished"), start=1)
    ranked = {rank: trial for rank, trial in finished if rank <= _MAX_BEST_ROWS or trial.is_reference}
    names, values = _settings(state, list(ranked.values()))

    rows: list[Sequence[str]] = []
    winner_row: int | None = None
    for rank, trial in ranked.items():
        if best is not None and trial.number == best.number:
            winner_row = len(rows)
        score = trial.score or 0.0
        curve = sparkline(trial, scale, cells)
        gain = f"{score - bicubic:+.3f}"
        rows.append([str(rank), str(trial.number), curve, f"{score:.3f}", gain, values[trial.number]])
    if not rows:
        return []

    headings = ["rank", "trial", _curve_heading(scale), "PSNR [dB]", "gain [dB]", names]
    lines = _columns(headings, rows, width)
    if winner_row is not None:
        lines[1 + winner_row].stylize("bold green")
    return lines


def _curve_heading(scale: SparklineScale | None) -> str:
    return "curve" if scale is None else f"curve {scale.low:.1f}–{scale.high:.1f}"


def _columns(headings: Sequence[str], rows: Sequence[Sequence[str] | str], width: int) -> list[Text]:
    """Return the heading and the rows, with as many of the first columns as fit. A row that is a str stays as it is.

    The last column, the settings, may be cut.
    """
    tabular = [row for row in rows if not isinstance(row, str)]
    sizes = [max(len(row[i]) for row in (headings, *tabular)) for i in range(len(headings))]
    needed = [*sizes[:-1], min(sizes[-1], _MIN_SETTINGS_COLUMNS)]
    fitting = 0
    free = width
    while fitting < len(sizes) and free >= needed[fitting]:
        free -= sizes[fitting] + 2
        fitting += 1

    def line(row: Sequence[str] | str) -> str:
        if isinstance(row, str):
            return row.rstrip()
        cells = zip(row[:fitting], sizes, strict=False)
        return "  ".join(cell.ljust(size) for cell, size in cells).rstrip()

    return [Text(line(headings), style="dim"), *(Text(line(row)) for row in rows)]


def _flow(parts: Sequence[str], width: int) -> list[str]:
    """Return the parts one after the other, on as many lines as they need."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(_SEPARATOR) + len(part) <= width:
            lines[-1] += _SEPARATOR + part
        else:
            lines += wrap(part, width)
    return lines


def _settings(state: StudyState, chosen: Sequence[TrialState]) -> tuple[str, dict[int, str]]:
    """Return the heading of the settings, and the settings of each trial by number.

    Values of the searched hyperparameters are aligned in columns. References and replicates show their names.
    """
    names = state.swept
    cells: dict[int, list[str]] = {}
    for trial in chosen:
        from_search = not trial.is_reference and not trial.is_replicate
        if from_search and names and set(names) <= set(trial.proposed.values):
            cells[trial.number] = [value_in_words(trial.proposed.values[name]) for name in names]
    sizes = [max(map(len, column)) for column in zip(*cells.values(), strict=True)]

    values: dict[int, str] = {}
    for trial in chosen:
        row = cells.get(trial.number, [])
        aligned = "  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=False))
        values[trial.number] = aligned or settings_in_words(trial)
    heading = ", ".join(name.rpartition(".")[2] for name in names) or "settings"
    return heading, values


def stamped(moment: float, message: str) -> str:
    """Return a message preceded by the local time of day at which it arrived."""
    return f"{time.strftime('%H:%M:%S', time.localtime(moment))}  {message}"
