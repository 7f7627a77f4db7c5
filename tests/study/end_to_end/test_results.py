"""What people take away: tables, images, the winner's weights, and the same in MLflow and Optuna."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from study import results
from study.question.config import TrialConfig

# The tables


def test_trials_are_listed_in_the_order_of_the_ranking_then_those_that_failed(story: Callable[..., Any]) -> None:
    table = results.trials(story().whole().state)
    assert list(table["trial"]) == [1, 4, 0, 2, 3]
    assert list(table["state"]) == ["finished", "finished", "finished", "pruned", "failed"]
    assert list(table["rank"][:3]) == [1, 2, 3] and table["rank"][3:].isna().all()
    assert list(table["val/psnr_gain_over_bicubic"][:3]) == pytest.approx([2.0, 1.5, 1.0])
    assert list(table["name"]) == ["", "", "authors", "", ""]
    assert table.set_index("trial").loc[1, "model.temperature"] == 0.3
    assert np.isnan(table.set_index("trial").loc[3, "val/psnr"])


def test_every_hyperparameter_is_a_column_under_its_dotted_name(story: Callable[..., Any]) -> None:
    table = results.trials(story().whole().state)
    assert set(TrialConfig().dotted()) <= set(table.columns)


def test_curves_have_one_row_for_each_validation_of_every_trial(story: Callable[..., Any]) -> None:
    state = story().whole().state
    curves = results.curves(state)
    assert len(curves) == sum(len(trial.curve) for trial in state.trials.values())
    assert list(curves[curves["trial"] == 2]["patches"]) == [480, 960]
    assert set(curves[curves["trial"] == 2]["state"]) == {"pruned"}


def test_a_study_without_any_validation_has_empty_curves_with_their_columns(story: Callable[..., Any]) -> None:
    told = story()
    told.open()
    assert list(results.curves(told.state).columns)[:4] == ["trial", "name", "state", "patches"]
    assert len(results.curves(told.state)) == 0


# The files


def test_the_ranking_on_disk_is_the_ranking(finished: Any) -> None:
    table = pd.read_csv(finished.folder.results / "ranking.csv")
    assert list(table["trial"]) == [trial.number for trial in finished.state.ranking()]
    assert len(table) == 7
    assert list(table["val/psnr"]) == [trial.score for trial in finished.state.ranking()], "every digit"
    assert list(table.columns[:4]) == ["rank", "trial", "name", "state"]


@pytest.mark.parametrize("name", ["curves.png", "comparison.png"])
def test_images_open_and_are_no_blank_sheets(name: str, finished: Any) -> None:
    with Image.open(finished.folder.results / name) as image:
        assert image.format == "PNG"
        assert min(image.size) > 500
        assert len(image.convert("L").getcolors()) > 20


def test_the_winners_weights_and_config_are_the_best_trials(finished: Any) -> None:
    from sr_core.model.weights import load_model
    from sr_core.training.checkpoint import digest_of, weights_of

    best, folder = finished.state.best(), finished.folder.results / "best"
    model = load_model(folder / "weights.safetensors", best.config.data.scale)
    assert digest_of(weights_of(model)) == best.end.weights
    stored = TrialConfig.from_json(json.loads((folder / "config.json").read_text()))
    assert stored.digest() == best.proposed.config_hash
    assert set(finished.state.concluded.files) == {
        f"results/{path.relative_to(finished.folder.results).as_posix()}"
        for path in finished.folder.results.rglob("*")
        if path.is_file()
    }


def test_the_evaluate_command_finds_the_scores_that_the_study_printed(finished: Any, tiny: Any, commands: Any) -> None:
    scores = finished.state.concluded.scores
    for weights, suffix in ((finished.folder.results / "best" / "weights.safetensors", ""), ("bicubic", "_bicubic")):
        argv = ("--weights", weights, "--benchmark", tiny.data / "valid", "--scale", 2, "--json")
        ended = commands.run("sr_core.evaluate", *argv)
        assert (ended.status, ended.err) == (0, "")
        found = json.loads(ended.out)
        assert found["mean"]["psnr"] == pytest.approx(scores[f"valid/psnr{suffix}"], abs=1e-9)
        assert found["mean"]["ssim"] == pytest.approx(scores[f"valid/ssim{suffix}"], abs=1e-9)
        assert f"{found['mean']['psnr']:.3f}" in finished.ended.out


def test_each_trials_folder_holds_its_complete_config(finished: Any) -> None:
    for number, trial in finished.state.trials.items():
        stored = json.loads((finished.folder.trial(number) / "config.json").read_text())
        assert TrialConfig.from_json(stored).digest() == trial.proposed.config_hash


# The views


@pytest.fixture
def mlflow_runs(finished_copy: Any) -> tuple[MlflowClient, dict[str, Any]]:
    """A client, and the study's runs by trial number, "" for the study's own."""
    uri = f"sqlite:///{finished_copy.root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(runs) == 8
    return client, {run.data.tags.get("study.trial", ""): run for run in runs}


def test_mlflow_shows_one_parent_with_every_trial_below_it_and_nothing_running(mlflow_runs: Any) -> None:
    _, runs = mlflow_runs
    assert set(runs) == {"", *map(str, range(7))}
    assert {run.data.tags["mlflow.parentRunId"] for key, run in runs.items() if key} == {runs[""].info.run_id}
    assert "mlflow.parentRunId" not in runs[""].data.tags
    assert runs[""].info.status == "FINISHED"
    assert {run.info.status for run in runs.values()} == {"FINISHED", "KILLED"}
    assert runs["3"].info.status == "KILLED", "the pruned one"


def test_mlflow_has_parameters_under_dotted_names_and_curves_over_patches(finished: Any, mlflow_runs: Any) -> None:
    client, runs = mlflow_runs
    for number, trial in finished.state.trials.items():
        run = runs[str(number)]
        dotted = trial.config.dotted()
        assert {name: run.data.params[name] for name in dotted} == {name: str(value) for name, value in dotted.items()}
        for key in ("val/psnr", "val/ssim"):
            points = client.get_metric_history(run.info.run_id, key)
            assert [(p.step, p.value) for p in points] == [(p.patches, p.scores[key]) for p in trial.curve]
        losses = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(p.step, p.value) for p in losses] == [(p.patches, p.loss) for p in trial.curve]


def test_mlflow_holds_the_results_and_the_weights_byte_for_byte(
    finished: Any, mlflow_runs: Any, tmp_path: Path
) -> None:
    client, runs = mlflow_runs
    for name in finished.state.concluded.files:
        path = client.download_artifacts(runs[""].info.run_id, name, str(tmp_path))
        assert Path(path).read_bytes() == (finished.folder.path / name).read_bytes()
    path = client.download_artifacts(runs["6"].info.run_id, "weights.safetensors", str(tmp_path))
    assert Path(path).read_bytes() == (finished.folder.trial(6) / "weights.safetensors").read_bytes()


def test_optuna_shows_every_trial_with_its_curve_and_nothing_running(finished: Any, finished_copy: Any) -> None:
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{finished_copy.root / 'optuna.db'}")
    shown = {trial.user_attrs["study.trial"]: trial for trial in study.get_trials()}
    assert set(shown) == set(range(7))
    for number, trial in finished.state.trials.items():
        assert shown[number].state.name == {"finished": "COMPLETE", "pruned": "PRUNED"}[trial.status]
        assert shown[number].intermediate_values == {p.patches: p.scores["val/psnr"] for p in trial.curve}
        assert shown[number].value == trial.score
    assert study.best_trial.user_attrs["study.trial"] == finished.state.best().number
