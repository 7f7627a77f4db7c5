"""The live view's one screen: what is shown of a running study in so many columns and rows. Pure; nothing is written.

Every line is cut to the width, and what matters least goes first where rows are few: images of the best trials and
importances before the slots, the slots before what the study as a whole is doing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from study.record.state import StudyState, TrialState
from study.screen.sparkline import SparklineScale, cells_of, scale_of, sparkline
from study.screen.terminal import duration, event_in_words, settings_in_words
from study.statistics import pace
from study.statistics.replication import interim
from study.statistics.wording import lost_winner

_SILENT_SECONDS = 20.0
"""Without a word from a slot after which its row says so; a tick comes every second."""
_ASCII = str.maketrans("▁▂▃▄▅▆▇█·━─–…", "_.-~=+*#.#-->")
"""For terminals whose encoding lacks these signs."""
_BEST, _MESSAGES = 10, 6
_BETWEEN = " · "
_LEAST_SETTINGS = 12
"""Columns below which what is left of the settings says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """All that a screen is drawn from."""

    state: StudyState
    asked: int
    slots: int
    laps: Mapping[int, pace.Lap] = field(default_factory=dict)
    heard: Mapping[int, float] = field(default_factory=dict)
    """When each trial on a slot was last heard of, by this machine's clock."""
    doing: str = ""
    """What happens while no trial runs, or why none will begin; empty: the search."""
    deadline: float | None = None
    """When the time limit ends the session, if there is one."""
    importance: Sequence[str] = ()
    """In words, the conditions first."""
    troubles: Sequence[str] = ()
    """Views that cannot be written just now."""
    messages: Sequence[str] = ()
    now: float = 0.0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in screen(self, options.max_width, options.size.height):
            if options.ascii_only:
                line.plain = line.plain.translate(_ASCII)
            yield line


def screen(shown: Shown, width: int, height: int) -> list[Text]:
    """The lines, at most `height` of at most `width` columns, the important ones first to have their place."""
    scale = scale_of(shown.state)  # it looks at every validation of the study
    sections = {
        "head": _head(shown, width),
        "slots": _slots(shown, scale, width, height),
        "best": _best(shown, scale, width),
        "importance": [Text(line, style="dim") for told in shown.importance for line in wrap(told, width)],
        "messages": [Text(m, style="yellow") for m in (*shown.messages[-_MESSAGES:], *shown.troubles)],
    }
    rows = _share_out({name: len(lines) for name, lines in sections.items()}, height)
    kept = {name: lines[:n] for (name, lines), n in zip(sections.items(), rows.values(), strict=True) if n}
    if "messages" in kept:
        kept["messages"] = sections["messages"][-rows["messages"] :]
    if rows["slots"] == 1:
        kept["slots"] = sections["slots"][1:2]  # rather than a heading with nothing below it
    spare = height - sum(map(len, kept.values()))
    found: list[Text] = []
    for lines in kept.values():
        if found and spare > 0:
            found.append(Text(""))
            spare -= 1
        found += lines
    for line in found:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return found


def _share_out(wanted: Mapping[str, int], height: int) -> dict[str, int]:
    """How many rows each section gets. Two rows of a table are the fewest that say anything."""
    got, room = dict.fromkeys(wanted, 0), height
    steps = [("head", 1), ("slots", 99), ("messages", 1), ("head", 9), ("best", 4), ("importance", 9), ("messages", 3),
             ("best", 99), ("messages", 99)]  # fmt: skip
    for name, most in steps:
        more = min(min(most, wanted[name]) - got[name], room)
        if more > 0 and got[name] + more >= (3 if name == "best" else 1):
            got[name] += more
            room -= more
    return got


def _head(shown: Shown, width: int) -> list[Text]:
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
        if saved := pace.saved_wall_seconds(state, rate):
            parts.append(f"pruning saved {duration(saved)} (wall)")
    best = state.best()
    if best is not None and best.score is not None:
        gain = best.score - state.bicubic["val/psnr"]
        parts.append(f"best: trial {best.number}, {best.score:.3f} dB, {gain:+.3f} dB over bicubic")
        if state.replicated:
            so_far = interim(state)
            parts += [f"{so_far}: no verdict yet"] if so_far else []
            parts += [lost] if (lost := lost_winner(state)) else []
    return lines + [Text(line) for line in _flow(parts, width)]


def _phase(shown: Shown) -> str:
    state = shown.state
    counts = f"{state.counted} of {shown.asked} trials"
    begun = [t for t in state.trials.values() if t.is_replicate]
    if begun:
        counts += f", {sum(t.ended for t in begun)} of {len(begun) + pace.replicates_to_come(state)} replicates"
    if shown.doing:
        return f"{shown.doing}; {counts}"
    longer = next((t for t in state.trials.values() if t.proposed.role == "training"), None)
    if longer is not None:  # study.train: the only trial there is
        return f"training trial {longer.number} with {pace.budget_of(longer):,} patches"
    under_way = [t for t in state.trials.values() if t.status in ("waiting", "running")]
    again = begun and all(t.is_replicate for t in under_way)  # else more trials were asked for since
    return f"training the finalists again; {counts}" if again else f"searching; {counts}"


def _bar(shown: Shown, width: int) -> Text:
    """By patches, replicates included: what is done of what there is to do."""
    done = sum(pace.reached(t, shown.laps) for t in shown.state.trials.values())
    left = pace.to_do(shown.state, shown.asked, shown.laps)
    full = round(width * done / (done + left)) if done + left else width
    return Text.assemble(("━" * full, "cyan"), ("─" * (width - full), "dim"))


