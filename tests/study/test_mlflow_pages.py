"""What MLflow's pages read: image series, tables, datasets, hardware, and the winner as a registered model."""

import base64
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import save_file

from sr_core.images.files import read_image
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from study.record.images import image_file
from study.tracking.databases import artifact_root, default_tracking_uri
from study.tracking.follow import sync
from study.tracking.mlflow import files as mlflow_files
from study.tracking.mlflow.registry import LIBRARIES, model_requirements
from study.tracking.mlflow.sink import MlflowSink

Tell = Callable[..., Any]
DOCS = Path(__file__).parents[2] / "docs" / "guides" / "mlflow.md"


@pytest.fixture
def shown(story: Tell, empty_store: Path) -> Any:
    """A whole study in an MLflow store. Its weights are those of a real network."""
    told = story()
    shutil.copy(empty_store, told.folder.root / "mlflow.db")
    told.whole()
    for number in (1, 4):
        config = told.state.trials[number].config
        network = A2N(config.model, config.data.scale)
        initialise(network, number)
        folder = told.folder.trial(number)
        save_file(network.state_dict(), folder / "weights.safetensors")
        (folder / "config.json").write_text(json.dumps(config.to_json()))
    show(told)
    return told


def show(told: Any) -> int:
    return sync(told.folder.journal, MlflowSink(default_tracking_uri(told.folder.root), told.folder))


