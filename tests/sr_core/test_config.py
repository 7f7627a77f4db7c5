"""Hyperparameters are checked on creation. An error names the field, the rule and the value."""

import ast
import inspect
import math
from dataclasses import MISSING, FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest

from sr_core import config
from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from sr_core.errors import ConfigError, SuiteError

SECTIONS: dict[str, Any] = {
    "model": ModelConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "evaluation": EvaluationConfig,
}
EVERY_FIELD = [(section, f.name) for section, kind in SECTIONS.items() for f in fields(kind)]

OUT_OF_RANGE = [
    ("model", "n_feats", 0, "whole number of at least 1"),
    ("model", "n_feats", 40.0, "whole number"),
    ("model", "upsampler_feats", -1, "at least 1"),
    ("model", "n_blocks", 0, "at least 1"),
    ("model", "reduction", 0, "at least 1"),
    ("model", "reduction", 41, r"at most model\.n_feats \(40\)"),
    ("model", "temperature", 0, "> 0"),
    ("model", "temperature", -30.0, "> 0"),
    ("model", "input_range", 256, "one of 1, 255"),
    ("model", "input_range", 255.0, "one of 1, 255"),
    ("model", "non_attention_kernel_size", 2, "one of 1, 3"),
    ("model", "skip_interpolation", "bicubic", "one of bilinear, nearest"),
    ("data", "scale", 5, "one of 2, 3, 4"),
    ("data", "scale", 2.0, "one of 2, 3, 4"),
    ("data", "lr_patch_size", 3, "at least 4"),
    ("data", "train_kernel", "bicubic", "one of matlab_bicubic, pillow_bicubic"),
    ("data", "sampling", "uniform", "one of images, pixels, subimages"),
    ("data", "subimage_window", 0, "at least 1"),
    ("data", "subimage_step", 0, "at least 1"),
    ("data", "augmentation", "flip", "one of dihedral, none"),
    ("train", "budget_patches", 0, "at least 1"),
    ("train", "batch_size", 0, "at least 1"),
    ("train", "learning_rate", 0.0, "> 0"),
    ("train", "schedule", "linear", "one of constant, cosine, step"),
    ("train", "step_interval", 0.0, "> 0"),
    ("train", "step_factor", 1.5, "at most 1"),
    ("train", "loss", "mse", "one of l1, l2, charbonnier"),
    ("train", "charbonnier_eps", 0.0, "> 0"),
    ("train", "loss_reduction", "none", "one of mean, sum"),
    ("train", "adam_beta1", 1.0, "at least 0 and below 1"),
    ("train", "adam_beta2", -0.1, "at least 0 and below 1"),
    ("train", "adam_eps", 0.0, "> 0"),
    ("train", "ema_horizon_patches", 0.0, "> 0"),
    ("train", "engine", "fast", "one of auto, eager, compiled, graphed"),
    ("train", "precision", "fp16", "one of auto, fp32, tf32, bf16"),
    ("train", "deterministic", 1, "one of None, True, False"),
    ("evaluation", "kernel", "lanczos", "one of matlab_bicubic"),
    ("evaluation", "protocol", "y", "one of canonical, blog"),
    ("evaluation", "every_patches", 0, "at least 1"),
    ("evaluation", "crops", 0, "at least 1"),
    ("evaluation", "lr_crop_size", 23, "at least 24"),
]


