"""Settings that affect bits: chosen, recorded, restored, and named if they cannot be restored."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from sr_core.errors import ConfigError
from sr_core.process.stored import newer_fields, since
from sr_core.training.runtime import Runtime, cores, resolve


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def test_settings_survive_their_way_through_the_record() -> None:
    here = resolve(threads=1)
    assert Runtime.from_json(json.loads(json.dumps(here.to_json()))) == here


def test_settings_name_everything_that_a_cpu_s_bits_depend_on() -> None:
    here = resolve(threads=3)
    assert (here.device, here.device_name, here.threads) == ("cpu", "", 3)
    assert here.torch == torch.__version__
    assert here.cpu_capability == torch.backends.cpu.get_cpu_capability()


def test_threads_are_the_cores_that_this_process_may_use() -> None:
    assert resolve().threads == cores() <= (os.cpu_count() or 1)


def test_applying_settings_makes_this_process_compute_under_them() -> None:
    resolve(threads=1).apply()
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("device", "made_current"), [("cuda:1", [1]), ("cuda", [])])
def test_a_gpu_that_is_named_becomes_the_one_for_streams_and_graphs(
    monkeypatch: pytest.MonkeyPatch, device: str, made_current: list[int]
) -> None:
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    replace(resolve(threads=1), device=device).apply()
    assert current == made_current


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "gpu", "cuda:x"])
def test_a_device_that_is_not_here_is_refused_by_name(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device {device} is not available here"):
        resolve(device=device)


def test_a_model_is_placed_in_the_memory_format_of_the_settings() -> None:
    layer = nn.Conv2d(3, 8, 3)
    here = resolve(threads=1)
    assert here.place(layer) is layer
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    plain = nn.Conv2d(3, 8, 3)
    replace(here, memory_format="contiguous").place(plain)
    assert plain.weight.is_contiguous()


def test_nothing_is_unmet_on_the_machine_that_resolved_the_settings() -> None:
    assert resolve(threads=1).unmet() == []


def test_settings_of_another_machine_are_named_with_both_values() -> None:
    here = resolve(threads=1)
    there = replace(here, torch="2.0.0", cpu_capability="ABACUS")
    assert there.unmet() == [
        f"cpu_capability ABACUS then, {here.cpu_capability} here",
        f"torch 2.0.0 then, {here.torch} here",
    ]


def test_another_number_of_threads_can_be_restored() -> None:
    assert replace(resolve(), threads=cores() + 3).unmet() == []


def test_settings_of_version_0_1_are_completed_by_what_it_did_and_by_nothing_else() -> None:
    stored = resolve(threads=1).to_json()
    del stored["flush_subnormals"]
    assert Runtime.from_json(stored, format=1).flush_subnormals is False
    with pytest.raises(ConfigError, match=r"^recorded settings \(runtime\): missing or unknown flush_subnormals$"):
        Runtime.from_json(stored, format=2)


@pytest.mark.parametrize(
    ("device", "stored", "means", "cudnn"),
    [
        ("cpu", "fp32", "fp32", ""),
        ("cuda", "fp32", "tf32", None),
        ("cuda:0", "bf16", "bf16", None),
    ],
)
def test_what_version_0_1_called_fp32_on_a_gpu_rounded_and_is_read_as_that(
    device: str, stored: str, means: str, cudnn: str | None
) -> None:
    old = {**resolve(threads=1).to_json(), "device": device, "precision": stored}
    del old["cudnn"]
    read = Runtime.from_json(old, format=1)
    assert (read.precision, read.cudnn) == (means, cudnn)
    assert Runtime.from_json(read.to_json(), format=2) == read, "and stays that when it is written again"


def test_fp32_of_a_present_record_of_a_gpu_is_fp32() -> None:
    now = replace(resolve(threads=1), device="cuda", cudnn="91900")
    assert Runtime.from_json(now.to_json(), format=2) == now


def test_another_version_of_cudnn_is_named_and_an_unknown_one_is_not_taken_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    then = replace(resolve(threads=1), device="cuda", device_name="a GPU", precision="tf32", cudnn="91900")
    monkeypatch.setattr("sr_core.training.runtime.resolve", lambda **_: replace(then, cudnn="92000"))
    monkeypatch.setattr("sr_core.training.runtime._is_cuda_device", lambda name: True)
    assert then.unmet() == ["cudnn 91900 then, 92000 here"]
    assert replace(then, cudnn=None).unmet() == []
    assert replace(then, cudnn=None).unknown() == ["cudnn is not in the record, 92000 here"]


def test_settings_of_a_gpu_become_those_of_a_cpu_if_there_is_no_gpu() -> None:
    then = replace(resolve(threads=1), device="cuda", device_name="a GPU", precision="tf32", cudnn="91900")
    assert (then.here().precision, then.here().cudnn) == ("fp32", "")
    assert then.unmet() == [
        "device cuda then, cpu here",
        "device_name a GPU then, none here",
        "precision tf32 then, fp32 here",
        "cudnn 91900 then, none here",
    ]


@pytest.mark.parametrize("name", sorted(resolve(threads=1).to_json().keys() - newer_fields(Runtime).keys()))
def test_recorded_settings_without_one_that_was_always_there_are_refused_in_one_line(name: str) -> None:
    stored = resolve(threads=1).to_json()
    del stored[name]
    with pytest.raises(ConfigError, match=rf"^recorded settings \(runtime\): missing or unknown {name}$"):
        Runtime.from_json(stored)


def test_an_unknown_recorded_setting_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^recorded settings \(runtime\): missing or unknown warp$"):
        Runtime.from_json({**resolve(threads=1).to_json(), "warp": 32})


@dataclass(frozen=True, kw_only=True, slots=True)
class LaterRuntime(Runtime):
    library: str | None = since(3, implied=None, default="")

    def here(self) -> "LaterRuntime":
        return replace(self, library="9.1" if self.device == "cuda" else "")


def test_a_setting_that_an_old_record_lacks_is_named_if_it_affects_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sr_core.training.runtime._NOT_RESTORED_EVERYWHERE", ("torch", "library"))
    stored = resolve(threads=1).to_json()
    on_cpu = LaterRuntime.from_json(stored, format=2)
    on_gpu = LaterRuntime.from_json({**stored, "device": "cuda"}, format=2)
    assert (on_cpu.unmet(), on_cpu.unknown()) == ([], [])
    assert (on_gpu.unmet(), on_gpu.unknown()) == ([], ["library is not in the record, 9.1 here"])
    assert (
        LaterRuntime.from_json(on_gpu.to_json(), format=3) == on_gpu
    )  # an unknown value is written and read as unknown
    recorded = replace(on_gpu, library="8.9")
    assert (recorded.unmet(), recorded.unknown()) == (["library 8.9 then, 9.1 here"], [])
