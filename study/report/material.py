"""Finds the trained networks and the validation images of a study, as far as they are still on the disk."""

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
    """The weights file."""

    @property
    def digest(self) -> str:
        """Digest of the weights, as the journal records it."""
        assert isinstance(self.trial.end, Finished)
        return self.trial.end.weights

    def load(self) -> A2N:
        """Load the network, in eval mode on the CPU.

        Raises:
            CheckpointError: the file does not hold the recorded weights.
        """
        return trained_network(self.folder, self.trial, self.path)


def network_of(record: StudyRecord, trial: TrialState) -> Network | None:
    """Find the network of a trial in its folder or, for the winner, in the results; None if its file is missing."""
    if not isinstance(trial.end, Finished):
        return None

    best = record.folder.results / "best"
    for folder in (record.folder.trial(trial.number), best):
        weights, config = folder / "weights.safetensors", folder / "config.json"
        if record.folder.has(weights) and record.folder.has(config) and (folder != best or _is_of(config, trial)):
            return Network(record.folder, trial, weights)
    return None


def _is_of(config: Path, trial: TrialState) -> bool:
    """Return True if the file holds the configuration of the trial."""
    try:
        return TrialConfig.from_json(json.loads(config.read_text("utf-8"))).digest() == trial.proposed.config_hash
    except (OSError, ValueError, ConfigError):
        return False


@dataclass(frozen=True, slots=True)
class Setting:
    """A configuration whose networks are compared, trained once in the search or with several seeds."""

    title: str
    trial: TrialState
    networks: tuple[Network, ...]
    """The networks of its replicates or, if there are none, its own."""


def settings_of(record: StudyRecord, *, kernels: bool = False) -> list[Setting]:
    """Return the finished finalists and references whose weights are on the disk.

    Args:
        kernels: True adds the best trial of every training kernel that no finalist has.
    """
    state = record.state
    settings: list[Setting] = []
    for name, trial in finalists(state).items():
        replicates = [network_of(record, t) for _, t in sorted(state.replicates_of(trial.number).items())]
        networks = [network for network in replicates if network is not None]
        if not networks:
            own_network = network_of(record, trial)
            networks = [] if own_network is None else [own_network]
        if not networks:
            continue

        title = f"trial {trial.number}" if record.swept else BASE  # without ranges, this trial is the whole search
        if trial.is_reference:
            title = name
        settings.append(Setting(title, trial, tuple(networks)))

    if kernels:
        covered = {s.trial.config.data.train_kernel for s in settings if not s.trial.is_reference}
        for trial in state.ranking():
            kernel = trial.config.data.train_kernel
            if kernel in covered or trial.is_reference:
                continue
            network = network_of(record, trial)
            if network is not None:
                covered.add(kernel)
                settings.append(Setting(f"trial {trial.number}", trial, (network,)))
    return settings


WEIGHTS_NEEDED = (
    "Needs the weights of finalists and references (trials/NNNN/weights.safetensors with config.json, or results/best "
    "for the winner): restore them from MLflow or a copy, then run study.report again."
)


def validation_images(record: StudyRecord, data: Path | None, *, at_most: int) -> list[tuple[str, Image]]:
    """Return names and pixels of validation images, verified to be those on which the study was scored.

    Args:
        data: where the images are now, if they were moved.
        at_most: largest number of images. They are evenly spaced in the study's order, like its crops.
    Raises:
        SuiteError: the images are missing or have changed.
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
            pass  # the store is damaged, but the original images may still exist
    return _from_source([recorded[i] for i in chosen], _source(record, data))


def _source(record: StudyRecord, data: Path | None) -> ImageSet:
    folder = data or record.opened.data.get("folder")
    try:
        return embedded_images() if folder is None else folder_images(Path(folder))
    except ImageError as exc:
        origin = record.opened.data.get("origin", "")
        raise SuiteError(f"needs the study's images ({origin}), or --data DIR where they are now: {exc}") from exc


def _from_source(recorded: Sequence[tuple[str, str]], source: ImageSet) -> list[tuple[str, Image]]:
    """Read the recorded images from their original folder.

    Args:
        recorded: name and pixel digest of each image.
    """
    # Images added to the folder may have moved this one between training and validation, so both are searched.
    paths = {image.name: image.path for image in (*source.train, *source.valid)}
    missing = [name for name, _ in recorded if name not in paths]
    if missing:
        raise SuiteError(f"needs the validation images {_some(missing)}, which are no longer in {source.origin}")

    images: list[tuple[str, Image]] = []
    changed: list[str] = []
    for name, digest in recorded:
        try:
            pixels = read_image(paths[name])
        except ImageError as exc:
            raise SuiteError(f"needs every validation image: {exc}") from exc
        images.append((name, pixels))
        if pixel_digest(pixels) != digest:
            changed.append(name)
    if changed:
        raise SuiteError(f"the validation images {_some(changed)} in {source.origin} have changed since the study")
    return images


def _some(names: Iterable[str]) -> str:
    """Return the first three names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
