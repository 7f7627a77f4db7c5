"""The images for training, validation and tests, from scikit-image's wheel or from the user's folder."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sr_core.errors import ImageError
from sr_core.images.scan import NOTHING, LeftOut, holds_image, images_in, is_folder, resolved, scan, subfolders
from sr_core.store.ground_truth import container_of, ground_truth_among, unused_folders

EMBEDDED_TRAIN = (
    "astronaut.png",
    "brick.png",
    "cell.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",  # a stereo pair: both views of the scene belong to the same split
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "text.png",
)
EMBEDDED_VALID = ("chelsea.png", "coffee.png", "rocket.jpg", "camera.png")

BENCHMARKS = ("Set5", "Set14", "B100", "BSD100", "Urban100", "Manga109")
"""Folders of these names are never used for training."""
TRAIN_FOLDERS = ("train", "train_HR")
VALID_FOLDERS = ("valid", "val", "validation", "valid_HR", "val_HR", "validation_HR")
"""Names of training and validation folders. Only one of each kind may hold images."""
DIV2K_TRAIN = ("DIV2K_train_HR",)
DIV2K_VALID = ("DIV2K_valid_HR", "DIV2K_val_HR")
"""Names that are used if none of the others exists."""

_UNUSED_IMAGE = "unused image"
_DIV2K_VALIDATION = "DIV2K validation image"
_COPY = "copy of a validation image"


@dataclass(frozen=True)
class SourceImage:
    """One image file, not yet read."""

    name: str
    """Posix path relative to the folder, or the name of the embedded image. It does not change if the folder moves."""
    path: Path


@dataclass(frozen=True)
class ImageSet:
    """The training, validation and test images of a study."""

    origin: str
    """The source of the images, as text for users."""
    train: tuple[SourceImage, ...]
    valid: tuple[SourceImage, ...]
    benchmarks: Mapping[str, tuple[SourceImage, ...]] = field(default_factory=dict)
    left_out: LeftOut = NOTHING
    """Entries of the folder that are not used."""


def embedded_images() -> ImageSet:
    """The 18 photographs in scikit-image's wheel: 14 for training and 4 for validation. Nothing is downloaded.

    Drawings, charts and phantoms are left out, and so are a photograph with motion blur everywhere (clock_motion) and
    one of 102 pixels (microaneurysms). No scene is in both splits (checked by eye).

    Raises:
        ImageError: scikit-image is not installed, or its release lacks one of the images.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ImageError("the embedded images need scikit-image, which is not installed; pip install scikit-image")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    origin = f"scikit-image {importlib.metadata.version('scikit-image')}"
    missing = [name for name in EMBEDDED_TRAIN + EMBEDDED_VALID if not (folder / name).is_file()]
    if missing:
        raise ImageError(
            f"{folder}: expected the embedded image {', '.join(missing)}, which {origin} does not hold; "
            "install scikit-image 0.26 or pass --data DIR"
        )

    def named(files: Sequence[str]) -> tuple[SourceImage, ...]:
        return tuple(SourceImage(Path(file).stem, folder / file) for file in files)

    return ImageSet(origin, train=named(EMBEDDED_TRAIN), valid=named(EMBEDDED_VALID))