def client_of(told: Any) -> MlflowClient:
    uri = default_tracking_uri(told.folder.root)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def run_named(told: Any, name: str) -> Any:
    client = client_of(told)
    experiment = client.get_experiment_by_name("small")
    (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return run


def files_of(told: Any, run: Any) -> dict[str, Path]:
    place = artifact_root(told.folder.root) / "small" / run.info.run_id / "artifacts"
    return {p.relative_to(place).as_posix(): p for p in sorted(place.rglob("*")) if p.is_file()}


def test_a_trial_s_images_are_a_series_as_mlflow_itself_writes_one(shown: Any) -> None:
    run, trial = run_named(shown, "trial 0001"), shown.state.trials[1]
    found = {name: path for name, path in files_of(shown, run).items() if name.startswith("images/")}
    moments = [(0, trial.proposed.time), *((point.patches, point.time) for point in trial.curve)]
    for patches, moment in moments:
        start = f"images/val~crop+step+{patches}+timestamp+{int(moment * 1000)}+"
        png, webp = sorted(name for name in found if name.startswith(start))[::-1]
        assert webp == png.replace(".png", "+compressed.webp")
        assert found[png].read_bytes() == image_file(shown.folder.trial(1), patches).read_bytes()
        assert found[webp].read_bytes()[8:12] == b"WEBP"
    assert len(found) == 2 * len(moments)
    assert run.data.tags["mlflow.loggedImages"] == "true"
    client = client_of(shown)
    client.log_image(run.info.run_id, np.zeros((8, 8, 3), np.uint8), key="val/crop", step=480)
    by_mlflow = [name for name in files_of(shown, run) if name.startswith("images/") and name not in found]
    pattern = "images/val~crop+step+480+timestamp+"
    assert all(name.startswith(pattern) for name in by_mlflow) and len(by_mlflow) == 2
    assert {name.rpartition("+")[2] for name in by_mlflow if name.endswith("webp")} == {"compressed.webp"}


def test_the_scores_of_each_image_are_a_table_that_mlflow_loads(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, client = run_named(shown, "trial 0001"), client_of(shown)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_tracking_uri(shown.folder.root))
    table = client.load_table(run.info.experiment_id, "per_image.json", run_ids=[run.info.run_id])
    assert table.to_dict("list") == {"picture": ["a"], "val/psnr": [30.0], "val/ssim": [0.8]}
    parent = run_named(shown, "small").info.run_id
    whole = client.load_table(run.info.experiment_id, "results/per_image.json", run_ids=[parent])
    assert whole.to_dict("records") == [{"set": "valid", "picture": "a", "psnr": 30.0, "ssim": 0.9}]


def test_a_table_says_in_words_what_json_cannot_hold() -> None:
    assert json.loads(mlflow_files.json_table(("a",), [(float("inf"),), (1.0,)]))["data"] == [["inf"], [1.0]]


def test_every_run_names_its_data_with_fingerprint_and_source(shown: Any) -> None:
    for name in ("small", "trial 0001"):
        inputs = run_named(shown, name).inputs.dataset_inputs
        found = {i.tags[0].value: i.dataset for i in inputs}
        assert set(found) == {"training", "validation"}
        assert {d.digest for d in found.values()} == {"cafe"}
        assert found["training"].source_type == "code"
        assert json.loads(found["training"].source) == {"tags": {"origin": "nowhere"}}
        assert json.loads(found["training"].profile) == {"pictures": 2, "names": ["a", "b"], "fingerprint": "cafe"}
        assert mlflow.data.get_source(found["training"]).to_dict() == {"tags": {"origin": "nowhere"}}


def test_tags_and_description_say_rank_slot_and_hardware(shown: Any) -> None:
    tags = run_named(shown, "trial 0001").data.tags
    assert (tags["study.rank"], tags["study.slot"], tags["study.hardware"]) == ("1", "0", "a fast one")
    assert tags["mlflow.note.content"] == "Rank 1 of 4 in small: 30.000 dB, +2.000 over bicubic after 1920 patches"
    assert run_named(shown, "trial 0002").data.tags["mlflow.note.content"].endswith("after 960 patches (pruned)")


def test_the_load_of_a_trial_s_device_is_drawn_over_patches(shown: Any) -> None:
    run = run_named(shown, "trial 0001")
    points = client_of(shown).get_metric_history(run.info.run_id, "system/memory_usage_megabytes")
    assert [(p.step, p.value) for p in points] == [(480 * i, 500.0) for i in (1, 2, 3, 4)]


# The winner


def test_the_winner_is_a_model_with_the_alias_champion_linked_to_run_and_data(shown: Any) -> None:
    client = client_of(shown)
    version = client.get_model_version_by_alias("small", "champion")
    run = run_named(shown, "trial 0001")
    assert (version.run_id, version.tags["study.trial"]) == (run.info.run_id, "1")
    assert run_named(shown, "small").data.tags["study.model_version"] == str(version.version)
    (made,) = run.outputs.model_outputs
    model = client.get_logged_model(made.model_id)
    assert model.status.name == "READY"
    assert model.params["model.temperature"] == "0.3"
    scores = {m.key: (m.value, m.dataset_name) for m in model.metrics}
    assert scores["valid/psnr"] == (30.0, "nowhere: validation")
    assert "valid/psnr_bicubic" not in scores


def test_the_champion_is_registered_once_and_follows_the_winner(shown: Any) -> None:
    client = client_of(shown)
    with closing(sqlite3.connect(shown.folder.root / "mlflow.db")) as connection, connection:
        connection.execute("DELETE FROM tags WHERE key = 'study.synced'")
    show(shown)
    assert len(client.search_model_versions("name = 'small'")) == 1
    shown.session(trials=5, epoch=2)
    shown.finish(shown.propose(model__temperature=3.0), 31.0)
    shown.conclude()
    shown.end_session("complete", epoch=2)
    show(shown)
    assert client.get_model_version_by_alias("small", "champion").tags["study.trial"] == "5"
    assert len(client.search_model_versions("name = 'small'")) == 2


@pytest.mark.slow
def test_the_champion_predicts_what_upscale_writes_wherever_the_root_is(shown: Any, tmp_path: Path) -> None:
    image = tmp_path / "given.png"
    noise = torch.randint(0, 256, (20, 28, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    PIL.Image.fromarray(noise.numpy()).save(image)
    weights = shown.folder.trial(1) / "weights.safetensors"
    command = [sys.executable, "-m", "sr_core.upscale", "--weights", weights, image, "--out", tmp_path / "made"]
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=120)
    shown.carry_to(tmp_path / "carried")
    show(shown)
    script = (
        "import mlflow, sys, pandas as pd; from pathlib import Path\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model('models:/small@champion')\n"
        "made = model.predict(pd.DataFrame({'picture': [Path(sys.argv[2]).read_bytes()]}))\n"
        "Path(sys.argv[3]).write_bytes(made['picture'][0])\n"
        "import sr_core; print(sr_core.__file__)\n"
    )
    uri, made = default_tracking_uri(shown.folder.root), tmp_path / "served.png"
    arguments = [sys.executable, "-c", script, uri, str(image), str(made)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(read_image(made), read_image(tmp_path / "made" / "given_x2.png"))
    assert "carried/artifacts/small/models/" in done.stdout, "the model runs its own copy of the code"


@pytest.mark.long
def test_the_champion_that_mlflow_serves_answers_a_photograph_with_the_pixels_of_upscale(
    shown: Any, tmp_path: Path
) -> None:
    image, weights = tmp_path / "cat.png", shown.folder.trial(1) / "weights.safetensors"
    PIL.Image.fromarray(skimage.data.cat()[60:140, 100:220]).save(image)
    command = [sys.executable, "-m", "sr_core.upscale", "--weights", weights, image, "--out", tmp_path / "made"]
    subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=300)
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"MLFLOW_TRACKING_URI": default_tracking_uri(shown.folder.root), "PATH": programs}
    served = ["mlflow", "models", "serve", "-m", "models:/small@champion", "--env-manager", "local", "-p", port]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            served, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            answer = ask_when_up(f"http://127.0.0.1:{port}", image.read_bytes(), server, tmp_path / "log")
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(30)
    (tmp_path / "served.png").write_bytes(answer)
    assert np.array_equal(read_image(tmp_path / "served.png"), read_image(tmp_path / "made" / "cat_x2.png"))


def ask_when_up(address: str, image: bytes, server: "subprocess.Popen[bytes]", log: Path) -> bytes:
    """Returns a model server's answer to an image file, once the server is ready."""
    deadline = time.monotonic() + 300
    while True:
        try:
            urllib.request.urlopen(f"{address}/ping", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
    body = json.dumps({"dataframe_records": [{"picture": base64.b64encode(image).decode()}]}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        (made,) = json.load(answer)["predictions"]
    return base64.b64decode(made["picture"])


def test_a_deleted_store_gives_the_same_data_model_alias_and_views_again(shown: Any, empty_store: Path) -> None:
    before = outside_the_runs(shown)
    for path in shown.folder.root.glob("mlflow.db*"):
        path.unlink()
    shutil.rmtree(artifact_root(shown.folder.root))
    shutil.copy(empty_store, shown.folder.root / "mlflow.db")
    show(shown)
    assert outside_the_runs(shown) == before
    assert before["version"]["aliases"] == ["champion"] and len(before["data"]) == 6


def outside_the_runs(told: Any) -> dict[str, Any]:
    """Returns what a store holds of a study except params, metrics, tags and files of runs, ids and MLflow's times."""
    client = client_of(told)
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id])
    version = client.get_model_version_by_alias("small", "champion")
    (made,) = client.get_run(version.run_id).outputs.model_outputs
    model = client.get_logged_model(made.model_id)
    folder = Path(model.artifact_location.removeprefix("file://"))
    return {
        "experiment": experiment.tags,
        "data": {
            run.info.run_name: [
                (d.dataset.to_dictionary(), [tag.value for tag in d.tags]) for d in run.inputs.dataset_inputs
            ]
            for run in runs
        },
        "version": {
            "number": version.version,
            "tags": version.tags,
            "description": version.description,
            "aliases": version.aliases,
            "run": client.get_run(version.run_id).info.run_name,
        },
        "model": {
            "params": model.params,
            "tags": {key: value for key, value in model.tags.items() if key.startswith("study.")},
            "metrics": sorted((m.key, m.step, m.value, m.timestamp, m.dataset_name) for m in model.metrics),
            "weights": (folder / "artifacts" / "network" / "weights.safetensors").read_bytes(),
            "requirements": (folder / "requirements.txt").read_text(),
        },
    }


def test_the_model_s_requirements_are_what_it_imports(shown: Any) -> None:
    assert model_requirements(["H5Py==3.0.1", "torch==2.13.0+cpu"])[-1] == "h5py==3.0.1"
    assert "torch==2.13.0" in model_requirements(["torch==2.13.0+cpu"])
    script = "import sys, sr_core.model.enlarge, sr_core.model.weights; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    imported = {"PIL": "pillow", "cv2": "opencv-python-headless", "skimage": "scikit-image"}
    third = {"torch", "numpy", "h5py", "safetensors", "PIL", "cv2", "skimage", "scipy", "pandas", "mlflow", "optuna"}
    assert {imported.get(name, name) for name in loaded & third} <= set(LIBRARIES)


def test_a_winner_whose_weights_are_gone_is_no_model_and_no_failure(story: Tell, empty_store: Path) -> None:
    told = story()
    shutil.copy(empty_store, told.folder.root / "mlflow.db")
    told.whole()
    (told.folder.trial(1) / "weights.safetensors").unlink()
    show(told)
    assert client_of(told).search_registered_models() == []
    assert run_named(told, "small").data.tags["study.best"] == "1"


# The filters of docs/guides/mlflow.md

FILTERS = dict(re.findall(r"^\| ([^|]+) \| `` (.+) `` \|$", DOCS.read_text("utf-8"), re.M))
FOUND = {
    "finished trials of this study": {"reference: authors", "trial 0001", "trial 0004"},
    "the first of its ranking": {"trial 0001"},
    "the literature's settings": {"reference: authors"},
    "the winner's fresh seeds": set[str](),
    "what beat bicubic by more than half a decibel": {"reference: authors", "trial 0001", "trial 0004"},
    "one loss at one temperature": {"trial 0002", "trial 0004"},
    "what failed": {"trial 0003"},
    "studies, without their trials": {"small"},
}


def test_every_documented_filter_finds_what_it_says(shown: Any) -> None:
    assert set(FILTERS) == set(FOUND)
    client = client_of(shown)
    experiments = [client.get_experiment_by_name("small").experiment_id]
    base = shown.state.trials[4].config
    values = {"'l1'": f"'{base.train.loss}'", "'1.0'": f"'{base.model.temperature}'"}
    for what, text in FILTERS.items():
        query = text.replace("'quickstart'", "'small'")
        for written, value in values.items():
            query = query.replace(written, value)
        names = {run.info.run_name for run in client.search_runs(experiments, query)}
        assert names == FOUND[what], what
