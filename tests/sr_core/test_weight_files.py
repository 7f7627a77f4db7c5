"""Weight files with NaN, from other training tools, or without weights."""

import argparse
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_core.config import ModelConfig, Scale
from sr_core.errors import CheckpointError
from sr_core.evaluate import main as evaluate
from sr_core.images.files import read_image, write_png
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.published import to_published
from sr_core.model.weights import load_exactly, load_model, read_weights, transfer
from sr_core.upscale import main as upscale

RELEASED = ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=2, reduction=4, temperature=30.0, input_range=255)


def network(scale: Scale = 2, seed: int = 1) -> A2N:
    model = A2N(RELEASED, scale)
    initialise(model, seed)
    return model


def released(seed: int = 1) -> dict[str, Tensor]:
    return to_published(network(seed=seed).state_dict())


def own(folder: Path, state: dict[str, Tensor]) -> Path:
    """The weights of a trial, next to their config."""
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "weights.safetensors")
    config = {"model": asdict(RELEASED), "data": {"scale": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "weights.safetensors"


def spoiled(value: float) -> dict[str, Tensor]:
    """Our weights with three values of one tensor replaced."""
    state = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    state["blocks.1.enter.weight"].view(-1)[3:6] = value
    return state


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b"):
        write_png(folder / f"{name}.png", np.random.default_rng(3).integers(0, 256, (32, 36, 3), dtype=np.uint8))
    return folder


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


# NaN and infinity


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named_with_file_and_tensor(tmp_path: Path, value: float) -> None:
    in_released = tmp_path / "x2.pth"
    torch.save(to_published(spoiled(value)), in_released)
    message = r"3 of \d+ values of tensor .*1\.\w+\.weight are NaN or infinite"
    for path in (own(tmp_path / "trial", spoiled(value)), in_released):
        with pytest.raises(CheckpointError, match=f"{path.name}: {message}"):
            load_model(path, 2)
        with pytest.raises(CheckpointError, match=f"{path.name}: {message}"):
            read_weights(path)
    with pytest.raises(CheckpointError, match=f"memory: {message}"):
        load_exactly(network(), spoiled(value), origin="memory")
    model = network(seed=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        transfer(model, spoiled(value))
    assert equal(model.state_dict(), before)


def test_commands_refuse_weights_that_are_not_finite_in_one_line(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(own(tmp_path / "trial", spoiled(float("nan"))))
    commands = (
        lambda: evaluate(["--weights", path, "--benchmark", str(images), "--scale", "2", "--json"]),
        lambda: upscale([str(images), "--weights", path, "--out", str(tmp_path / "out")]),
    )
    for command in commands:
        status = command()
        printed = capsys.readouterr()
        assert (status, printed.out, printed.err.count("\n")) == (2, "", 1)
        assert "blocks.1.enter.weight are NaN or infinite" in printed.err
    assert not (tmp_path / "out").exists()


def overflowing() -> dict[str, Tensor]:
    """Finite weights whose products overflow."""
    return {name: torch.full_like(tensor, 1e25) for name, tensor in network().state_dict().items()}


def test_finite_weights_that_overflow_are_refused_by_image_and_no_image_is_written(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(own(tmp_path / "trial", overflowing()))
    assert evaluate(["--weights", path, "--benchmark", str(images), "--scale", "2", "--json"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "a.png: " in printed.err and "NaN or infinite" in printed.err
    assert upscale([str(images), "--weights", path, "--out", str(tmp_path / "out"), "--precision", "bf16"]) == 2
    printed = capsys.readouterr()
    assert [name in line for name, line in zip(("a.png", "b.png"), printed.err.splitlines(), strict=True)] == [True] * 2
    assert "--precision fp32" in printed.err
    assert "0 enlarged" in printed.out
    assert list((tmp_path / "out").iterdir()) == []


def test_a_mean_over_an_exact_image_is_finite_and_the_image_stays_infinite(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(images / "flat.png", np.full((32, 32, 3), 128, dtype=np.uint8))
    command = ["--weights", "bicubic", "--benchmark", str(images), "--scale", "2", "--csv", str(tmp_path / "s.csv")]
    assert evaluate([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    scores = {row["name"]: row["psnr"] for row in printed["images"]}
    assert scores["flat"] is None
    assert printed["mean"]["psnr"] == pytest.approx((scores["a"] + scores["b"] + 100) / 3)
    assert "flat,inf,1.0" in (tmp_path / "s.csv").read_text()


# Number types


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_types_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in released().items()}
    torch.save(state, tmp_path / "x2.pth")
    tensors, _ = read_weights(tmp_path / "x2.pth")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert equal(to_published(tensors), {name: tensor.float() for name, tensor in state.items()})
    assert next(load_model(tmp_path / "x2.pth", 2).parameters()).dtype == torch.float32


def test_float64_beyond_float32_is_refused_like_infinity(tmp_path: Path) -> None:
    state = {name: tensor.double() for name, tensor in released().items()}
    state["conv_first.bias"][0] = 1e300
    torch.save(state, tmp_path / "x2.pth")
    with pytest.raises(CheckpointError, match=r"1 of 8 values of tensor conv_first\.bias are NaN or infinite"):
        read_weights(tmp_path / "x2.pth")


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.zeros(8, dtype=torch.int8), "int8"),
        (torch.zeros(8, dtype=torch.complex64), "complex64"),
        (torch.zeros(8, dtype=torch.bool), "bool"),
        (torch.zeros(8).to_sparse(), "float32 sparse_coo"),
    ],
)
def test_other_types_are_refused_by_tensor(tmp_path: Path, tensor: Tensor, kind: str) -> None:
    torch.save(released() | {"conv_first.bias": tensor}, tmp_path / "x2.pth")
    with pytest.raises(CheckpointError, match=rf"x2\.pth: tensor conv_first\.bias holds {kind} values"):
        load_model(tmp_path / "x2.pth", 2)


# Other trainers' checkpoints


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def optimiser() -> dict[str, Any]:
    return {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}


WRAPPED: dict[str, tuple[Callable[[dict[str, Tensor], dict[str, Tensor]], Any], str]] = {
    "DataParallel": (lambda best, other: prefixed("module.", best), "prefix 'module.'"),
    "compiled": (lambda best, other: prefixed("_orig_mod.", best), "prefix '_orig_mod.'"),
    "BasicSR, both": (lambda best, other: {"params": other, "params_ema": best}, "params_ema, not those under params"),
    "BasicSR, one": (lambda best, other: {"params": best}, "under params"),
    "torch tutorial": (
        lambda best, other: {"epoch": 3, "model_state_dict": best, "optimizer_state_dict": optimiser(), "loss": 0.1},
        "under model_state_dict",
    ),
    "Lightning": (
        lambda best, other: {
            "state_dict": prefixed("model.", best) | {"loss.vgg.conv.weight": torch.zeros(2)},
            "optimizer_states": [optimiser()],
            "epoch": 7,
        },
        "'model.' of their names and left out 1 tensor",
    ),
    "Lightning, net_g": (lambda best, other: {"state_dict": prefixed("net_g.", best)}, "prefix 'net_g.'"),
    "Lightning, EMA": (
        lambda best, other: {"state_dict": prefixed("net_g.", other) | prefixed("net_g_ema.", best)},
        "prefix 'net_g_ema.'",
    ),
    "MMEditing": (lambda best, other: {"meta": {}, "state_dict": prefixed("generator.", best)}, "prefix 'generator.'"),
    "averaged by torch": (
        lambda best, other: prefixed("module.", best) | {"n_averaged": torch.tensor(9)},
        "left out 1 tensor",
    ),
    "GAN": (
        lambda best, other: {"generator": best, "discriminator": {"conv_first.weight": torch.ones(1)}},
        "generator",
    ),
    "model": (lambda best, other: {"model": best, "optimizer": optimiser(), "args": {"lr": 1e-3}}, "under model"),
    "net": (lambda best, other: {"net": prefixed("module.", best), "acc": 1.0}, "under net; removed the prefix"),
    "nested": (lambda best, other: {"state": 1, "model": {"state_dict": best}}, "under model / state_dict"),
}


@pytest.mark.parametrize("trainer", WRAPPED)
def test_an_a2n_in_a_checkpoint_of_another_tool_is_unwrapped_and_one_line_says_so(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], trainer: str
) -> None:
    wrap, message = WRAPPED[trainer]
    path = tmp_path / "net.ckpt"
    torch.save(wrap(released(1), released(2)), path)
    notes: list[str] = []
    tensors, _ = read_weights(path, note=notes.append)
    assert equal(to_published(tensors), released(1))
    assert len(notes) == 1
    assert message in notes[0]
    assert evaluate(["--weights", str(path), "--benchmark", str(images), "--scale", "2", "--json"]) == 0
    assert capsys.readouterr().err == f"note: {notes[0]}\n"


def test_plain_weights_need_no_note(tmp_path: Path) -> None:
    notes: list[str] = []
    torch.save(released() | {"epoch": 5}, tmp_path / "x2.pth")
    load_model(tmp_path / "x2.pth", 2, note=notes.append)
    load_model(own(tmp_path / "trial", network().state_dict()), 2, note=notes.append)
    assert notes == []


def test_content_decides_what_a_file_is(tmp_path: Path) -> None:
    save_file(released(), tmp_path / "really_safetensors.pth")
    torch.save(released(), tmp_path / "really_torch.safetensors")
    save_file(prefixed("module.", released()), tmp_path / "released.safetensors")
    for name in ("really_safetensors.pth", "really_torch.safetensors", "released.safetensors"):
        state, config = read_weights(tmp_path / name)
        assert config is None
        assert equal(to_published(state), released())
        assert load_model(tmp_path / name, 2).scale == 2


def test_our_weights_saved_by_torch_are_loaded_with_the_config_next_to_them(tmp_path: Path) -> None:
    path = own(tmp_path / "trial", network().state_dict())
    torch.save({"state_dict": network().state_dict()}, path.with_suffix(".pth"))
    assert equal(load_model(path.with_suffix(".pth"), None).state_dict(), network().state_dict())
    (tmp_path / "trial/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: missing"):
        load_model(path.with_suffix(".pth"), None)


# Files without an A2N


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("IMDN_x2.pth", "module.fea_conv.weight"),
        ("net_g_BSRN_x4.pth", "fea_conv.pw.weight"),
        ("carn_m.pth", "sub_mean.shifter.weight"),
        ("PANx3_DF2K.pth", "SCPA_trunk.0.conv1_a.weight"),
        ("fsrcnn_x2.pth", "first_part.0.weight"),
    ],
)
def test_another_network_is_recognised_as_none_of_ours(
    shared: Path, images: Path, capsys: pytest.CaptureFixture[str], name: str, found: str
) -> None:
    path = shared / "data/weights" / name
    assert evaluate(["--weights", str(path), "--benchmark", str(images), "--scale", "2"]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert f"{name}: not released A2N weights" in printed.err
    assert found in printed.err
    with pytest.raises(CheckpointError, match=f"{name}: not released A2N weights"):
        read_weights(path)


def test_a_safetensors_file_of_another_network_is_not_asked_for_a_config(tmp_path: Path) -> None:
    save_file({"layers.0.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"not released A2N weights: .*layers\.0\.weight"):
        load_model(tmp_path / "model.safetensors", 2)


def empty(path: Path) -> None:
    path.touch()


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n" * 40)


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x2.pth", b"1234")


def program(path: Path) -> None:
    torch.save({"params": network().state_dict(), "options": argparse.Namespace(lr=1)}, path)


def whole_module(path: Path) -> None:
    torch.save(nn.Conv2d(1, 1, 1), path)


def script(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Conv2d(1, 1, 1)), path)


def lists(path: Path) -> None:
    torch.save([torch.zeros(3)], path)


def settings(path: Path) -> None:
    torch.save({"optimizer": optimiser(), "epoch": 3}, path)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"conv_first.weight": np.zeros(3)}))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "said"),
    [
        (empty, "0 bytes"),
        (pointer, "git lfs pull"),
        (web_page, "a text file that begins with '<!DOCTYPE html>'"),
        (other_zip, "a zip archive that torch.save did not write"),
        (program, "argparse.Namespace"),
        (whole_module, "torch.save(model.state_dict(), FILE)"),
        (script, "TorchScript"),
        (lists, "expected a dict of tensors by name, as released; got list"),
        (settings, "got dict with optimizer, epoch"),
        (plain_pickle, "torch.save(model.state_dict(), FILE)"),
        (Path.mkdir, "name the file in it"),
    ],
)
def test_a_file_without_weights_is_refused_in_one_line(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], write: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "weights.pth"
    write(path)
    out = tmp_path / "out"
    assert upscale([str(images), "--weights", str(path), "--out", str(out), "--scale", "2"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith(f"error: {path}: ")
    assert said in printed.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("write", "said"), [(empty, "the file is empty"), (pointer, "git lfs pull"), (web_page, "DOCTYPE")]
)
def test_a_file_that_is_not_safetensors_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], None], said: str
) -> None:
    path = own(tmp_path / "trial", network().state_dict())
    write_over = tmp_path / "other"
    write(write_over)
    shutil.move(write_over, path)
    with pytest.raises(CheckpointError, match=said):
        load_model(path, 2)


