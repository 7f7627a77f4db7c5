"""The search space: its ranges, its size, its cells, and the point of a configuration in it."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from sr_core.config import DataConfig, ModelConfig
from sr_core.errors import ConfigError
from study.question.config import TrialConfig
from study.question.space import Choice, Dimension, Float, Grid, Int, Ranges, Space, Together, build_space

BASE = TrialConfig()
PAIRS = [(8, 1e-3), (16, 1e-3), (16, 4e-3)]


def space(nuisance: Ranges, scientific: Ranges | None = None, base: TrialConfig = BASE) -> Space:
    return build_space(base, scientific or {}, nuisance)


MIXED = space(
    {
        Together("train.batch_size", "train.learning_rate"): PAIRS,
        "model.temperature": Grid(0.1, 1, 10, 100),
        "model.reduction": Int(2, 6),
    },
    scientific={"train.loss": Choice("l1", "l2")},
)


# Size and cells


def test_the_size_is_the_number_of_different_configurations() -> None:
    assert MIXED.size == 2 * 3 * 4 * 5


def test_an_interval_of_reals_has_no_size() -> None:
    assert space({"model.temperature": Float(0.1, 10), "train.loss": Choice("l1", "l2")}).size is None


def test_the_cells_are_every_configuration_once() -> None:
    cells = list(MIXED.cells())
    configs = {BASE.with_values(MIXED.settings(cell)).digest() for cell in cells}
    assert len(cells) == len(configs) == MIXED.size


def test_a_space_of_nothing_is_the_base_alone() -> None:
    empty = space({})
    assert (empty.size, list(empty.cells()), empty.settings({})) == (1, [{}], {})


def test_scientific_dimensions_come_first() -> None:
    assert [d.role for d in MIXED.dimensions] == ["scientific", "nuisance", "nuisance", "nuisance"]
    assert MIXED.names == (
        "train.loss",
        "train.batch_size",
        "train.learning_rate",
        "model.temperature",
        "model.reduction",
    )


# Where a configuration stands


def test_every_cell_is_found_again_from_its_configuration() -> None:
    for cell in MIXED.cells():
        config = BASE.with_values(MIXED.settings(cell))
        assert MIXED.locate(config.dotted(), BASE.dotted()) == cell


def test_another_seed_is_the_same_point() -> None:
    cell = next(MIXED.cells())
    config = BASE.with_values(MIXED.settings(cell) | {"seed": 99})
    assert MIXED.locate(config.dotted(), BASE.dotted()) == cell


@pytest.mark.parametrize(
    "values",
    [
        {"model.temperature": 30.0},
        {"model.reduction": 7},
        {"train.loss": "charbonnier"},
        {"train.batch_size": 8, "train.learning_rate": 4e-3},
        {"data.train_kernel": "nearest"},
        {"model.n_blocks": 3},
    ],
    ids=["not on the grid", "past the end", "not a choice", "halves of two pairs", "moves nothing", "is fixed"],
)
def test_a_configuration_outside_of_the_space_stands_nowhere(values: dict[str, Any]) -> None:
    inside = {"train.loss": "l1", "model.temperature": 1.0, "model.reduction": 2} | dict(
        zip(("train.batch_size", "train.learning_rate"), PAIRS[0], strict=True)
    )
    config = BASE.with_values(inside)
    assert MIXED.locate(config.dotted(), BASE.dotted()) is not None
    assert MIXED.locate(config.with_values(values).dotted(), BASE.dotted()) is None


@pytest.mark.parametrize(("value", "inside"), [(0.1, True), (10.0, True), (3.3, True), (0.09999, False), (10.1, False)])
def test_an_interval_holds_both_its_ends(value: float, inside: bool) -> None:
    reals = space({"model.temperature": Float(0.1, 10, log=True)})
    found = reals.locate(BASE.with_values({"model.temperature": value}).dotted(), BASE.dotted())
    assert found == ({"model.temperature": value} if inside else None)


def test_a_whole_number_in_a_list_is_found_as_the_real_one_it_becomes() -> None:
    whole = space({"model.temperature": Grid(1, 3, 10)})
    assert whole.locate(BASE.with_values({"model.temperature": 3}).dotted(), BASE.dotted()) == {"model.temperature": 3}


# Together


def test_names_that_move_together_are_one_dimension() -> None:
    pair = MIXED.dimensions[1]
    assert pair.label == "train.batch_size+train.learning_rate"
    assert pair.listed == tuple(PAIRS)
    assert pair.settings((16, 4e-3)) == {"train.batch_size": 16, "train.learning_rate": 4e-3}


@pytest.mark.parametrize(
    "rows",
    [[(8, 1e-3, 1), (16, 1e-3, 2)], [(8,), (16,)], [8, 16], Choice(8, 16), "ab", 8, [(8, 1e-3), [16]]],
    ids=repr,
)
def test_rows_that_do_not_fit_the_names_are_refused(rows: Any) -> None:
    with pytest.raises(ConfigError, match=r"Together\('train\.batch_size', 'train\.learning_rate'\) needs a list of"):
        space({Together("train.batch_size", "train.learning_rate"): rows})


def test_one_name_alone_is_not_together() -> None:
    with pytest.raises(ConfigError, match="Together needs at least two names"):
        Together("train.batch_size")


# What is refused when a range is made


@pytest.mark.parametrize(
    "make",
    [
        lambda: Float(1, 1),
        lambda: Float(2, 1),
        lambda: Float(0, math.inf),
        lambda: Float(math.nan, 1),
        lambda: Float(0, 1, log=True),
        lambda: Float(-1, 1, log=True),
        lambda: Int(1, 1),
        lambda: Int(2, 1),
        lambda: Int(0, 4, log=True),
        lambda: Int(1.5, 4),  # type: ignore[arg-type]
        lambda: Int(1, math.inf),  # type: ignore[arg-type]
        lambda: Int(False, True),
        lambda: Choice("l1"),
        lambda: Choice("l1", "l1"),
        lambda: Choice(1, 1.0),
        lambda: Choice(),
        lambda: Grid(1, 3, 2),
        lambda: Grid(3, 1),
        lambda: Grid(1, 1),
    ],
)
def test_a_range_without_two_values_in_order_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match="needs"):
        make()


def test_ranges_with_equal_values_are_equal_and_no_others() -> None:
    assert Choice(1, 2) == Choice(1, 2) != Choice(2, 1)
    assert Choice(1, 2) != Grid(1, 2)
    assert len({Choice(1, 2), Choice(1, 2), Grid(1, 2), Grid(1, 2)}) == 2
    assert repr(Grid(1, 2)) == "Grid(1, 2)"
    assert {Together("a", "b"): 1}[Together("a", "b")] == 1
    assert Together("a", "b") != Together("b", "a")


# What is refused when it meets the config


@pytest.mark.parametrize(
    ("ranges", "where"),
    [
        ({"model.temperature": Grid(0, 1)}, r"model\.temperature = 0: model\.temperature must be > 0"),
        ({"model.temperature": Float(-1, 1)}, r"model\.temperature = -1\.0: model\.temperature must be > 0"),
        ({"model.reduction": Grid(2, 4, 41)}, r"model\.reduction = 41: model\.reduction must be at most"),
        ({"model.reduction": Int(2, 41)}, r"model\.reduction = 41"),
        ({"model.n_blocks": Float(1, 4)}, r"model\.n_blocks = 1\.0: model\.n_blocks must be a whole number"),
        ({"model.input_range": Int(1, 255)}, r"model\.input_range = 128: model\.input_range must be one of 1, 255"),
        ({"train.loss": Choice("l1", "mse")}, r"train\.loss = 'mse': train\.loss must be one of l1"),
        ({"data.train_kernel": Choice("matlab_bicubic", "bicubic")}, r"data\.train_kernel = 'bicubic'"),
        (
            {Together("train.batch_size", "train.learning_rate"): [(16, 1e-3), (0, 1e-3)]},
            r"train\.batch_size\+train\.learning_rate = \(0, 0\.001\): train\.batch_size must be",
        ),
    ],
)
def test_an_illegal_value_in_a_range_is_found_at_load_with_its_dimension(ranges: Ranges, where: str) -> None:
    with pytest.raises(ConfigError, match=rf"^search space, {where}"):
        space(ranges)


def test_values_that_are_illegal_only_together_are_found_at_load() -> None:
    small = TrialConfig(model=ModelConfig(n_feats=24))
    ranges: Ranges = {"model.n_feats": Grid(8, 24), "model.reduction": Grid(2, 16), "train.loss": Choice("l1", "l2")}
    with pytest.raises(ConfigError, match=r"^search space, model\.n_feats = 8, model\.reduction = 16: .*at most"):
        space(ranges, base=small)


def test_three_values_that_are_illegal_only_together_are_found_at_load() -> None:
    ranges: Ranges = {
        "data.sampling": Choice("images", "subimages"),
        "data.subimage_window": Choice(96, 480),
        "data.lr_patch_size": Choice(24, 64),
    }
    base = TrialConfig(data=DataConfig(scale=2, lr_patch_size=24, subimage_window=480))
    with pytest.raises(ConfigError, match=r"'subimages', data\.subimage_window = 96, data\.lr_patch_size = 64: .*must"):
        space(ranges, base=base)


@pytest.mark.parametrize(
    "ranges",
    [
        {
            "train.batch_size": Choice(8, 16),
            Together("train.batch_size", "train.learning_rate"): PAIRS,
        },
        {Together("model.temperature", "model.temperature"): [(1, 2), (2, 1)]},
    ],
)
def test_a_name_with_two_ranges_is_refused(ranges: Ranges) -> None:
    with pytest.raises(ConfigError, match=r"(train\.batch_size|model\.temperature) is given two ranges; keep one"):
        space(ranges)


def test_a_name_that_is_scientific_and_nuisance_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.loss is given two ranges"):
        space({"train.loss": Choice("l1", "l2")}, scientific={"train.loss": Choice("l1", "charbonnier")})


@pytest.mark.parametrize("content", [[1, 2], 3, "l1", None, ("l1", "l2")])
def test_what_is_no_range_is_refused(content: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.loss: expected Float, Int, Choice or Grid"):
        space({"train.loss": content})


@pytest.mark.parametrize("name", ["model.temprature", "seed", "model"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no hyperparameter"):
        space({name: Choice(1, 2)})


# The record


def test_a_dimension_describes_itself_in_plain_values() -> None:
    assert [d["range"] for d in MIXED.describe()] == ["Choice", "Choice", "Grid", "Int"]
    assert MIXED.describe()[1] == {
        "names": ["train.batch_size", "train.learning_rate"],
        "role": "nuisance",
        "range": "Choice",
        "values": [[8, 1e-3], [16, 1e-3], [16, 4e-3]],
    }
    assert Dimension(("model.temperature",), Float(0.1, 10, log=True), "nuisance").describe() == {
        "names": ["model.temperature"],
        "role": "nuisance",
        "range": "Float",
        "low": 0.1,
        "high": 10.0,
        "log": True,
    }