def folder_images(folder: Path, benchmarks: Sequence[str] = ()) -> ImageSet:
    """The images in `folder`, split by the names of its subfolders (case does not matter).

    - Training uses `train` (or `train_HR`), else `DIV2K_train_HR`, recursively. If there is none, it uses every image
      in the folder, except those in the validation folder and in folders named after a benchmark (those of
      `BENCHMARKS` and the requested ones). DIV2K's training set is 0001-0800. Images 0801-0900 in a folder
      `DIV2K_train_HR` are left out, because a common archive adds the validation images there.
    - Validation uses `valid` (or `val`, `validation`, each also with `_HR`), else `DIV2K_valid_HR`. If there is none,
      some of the training images are held out for validation: see `held_out`.
    - `<set>/HR` (or `<set>/GT`, `<set>/GTmod12`) is the benchmark `<set>`. Only requested benchmarks are returned.
    - These folders may also be in a subfolder `HR` or `GT`, as in `HR/train`.

    Only ground truth is used. LR images and results are left out as described in ground_truth.py.

    Args:
        benchmarks: names of the requested test sets. The returned mapping has these keys.
    Raises:
        ImageError: there is no such folder, a requested benchmark is missing, two folders could be the validation
            folder, an entry cannot be used, or no image is left for training or validation.
    """
    folder = resolved(folder)
    if not is_folder(folder):
        raise ImageError(f"{folder}: expected a folder of images, but there is no such folder")
    tests, left_out = _benchmarks(folder, benchmarks)
    taken = {name.lower() for name in (*BENCHMARKS, *benchmarks)}
    place = _place_of_splits(folder)
    train_folder = _split(place, TRAIN_FOLDERS, DIV2K_TRAIN)
    valid_folder = _split(place, VALID_FOLDERS, DIV2K_VALID)

    if train_folder is not None:
        candidates, others = _images(folder, train_folder)
        left_out += others + _unused(folder, {train_folder, valid_folder, place}, taken)
        if place != folder:
            left_out += _unused(place, {train_folder, valid_folder}, taken).below(place.name)
    else:

        def ignored(parts: tuple[str, ...]) -> bool:
            if any(part.lower() in taken for part in parts):
                return True
            return valid_folder is not None and (folder / Path(*parts)).is_relative_to(valid_folder)

        candidates, others = _images(folder, folder, ignored)
        left_out += others

    div2k_validation = [image.name for image in candidates if _is_div2k_validation(image.path)]
    left_out += LeftOut(tuple((_DIV2K_VALIDATION, name) for name in div2k_validation))
    candidates = [image for image in candidates if not _is_div2k_validation(image.path)]
    if not candidates:
        raise ImageError(
            f"{train_folder or folder}: no image to train on; expected {folder}/train, {folder}/DIV2K_train_HR "
            f"or images anywhere below {folder}, outside folders named after a benchmark"
        )

    if valid_folder is not None:
        valid, others = _images(folder, valid_folder)
        return ImageSet(str(folder), tuple(candidates), tuple(valid), tests, left_out + others)

    train, valid = held_out(candidates)
    if not train:
        raise ImageError(
            f"{train_folder or folder}: one image cannot be used for both training and validation; "
            f"add a second (different) image, or put validation images in {folder}/valid"
        )
    used = {image.name for image in (*train, *valid)}
    left_out += LeftOut(tuple((_COPY, image.name) for image in candidates if image.name not in used))
    return ImageSet(str(folder), tuple(train), tuple(valid), tests, left_out)


def present_benchmarks(folder: Path, names: Sequence[str] = BENCHMARKS) -> tuple[str, ...]:
    """The names of those benchmarks that are in the folder, as `<set>/HR` or `<set>/GT`."""
    return tuple(name for name in names if _hr_of(_subfolder(folder, name)) is not None)


def held_out(images: Sequence[SourceImage]) -> tuple[list[SourceImage], list[SourceImage]]:
    """Split images into those for training and those held out for validation, by file content only.

    Both lists keep the order of the images. Of N different contents (SHA-256 of the file's bytes), those with the
    smallest digests are held out: N / 20 rounded, but at least 4, at most 10 and at most N − 1. Names, folders and
    order therefore do not matter. An added image is held out only if its digest is small enough, and then replaces at
    most one other image or fills the place that a larger N opens. If files have the same content, either all are used
    for training, or the first is used for validation and the others are dropped. So no copy of a validation image is
    used for training.

    Raises:
        ImageError: a file cannot be read.
    """
    digests = [_file_digest(image.path) for image in images]
    contents = sorted(set(digests))
    count = min(max(4, round(len(contents) / 20)), 10, len(contents) - 1)
    chosen = set(contents[:count])
    first = dict(zip(reversed(digests), reversed(images), strict=True))
    train: list[SourceImage] = []
    valid: list[SourceImage] = []
    for image, digest in zip(images, digests, strict=True):
        if digest not in chosen:
            train.append(image)
        elif first[digest] is image:
            valid.append(image)
    return (train, valid) if valid else ([], list(images))


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise ImageError(f"{path}: cannot be read ({exc.strerror}); replace or remove the file") from exc


