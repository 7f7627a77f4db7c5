"""Opening a study: the data are made ready, the question is compared with the record, or becomes its first line."""

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

# What needs PyTorch is imported where it is used: a finished study is shown again without it.


@dataclass(frozen=True, slots=True)
class PreparedImages:
    """The images of a study and the store that holds their pixels."""

    images: ImageSet
    store: PatchStore
    path: str
    """Of the store, relative to the root."""


def find_images(data: Path | None, experiment: Experiment) -> ImageSet:
    """The images that `--data` names, or the photographs inside scikit-image's wheel."""
    if data is not None:
        return folder_images(data, experiment.benchmarks)
    if experiment.benchmarks:
        raise SuiteError(
            f"this experiment reports {', '.join(experiment.benchmarks)}: give --data DIR with DIR/<set>/HR in it"
        )
    return embedded_images()


@dataclass(frozen=True, slots=True)
class ScannedImages:
    """The images of a study, read once to know them."""

    images: ImageSet
    manifest: Manifest
    known: KnownImages
    compared: Findings | None = None
    """What shows the same, where that came of the same reading."""


def read_images(root: Path, images: ImageSet, *, compare: bool = False) -> ScannedImages:
    """What the images are; those that a study under this root has read before are not read again. Writes nothing.

    Args:
        compare: training with held-out images too, if some have to be read for the first time.
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
    """What the images are, if a study under this root has read them all before; reads none of them."""
    known = KnownImages(root / "stores" / ".pictures.json")
    records = [known.record(split, image) for split, image in in_order(images)]
    manifest = tuple(record for record in records if record is not None)
    return manifest if len(manifest) == len(records) else None


def compare_images(images: ImageSet, known: KnownImages) -> Findings:
    """Which training images show what a held-out one shows, or another of them; reads every image."""
    held_out = {"valid": images.valid, **images.benchmarks}
    with ProgressBar("reading and comparing the images", text="{:.0f} images".format) as progress:
        return examine(images.train, held_out, progress.at, known=known)


def benchmark_manifest(found: ScannedImages, name: str) -> Manifest:
    """What the images of a benchmark are; reads those that are not known."""
    return found.known.manifest_of(ImageSet(name, (), found.images.benchmarks[name]))


def prepare_material(root: Path, found: ScannedImages, experiment: Experiment) -> PreparedImages:
    """The store for these images under the root, with this experiment's LR made where it is not there yet.

    Every store in the folder is asked for its fingerprint, so one that `sr_core.prepare` put there is used too.

    Raises:
        ImageError, StoreError: an image cannot be used, or the store not be written or read.
    """
    images, manifest, known = found.images, found.manifest, found.known
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
        raise SuiteError(f"{path}: holds other images than its name says; delete it and run again")
    return PreparedImages(images, store, path.relative_to(root).as_posix())


def _store_for(folder: Path, wanted: str) -> Path:
    """The store of these images, or where it belongs."""
    named = folder / f"{wanted[:16]}.h5"
    for path in sorted(folder.glob("*.h5")) if not named.exists() else ():
        with suppress(StoreError):  # another study's damage
            if load_store(path).fingerprint == wanted:
                return path
    return named


def question_of(experiment: Experiment, seed: int, pixels: str) -> dict[str, Any]:
    """Everything that the answer depends on; the study's digest is taken over this (contract 5)."""
    return {**described(experiment), "seed": seed, "data": {"fingerprint": pixels}}


