"""The report of a study in every state: what it says, what it is made from, and what it says where that is gone."""

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.quickstart import EXPERIMENT as QUICKSTART
from sr_core.images.files import read_image
from sr_core.metrics.evaluate import bicubic_baseline, lr_hr_pair, score
from sr_core.model.inference import super_resolve
from sr_core.model.weights import load_model
from sr_core.patches.validation import validation_crops
from study.plots import strongest
from study.record import events as ev
from study.record.folder import StudyFolder
from study.record.journal import Journal, decode, read
from study.record.state import StudyState, fold
from study.report import __main__ as command
from study.report import course, kernels, material, scenes
from study.report.answer import answer
from study.report.cache import Cache
from study.report.cost import cost
from study.report.images import images
from study.report.making import MANIFEST, remove_stale, write_report
from study.report.ranking import ranking
from study.report.record import record_of


class Page(HTMLParser):
    """A page as a reader takes it in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.sections, self._skipped = "", {}, ""  # type: ignore[var-annotated]
        self._section = "top"
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._skipped = tag
        if tag == "section":
            self._section = str(dict(attrs)["id"])

    def handle_endtag(self, tag: str) -> None:
        if tag == self._skipped:
            self._skipped = ""

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.text += data
            self.sections[self._section] = self.sections.get(self._section, "") + data


def shown(folder: StudyFolder, cache: Path, data: Path | None = None) -> str:
    """The text of the images' section alone."""
    return Page(images(record_of(folder, read(folder.journal), None), data, Cache(cache)).body).text


def top(folder: StudyFolder) -> str:
    """The text of the answer alone."""
    return Page(answer(record_of(folder, read(folder.journal), folder.owner()), None)).text


def report(folder: StudyFolder, out: Path | None = None, data: Path | None = None) -> Page:
    return Page(write_report(folder, read(folder.journal), out=out, data=data).read_text("utf-8"))


SECTIONS = [
    "ranking", "replicates", "pictures", "history", "curves", "importance", "parallel", "slices", "kernels", "cost",
    "provenance", "reproduce",
]  # fmt: skip


