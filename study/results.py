"""A study as a table, for notebooks and for whatever draws or prints it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from study.state import StudyState, TrialState

if TYPE_CHECKING:
    from study.importance import Importance


def trials(state: StudyState) -> pd.DataFrame:
    """One row a trial of the search, in the order of the ranking, then those that failed or run.

    Columns: `rank` (finished ones only), `trial`, `name` (of a reference), `state`, `patches`, `val/psnr` [dB],
    `val/ssim`, `val/psnr_gain_over_bicubic` [dB], and every hyperparameter under its dotted name.
    """
    ranked = state.ranking()
    rest = [t for t in state.trials.values() if t not in ranked and not t.is_replicate]
    bicubic = bicubic_of(state)["val/psnr"]
    rows = [_row(trial, rank, bicubic) for rank, trial in enumerate([*ranked, *rest], start=1)]
    return pd.DataFrame(rows)


def _row(trial: TrialState, rank: int, bicubic: float) -> dict[str, Any]:
    scores = trial.curve[-1].scores if trial.curve else {}
    psnr = scores.get("val/psnr")
    return {
        "rank": rank if trial.status == "finished" else None,
        "trial": trial.number,
        "name": trial.proposed.name,
        "state": trial.status,
        "patches": trial.patches,
        "val/psnr": psnr,
        "val/ssim": scores.get("val/ssim"),
        "val/psnr_gain_over_bicubic": None if psnr is None else psnr - bicubic,
        **trial.config.dotted(),
    }


def curves(state: StudyState) -> pd.DataFrame:
    """One row a validation: `trial`, `name`, `state`, `patches`, `val/psnr` [dB], `val/ssim`, `train/loss`.

    Of the search alone; replicates have a table of their own.
    """
    rows = [
        {
            "trial": t.number,
            "name": t.proposed.name,
            "state": t.status,
            "patches": p.patches,
            **p.scores,
            "train/loss": p.loss,
        }
        for t in state.trials.values()
        if not t.is_replicate
        for p in t.curve
    ]
    return pd.DataFrame(rows, columns=["trial", "name", "state", "patches", "val/psnr", "val/ssim", "train/loss"])


def replicates(state: StudyState) -> pd.DataFrame:
    """One row a replicate: `finalist` (or a reference's name), `of` (its trial in the search), `seed` (its number),
    `trial`, `state`, `patches`, `val/psnr` [dB], `val/ssim`."""
    rows = [
        {
            "finalist": t.proposed.name,
            "of": t.proposed.of,
            "seed": t.proposed.replicate,
            "trial": t.number,
            "state": t.status,
            "patches": t.patches,
            **(t.curve[-1].scores if t.curve else {}),
        }
        for t in state.trials.values()
        if t.is_replicate
    ]
    return pd.DataFrame(rows, columns=["finalist", "of", "seed", "trial", "state", "patches", "val/psnr", "val/ssim"])


def importances(found: "Sequence[Importance]") -> pd.DataFrame:
    """One row a dimension of the space: `hyperparameter`, fANOVA's `share` with `low` and `high`, `resolved` (from
    noise), and PED-ANOVA's share in being among the best, `top`."""
    return pd.DataFrame([asdict(one) for one in found]).rename(columns={"label": "hyperparameter"})


def bicubic_of(state: StudyState) -> dict[str, float]:
    """Scores of bicubic enlargement on the validation crops."""
    assert state.opened is not None
    return dict(state.opened.data["baseline"])


def swept_names(state: StudyState) -> list[str]:
    """Dotted names that the search moves, in the order of the experiment."""
    assert state.opened is not None
    return [name for dimension in state.opened.question["space"].values() for name in dimension["names"]]