def check_same_question(
    opened: StudyOpened, question: Mapping[str, Any], folder: StudyFolder, images: ImageSet
) -> None:
    """Raises SuiteError that shows the difference where a study of this name asks something else."""
    if opened.digest == short_digest(question):
        return
    then, now = dict(_flat(opened.question)), dict(_flat(question))
    if then["data.fingerprint"] != now["data.fingerprint"]:  # people know images by where they are from
        then["data.fingerprint"] = opened.data["origin"]
        same_place = images.origin == opened.data["origin"]
        now["data.fingerprint"] = f"other images in {images.origin}" if same_place else images.origin
    changed = [
        f"{name}: {then.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
    raise SuiteError(
        f"study {folder.study!r} asks another question ({'; '.join(changed[:4])}{more}); "
        f"start a new one: --study-name {folder.study}-2"
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
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
    """The record's first line, with the settings that decide bits, resolved once.

    Args:
        max_bicubic_psnr: which places have detail enough for a validation crop (`choose_squares`).
    Raises:
        ImageError: no validation image has detail.
    """
    from study.executors.trial import TrialContext

    base = experiment.base
    bench = TrialContext(material.store, runtime, max_bicubic_psnr=max_bicubic_psnr)
    crops = bench.crops(base)
    assert bench.squares is not None
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
                "lr_side": bench.squares.side,
                **({} if max_bicubic_psnr is None else {"max_bicubic_psnr": max_bicubic_psnr}),
            },
            "without_detail": list(bench.squares.without_detail),
            "baseline": baseline(crops, experiment),
            "leaks": [[leak.kind, leak.training, leak.set_name, leak.held_out] for leak in leaks],
        },
    )


def check_images(experiment: Experiment, found: ScannedImages) -> None:
    """Whether every image will do for what the experiment wants of it; later would be after hours of training.

    Raises:
        ImageError: no training image is left for some setting, or an image is too small to be scored.
    """
    left_out(experiment, found.manifest)
    scale = experiment.base.data.scale
    valid = [r for r in found.manifest if r.split == "valid"]
    for held_out in (valid, *(benchmark_manifest(found, name) for name in found.images.benchmarks)):
        crop_side([r.name for r in held_out], [(r.height // scale, r.width // scale) for r in held_out], scale)


def check_validation_detail(experiment: Experiment, found: ScannedImages, max_bicubic_psnr: float | None) -> None:
    """Raises ImageError if no validation image has a place to score; reads as many of them as it takes to know.

    Args:
        max_bicubic_psnr: the bound of the study that is to begin.
    """
    if max_bicubic_psnr is None:
        return
    base = experiment.base
    scale = base.data.scale
    valid = [r for r in found.manifest if r.split == "valid"]
    largest = crop_side([r.name for r in valid], [(r.height // scale, r.width // scale) for r in valid], scale)
    pairs = ((image.name, crop_to_multiple(read_image(image.path), scale)) for image in found.images.valid)
    check_detail(
        ((name, downsample(hr, scale, base.evaluation.kernel), hr) for name, hr in pairs),
        scale=scale,
        side=min(base.evaluation.lr_crop_size, largest),
        max_bicubic_psnr=max_bicubic_psnr,
    )


def left_out(experiment: Experiment, manifest: Manifest) -> dict[str, list[str]]:
    """Names of the training images too small for a patch or window, by the settings that leave them out.

    Raises:
        ImageError: none is left for some of these settings.
    """
    training = [r for r in manifest if r.split == "train"]
    scale = experiment.base.data.scale
    names, sizes = [r.name for r in training], [(r.height // scale, r.width // scale) for r in training]
    small: dict[str, list[str]] = {}
    for whose, config in _patch_settings(experiment).items():
        try:
            small[whose] = list(PatchSampler(names, sizes, config.data, 0).left_out)
        except ImageError as exc:
            raise ImageError(f"{whose}: {exc}, or take these settings out of the experiment") from exc
    return {whose: names for whose, names in small.items() if names}


def _patch_settings(experiment: Experiment) -> dict[str, TrialConfig]:
    """Every way in which this experiment cuts patches: the search's, each swept one, each reference's."""
    deciding = {"data.sampling", "data.lr_patch_size", "data.subimage_window"}
    swept = [d for d in experiment.space.dimensions if deciding & set(d.names)]
    settings = {"the search": experiment.base}
    for values in product(*(d.samples for d in swept)) if swept else ():
        point = {k: v for d, value in zip(swept, values, strict=True) for k, v in d.settings(value).items()}
        settings[", ".join(f"{k} {v}" for k, v in point.items())] = experiment.base.with_values(point)
    return settings | {f"the {name} reference": config for name, config in experiment.references.items()}


def baseline(crops: list[Crop], experiment: Experiment) -> dict[str, float]:
    """Scores of bicubic enlargement on the validation crops."""
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
    """The settings that this study was resolved to. Raises ConfigError where the record lacks one."""
    from sr_core.training.runtime import Runtime

    return Runtime.from_json(opened.runtime, format=opened.format)
