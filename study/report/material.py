"""What a study left on the disk, as far as it is still there: trained networks and the validation images."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sr_core.errors import ConfigError, ImageError, StoreError, SuiteError
from sr_core.images.files import Image, read_image
from sr_core.model.network import A2N
from sr_core.store.hdf5 import load_store
from sr_core.store.layers import HR
from sr_core.store.manifest import pixel_digest
from sr_core.store.sources import ImageSet, embedded_images, folder_images
from study.executors.trained import trained_network
from study.question.config import TrialConfig
from study.question.experiment import BASE
from study.record.events import Finished
from study.record.folder import StudyFolder
from study.record.state import TrialState
from study.report.record import StudyRecord
from study.search.replicates import finalists


@dataclass(frozen=True, slots=True)
class Network:
    """The trained network of a finished trial."""

    folder: StudyFolder
    trial: TrialState
    path: Path
    """Of its weights."""

    @property
    def digest(self) -> str:
        """Of the weights, as the journal has it."""
        assert isinstance(self.trial.end, Finished)
        return self.trial.end.weights

    def load(self) -> A2N:
        """The network. Raises CheckpointError where the file does not hold the journal's weights."""
        return trained_network(self.folder, self.trial, self.path)


def network_of(record: StudyRecord, trial: TrialState) -> Network | None:
    """The network of a trial, from its folder or, of the winner, from the results; None if its file is gone."""
    if not isinstance(trial.end, Finished):
        return None
    best = record.folder.results / "best"
    for folder in (record.folder.trial(trial.number), best):
        weights, config = folder / "weights.safetensors", folder / "config.json"
        if record.folder.has(weights) and record.folder.has(config) and (folder != best or _is_of(config, trial)):
            return Network(record.folder, trial, weights)
    return None


def _is_of(config: Path, trial: TrialState) -> bool:
    try:
        return TrialConfig.from_json(json.loads(config.read_text("utf-8"))).digest() == trial.proposed.config_hash
    except (OSError, ValueError, ConfigError):
        return False


@dataclass(frozen=True, slots=True)
class Setting:
    """A configuration whose networks are compared: trained once in the search, or again with several seeds."""

    title: str
    trial: TrialState
    networks: tuple[Network, ...]
    """Of its replicates or, without any, its own."""


def settings_of(record: StudyRecord, *, kernels: bool = False) -> list[Setting]:
    """Finalists and references that finished and whose weights are there.

    Args:
        kernels: with the best trial of every training kernel that no finalist has.
    """
    state, found = record.state, []
    for name, trial in finalists(state).items():
        again = [network_of(record, t) for _, t in sorted(state.replicates_of(trial.number).items())]
        networks = tuple(n for n in again if n is not None) or tuple(filter(None, [network_of(record, trial)]))
        if networks:
            own = f"trial {trial.number}" if record.swept else BASE  # without ranges the search has that trial alone
            found.append(Setting(name if trial.is_reference else own, trial, networks))
    if kernels:
        covered = {s.trial.config.data.train_kernel for s in found if not s.trial.is_reference}
        for trial in state.ranking():
            kernel = trial.config.data.train_kernel
            network = None if kernel in covered or trial.is_reference else network_of(record, trial)
            if network is not None:
                covered.add(kernel)
                found.append(Setting(f"trial {trial.number}", trial, (network,)))
    return found


WEIGHTS_NEEDED = (
    "Needs the weights of finalists and references (trials/NNNN/weights.safetensors with config.json, or results/best "
    "for the winner): put them back from MLflow or a copy and run study.report again."
)


def validation_images(record: StudyRecord, data: Path | None, *, at_most: int) -> list[tuple[str, Image]]:
    """Name and pixels of validation images, the very ones that the study was scored on.

    Args:
        data: where they are now, if they moved.
        at_most: so many, at even distances in the study's order, as its crops are spread where there are fewer of them.
    Raises:
        SuiteError: they are nowhere to be found, or not as they were.
    """
    recorded = [(name, digest) for split, name, digest in record.opened.data.get("pictures", ()) if split == "valid"]
    if not recorded:
        raise SuiteError("the journal names no validation image")
    without_detail = record.opened.data.get("without_detail", ())
    usable = [i for i, (name, _) in enumerate(recorded) if name not in without_detail]
    count = len(usable)
    chosen = [usable[j * count // at_most] for j in range(at_most)] if at_most < count else usable
    stored = record.opened.data.get("store")
    if stored and data is None and (record.folder.root / stored).is_file():
        try:
            store = load_store(record.folder.root / stored)
            if [(r.name, r.sha256) for r in store.records("valid")] == recorded:
                return list(zip((recorded[i][0] for i in chosen), store.images("valid", HR, chosen), strict=True))
        except StoreError:
            pass  # damaged: the images themselves may still be there
    return _from_source([recorded[i] for i in chosen], _source(record, data))


def _source(record: StudyRecord, data: Path | None) -> ImageSet:
    folder = data or record.opened.data.get("folder")
    try:
        return embedded_images() if folder is None else folder_images(Path(folder))
    except ImageError as exc:
        origin = record.opened.data.get("origin", "")
        raise SuiteError(f"needs the study's images ({origin}), or --data DIR where they are now: {exc}") from exc


def _from_source(recorded: Sequence[tuple[str, str]], source: ImageSet) -> list[tuple[str, Image]]:
    # An image may have changed sides where others were added to its folder: its name and pixels tell that it is it.
    paths = {p.name: p.path for p in (*source.train, *source.valid)}
    if gone := [name for name, _ in recorded if name not in paths]:
        raise SuiteError(f"needs the validation images {_some(gone)}, which are no longer in {source.origin}")
    try:
        found = [(name, read_image(paths[name])) for name, _ in recorded]
    except ImageError as exc:
        raise SuiteError(f"needs every validation image: {exc}") from exc
    changed = [
        name for (name, digest), (_, image) in zip(recorded, found, strict=True) if pixel_digest(image) != digest
    ]
    if changed:
        raise SuiteError(
            f"the validation images {_some(changed)} in {source.origin} are not those of the study any more"
        )
    return found


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
