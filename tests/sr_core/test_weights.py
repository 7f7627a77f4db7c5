"""Loading weight files into networks, and the messages for weights that do not fit."""

import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sr_core.config import ModelConfig, Scale
from sr_core.errors import CheckpointError
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.published import to_published
from sr_core.model.weights import load_exactly, load_model, read_weights, transfer

TINY = ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=2, reduction=4)


def network(scale: Scale = 2, *, config: ModelConfig = TINY, seed: int = 1) -> A2N:
    model = A2N(config, scale)
    initialise(model, seed)
    return model


def write_trial(folder: Path, network: A2N, /, **changed: Any) -> Path:
    save_file(network.state_dict(), folder / "weights.safetensors")
    config = {"model": asdict(network.config), "data": {"scale": network.scale}, "seed": 7} | changed
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "weights.safetensors"


def test_own_weights_come_back_bit_for_bit_in_eval_mode(tmp_path: Path) -> None:
    model = network(3, config=ModelConfig(n_feats=8, n_blocks=1, temperature=2.5, input_range=1))
    loaded = load_model(write_trial(tmp_path, model), 3)
    assert (loaded.config, loaded.scale, loaded.training) == (model.config, 3, False)
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in loaded.state_dict().items())


def test_reading_own_weights_gives_tensors_and_the_config_next_to_them(tmp_path: Path) -> None:
    state, config = read_weights(write_trial(tmp_path, network()))
    assert state.keys() == network().state_dict().keys()
    assert config is not None
    assert config["seed"] == 7


def test_released_weights_are_read_under_our_names(shared: Path) -> None:
    state, config = read_weights(shared / "data/weights/a2n_x3.pt")
    assert config is None
    load_exactly(A2N(ModelConfig(), 3), state, origin="a2n_x3.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_in_the_released_form_are_loaded(tmp_path: Path, zipped: bool) -> None:
    model = network(4)
    path = tmp_path / "x4.pt"
    torch.save(to_published(model.state_dict()), path, _use_new_zipfile_serialization=zipped)
    lr = torch.rand(1, 3, 6, 6)
    with torch.inference_mode():
        torch.testing.assert_close(load_model(path, 4)(lr), model(lr))
    message = r"x4\.pt: these released weights enlarge by 4, expected weights for scale 2"
    with pytest.raises(CheckpointError, match=message):
        load_model(path, 2)


def test_own_weights_of_another_scale_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: enlarges by 2 .*, expected weights for scale 3"):
        load_model(write_trial(tmp_path, network(2)), 3)


def test_a_mismatch_names_what_is_missing_unexpected_and_of_another_shape() -> None:
    model = network()
    state = network().state_dict()
    state = {name: t for name, t in state.items() if not name.startswith("blocks.1.")}
    state |= {"extra.bias": torch.zeros(3), "head.bias": torch.zeros(9)}
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_exactly(model, state, origin="run/weights.safetensors")
    assert str(caught.value) == (
        "run/weights.safetensors: the weights do not fit a network of 32 tensors: "
        "10 missing: blocks.1.enter.weight, blocks.1.branch_weights.squeeze.weight, "
        "blocks.1.branch_weights.score.weight, …; 1 unexpected: extra.bias; "
        "1 of another shape: head.bias (9,) for (8,)"
    )
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_x4_starts_from_all_of_x2_and_only_its_second_stage_is_fresh() -> None:
    x2 = network(2, seed=1)
    x4 = network(4, seed=2)
    fresh_values = {name: t.clone() for name, t in x4.state_dict().items()}
    report = transfer(x4, x2.state_dict())
    assert report.taken == tuple(x2.state_dict())
    second_stage = [f"tail.1.{layer}" for layer in ("enlarge", "gate", "refine")]
    assert report.fresh == tuple(f"{layer}.{kind}" for layer in second_stage for kind in ("weight", "bias"))
    assert all(torch.equal(x4.state_dict()[name], x2.state_dict()[name]) for name in report.taken)
    assert all(torch.equal(x4.state_dict()[name], fresh_values[name]) for name in report.fresh)


def test_a_tensor_of_another_shape_stays_fresh() -> None:
    report = transfer(network(config=ModelConfig(n_feats=8, n_blocks=2)), network().state_dict())
    assert "to_rgb.weight" in report.fresh  # 24 channels in, not 6
    assert "to_rgb.bias" in report.taken
    assert "blocks.1.leave.weight" in report.taken


def test_a_transfer_in_which_nothing_matches_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"none of the 1 given tensors \(body\.weight\)"):
        transfer(network(), {"body.weight": torch.zeros(1)})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("no.pt", "no.safetensors"):
        with pytest.raises(CheckpointError, match=rf"{name}: no such weights file"):
            load_model(tmp_path / name, 2)


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"weights\.onnx: expected weights as \.safetensors, or as released"):
        read_weights(tmp_path / "weights.onnx")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"folder\.pt: cannot read the weights \(Is a directory\)"):
        read_weights(tmp_path / "folder.pt")


