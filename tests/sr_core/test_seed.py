"""Seeds by name: the name alone identifies a stream."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_core.seed import child_seed

PATHS = st.lists(st.one_of(st.text(), st.integers()), max_size=4).map(tuple)


def test_a_seed_keeps_the_value_that_recorded_studies_were_run_with() -> None:
    assert child_seed(7, "data", "patches") == 449283234051604251
    assert child_seed(1, "trial") == 3295746530538769907


@settings(deadline=None)  # a busy machine is no fault
@given(st.integers(0, 2**63 - 1), PATHS)
def test_a_seed_fits_63_bits_and_comes_again(root: int, path: tuple[str | int, ...]) -> None:
    assert child_seed(root, *path) == child_seed(root, *path) < 2**63
    assert child_seed(root, *path) >= 0


@settings(deadline=None)  # a busy machine is no fault
@given(st.integers(0, 2**63 - 1), PATHS, PATHS)
def test_different_names_give_different_streams(
    root: int, one: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    assert (child_seed(root, *one) == child_seed(root, *other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"), [(("a", "b"), ("ab",)), (("a", "b"), ("b", "a")), ((1,), ("1",)), (("a",), ("a", ""))]
)
def test_names_are_not_run_together(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> None:
    assert child_seed(7, *one) != child_seed(7, *other)


def test_neighbouring_roots_and_numbers_share_no_seed() -> None:
    seeds = [child_seed(root, "replicate", j) for root, j in itertools.product(range(100), range(100))]
    assert len(set(seeds)) == len(seeds)


def test_every_bit_of_a_seed_is_used() -> None:
    seeds = [child_seed(root, "trial") for root in range(2_000)]
    ones = [sum(seed >> bit & 1 for seed in seeds) for bit in range(63)]
    # A fair bit lies within 5 standard deviations (5 · sqrt(2000) / 2 = 112) of 1,000.
    assert all(888 < count < 1_112 for count in ones)
