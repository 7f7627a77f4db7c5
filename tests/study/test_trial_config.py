"""The complete configuration of a trial: dotted names, a stored form without defaults, one hash."""

import json
import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_core.config import DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from sr_core.errors import ConfigError
from sr_core.process.stored import since
from study.question.config import TrialConfig, check_name, differences, short_digest

SECTIONS = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig, "evaluation": EvaluationConfig}
EVERY_NAME = [f"{section}.{f.name}" for section, kind in SECTIONS.items() for f in fields(kind)]  # type: ignore[arg-type]

OTHER_LEGAL_VALUES = {
    "model.n_feats": 24,
    "model.upsampler_feats": 8,
    "model.n_blocks": 2,
    "model.reduction": 8,
    "model.temperature": 1.0,
    "model.input_range": 1,
    "model.non_attention_kernel_size": 1,
    "model.skip_interpolation": "nearest",
    "data.scale": 4,
    "data.lr_patch_size": 24,
    "data.train_kernel": "cv2_area",
    "data.sampling": "pixels",
    "data.subimage_window": 96,
    "data.subimage_step": 48,
    "data.augmentation": "none",
    "train.budget_patches": 960,
    "train.batch_size": 32,
    "train.learning_rate": 5e-4,
    "train.schedule": "constant",
    "train.step_interval": 0.2,
    "train.step_factor": 0.1,
    "train.loss": "l2",
    "train.charbonnier_eps": 1e-3,
    "train.loss_reduction": "sum",
    "train.adam_beta1": 0.5,
    "train.adam_beta2": 0.99,
    "train.adam_eps": 1e-6,
    "train.ema_horizon_patches": 10.0,
    "train.engine": "eager",
    "train.precision": "bf16",
    "train.deterministic": True,
    "evaluation.kernel": "pillow_bicubic",
    "evaluation.protocol": "blog",
    "evaluation.every_patches": 960,
    "evaluation.crops": 3,
    "evaluation.lr_crop_size": 48,
}


def test_every_hyperparameter_and_the_seed_have_a_dotted_name() -> None:
    assert list(TrialConfig().dotted()) == [*EVERY_NAME, "seed"]


@pytest.mark.parametrize("name", EVERY_NAME)
def test_each_value_is_set_stored_hashed_and_compared_under_its_name(name: str) -> None:
    base, value = TrialConfig(), OTHER_LEGAL_VALUES[name]
    changed = base.with_values({name: value})
    assert changed.dotted()[name] == value
    assert differences(base, changed) == {name: (base.dotted()[name], value)}
    assert changed.digest() != base.digest()
    assert TrialConfig.from_json(json.loads(json.dumps(changed.to_json()))) == changed


def test_the_seed_is_set_like_a_value_and_is_part_of_the_hash() -> None:
    changed = TrialConfig().with_values({"seed": 7, "model.temperature": 1})
    assert (changed.seed, changed.model.temperature) == (7, 1.0)
    assert changed.digest() != changed.with_values({"seed": 8}).digest()
    assert TrialConfig.from_json(changed.to_json()) == changed


@settings(deadline=None)  # a busy machine is no fault
@given(st.floats(min_value=1.4e-45, max_value=1e300), st.floats(min_value=1.4e-45, max_value=1e300))
def test_every_bit_of_a_real_value_survives_its_storage(temperature: float, learning_rate: float) -> None:
    config = TrialConfig().with_values({"model.temperature": temperature, "train.learning_rate": learning_rate})
    stored = json.loads(json.dumps(config.to_json()))
    assert TrialConfig.from_json(stored) == config
    assert TrialConfig.from_json(stored).digest() == config.digest()


def test_a_whole_number_hashes_like_the_same_real_one_however_it_was_written() -> None:
    one = TrialConfig(model=ModelConfig(temperature=30.0))
    other = TrialConfig(model=ModelConfig(temperature=30))
    assert one.digest() == other.digest() == TrialConfig().with_values({"model.temperature": 30}).digest()
    assert json.dumps(one.to_json()) == json.dumps(other.to_json())
    assert TrialConfig.from_json({**one.to_json(), "model": {**one.to_json()["model"], "temperature": 30}}) == one


def test_a_hash_is_the_one_that_recorded_studies_have() -> None:
    assert len(TrialConfig().digest()) == 16
    assert short_digest({"b": [1, 2.5, None], "a": "x"}) == short_digest({"a": "x", "b": (1, 2.5, None)})
    assert short_digest({"b": [1, 2.5, None], "a": "x"}) == "056adda42fbc1191"
    assert short_digest({"a": 1}) != short_digest({"a": 1.0}) != short_digest({"a": "1.0"})


def test_a_hash_of_no_json_number_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        short_digest({"a": math.nan})


@pytest.mark.parametrize("name", ["model.tempratur", "temperature", "model.temp", "Model.Temperature"])
def test_an_unknown_name_suggests_those_that_come_near(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"no hyperparameter '{name}'; did you mean .*model\.temperature"):
        TrialConfig().with_values({name: 1.0})


