"""Shows the ranking as a sortable table, with bicubic and the references in their places."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sr_core.errors import SuiteError
from sr_core.process.names import utf8
from study import results
from study.record.journal import read
from study.record.state import fold
from study.report.drawing import csv_text, download
from study.report.markup import Html, cell, element, joined, missing, paragraph, scrolling, table
from study.report.page import Section
from study.report.record import StudyRecord, short

_FIRST_COLUMNS = ("rank", "trial", "state", "patches", "PSNR [dB]", "SSIM", "gain [dB]")


def ranking(record: StudyRecord) -> Section:
    """Return the section with every trial of the search, best first."""
    rows = [{str(k): v for k, v in row.items()} for row in results.trials(record.state).to_dict("records")]
    if not rows:
        return Section("ranking", "Ranking", missing("No trial has been proposed yet."))

    columns = list(rows[0])
    numbers = csv_text(columns, [["" if _nothing(v) else v for v in row.values()] for row in rows])
    names = columns[columns.index("val/psnr_gain_over_bicubic") + 1 :]
    differing = [n for n in names if n not in record.swept and len({repr(row[n]) for row in rows}) > 1]
    same = [n for n in names if n not in record.swept and n not in differing]

    body = [_row(row, record, differing) for row in rows]
    place = next(
        (i for i, row in enumerate(rows) if row["state"] != "finished" or row["val/psnr"] < record.bicubic), None
    )
    body.insert(len(body) if place is None else place, _bicubic(record, len(differing)))
    heads = [_head(name, "", "" if name in ("trial", "state") else "number") for name in _FIRST_COLUMNS]
    heads += [_head(short(name), name, _kind(rows, name)) for name in record.swept]
    heads += [_head(short(name), name, f"extra {_kind(rows, name)}".strip()) for name in differing]
    caption = "Trials of the search by PSNR on the validation crops"
    trials = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *body),
        class_="sortable",
    )

    toggle = [
        element("input", type="checkbox", id="all-settings", class_="toggle"),
        element("label", f"show {len(differing)} more settings in which the references differ", for_="all-settings"),
    ]
    budget = record.base.train.budget_patches
    words = paragraph(
        f"PSNR and SSIM are on the Y channel, averaged over the validation crops, after {budget:,} training patches. "
        "Pruned trials show the scores at the point where they stopped, and rank behind every finished trial. "
        "References cannot win the search. ",
        element("span", "Click a heading to sort. ", class_="scripted"),
        download("ranking.csv", numbers),
    )
    shared = element("div", *(joined((element("code", n), f" {rows[0][n]}", element("br"))) for n in same))
    rest = element("details", element("summary", f"{len(same)} settings that all trials share"), shared)
    content = joined([words, *(toggle if differing else []), scrolling(trials, caption), rest, _trainings(record)])
    return Section("ranking", "Ranking", content, {"figures/ranking.csv": utf8(numbers)})


def _head(text: str, name: str, class_: str = "") -> Html:
    return element("th", text, scope="col", title=name or None, class_=class_ or None)


def _kind(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the CSS class of the heading of a column."""
    numbers = all(isinstance(row[name], int | float) and not isinstance(row[name], bool) for row in rows)
    return "number" if numbers else ""


def _trainings(record: StudyRecord) -> Html | None:
    """Return a table of the longer trainings of trials, which have their own journals; None if there are none."""
    rows: list[tuple[object, ...]] = []
    for folder in record.folder.trainings():
        try:
            state = fold(read(folder.journal))
        except SuiteError:  # the journal is damaged; study.status reports how
            continue
        for trial in state.trials.values():
            budget = trial.config.train.budget_patches
            psnr: str | None = None
            gain: str | None = None
            if trial.score is not None:
                psnr = f"{trial.score:.3f}"
                gain = f"{trial.score - record.bicubic:+.3f}"
            rows.append((folder.training, trial.number, f"{trial.patches:,} of {budget:,}", psnr, gain))
    columns = ("training", "trial", "patches", "PSNR [dB]", "gain [dB]")
    return table(columns, rows, caption="Longer trainings of trials (study.train)") if rows else None


def _nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _row(row: dict[str, Any], record: StudyRecord, differing: list[str]) -> Html:
    """Return the table row of a trial."""
    number = int(row["trial"])
    best = record.best
    kind = None
    if row["name"]:
        kind = "reference"
    elif best and best.number == number:
        kind = "best"
    status = record.status[number]
    psnr = row["val/psnr"]
    gain = row["val/psnr_gain_over_bicubic"]
    cells = [
        cell(None if _nothing(row["rank"]) else int(row["rank"])),
        element("th", f"{number} {row['name']}".strip(), scope="row", data_sort=number),
        cell(status),
        cell(f"{row['patches']:,}", data_sort=row["patches"]),
        cell(None if _nothing(psnr) else f"{psnr:.3f}"),
        cell(None if _nothing(row["val/ssim"]) else f"{row['val/ssim']:.4f}"),
        cell(None if _nothing(gain) else f"{gain:+.3f}", data_sort=None if _nothing(gain) else gain),
    ]
    cells += [cell(row[name]) for name in record.swept]
    cells += [cell(row[name], class_="extra") for name in differing]
    return element("tr", *cells, class_=" ".join(filter(None, (kind, status.replace(" ", "-")))))


def _bicubic(record: StudyRecord, extra: int) -> Html:
    """Return the table row of bicubic enlargement.

    Args:
        extra: number of columns that are hidden at first.
    """
    ssim = record.state.bicubic.get("val/ssim")
    cells = [
        cell(None),
        element("th", "bicubic", scope="row", data_sort=-1),
        cell("no network"),
        cell(None),
        cell(f"{record.bicubic:.3f}"),
        cell(None if ssim is None else f"{ssim:.4f}"),
        cell("+0.000", data_sort=0),
        *[cell(None)] * len(record.swept),
        *[cell(None, class_="extra")] * extra,
    ]
    return element("tr", *cells, class_="bicubic")
