"""The map of a study's trials is immutable and behaves like a dict. A changed copy shares the unchanged entries."""

from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.record.trial_map import BLOCK, TrialMap

CHANGES = st.lists(st.dictionaries(st.integers(0, 4 * BLOCK), st.integers(), max_size=BLOCK + 3), max_size=8)


@settings(deadline=None)
@given(CHANGES)
def test_it_is_what_a_dict_is_after_the_same_changes(changes: list[dict[int, int]]) -> None:
    expected: dict[int, int] = {}
    trial_map = TrialMap[int]()
    for change in changes:
        before, expected_before = trial_map, dict(expected)
        expected |= change
        trial_map = trial_map.updated(change)
        assert before == expected_before, "the map that was changed stays as it was"
    assert list(trial_map) == list(expected)
    assert list(trial_map.items()) == list(expected.items())
    assert list(trial_map.values()) == list(expected.values())
    assert (len(trial_map), trial_map) == (len(expected), expected)
    assert all(trial_map[number] == value and number in trial_map for number, value in expected.items())
    assert trial_map == TrialMap(expected) == MappingProxyType(expected)


def test_what_it_does_not_have_is_missing_as_in_a_dict() -> None:
    trial_map = TrialMap({number: str(number) for number in range(3)})
    assert [number in trial_map for number in (-1, 2, 3, None, "2")] == [False, True, False, False, False]
    assert trial_map.get(3) is None
    with pytest.raises(KeyError):
        trial_map[-1]
    assert repr(trial_map) == "TrialMap({0: '0', 1: '1', 2: '2'})"


def test_a_number_far_from_the_others_is_found() -> None:
    trial_map = TrialMap({7_000: "one"}).updated(dict.fromkeys(range(200), "many")).updated({7_000: "other"})
    assert (trial_map[7_000], trial_map[199], len(trial_map)) == ("other", "many", 201)
    assert next(iter(trial_map)) == 7_000, "in the order of insertion"


@pytest.mark.parametrize("size", [1, BLOCK, 3_000])
def test_a_change_copies_one_block_however_many_there_are(size: int) -> None:
    before = TrialMap({number: object() for number in range(size)})
    changed = before.updated({size // 2: object()})
    copied = [one for one, other in zip(changed.blocks(), before.blocks(), strict=True) if one is not other]
    assert len(copied) == 1 and len(copied[0]) <= BLOCK
    added = changed.updated({size: object()})
    assert sum(len(block) for block in added.blocks() if all(block is not one for one in changed.blocks())) <= BLOCK
