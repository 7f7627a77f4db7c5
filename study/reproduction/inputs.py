"""Compares the inputs of a reproduction with the record: configuration, seed, and the pixels of every image."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sr_core.errors import ConfigError, SuiteError
from sr_core.process.progress import ProgressBar, pixels_text
from sr_core.store.hdf5 import PatchStore, load_store, verify
from sr_core.store.known import KnownImages
from sr_core.store.layers import Lr
from sr_core.store.manifest import Manifest, ManifestEntry, fingerprint
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import ImageSet, embedded_images, folder_images, present_benchmarks
from study.question.config import TrialConfig, differences, short_digest
from study.record.events import StudyOpened
from study.record.folder import StudyFolder
from study.record.state import StudyState, TrialState
from study.search.replicates import trial_seed


def changed_settings(folder: StudyFolder, state: StudyState, trial: TrialState) -> list[str]:
    """One line for each setting of the trial that contradicts another place in the record.

    Compares the configuration, the seed and the list of images.
    """
    opened = state.opening
    recorded = trial.config
    problems: list[str] = []
    if recorded.digest() != trial.proposed.config_hash:
        problems.append(f"config: the config in the journal does not match its hash {trial.proposed.config_hash}")
    if short_digest(opened.question) != opened.digest:
        problems.append("question: the question in the journal does not match its digest")
    if opened.seed != opened.question["seed"]:
        problems.append(f"seed: the study has seed {opened.seed}, but its question has {opened.question['seed']}")
    if recorded.seed != trial_seed(opened.seed, trial.proposed.replicate):
        problems.append(f"seed: {recorded.seed} is not derived from the study's seed {opened.seed}")
    listed = tuple(ManifestEntry(split, name, 0, 0, digest) for split, name, digest in opened.data["pictures"])
    if fingerprint(listed) != opened.question["data"]["fingerprint"]:
        problems.append("data: the list of images in the journal does not match the question's fingerprint of them")
    problems += _unexplained_values(opened.question, trial)
    problems += _changed_file(folder.trial(trial.number) / "config.json", recorded)
    return problems


def _unexplained_values(question: Mapping[str, object], trial: TrialState) -> list[str]:
    """One line for each value of a trial that follows neither from its proposal nor from its base or reference."""
    references = question["references"]
    base = question["base"]
    assert isinstance(references, Mapping) and isinstance(base, Mapping)
    expected = dict(references.get(trial.proposed.name, base))
    expected |= trial.proposed.values
    actual = trial.config.recorded()
    with suppress(ConfigError):  # a name that this version does not know is compared as it is
        expected = TrialConfig.from_recorded({**expected, "seed": actual["seed"]}).recorded()
        del expected["seed"]
    del actual["seed"]

    problems = []
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            problems.append(
                f"config: {name} is {actual.get(name)!r} in the trial, but the study's question and proposal give "
                f"{expected.get(name)!r}"
            )
    return problems


def _changed_file(path: Path, recorded: TrialConfig) -> list[str]:
    """One line for each value in the trial's config.json that differs from the journal."""
    if not path.exists():
        return []  # the file is only a readable copy of the config in the journal
    try:
        stored = TrialConfig.from_json(json.loads(path.read_text("utf-8")))
    except (ValueError, ConfigError) as exc:
        return [f"config: {path.name} of the trial cannot be read ({exc})"]
    changed = differences(recorded, stored)
    return [f"config: {name}: {then!r} in the journal, {now!r} in config.json" for name, (then, now) in changed.items()]


_images_text = "{:.0f} images".format


@dataclass(frozen=True, slots=True)
class RestoredImages:
    """The images to train on."""

    store: PatchStore
    changed: tuple[str, ...]
    """One line for each image that differs from the record."""


@contextmanager
def material_for(
    folder: StudyFolder, opened: StudyOpened, config: TrialConfig, data: Path | None
) -> Iterator[RestoredImages]:
    """The images of a study, compared with the record.

    Yields the study's patch store or, if it is missing, a temporary one that is deleted when the block ends. It reads
    every pixel of the store and, if the original images are available, of those too.

    Args:
        data: folder of the images now; by default the recorded folder.
    Raises:
        SuiteError: neither the store nor the images are available, or `data` is given for built-in images.
    """
    path = folder.root / opened.data["store"]
    sources = _sources(opened, data)
    if path.exists():
        store = load_store(path)
        with ProgressBar("verifying the patch store", text=_images_text) as progress:
            damaged = verify(path, progress.at)
        changed = [f"data: {name} in the patch store does not match its checksum" for name in damaged]
        changed += _changed_images(opened, store.manifest, "the patch store")
        if sources is not None:
            with ProgressBar("reading the images", text=_images_text) as progress:
                changed += _changed_images(opened, KnownImages().manifest_of(sources, progress=progress.at))
        yield RestoredImages(store, tuple(changed))
        return
    if sources is None:
        splits = [split for split, _, _ in opened.data["pictures"]]
        raise SuiteError(
            f"study {folder.study!r}: expected its images ({splits.count('train')} to train, {splits.count('valid')} "
            f"to validate) in {opened.data['folder']} or the patch store {path}, found neither; pass the folder of the "
            "images with --data DIR"
        )
    scale = config.data.scale
    lr: set[Lr] = {("train", scale, config.data.train_kernel), ("valid", scale, config.evaluation.kernel)}
    with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
        with ProgressBar("preparing the images", text=pixels_text) as progress:
            store = prepare_store(Path(scratch) / "store.h5", sources, lr, known=KnownImages(), progress=progress.at)
        yield RestoredImages(store, tuple(_changed_images(opened, store.manifest)))


def _sources(opened: StudyOpened, data: Path | None) -> ImageSet | None:
    """The original images as files, or None if they are no longer in the recorded folder."""
    recorded = opened.data["folder"]
    if recorded is None:
        if data is not None:
            raise SuiteError(
                f"study {opened.study!r} was run on the images of {opened.data['origin']}; leave out --data"
            )
        return embedded_images()
    if data is None and not Path(recorded).is_dir():
        return None
    folder = data or Path(recorded)
    # Training does not need the benchmarks, so some may be missing. Those that are here are no training images.
    present = present_benchmarks(folder, opened.question["benchmarks"]) if folder.is_dir() else ()
    return folder_images(folder, present)


def _changed_images(opened: StudyOpened, manifest: Manifest, where: str = "its source") -> list[str]:
    """One line for each image that is missing, added or different."""
    recorded = {(split, name): digest for split, name, digest in opened.data["pictures"]}
    present = {(entry.split, entry.name): entry.sha256 for entry in manifest}
    problems = []
    for split, name in sorted(recorded.keys() | present.keys()):
        image = f"data: {split} image {name}"
        if (split, name) not in present:
            problems.append(f"{image} is missing in {where}")
        elif (split, name) not in recorded:
            problems.append(f"{image} is in {where}, but not in the record")
        elif recorded[split, name] != present[split, name]:
            problems.append(f"{image} differs in {where}")
    return problems
