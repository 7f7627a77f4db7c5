"""experiments.carry: which files of a recorded study come along."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.carry import main
from study.record import events as ev


@pytest.fixture
def carried(tmp_path: Path) -> Callable[..., set[str]]:
    """Carries a study and returns the files that arrived, by their names in its folder."""

    def carry(study: Any, *more: str) -> set[str]:
        study.close()
        to, folder = tmp_path / "there", study.folder
        assert main(["--root", str(folder.root), "--study-name", folder.study, "--to", str(to), *more]) == 0
        found = {p.relative_to(to / folder.study).as_posix() for p in to.rglob("*") if p.is_file()}
        for name in found:
            assert (to / folder.study / name).read_bytes() == (folder.path / name).read_bytes()
        return found

    return carry


def concluded(study: Any, *files: str) -> None:
    """Its end, with results of these names."""
    told = {"scores": {}, "per_image": ()}
    study.tell(ev.Concluded, best=0, counted=1, files=files, **told)


def test_the_results_of_a_concluded_study_come_along_for_nobody_writes_them_again(
    story: Callable[..., Any], carried: Callable[..., set[str]]
) -> None:
    study = story().whole()
    study.folder.changes(1).parent.mkdir()
    study.folder.changes(1).write_text("a change")
    assert carried(study) == {
        "journal.jsonl",
        "results/ranking.csv",
        "results/best/config.json",
        "sessions/0001.patch",
        "trials/0001/weights.safetensors",
    }


def test_those_of_a_longer_training_too(story: Callable[..., Any], carried: Callable[..., set[str]]) -> None:
    study = story()
    study.open()
    training = type(study)(replace(study.folder, training="0000-9600"))
    training.open()
    training.folder.results.mkdir()
    (training.folder.results / "ranking.csv").write_text("rank")
    concluded(training, "results/ranking.csv", "results/deleted_since.png")
    training.close()
    assert carried(study) == {
        "journal.jsonl",
        "trainings/0000-9600/journal.jsonl",
        "trainings/0000-9600/results/ranking.csv",
    }


def test_the_base_s_weights_of_every_seed_come_along_where_they_are_asked_for(
    story: Callable[..., Any], carried: Callable[..., set[str]]
) -> None:
    study = story()
    study.open()
    study.fail(study.propose("blog"))
    study.finish(study.propose("authors"), 31.0)
    study.finish(study.propose(), 30.0)
    for seed in (1, 2):
        of_base = study.state.trials[2].proposed
        study.tell(ev.Proposed, **{
            name: getattr(of_base, name) for name in ("config", "config_hash", "values")
        }, trial=2 + seed, role="replicate", name="finalist 1", of=2, replicate=seed)  # fmt: skip
        study.finish(2 + seed, 30.0)
        (study.folder.trial(2 + seed) / "config.json").write_text("{}")
    weights = {f"trials/000{number}/weights.safetensors" for number in (2, 3, 4)}
    configs = {f"trials/000{number}/config.json" for number in (3, 4)}
    assert carried(study, "--every-seed") == {"journal.jsonl"} | weights | configs


@pytest.mark.parametrize("name", ["../other/journal.jsonl", "{tmp}/secret", "results/link/secret"])
def test_a_result_outside_of_the_study_is_refused(
    story: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "secret").write_text("nobody else's business")
    study = story()
    study.open()
    study.folder.results.mkdir()
    (study.folder.results / "link").symlink_to(tmp_path)
    concluded(study, name.format(tmp=tmp_path))
    assert main(["--root", str(study.folder.root), "--to", str(tmp_path / "there")]) == 2
    assert f"names {name.format(tmp=tmp_path)!r} among its results, which is outside of" in capsys.readouterr().err
    assert not (tmp_path / "there").exists()