def test_an_unwrapped_network_enlarges_as_the_plain_file_does(tmp_path: Path, images: Path) -> None:
    torch.save(released(), tmp_path / "plain.pth")
    torch.save({"params_ema": prefixed("module.", released()), "params": released(5)}, tmp_path / "wrapped.pth")
    for name in ("plain", "wrapped"):
        weights = str(tmp_path / f"{name}.pth")
        assert upscale([str(images), "--weights", weights, "--out", str(tmp_path / name), "--scale", "2"]) == 0
    for image in ("a_x2.png", "b_x2.png"):
        np.testing.assert_array_equal(read_image(tmp_path / "plain" / image), read_image(tmp_path / "wrapped" / image))


def test_a_zip_archive_with_a_damaged_table_of_contents_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(released(), tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    for at in (content.index(b"PK\x01\x02"), content.rindex(b"/data.pkl") + 1):
        (tmp_path / "a.pt").write_bytes(content[:at] + b"\xff\xfe" + content[at + 2 :])
        with pytest.raises(CheckpointError, match=r"a\.pt: damaged[^\n]*: a damaged zip archive[^\n]*$"):
            read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("tensors", [{}, {"a": torch.zeros(1)}])
def test_a_dict_that_holds_itself_is_refused(tmp_path: Path, tensors: dict[str, Any]) -> None:
    content: dict[str, Any] = dict(tensors)
    content["model"] = content
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt: [^\n]*$"):
        read_weights(tmp_path / "a.pt")