@pytest.mark.parametrize(
    "name", ["", "seed.", "model", "model.", ".temperature", "model.temperature.x", "study.trials"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no hyperparameter"):
        check_name(name)


def test_an_illegal_value_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"model\.temperature must be > 0"):
        TrialConfig().with_values({"model.temperature": 0})
    with pytest.raises(ConfigError, match=r"model\.temperature must be > 0"):
        TrialConfig().with_values({"model.temperature": True})


def test_values_that_are_only_legal_together_are_set_together() -> None:
    config = TrialConfig().with_values(
        {"train.batch_size": 7, "train.budget_patches": 70, "evaluation.every_patches": 7}
    )
    assert (config.train.batch_size, config.train.budget_patches) == (7, 70)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, None, "7"])
def test_a_seed_that_no_stream_takes_is_refused(seed: Any) -> None:
    with pytest.raises(ConfigError, match=r"seed must be a whole number in 0 … 2\^63 - 1"):
        TrialConfig(seed=seed)


def test_validations_have_to_divide_the_budget_and_batches_the_validations() -> None:
    with pytest.raises(ConfigError, match=r"budget_patches is 1920 patches: expected .*every_patches \(496\)"):
        TrialConfig().with_values({"evaluation.every_patches": 496})
    with pytest.raises(ConfigError, match=r"every_patches is 480 patches: expected .* train\.batch_size \(64\)"):
        TrialConfig(train=TrainConfig(batch_size=64)).check_counts()


# What is stored


def stored() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(json.dumps(TrialConfig().to_json()))
    return stored


@pytest.mark.parametrize("name", EVERY_NAME)
def test_a_stored_config_without_one_of_its_fields_is_refused_because_defaults_change(name: str) -> None:
    content = stored()
    section, _, key = name.partition(".")
    del content[section][key]
    with pytest.raises(ConfigError, match=f"stored config, section {section}: missing or unknown {key}"):
        TrialConfig.from_json(content)


def test_a_stored_config_with_an_unknown_field_is_refused() -> None:
    content = stored()
    content["model"]["dropout"] = 0.1
    with pytest.raises(ConfigError, match="section model: missing or unknown dropout"):
        TrialConfig.from_json(content)


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("content", [None, 3, [], "x"])
def test_a_stored_section_that_is_none_is_refused(section: str, content: Any) -> None:
    expected = f"section {section}: expected a section of values, got {type(content).__name__}$"
    with pytest.raises(ConfigError, match=expected):
        TrialConfig.from_json(stored() | {section: content})


def test_a_stored_config_without_its_seed_or_with_more_sections_is_refused() -> None:
    without = stored()
    del without["seed"]
    for content in (without, stored() | {"tracking": {}}):
        with pytest.raises(ConfigError, match="stored config: expected model, data, train, evaluation, seed"):
            TrialConfig.from_json(content)


def test_a_stored_value_is_checked_like_any_other() -> None:
    content = stored()
    content["train"]["loss"] = "l3"
    with pytest.raises(ConfigError, match=r"train\.loss must be one of"):
        TrialConfig.from_json(content)


def test_configs_with_equal_values_are_equal_and_have_no_differences() -> None:
    one = TrialConfig()
    assert replace(one, seed=one.seed) == TrialConfig()
    assert differences(one, TrialConfig()) == {}


# What came after version 0.1

OF_0_1: dict[str, Any] = stored()
"""The default configuration as version 0.1 stored it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaterModelConfig(ModelConfig):
    network: str = since(2, implied="a2n", default="a2n")
    dropout: float = since(2, implied=0.0, default=0.1)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    rank: int = since(3, implied=0, default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaterConfig(TrialConfig):
    model: LaterModelConfig = field(default_factory=LaterModelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> type[LaterConfig]:
    """A config of a later version, which has two fields more, and a section more."""
    monkeypatch.setattr("study.question.config.SECTIONS", {**SECTIONS, "model": LaterModelConfig, "lora": LoraConfig})
    return LaterConfig


def test_an_older_trial_keeps_its_hash_and_means_what_older_code_did(later: type[LaterConfig]) -> None:
    read = later.from_json(OF_0_1)
    assert isinstance(read, LaterConfig)
    assert (read.model.network, read.model.dropout, read.lora.rank) == ("a2n", 0.0, 0)
    assert read.digest() == "5ddacab717fa77fe"
    assert read.to_json() == OF_0_1
    assert later.from_recorded(read.recorded()) == read


def test_a_newer_value_is_stored_and_hashed_once_it_is_another_than_older_code_implied(
    later: type[LaterConfig],
) -> None:
    changed = later()
    assert changed.to_json() == {**OF_0_1, "model": {**OF_0_1["model"], "dropout": 0.1}}
    assert changed.digest() != "5ddacab717fa77fe"
    assert later.from_json(changed.to_json()) == changed

    adapted = changed.with_values({"lora.rank": 4, "model.dropout": 0.0})
    assert adapted.to_json() == {**OF_0_1, "lora": {"rank": 4}}
    assert later.from_json(json.loads(json.dumps(adapted.to_json()))) == adapted


def test_people_and_the_search_see_every_hyperparameter_of_an_older_trial(later: type[LaterConfig]) -> None:
    read = later.from_json(OF_0_1)
    new = {"model.network", "model.dropout", "lora.rank"}
    assert set(read.dotted()) - set(read.recorded()) == new
    assert differences(read, later()) == {"model.dropout": (0.0, 0.1)}


def test_the_defaults_of_version_0_1_have_the_hash_that_they_had() -> None:
    assert TrialConfig().digest() == "5ddacab717fa77fe"
    assert TrialConfig().recorded() == TrialConfig().dotted()