def _slots(shown: Shown, scale: SparklineScale | None, width: int, height: int) -> list[Text]:
    """A heading and a row for each slot; where the screen is too short for all, the last row counts the others."""
    state, cells = shown.state, cells_of(shown.state)
    on_slots = {lap.slot: state.trials[number] for number, lap in shown.laps.items() if number in state.trials}
    waiting = [t for t in state.trials.values() if t.status in ("waiting", "running") and t.number not in shown.laps]
    names, values = _settings(state, [*on_slots.values(), *waiting])
    rows: list[Sequence[str] | str] = []
    for slot in range(shown.slots):
        trial = on_slots.get(slot)
        if trial is not None:
            rows.append(_running(shown, trial, sparkline(trial, scale, cells), values[trial.number]))
        elif waiting and not shown.doing:  # the coordinator gives the lowest slots out first
            trial = waiting.pop(0)
            rows.append(f"{slot:<4}  {trial.number:<5}  starting: {values[trial.number]}")
        else:
            rows.append(f"{slot:<4}  idle")
    most = max(1, height - 2)  # below the first line and the heading
    if len(rows) > most:
        kept, others = rows[: most - 1], rows[most - 1 :]
        states = {"training": sum(not isinstance(row, str) for row in others)}
        states |= {what: sum(isinstance(r, str) and what in r for r in others) for what in ("starting", "idle")}
        rest = ", ".join(f"{count} {what}" for what, count in states.items() if count)
        rows = [*kept, f"{len(others)} {'more ' if kept else ''}slots: {rest}"]
    headings = ["slot", "trial", _curve_heading(scale), "PSNR [dB]", "patches/s", "patches", names]
    return _columns(headings, rows, width)


def _running(shown: Shown, trial: TrialState, curve: str, values: str) -> list[str]:
    lap = shown.laps[trial.number]
    silent = shown.now - shown.heard.get(trial.number, shown.now)
    return [
        str(lap.slot),
        str(trial.number),
        curve,
        "" if trial.score is None else f"{trial.score:.3f}",
        f"silent {duration(silent)}" if silent > _SILENT_SECONDS else f"{lap.rate:,.0f}" if lap.rate else "",
        f"{lap.patches}/{pace.budget_of(trial)}",
        values,
    ]


def _best(shown: Shown, scale: SparklineScale | None, width: int) -> list[Text]:
    """The best trials so far, and every reference in its place."""
    state, cells = shown.state, cells_of(shown.state)
    bicubic, best = state.bicubic["val/psnr"], state.best()
    finished = enumerate((t for t in state.ranking() if t.status == "finished"), start=1)
    ranked = {rank: trial for rank, trial in finished if rank <= _BEST or trial.is_reference}
    names, values = _settings(state, list(ranked.values()))
    rows: list[Sequence[str]] = []
    winner = -1
    for rank, trial in ranked.items():
        score = trial.score or 0.0
        winner = len(rows) if best is not None and trial.number == best.number else winner
        line, gain = sparkline(trial, scale, cells), f"{score - bicubic:+.3f}"
        rows.append([str(rank), str(trial.number), line, f"{score:.3f}", gain, values[trial.number]])
    if not rows:
        return []
    headings = ["rank", "trial", _curve_heading(scale), "PSNR [dB]", "gain [dB]", names]
    lines = _columns(headings, rows, width)
    if winner >= 0:
        lines[1 + winner].stylize("bold green")
    return lines


def _curve_heading(scale: SparklineScale | None) -> str:
    return "curve" if scale is None else f"curve {scale.low:.1f}–{scale.high:.1f}"


def _columns(headings: Sequence[str], rows: Sequence[Sequence[str] | str], width: int) -> list[Text]:
    """A heading and the rows, with as many of the first columns as fit, the last one perhaps cut; a str is a row."""
    tabular = [row for row in rows if not isinstance(row, str)]
    sizes = [max(len(row[i]) for row in (headings, *tabular)) for i in range(len(headings))]
    kept, room = 0, width
    while kept < len(sizes) and room >= (min(sizes[kept], _LEAST_SETTINGS) if kept == len(sizes) - 1 else sizes[kept]):
        room -= sizes[kept] + 2
        kept += 1

    def line(row: Sequence[str] | str) -> str:
        cells = row if isinstance(row, str) else "  ".join(c.ljust(n) for c, n in zip(row[:kept], sizes, strict=False))
        return cells.rstrip()

    return [Text(line(headings), style="dim"), *(Text(line(row)) for row in rows)]


def _flow(parts: Sequence[str], width: int) -> list[str]:
    """The parts one after the other, on as many lines as they need."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(_BETWEEN) + len(part) <= width:
            lines[-1] += _BETWEEN + part
        else:
            lines += wrap(part, width)
    return lines


def _settings(state: StudyState, chosen: Sequence[TrialState]) -> tuple[str, dict[int, str]]:
    """The swept names, and for each trial its values below each other; a reference or replicate has its name."""
    names = state.swept
    cells = {
        t.number: [event_in_words(t.proposed.values[name]) for name in names]
        for t in chosen
        if not t.is_reference and not t.is_replicate and names and set(names) <= set(t.proposed.values)
    }
    sizes = [max(map(len, column)) for column in zip(*cells.values(), strict=True)]
    values = {n: "  ".join(c.ljust(size) for c, size in zip(row, sizes, strict=True)) for n, row in cells.items()}
    return ", ".join(name.rpartition(".")[2] for name in names) or "settings", {
        t.number: values.get(t.number) or settings_in_words(t) for t in chosen
    }


def stamped(moment: float, message: str) -> str:
    """A message with the time of day at which it came."""
    return f"{time.strftime('%H:%M:%S', time.localtime(moment))}  {message}"
