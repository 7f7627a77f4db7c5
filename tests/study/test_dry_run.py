"""What `study.run --dry-run` says of a study's cost."""

from typing import Any

import pytest

from sr_core.training.runtime import resolve
from study import dry_run
from study.experiment import load_experiment
from study.placement import Placement


@pytest.mark.parametrize(("rate", "long"), [(300.0, False), (0.3, True)])
def test_an_estimate_of_days_says_what_to_lower(
    rate: float, long: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Measured:
        seconds_per_patch = 1 / rate

    def settings(*_: Any, **__: Any) -> Any:
        return resolve(threads=1)

    monkeypatch.setattr(dry_run, "resolve_runtime", settings)
    monkeypatch.setattr(dry_run, "measure", lambda *_: Measured)
    dry_run._print_cost(load_experiment("quickstart")[1], 50, Placement(), 1_000_000)
    out = capsys.readouterr().out
    assert f"measured {rate:.0f} patches/s" in out
    assert ("to make it shorter: fewer --trials, a GPU (--gpus 0), or in the experiment" in out) == long