@pytest.mark.parametrize("kept", [0, 7, 1000, -1])
def test_truncated_own_weights_are_named(tmp_path: Path, kept: int) -> None:
    path = write_trial(tmp_path, network())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: not a whole safetensors file"):
        read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 7, 1000, 5000, -1])
def test_truncated_released_weights_are_named(tmp_path: Path, kept: int, zipped: bool) -> None:
    path = tmp_path / "x2.pt"
    torch.save(to_published(network().state_dict()), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"x2\.pt: damaged, or holds more than tensors \(\w+\)"):
        read_weights(path)


class _Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.pt").write_bytes(pickle.dumps({"conv_first.weight": _Malicious()}, protocol=2))
    with pytest.raises(CheckpointError, match=r"bad\.pt: damaged, or holds more than tensors"):
        read_weights(Path("bad.pt"))
    assert not Path("executed").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"lr": 1e-3}, {0: torch.zeros(1)}])
def test_a_pickle_of_something_else_is_named(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: expected a dict of tensors by name"):
        read_weights(tmp_path / "other.pt")


def test_another_networks_released_weights_are_named(tmp_path: Path) -> None:
    torch.save({"body.0.weight": torch.zeros(1)}, tmp_path / "edsr.pt")
    with pytest.raises(CheckpointError, match=r"edsr\.pt: .*body\.0\.weight"):
        read_weights(tmp_path / "edsr.pt")
    with pytest.raises(CheckpointError, match=r"edsr\.pt: not released A2N weights: no tensor 'conv_first\.weight'"):
        load_model(tmp_path / "edsr.pt", 2)


def test_own_weights_need_the_config_next_to_them(tmp_path: Path) -> None:
    path = write_trial(tmp_path, network())
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: missing"):
        load_model(path, 2)
    for garbage in (b"{", b"\xff\xfe", b"[]", b'"x"'):
        (tmp_path / "config.json").write_bytes(garbage)
        with pytest.raises(CheckpointError, match=r"config\.json: (cannot be read as JSON|expected a JSON object)"):
            load_model(path, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": None}, '"model" must hold input_range, .*; got None'),
        ({"model": {"n_feats": 8}}, '"model" must hold .*; got n_feats'),
        ({"model": asdict(TINY) | {"temperature": 0}}, r"model\.temperature must be > 0"),
        ({"data": {}}, r"data\.scale must be one of 2, 3, 4; got None"),
        ({"data": {"scale": 8}}, r"data\.scale must be one of 2, 3, 4; got 8"),
        ({"model": asdict(TINY) | {"n_blocks": 3}}, r"weights\.safetensors: the weights do not fit .* 10 missing"),
    ],
)
def test_a_config_that_describes_no_such_network_is_named(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_model(write_trial(tmp_path, network(), **changed), 2)
