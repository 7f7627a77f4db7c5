"""Opening a study: prepare its images, and record its question or compare it with the recorded one."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_core.errors import ImageError, StoreError, SuiteError
from sr_core.images.degrade import crop_to_multiple, downsample
from sr_core.images.files import read_image
from sr_core.leaks.overlap import Findings, Leak, examine
from sr_core.metrics.evaluate import bicubic_baseline, mean_score, score
from sr_core.patches.sampler import PatchSampler
from sr_core.patches.validation import MAX_BICUBIC_PSNR, Crop, check_detail, crop_side
from sr_core.process.progress import ProgressBar, pixels_text
from sr_core.store.hdf5 import PatchStore, load_store
from sr_core.store.known import KnownImages
from sr_core.store.layers import Lr
from sr_core.store.manifest import Manifest, fingerprint, in_order
from sr_core.store.preparation import prepare_store
from sr_core.store.sources import ImageSet, embedded_images, folder_images
from study.question.config import TrialConfig, short_digest
from study.question.experiment import Experiment
from study.record.course import described
from study.record.events import FORMAT, StudyOpened
from study.record.folder import StudyFolder

if TYPE_CHECKING:
    from sr_core.training.runtime import Runtime

# Modules that need PyTorch are imported inside functions: the result of a complete study is printed without them.


_MAX_CHANGES_SHOWN = 4
"""Differences between two questions that a message names."""


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """The images of a study and the store that holds their pixels."""

    images: ImageSet
    store: PatchStore
    path: str
    """Path of the store, relative to the root."""


def find_images(data: Path | None, experiment: Experiment) -> ImageSet:
    """The images in the folder of --data, or the photographs in scikit-image's wheel if there is no folder.

    Raises:
        SuiteError: the experiment reports benchmarks, and no folder holds them.
    """
    if data is not None:
        return folder_images(data, experiment.benchmarks)
    if experiment.benchmarks:
        raise SuiteError(
            f"this experiment reports {', '.join(experiment.benchmarks)}: pass --data DIR, a folder with DIR/<set>/HR"
        )
    return embedded_images()


@dataclass(frozen=True, slots=True)
class ScannedImages:
    """The images of a study after their files have been read once to identify them."""

    images: ImageSet
    manifest: Manifest
    known: KnownImages
    compared: Findings | None = None
    """Images that show the same scene, if they were compared in the same pass; else None."""


def read_images(root: Path, images: ImageSet, *, compare: bool = False) -> ScannedImages:
    """The images with their names, sizes and digests; writes nothing.

    An image that another study under this root has read before is not read again.

    Args:
        compare: also compare training with held-out images, if an image has to be read for the first time.
    Raises:
        ImageError: an image cannot be read.
    """
    known = KnownImages(root / "stores" / ".pictures.json")
    compared = None
    if compare and any(known.record(split, image) is None for split, image in in_order(images)):
        compared = compare_images(images, known)
    with ProgressBar("reading the images", text="{:.0f} images".format) as progress:
        return ScannedImages(images, known.manifest_of(images, progress=progress.at), known, compared)


def known_manifest(root: Path, images: ImageSet) -> Manifest | None:
    """The manifest of these images, without reading them; None if studies under this root have not read them all."""
    known = KnownImages(root / "stores" / ".pictures.json")
    manifest = []
    for split, image in in_order(images):
        record = known.record(split, image)
        if record is None:
            return None
        manifest.append(record)
    return tuple(manifest)


def compare_images(images: ImageSet, known: KnownImages) -> Findings:
    """The training images that show the same scene as a held-out or another training image; reads every image.

    Raises:
        ImageError: an image cannot be read.
    """
    held_out = {"valid": images.valid, **images.benchmarks}
    with ProgressBar("reading and comparing the images", text="{:.0f} images".format) as progress:
        return examine(images.train, held_out, progress.at, known=known)


def benchmark_manifest(scanned: ScannedImages, name: str) -> Manifest:
    """The manifest of a benchmark's images; reads those that have not been read before."""
    return scanned.known.manifest_of(ImageSet(name, (), scanned.images.benchmarks[name]))


