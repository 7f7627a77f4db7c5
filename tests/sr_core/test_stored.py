"""A field missing from an older record has the value that older code used, and is hashed only if it differs from it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import pytest

from sr_core.errors import ConfigError
from sr_core.process.stored import fill, is_newer, newer_fields, since, written


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    width: int = 8
    rate: float = 0.1
    clip: float = since(2, implied=0.0, default=1.0)
    warm: bool = since(3, implied=lambda other: other["width"] > 8, default=True)
    cold: bool = since(3, implied=lambda other: not other["warm"], default=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    strength: float = since(2, implied=0, default=0.5)


def values_of(recipe: Any) -> dict[str, Any]:
    return {f.name: getattr(recipe, f.name) for f in fields(recipe)}


OLD = {"width": 8, "rate": 0.1}


def test_a_missing_newer_field_is_what_older_code_did_and_not_today_s_default() -> None:
    assert Recipe(**fill(Recipe, OLD, "recipe")) == Recipe(clip=0.0, warm=False, cold=True)
    assert Recipe().clip == 1.0


def test_what_older_code_did_may_follow_from_other_stored_values() -> None:
    assert fill(Recipe, OLD | {"width": 9}, "recipe")["warm"] is True
    assert fill(Recipe, OLD | {"width": 9}, "recipe")["cold"] is False
    assert fill(Recipe, OLD | {"width": 9, "warm": False}, "recipe")["cold"] is True


def test_a_stored_newer_field_is_read_as_it_stands() -> None:
    assert fill(Recipe, OLD | {"clip": 3.0, "warm": True}, "recipe")["clip"] == 3.0


@pytest.mark.parametrize("content", [{"width": 8}, {"rate": 0.1, "clip": 1.0}])
def test_an_original_field_is_never_filled(content: dict[str, Any]) -> None:
    lost = "rate" if "width" in content else "width"
    with pytest.raises(ConfigError, match=rf"^recipe: missing or unknown {lost}$"):
        fill(Recipe, content, "recipe")


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"^recipe: missing or unknown warmth$"):
        fill(Recipe, OLD | {"warmth": 1}, "recipe")


@pytest.mark.parametrize("content", [None, 3, [], "x"])
def test_what_is_no_section_is_refused(content: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^recipe: expected a section of values, got {type(content).__name__}$"):
        fill(Recipe, content, "recipe")


def test_a_record_whose_format_has_the_field_may_not_lack_it() -> None:
    assert fill(Recipe, OLD, "recipe", format=1)["clip"] == 0.0
    assert fill(Recipe, OLD | {"clip": 2.0}, "recipe", format=2)["warm"] is False
    with pytest.raises(ConfigError, match=r"^recipe: missing or unknown clip$"):
        fill(Recipe, OLD, "recipe", format=2)
    with pytest.raises(ConfigError, match=r"^recipe: missing or unknown cold, warm$"):
        fill(Recipe, OLD | {"clip": 2.0}, "recipe", format=3)


def test_a_newer_field_is_written_only_where_it_differs_from_what_older_code_did() -> None:
    assert written(Recipe, values_of(Recipe(clip=0.0, warm=False, cold=True))) == OLD
    assert written(Recipe, values_of(Recipe(clip=1.0, warm=False, cold=True))) == OLD | {"clip": 1.0}
    assert written(Recipe, values_of(Recipe(width=9, clip=0.0, warm=True, cold=True))) == {
        "width": 9,
        "rate": 0.1,
        "cold": True,
    }


@pytest.mark.parametrize("width", [8, 9])
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("cold", [False, True])
def test_what_is_written_is_read_again(width: int, clip: float, warm: bool, cold: bool) -> None:
    recipe = Recipe(width=width, clip=clip, warm=warm, cold=cold)
    assert Recipe(**fill(Recipe, written(Recipe, values_of(recipe)), "recipe")) == recipe


def test_a_value_of_another_type_differs_and_a_whole_number_for_a_float_does_not() -> None:
    whole: Mapping[str, Any] = OLD | {"clip": 0.0, "warm": 0, "cold": True}
    assert written(Recipe, whole) == OLD | {"warm": 0}
    assert written(Added, {"strength": 0.0}) == {}


def test_a_section_of_newer_fields_alone_may_be_missing_from_an_older_record() -> None:
    assert is_newer(Added) and not is_newer(Recipe)
    assert fill(Added, {}, "added") == {"strength": 0}
    assert list(newer_fields(Recipe)) == ["clip", "warm", "cold"]


def test_a_field_of_the_first_format_has_no_since() -> None:
    with pytest.raises(ValueError, match="expected a format above 1, got 1"):
        since(1, implied=False, default=False)