# A whole study


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page((made / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def state(trained: StudyFolder) -> StudyState:
    return fold(read(trained.journal))


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def test_the_answer_comes_first_and_every_section_is_in_the_contents(page: Page, state: StudyState) -> None:
    best = state.best()
    assert best is not None and best.score is not None
    assert "Which loss & kernel <b>learns</b> fastest?" in page.sections["top"]
    assert "complete" in page.sections["top"]
    assert f"erdict for trial {best.number} (batch size " in page.sections["top"]
    assert ") after 120 patches, on 4 crops of 2 images" in page.sections["top"]
    assert f"{best.score:.3f} dB" in page.sections["top"]
    assert [s for s in page.sections if s != "top"] == SECTIONS
    assert [a["href"] for tag, a in page.starts if tag == "a" and str(a["href"]).startswith("#")][1:] == [
        f"#{name}" for name in SECTIONS
    ]


def test_the_page_needs_nothing_from_elsewhere(page: Page) -> None:
    for tag, attributes in page.starts:
        for name in ("src", "href"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:")), (tag, attributes)
    assert not [tag for tag, _ in page.starts if tag in ("link", "iframe", "object")]


def test_every_image_says_in_words_what_is_seen(page: Page) -> None:
    images = [attributes for tag, attributes in page.starts if tag == "img"]
    assert len(images) > 20
    assert all(len(str(attributes["alt"])) > 5 for attributes in images)


def test_two_reports_of_one_journal_are_equal_in_every_byte(trained: StudyFolder, made: Path, tmp_path: Path) -> None:
    write_report(trained, read(trained.journal), out=tmp_path)  # nothing of the first is known to the second
    names = sorted(p.relative_to(made) for p in made.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for name in names:
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes(), name


def test_a_second_report_computes_no_network_again(
    trained: StudyFolder, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (made / "report.html").read_bytes()

    def no(*_: object) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr(material.Network, "load", no)
    assert write_report(trained, read(trained.journal), out=made).read_bytes() == before


def test_the_tables_hold_the_journal_s_own_numbers(made: Path, state: StudyState) -> None:
    searched = {t.number: t for t in state.trials.values() if not t.is_replicate}
    listed = table(made / "figures" / "ranking.csv")
    assert [int(row["trial"]) for row in listed] == [t.number for t in state.ranking()]
    assert all(float(row["val/psnr"]) == searched[int(row["trial"])].score for row in listed)
    assert {row["rank"] for row in listed if row["state"] == "pruned"} == {""}
    curves = table(made / "figures" / "learning-curves.csv")
    points = [(t.number, p.patches, p.scores["val/psnr"]) for t in searched.values() for p in t.curve]
    assert [(int(r["trial"]), int(r["patches"]), float(r["val/psnr"])) for r in curves] == points
    again = table(made / "figures" / "replicate-curves.csv")
    assert {(int(r["trial"]), int(r["of"]), int(r["seed"])) for r in again} == {
        (t.number, t.proposed.of, t.proposed.replicate) for t in state.trials.values() if t.is_replicate
    }
    history = table(made / "figures" / "history.csv")
    ended = [n for n in state.endings if not state.trials[n].is_replicate]
    assert [(int(r["ended"]), int(r["trial"])) for r in history] == list(enumerate(ended, start=1))
    best = state.best()
    assert best is not None
    assert max(float(row["best_so_far"]) for row in history if row["best_so_far"]) == max(
        float(row["val/psnr"]) for row in history if row["state"] == "finished" and not row["name"]
    )


def test_the_cost_adds_up_to_the_journal(made: Path, state: StudyState) -> None:
    rows = {(row["unit"], row["what"]): float(row["value"]) for row in table(made / "figures" / "cost.csv")}
    lines = [decode(line)[1] for line in _lines(state, made)]
    trained = sum(e.patches for e in lines if isinstance(e, ev.Finished | ev.Pruned))
    assert sum(v for (unit, what), v in rows.items() if unit == "patches" and what != "saved") == trained
    pruned = [e for e in lines if isinstance(e, ev.Pruned)]
    assert rows["patches", "saved"] == sum(120 - e.patches for e in pruned) > 0
    assert rows["wall seconds", "all sessions"] == pytest.approx(max(e.time for e in lines) - lines[1].time)


def test_the_time_saved_is_that_of_the_clock_however_many_slots_there_were(history: type[Any]) -> None:
    study = history(replace(QUICKSTART, references={}, replicates=0))
    study.session()
    for number in range(8):
        study.propose({})
        study.start(number)
    begun = study.state.session.time
    for number in range(8):
        study.validate(number, 25.0, 25.0)
        study.end(number, "pruned")
    # all at once on eight slots, each busy for all of the 100 s until half of its budget
    events = [replace(e, time=begun + 100) if isinstance(e, ev.Validated | ev.Pruned) else e for e in study.events]
    events = [replace(e, seconds={"steps": 100.0}) if isinstance(e, ev.Validated) else e for e in events]
    section = cost(record_of(StudyFolder(Path("/nowhere"), "small"), events, None))
    found = csv.DictReader(io.StringIO(section.files["figures/cost.csv"].decode()))
    rows = {(row["unit"], row["what"]): float(row["value"]) for row in found}
    assert rows["slot seconds", "steps"] == 800
    assert rows["wall seconds", "all sessions"] == 100
    assert rows["wall seconds", "saved (estimate)"] == 100
    assert "about 1.7 min of wall time" in section.body


def _lines(state: StudyState, made: Path) -> list[bytes]:
    assert state.opened is not None
    root = Path(state.opened.data["folder"]).parent / "root"
    return (root / "tiny" / "journal.jsonl").read_bytes().splitlines(keepends=True)


def test_a_figure_s_numbers_can_be_saved_from_the_page(page: Page, made: Path) -> None:
    links = {str(a["download"]): str(a["href"]) for tag, a in page.starts if tag == "a" and "download" in a}
    assert {"ranking.csv", "history.csv", "learning-curves.csv", "kernels.csv", "slices.csv", "cost.csv"} <= set(links)
    for name, link in links.items():
        assert base64.b64decode(link.partition(",")[2]) == (made / "figures" / name).read_bytes()


def test_every_figure_is_an_image_file_too(made: Path) -> None:
    names = {p.name for p in (made / "figures").glob("*.png")}
    assert {
        "cost.png", "history.png", "kernels.png", "learning-curves.png", "parallel-coordinates.png", "slices.png",
        "replicate-curves.png", "replicates-and-verdict.png", "scene-1-HR.png", "scene-1-bicubic.png",
        "scene-1-plain.png", "scene-1-error-of-bicubic.png",
    } <= names  # fmt: skip


def test_it_says_how_to_get_the_same_again(page: Page, trained: StudyFolder) -> None:
    assert f"python -m study.reproduce best --root {trained.root} --study-name tiny" in page.sections["reproduce"]
    assert "python -m study.run --experiment tiny.py --trials 8 --seed 1 --study-name tiny-again --data" in page.text
    assert "cpu_capability" in page.sections["provenance"]  # settings that decide bits


# Scenes and kernels


def test_details_lie_where_planted_differences_are(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    one = generator.integers(60, 200, (96, 128, 3), dtype=np.uint8)
    other = one.copy()
    other[20:36, 72:88] += 30
    other[64:72, 8:16] += 40
    found = strongest(scenes.detail_differences([one, other]), 16, 2)
    assert found[0] == (20, 72, 16)
    (y, x, side) = found[1]
    assert y <= 64 and x <= 8 and y + side >= 72 and x + side >= 16


def test_differences_over_an_image_smaller_than_a_detail_are_all_of_it() -> None:
    assert strongest(np.ones((9, 12)), 16, 2) == [(0, 0, 9)]


def test_the_matrix_equals_the_study_s_own_scores_and_an_independent_evaluation(
    trained: StudyFolder, made: Path, state: StudyState
) -> None:
    rows = {(r["setting"], r["evaluation_kernel"]): r for r in table(made / "figures" / "kernels.csv")}
    assert {kernel for _, kernel in rows} == {"matlab_bicubic", "pillow_box"}
    best = state.best()
    assert best is not None and state.opened is not None
    again = list(state.replicates_of(best.number).values())
    mean = sum(t.score or 0.0 for t in again) / len(again)
    own = rows[f"trial {best.number}", "matlab_bicubic"]
    assert float(own["psnr"]) == pytest.approx(mean, abs=1e-5)
    assert int(own["seeds"]) == 2
    assert float(own["psnr_bicubic"]) == pytest.approx(state.opened.data["baseline"]["val/psnr"], abs=1e-5)

    paths = sorted((Path(state.opened.data["folder"]) / "valid").iterdir())
    pairs = [lr_hr_pair(read_image(path), 2, "pillow_box", "canonical") for path in paths]
    crops = validation_crops(
        [p.name for p in paths], [lr for lr, _ in pairs], [hr for _, hr in pairs], scale=2, crops=4, lr_crop_size=24
    )
    models = [load_model(trained.trial(t.number) / "weights.safetensors", 2) for t in again]
    scores = [score(super_resolve(m, c.lr), c.hr, scale=2, protocol="canonical").psnr for m in models for c in crops]
    other = rows[f"trial {best.number}", "pillow_box"]
    assert float(other["psnr"]) == pytest.approx(np.mean(scores), abs=1e-9)
    bicubic = [
        score(bicubic_baseline(c.lr, 2).astype(np.float64), c.hr, scale=2, protocol="canonical").psnr for c in crops
    ]
    assert float(other["psnr_bicubic"]) == pytest.approx(np.mean(bicubic), abs=1e-9)


def test_the_matrix_holds_the_best_trial_of_every_training_kernel_that_finished(made: Path, state: StudyState) -> None:
    rows = table(made / "figures" / "kernels.csv")
    finished = [t for t in state.trials.values() if t.status == "finished" and not t.is_replicate]
    assert {r["train_kernel"] for r in rows} == {t.config.data.train_kernel for t in finished}


# What is no longer there


def test_a_carried_record_of_journal_and_results_says_in_a_line_what_each_section_would_need(
    carried: Callable[..., StudyFolder], tmp_path: Path
) -> None:
    folder = carried("journal.jsonl")
    found = report(folder)
    assert [s for s in found.sections if s != "top"] == SECTIONS
    for section in ("pictures", "kernels"):
        assert "Needs the weights of finalists and references" in found.sections[section]
    assert "erdict for trial " in found.sections["top"] and ") after 120 patches" in found.sections["top"]
    assert "complete" in found.sections["top"]


def test_a_carried_record_with_the_winner_shows_the_winner_s_images(
    carried: Callable[..., StudyFolder], tmp_path: Path
) -> None:
    folder = carried("journal.jsonl", "results")
    found = shown(folder, tmp_path)  # the images are where they were
    state = fold(read(folder.journal))
    best = state.best()
    assert best is not None
    assert f"trial {best.number}" in found
    assert "Detail 1" in found


def test_images_that_moved_are_asked_for_and_those_that_changed_are_named(
    carried: Callable[..., StudyFolder], tmp_path: Path
) -> None:
    folder = carried("journal.jsonl", "results")
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    _, opened = decode(lines[0])
    assert isinstance(opened, ev.StudyOpened)
    images = Path(opened.data["folder"])
    moved = tmp_path / "moved"
    shutil.copytree(images, moved)
    _rewrite(folder, {"folder": str(tmp_path / "gone")})
    assert "--data DIR where they are now" in shown(folder, tmp_path)
    assert "Detail 1" in shown(folder, tmp_path, moved)
    shutil.copy(moved / "train" / "train & 0.png", moved / "valid" / "valid & 0.png")
    changed = shown(folder, tmp_path, moved)
    assert "valid/valid & 0.png" in changed and "have changed since the study" in changed


def _rewrite(folder: StudyFolder, data: dict[str, object]) -> None:
    """The same journal with other words in its first line's data."""
    events = list(read(folder.journal))
    folder.journal.unlink()
    journal = Journal(folder.journal)
    for event in events:
        if isinstance(event, ev.StudyOpened):
            event = ev.from_json(json.loads(json.dumps(ev.to_json(event) | {"data": {**event.data, **data}})))
        journal.append(event)
    journal.close()


def test_a_page_to_be_published_shows_no_part_of_the_images(carried: Callable[..., StudyFolder]) -> None:
    folder = carried("journal.jsonl", "results")
    assert command.main(["--root", str(folder.root), "--no-pictures"]) == 0
    found = Page(folder.report.read_text("utf-8"))
    assert "left out by --no-pictures" in found.sections["pictures"]
    assert {str(a["src"])[:14] for tag, a in found.starts if tag == "img"} == {"data:image/svg"}
    assert not list(folder.report.parent.rglob("scene*"))


def test_weights_that_are_not_the_journal_s_are_not_shown(
    carried: Callable[..., StudyFolder], state: StudyState, tmp_path: Path
) -> None:
    folder = carried("journal.jsonl", "trials", stores=True)
    best = state.best()
    assert best is not None
    other = next(n for n in state.candidates() if n.number != best.number)
    shutil.copy(folder.trial(other.number) / "weights.safetensors", folder.trial(best.number) / "weights.safetensors")
    assert f"not the weights of trial {best.number}" in shown(folder, tmp_path)


# Studies in every state


def test_a_study_that_only_opened_has_a_report(story: Callable[..., Any]) -> None:
    study = story()
    study.open()
    found = report(study.folder)
    assert "No answer yet: no trial of the search has finished." in found.sections["top"]
    assert "No trial has been proposed yet." in found.sections["ranking"]
    assert [s for s in found.sections if s != "top"] == SECTIONS


@pytest.mark.parametrize(
    ("reason", "word"),
    [("interrupted", "interrupted"), ("terminated", "interrupted"), ("timeout", "out of time"), ("failures", "failed")],
)
def test_a_study_that_stopped_says_so_first(story: Callable[..., Any], reason: str, word: str) -> None:
    study = story()
    study.open()
    study.session(trials=4)
    study.finish(study.propose(), 29.0)
    study.fail(study.propose(train__loss="l2"))
    study.end_session(reason)
    found = top(study.folder)
    assert re.search(rf"\?\s*{word}", found)
    assert "1 of 4 trials (1 finished, 1 failed)" in found


def test_a_study_that_died_and_one_that_runs_are_told_apart(story: Callable[..., Any]) -> None:
    study = story()
    study.open()
    study.session(trials=4)
    study.finish(study.propose(), 29.0)
    study.train(study.propose(train__loss="l2"), 28.5, points=1)
    folder: StudyFolder = study.folder
    died = top(folder)
    assert "crashed" in died
    assert "1 half done" in died
    with folder.lock():
        running = top(folder)
        assert "28.500" in ranking(record_of(folder, read(folder.journal), folder.owner())).body
    assert "This study is running" in running
    assert "1 running" in running


def test_a_paused_trial_is_shown_as_paused(story: Callable[..., Any]) -> None:
    study = story()
    study.open()
    study.session(trials=4)
    study.finish(study.propose(), 29.0)
    number = study.propose(train__loss="l2")
    patches = study.train(number, 28.5, points=2)
    study.tell(ev.Paused, trial=number, patches=patches)
    folder: StudyFolder = study.folder
    record = record_of(folder, read(folder.journal), None)
    assert "1 paused" in top(folder)
    numbers = course.history(record).files["figures/history.csv"].decode()
    assert [row["state"] for row in csv.DictReader(io.StringIO(numbers))] == ["finished", "paused"]
    assert "960 patches" in cost(record).body  # not trained by the paused one


def test_the_history_is_in_the_order_in_which_trials_ended(history: type[Any]) -> None:
    study = history(replace(QUICKSTART, references={}, replicates=0))
    study.session()
    first, second, third, fourth, fifth = (study.propose({}) for _ in range(5))
    for number in (first, second, third, fourth):
        study.start(number)
    study.validate(first, 31.0, 31.0, 31.0)  # the best one: proposed first, and slow
    study.validate(third, 25.0)
    study.pause(third)
    study.validate(second, 29.0, 29.0, 29.0, 29.0)
    study.end(second)
    study.validate(fourth, 20.0, 20.0)
    study.end(fourth, "pruned")
    study.validate(first, 31.0)
    study.end(first)
    study.start(fifth)
    study.validate(fifth, 28.0)
    section = course.history(record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None))
    rows = list(csv.DictReader(io.StringIO(section.files["figures/history.csv"].decode())))
    assert [(row["ended"], int(row["trial"]), row["best_so_far"]) for row in rows] == [
        ("1", third, ""), ("2", second, "29.0"), ("3", fourth, "29.0"), ("4", first, "31.0"), ("", fifth, "")
    ]  # fmt: skip
    assert "Trials under way or half done stand last" in section.body


def test_the_line_of_the_best_rises_where_the_best_trial_ended(
    history: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = history(replace(QUICKSTART, references={}, replicates=0))
    study.session()
    slow, fast = study.propose({}), study.propose({})
    for number, psnr in ((fast, 29.0), (slow, 31.0)):
        study.start(number)
        study.validate(number, *[psnr] * 4)
        study.end(number)
    figures: list[Any] = []
    monkeypatch.setattr(course, "draw_figure", lambda name, numbers, draw: figures.append(draw()))
    record = record_of(StudyFolder(Path("/nowhere"), "small"), study.events, None)
    course._history(record, record.searched)
    (axes,) = figures[0].axes
    (line,) = [line for line in axes.lines if line.get_label() == "best so far"]
    assert line.get_xydata().tolist() == [[1, 29.0], [2, 31.0]]
    assert axes.get_xlabel() == "trials of the search that had ended or paused"


def test_nothing_that_people_wrote_becomes_markup(story: Callable[..., Any]) -> None:
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(2)> $\\frac$ 漢字'
    study = story()
    study.open()
    study.session(trials=4)
    study.finish(study.propose(), 29.0)
    study.fail(study.propose(train__loss="l2"))
    folder: StudyFolder = study.folder
    study.close()
    events = list(read(folder.journal))
    folder.journal.unlink()
    journal = Journal(folder.journal)
    for event in events:
        plain = ev.to_json(event)
        if isinstance(event, ev.StudyOpened):
            plain |= {"text": hostile, "experiment": hostile, "data": {**plain["data"], "origin": hostile}}
        if isinstance(event, ev.SessionStarted):
            plain |= {"host": hostile, "provenance": {**plain["provenance"], "cpu": hostile}}
        if isinstance(event, ev.Proposed) and event.trial == 0:
            plain |= {"role": "reference", "name": hostile}
        journal.append(ev.from_json(plain))
    journal.append(ev.Warned(time=events[-1].time, message=hostile))
    journal.close()
    found = report(folder)
    assert hostile in found.text
    assert [tag for tag, _ in found.starts].count("script") == 1
    assert not [name for _, attributes in found.starts for name in attributes if name.startswith("on")]
    assert all(str(a["src"]).startswith("data:") for tag, a in found.starts if tag == "img")


# The command


def test_the_command_writes_where_it_is_told_and_says_what_to_do_next(
    trained: StudyFolder, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "cache", tmp_path / "out" / "cache")
    assert command.main(["--root", str(trained.root), "--out", str(tmp_path / "out")]) == 0
    page = tmp_path / "out" / "report.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"next: open {page.as_uri()} in a browser"
    assert page.read_bytes() == (made / "report.html").read_bytes()
    assert not (trained.path / "report").exists()


def test_files_that_no_report_wrote_stay_in_the_folder_and_its_own_stale_ones_go(
    trained: StudyFolder, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "notes"
    shutil.copytree(made, out)  # an earlier report, and what its user keeps in the same folder
    theirs = ("figures/thesis.png", "figures/measured.csv", "cache/my-scene.png", "cache/scene-of-2024.json",
              "cache/kernels-0123456789abcdef.txt", "cache/notes-0123456789abcdef.json", "mine.html")  # fmt: skip
    for name in theirs:
        (out / name).write_text("mine", "utf-8")
    (out / "cache" / "scene-0123456789abcdef.png").write_bytes(b"of a network that is gone")
    (out / "figures" / "scene-1-HR.png").write_bytes(b"retouched")
    scenes_before = {p.name for p in (out / "figures").glob("scene-*.png")}
    write_report(trained, read(trained.journal), out=out, show=False)
    assert [name for name in theirs if (out / name).read_text("utf-8") != "mine"] == []
    assert not (out / "cache" / "scene-0123456789abcdef.png").exists()
    assert len(scenes_before) > 5
    assert [p.name for p in (out / "figures").glob("scene-*.png")] == ["scene-1-HR.png"], "changed since: not ours"


def test_without_a_note_of_what_a_report_wrote_nothing_is_removed(tmp_path: Path) -> None:
    (tmp_path / "old.png").write_bytes(b"1")
    for note in (None, "{", "[1]", '"x"', '{"../old.png": "x"}'):
        if note is not None:
            (tmp_path / MANIFEST).write_text(note, "utf-8")
        remove_stale(tmp_path, {"new.png": b"2"})
        assert (tmp_path / "old.png").read_bytes() == b"1"
    assert list(json.loads((tmp_path / MANIFEST).read_text("utf-8"))) == ["new.png"]


def test_a_folder_that_cannot_be_written_is_one_line_and_status_2(
    trained: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert command.main(["--root", str(trained.root), "--out", str(tmp_path / "file")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "cannot be written" in error and "--out" in error


def test_the_blog_s_protocol_has_no_matrix_of_kernels(trained: StudyFolder, tmp_path: Path) -> None:
    record = record_of(trained, read(trained.journal), None)
    blog = replace(record.base, evaluation=replace(record.base.evaluation, protocol="blog"))
    record.__dict__["base"] = blog
    assert "Pillow's bicubic, whatever the kernel" in Page(kernels.kernels(record, None, Cache(tmp_path)).body).text
