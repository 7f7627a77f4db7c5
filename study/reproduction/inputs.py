"""What a reproduction starts from, held against the record: configuration, seed, and every image's pixels."""

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
    """What of configuration, seed and the list of images is not what the record says elsewhere, each named."""
    assert state.opened is not None
    opened, recorded = state.opened, trial.config
    found: list[str] = []
    if recorded.digest() != trial.proposed.config_hash:
        found.append(f"config: the journal's own config no longer matches its hash {trial.proposed.config_hash}")
    if short_digest(opened.question) != opened.digest:
        found.append("question: the journal's question no longer matches its digest")
    if opened.seed != opened.question["seed"]:
        found.append(f"seed: the study's is {opened.seed}, its question's {opened.question['seed']}")
    if recorded.seed != trial_seed(opened.seed, trial.proposed.replicate):
        found.append(f"seed: {recorded.seed} is not derived from the study's seed {opened.seed}")
    listed = tuple(ManifestEntry(split, name, 0, 0, digest) for split, name, digest in opened.data["pictures"])
    if fingerprint(listed) != opened.question["data"]["fingerprint"]:
        found.append("data: the journal's list of images no longer matches the question's fingerprint of them")
    found += _outside_the_question(opened.question, trial)
    return found + _changed_file(folder.trial(trial.number) / "config.json", recorded)


def _outside_the_question(question: Mapping[str, object], trial: TrialState) -> list[str]:
    """Values of a trial that neither its proposal nor the experiment's base, or reference, accounts for."""
    references, base = question["references"], question["base"]
    assert isinstance(references, Mapping) and isinstance(base, Mapping)
    asked = dict(references[trial.proposed.name]) if trial.proposed.name in references else dict(base)
    asked |= trial.proposed.values
    recorded = trial.config.recorded()
    has = {name: value for name, value in recorded.items() if name != "seed"}
    with suppress(ConfigError):  # what no version knows is compared as it stands
        asked = TrialConfig.from_recorded({**asked, "seed": recorded["seed"]}).recorded()
        del asked["seed"]
    return [
        f"config: {name} is {has.get(name)!r} in the trial and {asked.get(name)!r} in what the study asked"
        for name in sorted(asked.keys() | has.keys())
        if asked.get(name) != has.get(name)
    ]


def _changed_file(path: Path, recorded: TrialConfig) -> list[str]:
    if not path.exists():
        return []  # a copy for people; the journal holds the config
    try:
        stored = TrialConfig.from_json(json.loads(path.read_text("utf-8")))
    except (ValueError, ConfigError) as exc:
        return [f"config: {path.name} of the trial cannot be read ({exc})"]
    changed = differences(recorded, stored)
    return [f"config: {name}: {then!r} in the journal, {now!r} in config.json" for name, (then, now) in changed.items()]


_images = "{:.0f} images".format


@dataclass(frozen=True, slots=True)
class RestoredImages:
    """The pixels to train on."""

    store: PatchStore
    changed: tuple[str, ...]
    """Images that are not those of the record, each named."""


@contextmanager
def material_for(
    folder: StudyFolder, opened: StudyOpened, config: TrialConfig, data: Path | None
) -> Iterator[RestoredImages]:
    """The study's store or, where it is not at hand, one made for this trial that goes when the block ends.

    Every pixel is read and held against the record: in the store, and where the images came from if that is there.

    Args:
        data: where the images are now; by default where they were.
    Raises:
        SuiteError: there is neither the store nor the images.
    """
    path = folder.root / opened.data["store"]
    sources = _sources(opened, data)
    if path.exists():
        store = load_store(path)
        with ProgressBar("verifying the patch store", text=_images) as progress:
            damaged = verify(path, progress.at)
        changed = [f"data: {name} in the patch store does not match its checksum" for name in damaged]
        changed += _changed_images(opened, store.manifest, "the patch store")
        if sources is not None:
            with ProgressBar("reading the images", text=_images) as progress:
                changed += _changed_images(opened, KnownImages().manifest_of(sources, progress=progress.at))
        yield RestoredImages(store, tuple(changed))
        return
    if sources is None:
        splits = [split for split, _, _ in opened.data["pictures"]]
        raise SuiteError(
            f"study {folder.study!r}: its images ({splits.count('train')} to train, {splits.count('valid')} to "
            f"validate) are no longer in {opened.data['folder']}, nor is {path} there; give them with --data DIR"
        )
    scale = config.data.scale
    lr: set[Lr] = {("train", scale, config.data.train_kernel), ("valid", scale, config.evaluation.kernel)}
    with tempfile.TemporaryDirectory(prefix="reproduce-") as scratch:
        with ProgressBar("preparing the images", text=pixels_text) as progress:
            made = prepare_store(Path(scratch) / "store.h5", sources, lr, known=KnownImages(), progress=progress.at)
        yield RestoredImages(made, tuple(_changed_images(opened, made.manifest)))


def _sources(opened: StudyOpened, data: Path | None) -> ImageSet | None:
    """The images as files, None where they are not where they were."""
    recorded = opened.data["folder"]
    if recorded is None:
        if data is not None:
            raise SuiteError(f"study {opened.study!r} was run on the images of {opened.data['origin']}; leave out "
                             "--data")  # fmt: skip
        return embedded_images()
    if data is None and not Path(recorded).is_dir():
        return None
    place = data or Path(recorded)
    # A benchmark that is not there trained nothing either; but one that is must not be taken for training images.
    present = present_benchmarks(place, opened.question["benchmarks"]) if place.is_dir() else ()
    return folder_images(place, present)


def _changed_images(opened: StudyOpened, manifest: Manifest, where: str = "its source") -> list[str]:
    recorded = {(split, name): digest for split, name, digest in opened.data["pictures"]}
    present = {(r.split, r.name): r.sha256 for r in manifest}
    return [
        f"data: {split} image {name} " + (
            f"is missing in {where}" if (split, name) not in present
            else f"is in {where}, not in the record" if (split, name) not in recorded
            else f"differs in {where}"
        )
        for split, name in sorted(recorded.keys() | present.keys())
        if recorded.get((split, name)) != present.get((split, name))
    ]  # fmt: skip
