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
    found = TrialMap[int]()
    for change in changes:
        before, known = found, dict(expected)
        expected |= change
        found = found.updated(change)
        assert before == known, "the map that was changed stays as it was"
    assert list(found) == list(expected)
    assert list(found.items()) == list(expected.items())
    assert list(found.values()) == list(expected.values())
    assert (len(found), found) == (len(expected), expected)
    assert all(found[number] == value and number in found for number, value in expected.items())
    assert found == TrialMap(expected) == MappingProxyType(expected)


def test_what_it_does_not_have_is_missing_as_in_a_dict() -> None:
    found = TrialMap({number: str(number) for number in range(3)})
    assert [number in found for number in (-1, 2, 3, None, "2")] == [False, True, False, False, False]
    assert found.get(3) is None
    with pytest.raises(KeyError):
        found[-1]
    assert repr(found) == "TrialMap({0: '0', 1: '1', 2: '2'})"


def test_a_number_far_from_the_others_is_found() -> None:
    found = TrialMap({7_000: "one"}).updated(dict.fromkeys(range(200), "many")).updated({7_000: "other"})
    assert (found[7_000], found[199], len(found)) == ("other", "many", 201)
    assert next(iter(found)) == 7_000, "in the order of insertion"


@pytest.mark.parametrize("size", [1, BLOCK, 3_000])
def test_a_change_copies_one_block_however_many_there_are(size: int) -> None:
    before = TrialMap({number: object() for number in range(size)})
    changed = before.updated({size // 2: object()})
    copied = [one for one, other in zip(changed.blocks(), before.blocks(), strict=True) if one is not other]
    assert len(copied) == 1 and len(copied[0]) <= BLOCK
    added = changed.updated({size: object()})
    assert sum(len(block) for block in added.blocks() if all(block is not one for one in changed.blocks())) <= BLOCK
