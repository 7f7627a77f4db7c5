"""What `study.run --dry-run` says of a study's cost."""

from dataclasses import replace
from typing import Any

import pytest

from sr_core.training.runtime import resolve
from study.executors.placement import Placement
from study.question.experiment import Experiment, load_experiment
from study.session import dry_run


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


def test_a_study_that_compares_settings_has_only_these(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Measured:
        seconds_per_patch = 0.01

    monkeypatch.setattr(dry_run, "resolve_runtime", lambda *_, **__: resolve(threads=1))
    monkeypatch.setattr(dry_run, "measure", lambda *_: Measured)
    claims = load_experiment("claims_x2_cpu")[1]
    dry_run._print_cost(claims, 50, Placement(), 1_000_000)
    # 13 settings with five seeds each, 3,840 patches: 2,496 s at 100 patches/s, however many trials are asked for.
    assert "time: about 41 min 36 s of training steps, at most 41 min 36 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("amx", "precision", "told"), [(True, "fp32", True), (False, "fp32", False), (True, "bf16", False)]
)
def test_a_cpu_with_units_for_bf16_is_told_of_and_changes_nothing_by_itself(
    amx: bool, precision: Any, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Measured:
        seconds_per_patch = 0.01

    monkeypatch.setattr(dry_run, "resolve_runtime", lambda *_, **__: replace(resolve(threads=1), precision=precision))
    monkeypatch.setattr(dry_run, "measure", lambda *_: Measured)
    monkeypatch.setattr(dry_run, "has_amx", lambda: amx)
    dry_run._print_cost(load_experiment("quickstart")[1], 50, Placement(), 1_000_000)
    assert ("train.precision bf16 trains the full network 2.3 to 2.9 times as fast" in capsys.readouterr().out) == told


def test_an_estimate_with_rungs_is_a_range_and_says_what_its_ends_assume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Measured:
        seconds_per_patch = 0.01

    monkeypatch.setattr(dry_run, "resolve_runtime", lambda *_, **__: resolve(threads=1))
    monkeypatch.setattr(dry_run, "measure", lambda *_: Measured)
    monkeypatch.setattr(dry_run, "patches_without_progress", lambda *_: 66_720)
    dry_run._print_cost(load_experiment("quickstart")[1], 50, Placement(), 1_000_000)
    out = capsys.readouterr().out
    # Replicates add 17,280 patches; there are at most 50 trials of 1,920.
    assert "time: about 14 min 00 s to 18 min 53 s of training steps (measured 100 patches/s" in out
    assert (
        "the first if later proposals are no better than earlier ones, the second if every trial continues at every "
        "rung" in out
    )


def test_the_estimated_range_holds_what_the_quickstart_trained() -> None:
    """50 trials with the GP and asha trained 94,080 patches, of which 17,280 were replicates: 28 of 48 continued."""
    quickstart = load_experiment("quickstart")[1]
    least = dry_run.patches_without_progress(quickstart, 50)
    # References to the end, the search to its rung, and at least the best third of it from there to the end.
    assert 2 * 1_920 + 48 * 960 + 16 * 960 <= least <= 94_080 - 17_280 <= 50 * 1_920


def test_without_a_scheduler_every_trial_costs_the_budget() -> None:
    unstopped = replace(load_experiment("quickstart")[1], scheduler="none")
    assert dry_run.patches_without_progress(unstopped, 20) == 20 * 1_920


def test_references_alone_are_never_stopped() -> None:
    assert dry_run.patches_without_progress(load_experiment("quickstart")[1], 2) == 2 * 1_920


def test_an_experiment_with_comparisons_and_rungs_has_an_estimate() -> None:
    base = replace(load_experiment("quickstart")[1].base, seed=0)
    compared = Experiment(
        question="Is l2 better?",
        base=base,
        references={"l2": base.with_values({"train.loss": "l2"})},
        comparisons={"Is l2 better?": [("l2", "base")]},
        rungs=(960,),
    )
    assert compared.scheduler == "successive_halving"
    assert dry_run.patches_without_progress(compared, 2) == 2 * 1_920


def test_a_long_search_is_estimated_by_the_share_that_continues_in_a_shorter_one() -> None:
    quickstart = replace(load_experiment("quickstart")[1], references={})
    fifty = dry_run.patches_without_progress(quickstart, 50)
    assert dry_run.patches_without_progress(quickstart, 1_000) == pytest.approx(20 * fifty, abs=20)
