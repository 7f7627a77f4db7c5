"""A study's results for notebooks, and for whatever draws or prints them: `from study.results import trials, best`.

Everything is read from the journal alone, so it works from any folder, while the study runs and after it died. Tables
are pandas DataFrames. A function takes a study's name and root, or the StudyState that somebody has folded already.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sr_core.errors import SuiteError
from sr_core.process.names import printable
from study.question.config import SECTIONS, TrialConfig
from study.record.folder import StudyFolder, default_root
from study.record.journal import read
from study.record.state import OBJECTIVE, StudyState, TrialState, fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_core.images.files import Image
    from sr_core.model.network import A2N
    from study.statistics.importance import Importance

_RESULTS = ["rank", "trial", "name", "state", "patches", "val/psnr", "val/ssim", "val/psnr_gain_over_bicubic"]
_HYPERPARAMETERS = [f"{section}.{f.name}" for section, kind in SECTIONS.items() for f in fields(kind)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial: what it was told, what it came to, and the network that it trained."""

    number: int
    name: str
    """Of a reference, or of the finalist that it trains again; empty for a proposal of the sampler."""
    state: str
    """finished, pruned, failed, paused, running or waiting."""
    config: TrialConfig
    """Complete, defaults included."""
    scores: dict[str, float]
    """At the last validation, by MLflow's names: val/psnr [dB], val/ssim. Empty before the first."""
    curve: pd.DataFrame
    """One row a validation: patches, val/psnr [dB], val/ssim, train/loss."""
    folder: Path
    """Where its files are."""

    @property
    def weights(self) -> Path:
        """Of the averaged network, a .safetensors with its config beside it; there once the trial has finished."""
        return self.folder / "weights.safetensors"

    def model(self) -> "A2N":
        """The trained network, in eval mode on the CPU.

        Raises:
            SuiteError: it is not there, because the trial has not finished or the file was moved.
        """
        from sr_core.model.weights import load_model

        if not self.weights.is_file():
            raise SuiteError(f"trial {self.number} ({self.state}) has no weights: expected them in {self.weights}")
        return load_model(self.weights, self.config.data.scale)

    def upscale(self, image: "str | Path | Image | NDArray[Any]", *, self_ensemble: bool = False) -> "Image":
        """The image enlarged as `python -m sr_core.upscale` does it, (scale * H, scale * W, 3), uint8 RGB.

        Args:
            image: a file, or (H, W, 3) RGB or (H, W) grey, uint8. Transparency is left out.
            self_ensemble: the mean over eight flips and turns, in eight times the time.
        Raises:
            SuiteError: the network is not there, or this is no such image.
        """
        import numpy as np

        from sr_core.images.own_images import read_own_image
        from sr_core.model.inference import super_resolve

        if isinstance(image, str | Path):
            lr = read_own_image(Path(image).expanduser()).rgb
        else:
            lr = np.asarray(image)
            if lr.dtype != np.uint8 or not (lr.ndim == 2 or (lr.ndim == 3 and lr.shape[2] == 3)) or not lr.size:
                raise SuiteError(
                    f"upscale: expected a file, or an array of uint8 of shape (H, W, 3) or (H, W), got {lr.dtype} of "
                    f"shape {lr.shape}"
                )
            lr = lr if lr.ndim == 3 else np.stack([lr] * 3, axis=2)
        sr = super_resolve(self.model(), lr, self_ensemble=self_ensemble)
        return np.rint(np.clip(sr, 0, 255)).astype(np.uint8)


def best(study: str = "quickstart", root: str | Path | None = None) -> Trial:
    """The winner: what `study.reproduce best` and MLflow's alias `champion` mean, so far.

    Raises:
        SuiteError: there is no such study, or none of its own trials has finished yet.
    """
    folder, state = _open(study, root)
    found = state.best()
    if found is None:
        raise SuiteError(f"study {study!r}: no trial of the search has finished yet, so there is no best one")
    return _trial(folder, found)


def trial(number: int, study: str = "quickstart", root: str | Path | None = None) -> Trial:
    """Any trial by its number, replicates included. Raises SuiteError where there is none."""
    folder, state = _open(study, root)
    if number not in state.trials:
        there = f"expected 0 to {len(state.trials) - 1}" if state.trials else "it has none yet"
        raise SuiteError(f"study {study!r} has no trial {number}: {there}")
    return _trial(folder, state.trials[number])


def _trial(folder: StudyFolder, found: TrialState) -> Trial:
    curve = [{"patches": p.patches, **p.scores, "train/loss": p.loss} for p in found.curve]
    return Trial(
        number=found.number,
        name=printable(found.proposed.name),
        state=found.status,
        config=found.config,
        scores=dict(found.scores),
        curve=pd.DataFrame(curve, columns=["patches", "val/psnr", "val/ssim", "train/loss"]),
        folder=folder.trial(found.number),
    )


