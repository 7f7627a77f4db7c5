"""The table of samplers and schedulers in docs/concepts/search.md, and the script that makes it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "benchmarks" / "curves" / "search_economy.csv"


@pytest.fixture(scope="module")
def economy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("search_economy", ROOT / "benchmarks" / "search_economy.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_difference_over_the_same_seeds_is_as_certain_as_the_seeds_agree(economy: ModuleType) -> None:
    costs = np.random.default_rng(5).permutation(40) * 960.0
    always = economy.difference(costs, costs + 1_920)
    assert set(always) == {-1_920.0}  # in every sample, though each median alone is uncertain
    assert len(set(economy.medians(costs, 0))) > 5


def test_a_difference_is_over_the_seeds_that_both_have(economy: ModuleType) -> None:
    few, many = [960.0, 1_920.0, 2_880.0], [960.0, 1_920.0, 2_880.0, *[96_000.0] * 9]
    assert set(economy.difference(few, many)) == {0.0}


@pytest.mark.parametrize(("gain", "apart"), [(3_840.0, "yes"), (0.0, "no")])
def test_combinations_are_told_apart_where_the_interval_is_without_0(
    economy: ModuleType, gain: float, apart: str
) -> None:
    generator = np.random.default_rng(1)
    worse = generator.integers(10, 20, 50) * 960.0
    better = generator.permutation(worse) - gain
    rows = [
        economy.Result("gp", "asha, 1/3", better.tolist(), 10, 0.0, 18.0),
        economy.Result("tpe", "none", worse.tolist(), 10, 0.0, 50.0),
    ]
    (line,) = economy.differences(rows).splitlines()[2:]
    assert line.startswith(f"| gp, asha, 1/3 | tpe, none | 50 | {-gain:,.0f} (".replace("-0", "0").replace("-", "−"))
    assert line.endswith(f"| {apart} |")


def test_a_recorded_row_is_what_the_simulation_gives(economy: ModuleType) -> None:
    (row,) = (r for r in economy.results(RECORDED) if (r.sampler, r.scheduler) == ("random", "asha, 1/3"))
    assert list(economy.simulated("random", "asha, 1/3", range(5), economy.GOAL).costs) == row.costs[:5]


def test_the_page_shows_what_the_script_prints_of_the_recorded_rows(
    economy: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = RECORDED.read_bytes()
    monkeypatch.setattr(sys, "argv", ["search_economy.py"])
    economy.main()
    page = (ROOT / "docs" / "concepts" / "search.md").read_text("utf-8")
    printed = capsys.readouterr().out.strip().split("\n\n")
    assert [part in page for part in printed] == [True, True]
    assert len(printed[0].splitlines()) == 2 + 25  # every sampler with every scheduler
    assert RECORDED.read_bytes() == before


def test_rows_are_kept_and_missing_ones_added(
    economy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    arguments = ["search_economy.py", "--rows", str(rows), "--samplers", "qmc", "--studies", "4", "--whole", "2"]
    for schedulers in (["asha, 1/3"], ["none", "asha, 1/3"]):
        monkeypatch.setattr(sys, "argv", [*arguments, "--schedulers", *schedulers])
        economy.main()
    results = economy.results(rows)
    assert [(r.sampler, r.scheduler, len(r.costs), r.whole) for r in results] == [
        ("qmc", "asha, 1/3", 4, 2),
        ("qmc", "none", 4, 2),
    ]
    assert results[1].full == 50.0
    assert "| qmc | none | 4 |" in capsys.readouterr().out