@pytest.mark.parametrize(("section", "name", "value", "rule"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_with_field_rule_and_value(
    section: str, name: str, value: object, rule: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^{section}\.{name} must be .*{rule}") as caught:
        SECTIONS[section](**{name: value})
    assert repr(value) in str(caught.value)


def test_every_field_is_among_those_tried_out_of_range() -> None:
    assert {(section, name) for section, name, _, _ in OUT_OF_RANGE} == set(EVERY_FIELD)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, None, "x", [], b"l1"], ids=repr)
@pytest.mark.parametrize(("section", "name"), EVERY_FIELD)
def test_what_is_no_number_or_name_of_that_field_is_refused(section: str, name: str, value: object) -> None:
    if name == "deterministic" and value in (True, False, None):
        SECTIONS[section](**{name: value})  # the only field with these legal values
        return
    with pytest.raises(ConfigError, match=rf"^{section}\.{name} must be ") as caught:
        SECTIONS[section](**{name: value})
    assert repr(value) in str(caught.value)


def test_a_window_smaller_than_an_hr_patch_is_refused_only_if_windows_are_used() -> None:
    DataConfig(scale=4, lr_patch_size=64, subimage_window=255)
    DataConfig(scale=4, lr_patch_size=64, subimage_window=256, sampling="subimages")
    with pytest.raises(ConfigError, match=r"data\.subimage_window must hold an HR patch of 256 pixels .*255"):
        DataConfig(scale=4, lr_patch_size=64, subimage_window=255, sampling="subimages")


def test_the_ends_of_the_legal_values_are_legal() -> None:
    ModelConfig(n_feats=1, upsampler_feats=1, n_blocks=1, reduction=1, temperature=1e-30)
    ModelConfig(n_feats=40, reduction=40, temperature=1e30)
    DataConfig(lr_patch_size=4)
    TrainConfig(budget_patches=1, batch_size=1, adam_beta1=0, adam_beta2=0.0, step_factor=1)
    EvaluationConfig(every_patches=1, crops=1, lr_crop_size=24)


def test_a_whole_number_is_a_legal_real_one() -> None:
    assert ModelConfig(temperature=30) == ModelConfig(temperature=30.0)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_cannot_be_changed_after_its_check(section: str) -> None:
    section_config = SECTIONS[section]()
    with pytest.raises(FrozenInstanceError):
        setattr(section_config, fields(section_config)[0].name, None)
    with pytest.raises((AttributeError, TypeError)):
        section_config.no_such_field = 1


@pytest.mark.parametrize("section", SECTIONS)
def test_every_hyperparameter_has_a_default_and_its_meaning_beneath(section: str) -> None:
    assert all(f.default is not MISSING for f in fields(SECTIONS[section]))
    body = ast.parse(inspect.getsource(SECTIONS[section])).body[0]
    assert isinstance(body, ast.ClassDef)
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign):
            assert isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant), ast.dump(statement)
            assert isinstance(following.value.value, str)


def test_a_refusal_is_an_expected_error_and_a_value_error() -> None:
    assert issubclass(ConfigError, SuiteError)
    assert issubclass(ConfigError, ValueError)


def test_the_networks_of_the_paper_are_the_defaults() -> None:
    model = ModelConfig()
    assert (model.n_feats, model.upsampler_feats, model.n_blocks, model.reduction) == (40, 24, 16, 4)
    assert (model.temperature, model.input_range, model.non_attention_kernel_size) == (30.0, 255, 3)


def test_validation_and_its_kernel_stay_matlabs_by_default() -> None:
    assert EvaluationConfig().kernel == DataConfig().train_kernel == config.KERNELS[0] == "matlab_bicubic"


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("model", "temperature"),
        ("train", "learning_rate"),
        ("train", "charbonnier_eps"),
        ("train", "adam_eps"),
        ("train", "step_interval"),
    ],
)
def test_a_number_that_float32_rounds_to_0_is_refused(section: str, name: str) -> None:
    for too_small in (1e-50, 1e-300, 7e-46):
        with pytest.raises(ConfigError, match=rf"^{section}\.{name} must be at least 1\.4e-45, got .* rounds it to 0$"):
            SECTIONS[section](**{name: too_small})
    SECTIONS[section](**{name: 1.4e-45})
    assert float(np.float32(1.4e-45)) > 0 and float(np.float32(7e-46)) == 0


@pytest.mark.parametrize("name", ["learning_rate", "ema_horizon_patches", "adam_beta1"])
def test_a_whole_number_that_no_real_one_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^train\.{name} must be "):
        SECTIONS["train"](**{name: 10**400})