def _open(study: str, root: str | Path | None) -> tuple[StudyFolder, StudyState]:
    folder = StudyFolder(default_root() if root is None else Path(root).expanduser().resolve(), study)
    if not folder.journal.exists() and folder.owner() is not None:
        raise SuiteError(f"study {study!r} still prepares its images ({folder.owner()}); nothing is recorded yet")
    state = fold(read(folder.require().journal))
    if state.opened is None:
        raise SuiteError(f"study {study!r}: nothing is recorded yet in {folder.journal}")
    return folder, state


def _state(study: str | StudyState, root: str | Path | None) -> StudyState:
    return study if isinstance(study, StudyState) else _open(study, root)[1]


def trials(study: str | StudyState = "quickstart", root: str | Path | None = None) -> pd.DataFrame:
    """One row a trial of the search, in the order of the ranking, then those that failed or run.

    Columns: `rank` (finished ones only), `trial`, `name` (of a reference), `state`, `patches`, `val/psnr` [dB],
    `val/ssim`, `val/psnr_gain_over_bicubic` [dB], and every hyperparameter under its dotted name.

    Args:
        study: its name, as --study-name.
        root: as --root; by default where the commands look.
    Raises:
        SuiteError: there is no such study; names those that are.
    """
    state = _state(study, root)
    ranked = state.ranking()
    standing = {t.number for t in ranked}
    rest = [t for t in state.trials.values() if t.number not in standing and not t.is_replicate]
    bicubic = state.bicubic["val/psnr"]
    rows = [_row(one, rank, bicubic) for rank, one in enumerate([*ranked, *rest], start=1)]
    table = pd.DataFrame(rows, columns=[*_RESULTS, *_HYPERPARAMETERS, "seed"])
    return table.astype({"rank": "Int64", "val/psnr": float, "val/ssim": float, "val/psnr_gain_over_bicubic": float})


def _row(one: TrialState, rank: int, bicubic: float) -> dict[str, Any]:
    scores = one.scores
    psnr = scores.get(OBJECTIVE)
    return {
        "rank": rank if one.status == "finished" else None,
        "trial": one.number,
        "name": printable(one.proposed.name),
        "state": one.status,
        "patches": one.patches,
        "val/psnr": psnr,
        "val/ssim": scores.get("val/ssim"),
        "val/psnr_gain_over_bicubic": None if psnr is None else psnr - bicubic,
        **one.config.dotted(),
    }


def curves(study: str | StudyState = "quickstart", root: str | Path | None = None) -> pd.DataFrame:
    """One row a validation: `trial`, `name`, `state`, `patches`, `val/psnr` [dB], `val/ssim`, `train/loss`.

    Of the search alone; replicates have a table of their own. Arguments and errors as of `trials`.
    """
    rows = [
        {
            "trial": t.number,
            "name": printable(t.proposed.name),
            "state": t.status,
            "patches": p.patches,
            **p.scores,
            "train/loss": p.loss,
        }
        for t in _state(study, root).trials.values()
        if not t.is_replicate
        for p in t.curve
    ]
    return pd.DataFrame(rows, columns=["trial", "name", "state", "patches", "val/psnr", "val/ssim", "train/loss"])


def replicates(study: str | StudyState = "quickstart", root: str | Path | None = None) -> pd.DataFrame:
    """One row a replicate: `finalist` (its place in the search, or a reference's name), `of` (its trial in the search),
    `seed` (its number), `trial`, `state`, `patches`, `val/psnr` [dB], `val/ssim`, `setting` (what it trains again: a
    name that no other setting has, also after the search was continued). Arguments and errors as of `trials`."""
    rows = [
        {
            "finalist": printable(t.proposed.name),
            "of": t.proposed.of,
            "seed": t.proposed.replicate,
            "trial": t.number,
            "state": t.status,
            "patches": t.patches,
            **t.scores,
            "setting": printable(t.label.rpartition(" / ")[0]),
        }
        for t in _state(study, root).trials.values()
        if t.is_replicate
    ]
    columns = ["finalist", "of", "seed", "trial", "state", "patches", "val/psnr", "val/ssim", "setting"]
    return pd.DataFrame(rows, columns=columns)


def importances(found: "Sequence[Importance]") -> pd.DataFrame:
    """One row a dimension of the space: `hyperparameter`, fANOVA's `share` with `low` and `high`, `resolved` (from
    noise), and PED-ANOVA's share in being among the best, `top`."""
    return pd.DataFrame([asdict(one) for one in found]).rename(columns={"label": "hyperparameter"})