def prepare_material(root: Path, scanned: ScannedImages, experiment: Experiment) -> PreparedImages:
    """The store of these images under the root, after adding the LR images of this experiment that it lacks.

    A store is recognised by its fingerprint, so a store that `sr_core.prepare` wrote into the folder is used too.

    Raises:
        ImageError: an image cannot be used.
        StoreError: the store cannot be written or read.
        SuiteError: the store holds other images than its name says.
    """
    images = scanned.images
    manifest = scanned.manifest
    known = scanned.known
    known.save()

    base = experiment.base
    lr: set[Lr] = {("train", base.data.scale, kernel) for kernel in experiment.train_kernels}  # type: ignore[misc]
    lr.add(("valid", base.data.scale, base.evaluation.kernel))
    path = _store_for(root / "stores", fingerprint(manifest))
    store = load_store(path) if path.exists() else None
    if store is None or not lr <= store.lr:
        with ProgressBar("preparing the images", text=pixels_text) as progress:
            store = prepare_store(path, images, lr, known=known, progress=progress.at)
    if store.fingerprint != fingerprint(manifest):
        raise SuiteError(f"{path}: holds other images than its name says; delete it, then repeat the command")
    return PreparedImages(images, store, path.relative_to(root).as_posix())


def _store_for(folder: Path, wanted: str) -> Path:
    """The path of the store with this fingerprint, or the path at which to create it."""
    named = folder / f"{wanted[:16]}.h5"
    if named.exists():
        return named
    for path in sorted(folder.glob("*.h5")):
        with suppress(StoreError):  # a damaged store of another study
            if load_store(path).fingerprint == wanted:
                return path
    return named


def question_of(experiment: Experiment, seed: int, pixels: str) -> dict[str, Any]:
    """Everything that the answer depends on. The study's digest is computed from it (promise 5).

    Args:
        pixels: fingerprint of the images.
    """
    return {**described(experiment), "seed": seed, "data": {"fingerprint": pixels}}


