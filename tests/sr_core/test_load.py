"""The load of a training's device. It is only information, so no failure of its measurement may end a trial."""

import logging

import pytest
import torch

from sr_core.training.load import LoadMeter


class Driver:
    """A GPU's management library that responds a number of times, then fails."""

    def __init__(self, answers: int, error: Exception) -> None:
        self.answers = answers
        self.error = error
        self.calls = 0

    def __call__(self, device: object) -> int:
        self.calls += 1
        if self.calls > self.answers:
            raise self.error
        return 40 + self.calls


class NVMLError_GpuIsLost(Exception):  # noqa: N801, N818  # as the library calls it
    """GPU is lost."""


@pytest.fixture
def meter_of(monkeypatch: pytest.MonkeyPatch) -> object:
    def make(driver: Driver) -> LoadMeter:
        monkeypatch.setattr(torch.cuda, "utilization", driver)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 << 20)
        return LoadMeter("cuda:0")

    return make


ERRORS = [NVMLError_GpuIsLost("GPU is lost"), RuntimeError("unknown error"), OSError(5, "I/O error"), KeyError("x")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_gauge_that_fails_is_dropped_with_one_line_and_the_others_continue(
    meter_of: object, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    driver = Driver(3, error)
    meter = meter_of(driver)  # type: ignore[operator]  # which asks once, whether there is an answer at all
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            meter.sample()
        load = meter.take()
        later = meter.take()
    assert driver.calls == 4, "it is not asked again"
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith(
        "gpu_utilization_percentage is no longer measured"
    )
    assert load["gpu_utilization_percentage"] == 42.5, "what it had said before counts"
    assert set(later) == {"cpu_utilization_percentage", "memory_usage_megabytes", "gpu_memory_usage_megabytes"}
    assert later["gpu_memory_usage_megabytes"] == 3


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_gauge_that_does_not_answer_at_first_is_left_out_without_a_line(
    meter_of: object, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    load = meter_of(Driver(0, error)).take()  # type: ignore[operator]
    assert "gpu_utilization_percentage" not in load and "gpu_memory_usage_megabytes" in load
    assert not caplog.messages


def test_a_gauge_that_fails_before_it_has_said_anything_is_left_out(meter_of: object) -> None:
    load = meter_of(Driver(1, RuntimeError("unknown error"))).take()  # type: ignore[operator]
    assert "gpu_utilization_percentage" not in load and load["memory_usage_megabytes"] > 0
