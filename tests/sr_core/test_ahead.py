"""Batches made a step ahead are the batches."""

import threading

import pytest

from sr_core.data.ahead import Ahead


def test_in_order_and_out_of_it_the_source_s_batches_come_out() -> None:
    made: list[tuple[int, int, bool]] = []

    def source(first: int, n: int) -> list[int]:
        made.append((first, n, threading.current_thread() is threading.main_thread()))
        return list(range(first, first + n))

    batches = Ahead(source)
    asked = [(0, 4), (4, 4), (8, 4), (2, 3), (5, 3)]
    assert [batches(*one) for one in asked] == [list(range(first, first + n)) for first, n in asked]
    assert batches(8, 3) == [8, 9, 10]
    alone = [(first, n) for first, n, here in made if here]
    assert alone == [(0, 4), (2, 3)], "only a first batch and one out of turn are waited for"


def test_an_error_in_the_thread_is_raised_where_its_batch_is_asked_for() -> None:
    def source(first: int, n: int) -> int:
        if first == 2:
            raise ValueError("patch 2 is damaged")
        return first

    batches = Ahead(source)
    assert batches(0, 2) == 0
    with pytest.raises(ValueError, match="patch 2 is damaged"):
        batches(2, 2)