def check_same_question(
    opened: StudyOpened, question: Mapping[str, Any], folder: StudyFolder, images: ImageSet
) -> None:
    """Check that the recorded study asks this question.

    Raises:
        SuiteError: it asks another one; the message lists the differences.
    """
    if opened.digest == short_digest(question):
        return
    then = dict(_flat(opened.question))
    now = dict(_flat(question))
    if then["data.fingerprint"] != now["data.fingerprint"]:  # users know images by their folder
        then["data.fingerprint"] = opened.data["origin"]
        same_place = images.origin == opened.data["origin"]
        now["data.fingerprint"] = f"other images in {images.origin}" if same_place else images.origin
    changed = [
        f"{name}: {then.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    hidden = len(changed) - _MAX_CHANGES_SHOWN
    more = f" and {hidden} more" if hidden > 0 else ""
    raise SuiteError(
        f"study {folder.study!r} asks another question ({'; '.join(changed[:_MAX_CHANGES_SHOWN])}{more}); "
        f"start a new study with --study-name {folder.study}-2"
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The values of nested mappings as text, by dotted name."""
    for name, content in value.items():
        if isinstance(content, Mapping):
            yield from _flat(content, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(list(content) if isinstance(content, tuple | list) else content)


def first_event(
    folder: StudyFolder,
    name: str,
    experiment: Experiment,
    seed: int,
    material: PreparedImages,
    leaks: Sequence[Leak],
    *,
    data: Path | None,
    runtime: "Runtime",
    max_bicubic_psnr: float | None = MAX_BICUBIC_PSNR,
) -> StudyOpened:
    """The journal's first event: the question, the images, and the settings that decide bits.

    Args:
        name: name of the experiment.
        seed: seed of the study.
        leaks: pairs of images that --allow-leak permits.
        data: folder of the images; None for the photographs in scikit-image's wheel.
        runtime: the settings that decide bits, resolved once for the life of the study.
        max_bicubic_psnr: validation crops have at most this bicubic PSNR [dB], so that they hold detail
            (`choose_squares`); None sets no bound.
    Raises:
        ImageError: no validation image has detail.
    """
    from study.executors.trial import TrialContext

    base = experiment.base
    context = TrialContext(material.store, runtime, max_bicubic_psnr=max_bicubic_psnr)
    crops = context.crops(base)
    assert context.squares is not None
    question = question_of(experiment, seed, material.store.fingerprint)
    return StudyOpened(
        time=time.time(),
        format=FORMAT,
        study=folder.study,
        experiment=name,
        seed=seed,
        question=question,
        digest=short_digest(question),
        text=experiment.question,
        runtime=runtime.to_json(),
        data={
            "origin": material.images.origin,
            "folder": None if data is None else str(data.resolve()),
            "store": material.path,
            "fingerprint": material.store.fingerprint,
            "pictures": [[r.split, r.name, r.sha256] for r in material.store.manifest],
            "left_out": left_out(experiment, material.store.manifest),
            "not_used": material.images.left_out.summary(),
            "crops": {
                "count": len(crops),
                "pictures": len({c.name for c in crops}),
                "lr_side": context.squares.side,
                **({} if max_bicubic_psnr is None else {"max_bicubic_psnr": max_bicubic_psnr}),
            },
            "without_detail": list(context.squares.without_detail),
            "baseline": baseline(crops, experiment),
            "leaks": [[leak.kind, leak.training, leak.set_name, leak.held_out] for leak in leaks],
        },
    )


def check_images(experiment: Experiment, scanned: ScannedImages) -> None:
    """Check that the images are large enough for the experiment, before hours of training depend on it.

    Raises:
        ImageError: no training image is large enough for some setting, or a held-out image is too small to be scored.
    """
    left_out(experiment, scanned.manifest)
    scale = experiment.base.data.scale
    valid = [r for r in scanned.manifest if r.split == "valid"]
    benchmarks = (benchmark_manifest(scanned, name) for name in scanned.images.benchmarks)
    for held_out in (valid, *benchmarks):
        crop_side([r.name for r in held_out], [(r.height // scale, r.width // scale) for r in held_out], scale)


def check_validation_detail(experiment: Experiment, scanned: ScannedImages, max_bicubic_psnr: float | None) -> None:
    """Check that a validation image has a place with enough detail; reads images until one has.

    Args:
        max_bicubic_psnr: the new study's bound for validation crops [dB]; None checks nothing.
    Raises:
        ImageError: no validation image has such a place.
    """
    if max_bicubic_psnr is None:
        return
    base = experiment.base
    scale = base.data.scale
    valid = [r for r in scanned.manifest if r.split == "valid"]
    largest = crop_side([r.name for r in valid], [(r.height // scale, r.width // scale) for r in valid], scale)
    pairs = ((image.name, crop_to_multiple(read_image(image.path), scale)) for image in scanned.images.valid)
    check_detail(
        ((name, downsample(hr, scale, base.evaluation.kernel), hr) for name, hr in pairs),
        scale=scale,
        side=min(base.evaluation.lr_crop_size, largest),
        max_bicubic_psnr=max_bicubic_psnr,
    )


def left_out(experiment: Experiment, manifest: Manifest) -> dict[str, list[str]]:
    """Names of training images that are too small for a patch or window, by the setting that leaves them out.

    Raises:
        ImageError: a setting leaves out all images.
    """
    training = [r for r in manifest if r.split == "train"]
    scale = experiment.base.data.scale
    names = [r.name for r in training]
    lr_sizes = [(r.height // scale, r.width // scale) for r in training]
    too_small: dict[str, list[str]] = {}
    for setting, config in _patch_settings(experiment).items():
        try:
            small = PatchSampler(names, lr_sizes, config.data, 0).left_out
        except ImageError as exc:
            raise ImageError(f"{setting}: {exc}, or remove these settings from the experiment") from exc
        if small:
            too_small[setting] = list(small)
    return too_small


def _patch_settings(experiment: Experiment) -> dict[str, TrialConfig]:
    """Configurations that cut patches differently, by description: base, combinations of the sweep, references."""
    deciding = {"data.sampling", "data.lr_patch_size", "data.subimage_window"}
    swept = [d for d in experiment.space.dimensions if deciding & set(d.names)]
    settings = {"the search": experiment.base}
    if swept:
        for combination in product(*(d.samples for d in swept)):
            values: dict[str, Any] = {}
            for dimension, value in zip(swept, combination, strict=True):
                values |= dimension.settings(value)
            description = ", ".join(f"{name} {value}" for name, value in values.items())
            settings[description] = experiment.base.with_values(values)
    for name, config in experiment.references.items():
        settings[f"the {name} reference"] = config
    return settings


def baseline(crops: list[Crop], experiment: Experiment) -> dict[str, float]:
    """Mean PSNR [dB] and SSIM of bicubic enlargement on the validation crops, by metric name."""
    base = experiment.base
    mean = mean_score(
        [
            score(
                bicubic_baseline(crop.lr, base.data.scale).astype(np.float64),
                crop.hr,
                scale=base.data.scale,
                protocol=base.evaluation.protocol,
            )
            for crop in crops
        ]
    )
    return {"val/psnr": mean.psnr, "val/ssim": mean.ssim}


def runtime_of(opened: StudyOpened) -> "Runtime":
    """The settings that decide bits, as the study recorded them.

    Raises:
        ConfigError: the record lacks one of them.
    """
    from sr_core.training.runtime import Runtime

    return Runtime.from_json(opened.runtime, format=opened.format)
