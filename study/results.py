"""A study's results as pandas DataFrames and trained networks: `from study.results import trials, best`.

Every function reads only the study's journal. It therefore works from any folder, while the study runs and after a
crash. A function takes a study's name and root. Functions that return tables also take a StudyState.
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
    """One trial: its configuration, its scores and its trained network."""

    number: int
    name: str
    """Name of the reference, or of the finalist that it retrains; empty if the sampler proposed the trial."""
    state: str
    """finished, pruned, failed, paused, running or waiting."""
    config: TrialConfig
    """The complete configuration, including defaults."""
    scores: dict[str, float]
    """Scores of the last validation by metric name: val/psnr [dB], val/ssim. Empty before the first validation."""
    curve: pd.DataFrame
    """One row per validation: patches, val/psnr [dB], val/ssim, train/loss."""
    folder: Path
    """Folder of the trial's files."""

    @property
    def weights(self) -> Path:
        """Path of the averaged network's weights (.safetensors), which exists once the trial has finished."""
        return self.folder / "weights.safetensors"

    def model(self) -> "A2N":
        """The trained network, in eval mode on the CPU.

        Raises:
            SuiteError: the weights are missing, because the trial has not finished or the file was moved.
        """
        from sr_core.model.weights import load_model

        if not self.weights.is_file():
            raise SuiteError(f"trial {self.number} ({self.state}) has no weights: expected them in {self.weights}")
        return load_model(self.weights, self.config.data.scale)

    def upscale(self, image: "str | Path | Image | NDArray[Any]", *, self_ensemble: bool = False) -> "Image":
        """The upscaled image, (scale * H, scale * W, 3), uint8 RGB, as `python -m sr_core.upscale` computes it.

        Args:
            image: a file, or an array (H, W, 3) RGB or (H, W) grey, uint8. An alpha channel is dropped.
            self_ensemble: return the mean over eight flips and rotations, which takes eight times as long.
        Raises:
            SuiteError: the weights are missing, or the image has another type or shape.
        """
        import numpy as np

        from sr_core.images.own_images import read_own_image
        from sr_core.model.inference import super_resolve

        if isinstance(image, str | Path):
            lr = read_own_image(Path(image).expanduser()).rgb
        else:
            lr = np.asarray(image)
            is_grey = lr.ndim == 2
            is_rgb = lr.ndim == 3 and lr.shape[2] == 3
            if lr.dtype != np.uint8 or not (is_grey or is_rgb) or not lr.size:
                raise SuiteError(
                    f"upscale: expected a file, or an array of uint8 of shape (H, W, 3) or (H, W), got {lr.dtype} of "
                    f"shape {lr.shape}"
                )
            if is_grey:
                lr = np.stack([lr] * 3, axis=2)
        sr = super_resolve(self.model(), lr, self_ensemble=self_ensemble)
        return np.rint(np.clip(sr, 0, 255)).astype(np.uint8)


def best(study: str = "quickstart", root: str | Path | None = None) -> Trial:
    """The best trial so far, which `study.reproduce best` and MLflow's alias `champion` also refer to.

    Raises:
        SuiteError: the study does not exist, or no trial of its search has finished yet.
    """
    folder, state = _open(study, root)
    winner = state.best()
    if winner is None:
        raise SuiteError(f"study {study!r} has no best trial yet: no trial of its search has finished")
    return _trial(folder, winner)


def trial(number: int, study: str = "quickstart", root: str | Path | None = None) -> Trial:
    """The trial with this number; replicates have numbers too.

    Raises:
        SuiteError: the study or the trial does not exist.
    """
    folder, state = _open(study, root)
    if number not in state.trials:
        expected = f"expected 0 to {len(state.trials) - 1}" if state.trials else "it has no trials yet"
        raise SuiteError(f"study {study!r} has no trial {number}: {expected}")
    return _trial(folder, state.trials[number])


def _trial(folder: StudyFolder, state: TrialState) -> Trial:
    curve = [{"patches": p.patches, **p.scores, "train/loss": p.loss} for p in state.curve]
    return Trial(
        number=state.number,
        name=printable(state.proposed.name),
        state=state.status,
        config=state.config,
        scores=dict(state.scores),
        curve=pd.DataFrame(curve, columns=["patches", "val/psnr", "val/ssim", "train/loss"]),
        folder=folder.trial(state.number),
    )


def _open(study: str, root: str | Path | None) -> tuple[StudyFolder, StudyState]:
    folder = StudyFolder(default_root() if root is None else Path(root).expanduser().resolve(), study)
    if not folder.journal.exists() and folder.owner() is not None:
        raise SuiteError(f"study {study!r} is still preparing its images ({folder.owner()}); nothing is recorded yet")
    state = fold(read(folder.require().journal))
    if state.opened is None:
        raise SuiteError(f"study {study!r}: nothing is recorded yet in {folder.journal}")
    return folder, state


def _state(study: str | StudyState, root: str | Path | None) -> StudyState:
    return study if isinstance(study, StudyState) else _open(study, root)[1]


def trials(study: str | StudyState = "quickstart", root: str | Path | None = None) -> pd.DataFrame:
    """One row per trial of the search: ranked trials first, best first, then all others.

    Columns: `rank` (finished trials only), `trial`, `name` (references only), `state`, `patches`, `val/psnr` [dB],
    `val/ssim`, `val/psnr_gain_over_bicubic` [dB], every hyperparameter under its dotted name, and `seed`.

    Args:
        study: name of the study, as for --study-name.
        root: folder of all studies, as for --root; None is the commands' default.
    Raises:
        SuiteError: the study does not exist; the message lists those that do.
    """
    state = _state(study, root)
    ranked = state.ranking()
    ranked_numbers = {t.number for t in ranked}
    rest = [t for t in state.trials.values() if t.number not in ranked_numbers and not t.is_replicate]
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
    """One row per validation: `trial`, `name`, `state`, `patches`, `val/psnr` [dB], `val/ssim`, `train/loss`.

    The table holds trials of the search only; for replicates see `replicates`. Arguments and errors as for `trials`.
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
    """One row per replicate, a retraining of a finalist or reference with another seed.

    Columns: `finalist` (its rank in the search, or the reference's name), `of` (trial in the search), `seed` (1 for
    the first replicate seed), `trial`, `state`, `patches`, `val/psnr` [dB], `val/ssim`, and `setting` (a name of the
    retrained configuration that stays unique when the search is continued). Arguments and errors as for `trials`.
    """
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


def importances(measured: "Sequence[Importance]") -> pd.DataFrame:
    """One row per dimension of the search space.

    Columns: `hyperparameter`, fANOVA's `share` of the variance with its interval `low` to `high`, `resolved` (whether
    the share is above noise), and `top`, PED-ANOVA's share in being among the best trials.
    """
    return pd.DataFrame([asdict(one) for one in measured]).rename(columns={"label": "hyperparameter"})