def _subfolder(folder: Path, name: str) -> Path | None:
    """The subfolder of that name in any case. If there are several, the exact one, else the first by name."""
    alike = [child for child in subfolders(folder) if child.name.lower() == name.lower()]
    return min(alike, key=lambda child: (child.name != name, child.name), default=None)


def _hr_of(benchmark: Path | None) -> Path | None:
    return None if benchmark is None else container_of(benchmark)


def _place_of_splits(folder: Path) -> Path:
    """The folder that holds the training and validation folders: the folder itself, or its HR folder."""

    def has_splits(place: Path) -> bool:
        names = {name.lower() for name in (*TRAIN_FOLDERS, *DIV2K_TRAIN)}
        return any(child.name.lower() in names for child in subfolders(place))

    if has_splits(folder) or images_in(folder):
        return folder
    container = container_of(folder)
    return container if container is not None and has_splits(container) else folder


def _split(place: Path, names: Sequence[str], of_div2k: Sequence[str]) -> Path | None:
    """The training or validation folder of these names; None if there is none.

    Raises:
        ImageError: several folders of these names hold images.
    """
    present = _existing(place, names)
    filled = [child for child in present if holds_image(child)]
    if len(filled) > 1:
        listed = " and ".join(child.name for child in filled)
        raise ImageError(
            f"{place}: expected one of the folders {', '.join(names)}, found {listed}; rename or move the folders that "
            "should not be used"
        )
    return next(iter((*filled, *present, *_existing(place, of_div2k))), None)


def _existing(place: Path, names: Sequence[str]) -> list[Path]:
    """The subfolders of these names that exist, in the order of the names."""
    children = [_subfolder(place, name) for name in names]
    return [child for child in children if child is not None]


def _unused(folder: Path, used: Collection[Path | None], taken: Collection[str]) -> LeftOut:
    """Unused images, and unused folders with images, in a folder. Benchmarks are expected there and do not count."""
    expected = [child for child in subfolders(folder) if child in used or child.name.lower() in taken]
    images = LeftOut(tuple((_UNUSED_IMAGE, name) for name in images_in(folder)))
    return unused_folders(folder, expected) + images


def _images(
    root: Path, folder: Path, ignored: Callable[[tuple[str, ...]], bool] = lambda parts: False
) -> tuple[list[SourceImage], LeftOut]:
    truth = ground_truth_among(scan(folder), ignored=ignored)
    images = [SourceImage(path.relative_to(root).as_posix(), path) for path in truth.paths]
    return images, truth.left_out.below(folder.relative_to(root))


def _is_div2k_validation(path: Path) -> bool:
    stem = path.stem
    in_div2k = path.parent.name.lower() == "div2k_train_hr"
    return in_div2k and len(stem) == 4 and stem.isdecimal() and 801 <= int(stem) <= 900


def _benchmarks(folder: Path, names: Sequence[str]) -> tuple[dict[str, tuple[SourceImage, ...]], LeftOut]:
    folders = {name: _hr_of(_subfolder(folder, name)) for name in names}
    absent = [name for name, hr in folders.items() if hr is None]
    if absent:
        raise ImageError(
            f"{folder}: expected the HR images of a benchmark in "
            + ", ".join(str(folder / name / "HR") for name in absent)
            + ", but there is no such folder; put them there, or remove the benchmark from the experiment"
        )
    tests: dict[str, tuple[SourceImage, ...]] = {}
    left_out = LeftOut()
    for name, hr in folders.items():
        if hr is not None:
            images, others = _images(folder, hr)
            tests[name] = tuple(images)
            left_out += others + unused_folders(hr.parent, [hr]).below(hr.parent.name)
    return tests, left_out
