"""A published record: its content, the commands that read it, and that no command changes it."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sr_core.errors import SuiteError
from study.record import events as ev
from study.record.folder import StudyFolder, recorded
from study.record.journal import Journal, compressed, encode, read
from study.record.publication import publish
from study.record.state import fold
from study.record.tail import Tail


@pytest.fixture
def told(story: Callable[..., Any]) -> Any:
    """A small study, complete, with results."""
    told = story("small").whole()
    told.close()
    return told


def files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_it_holds_the_journal_and_the_tables_and_no_image_and_no_weights(told: Any, tmp_path: Path) -> None:
    lines = publish(told.folder, tmp_path / "records")
    assert files_of(tmp_path / "records") == [
        "small/journal.jsonl.gz", "small/results/best/config.json", "small/results/ranking.csv",
    ]  # fmt: skip
    there = StudyFolder(tmp_path / "records", "small")
    assert fold(read(there.require().journal)) == told.state
    assert lines[0].startswith(f"published {told.state.count} events of study small in {there.path}: 3 files, ")
    assert lines[-1] == f"next: python -m study.reproduce best --root {tmp_path / 'records'} --study-name small"


def test_published_again_it_is_the_same_bytes_and_a_longer_record_takes_its_place(told: Any, tmp_path: Path) -> None:
    publish(told.folder, tmp_path / "records")
    packed = tmp_path / "records" / "small" / "journal.jsonl.gz"
    before = packed.read_bytes()
    publish(told.folder, tmp_path / "records")
    assert packed.read_bytes() == before
    journal = Journal(told.folder.journal)
    journal.append(ev.Warned(time=1.0, message="one more"))
    journal.close()
    publish(told.folder, tmp_path / "records")
    assert len(list(read(packed))) == told.state.count + 1
    told.folder.journal.write_bytes(b"".join(encode(n, e) for n, e in enumerate(list(read(packed))[:-1])))
    with pytest.raises(SuiteError, match=f"has {told.state.count + 1} events, this study only {told.state.count}"):
        publish(told.folder, tmp_path / "records")


def test_a_record_that_names_files_elsewhere_has_them_neither_read_nor_written(told: Any, tmp_path: Path) -> None:
    secret = told.folder.root / "secret.json"
    secret.write_text("{}")
    with told.folder.journal.open("ab") as journal:  # the checksums are no secret: anybody can write such a line
        forged = replace(told.state.concluded, files=("../secret.json", str(secret)))
        journal.write(encode(told.state.count, forged))
    publish(told.folder, tmp_path / "out" / "records")
    assert "secret.json" not in [path.name for path in (tmp_path / "out").rglob("*")]


def test_another_study_of_the_name_and_a_study_that_goes_on_are_not_written_over(
    told: Any, story: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(SuiteError, match="the study's own --root"):
        publish(told.folder, told.folder.root)
    live = StudyFolder(tmp_path / "live", "small")
    live.create()
    live.journal.write_bytes(encode(0, next(read(told.folder.journal))))
    with pytest.raises(SuiteError, match="this folder holds an unpublished study"):
        publish(told.folder, tmp_path / "live")
    publish(told.folder, tmp_path / "records")
    live.journal.write_bytes(encode(0, replace(told.state.opened, text="Another?")))
    with pytest.raises(SuiteError, match="another study of this name"):
        publish(live, tmp_path / "records")


def test_a_view_follows_a_compressed_journal_as_any_other(told: Any, tmp_path: Path) -> None:
    publish(told.folder, tmp_path / "records")
    tail = Tail(StudyFolder(tmp_path / "records", "small").journal)
    while tail.read(3):
        pass
    assert tail.state == told.state


def test_longer_trainings_are_published_with_their_study(told: Any, tmp_path: Path) -> None:
    training = StudyFolder(told.folder.root, "small", "0001-960")
    training.create()
    training.journal.write_bytes(told.folder.journal.read_bytes())
    publish(told.folder, tmp_path / "records")
    there = StudyFolder(tmp_path / "records", "small")
    assert [t.training for t in there.trainings()] == ["0001-960"]
    assert fold(read(there.trainings()[0].journal)) == told.state
    with pytest.raises(SuiteError, match=r"a published record is read-only; .*gunzip journal\.jsonl\.gz"):
        there.trainings()[0].require_unpublished()


def test_a_journal_beside_the_compressed_one_is_the_record(told: Any, tmp_path: Path) -> None:
    publish(told.folder, tmp_path / "records")
    there = StudyFolder(tmp_path / "records", "small")
    assert (there.published, there.journal.name) == (True, "journal.jsonl.gz")
    (there.path / "journal.jsonl").write_bytes(told.folder.journal.read_bytes())
    assert (there.published, there.journal.name) == (False, "journal.jsonl")
    there.require_unpublished()
    assert recorded(there.root) == ["small"]


def test_the_journal_of_sixty_trials_takes_less_than_two_megabytes(tmp_path: Path, history: Any) -> None:
    from experiments.quickstart import EXPERIMENT

    random_ = random.Random(1)
    told = history(EXPERIMENT)
    told.session(60)
    for _ in range(60):
        number = told.propose({"model.temperature": 0.3})
        told.start(number)
        for k in range(1, 21):  # of scores that no compressor foresees
            scores = {"val/psnr": 30 + random_.random(), "val/ssim": random_.random()}
            seconds = {name: random_.random() for name in ("start-up", "steps", "validations", "recording")}
            rest = {"loss": random_.random(), "learning_rate": 1e-3, "load": {"memory": random_.random()}}
            told.tell(ev.Validated, trial=number, patches=480 * k, scores=scores, seconds=seconds, **rest)
        crops = tuple((f"image {i}", 30 + random_.random(), random_.random()) for i in range(20))
        told.tell(
            ev.Finished, trial=number, patches=9_600, scores=scores, per_image=crops,
            weights=random_.randbytes(32).hex(), seconds=seconds,
        )  # fmt: skip
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join(encode(n, event) for n, event in enumerate(told.events)))
    assert path.stat().st_size > 500_000
    assert len(compressed(path)) < 500_000
