"""Which images train, which validate, which test: from scikit-image's wheel or from a folder of one's own."""

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
    "motorcycle_left.png",  # a stereo pair: both views of the scene on one side of the split
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "text.png",
)
EMBEDDED_VALID = ("chelsea.png", "coffee.png", "rocket.jpg", "camera.png")

BENCHMARKS = ("Set5", "Set14", "B100", "BSD100", "Urban100", "Manga109")
"""Folders of these names never train, asked for or not."""
TRAIN_FOLDERS = ("train", "train_HR")
VALID_FOLDERS = ("valid", "val", "validation", "valid_HR", "val_HR", "validation_HR")
"""Names of which only one may be there."""
DIV2K_TRAIN = ("DIV2K_train_HR",)
DIV2K_VALID = ("DIV2K_valid_HR", "DIV2K_val_HR")
"""Names that count if none of the others is there."""

_UNUSED_IMAGE = "unused image"
_DIV2K_VALIDATION = "DIV2K validation image"
_COPY = "copy of a validation image"


@dataclass(frozen=True)
class SourceImage:
    """One image file, not yet read."""

    name: str
    """Posix path relative to the folder, or the embedded image's name: stays when the folder moves."""
    path: Path


@dataclass(frozen=True)
class ImageSet:
    """What a study is trained, validated and tested on."""

    origin: str
    """Where the images are from, for people."""
    train: tuple[SourceImage, ...]
    valid: tuple[SourceImage, ...]
    benchmarks: Mapping[str, tuple[SourceImage, ...]] = field(default_factory=dict)
    left_out: LeftOut = NOTHING
    """What of the folder is not used."""


def embedded_images() -> ImageSet:
    """The 18 photographs that lie inside scikit-image's wheel: 14 train, 4 validate, nothing is downloaded.

    Left out of the folder are drawings, charts and phantoms, one photograph that is motion blur all over
    (clock_motion) and one of 102 pixels (microaneurysms). No scene is on both sides (judged by eye).

    Raises:
        ImageError: scikit-image is not installed, or another release left out one of the images.
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
    """The images below `folder`, split by the names of its subfolders (upper and lower case are alike).

    - `train` (or `train_HR`) trains, or else `DIV2K_train_HR`, recursively. Without any, every image below the
      folder trains, less the validation folder and less every folder named after a benchmark (those of `BENCHMARKS`
      and those asked for). DIV2K's training set is 0001-0800: from a folder `DIV2K_train_HR` 0801-0900 are
      left out, because a common archive adds the validation images there.
    - `valid` (or `val`, `validation`, each also with `_HR`) validates, or else `DIV2K_valid_HR`. Without any, part of
      the training images is held out and validates: see `held_out`.
    - `<set>/HR` (or `<set>/GT`, `<set>/GTmod12`) is the benchmark `<set>`. Only those asked for are returned.
    - If these folders are in `HR` or `GT` rather than in the folder itself, as in `HR/train`, they are found there.

    Everywhere only ground truth counts: LR images and results are left out as ground_truth.py says.

    Args:
        benchmarks: names of the test sets wanted; the mapping returned has these keys.
    Raises:
        ImageError: no such folder, a benchmark asked for is absent, two folders have a claim to validate, an entry
            cannot be used, or nothing is left to train or to validate on.
    """
    folder = resolved(folder)
    if not is_folder(folder):
        raise ImageError(f"{folder}: expected a folder of images, and there is no such folder")
    tests, left_out = _benchmarks(folder, benchmarks)
    taken = {name.lower() for name in (*BENCHMARKS, *benchmarks)}
    place = _place_of_splits(folder)
    train_folder = _split(place, TRAIN_FOLDERS, DIV2K_TRAIN)
    valid_folder = _split(place, VALID_FOLDERS, DIV2K_VALID)

    if train_folder is not None:
        material, others = _images(folder, train_folder)
        left_out += others + _unused(folder, {train_folder, valid_folder, place}, taken)
        if place != folder:
            left_out += _unused(place, {train_folder, valid_folder}, taken).below(place.name)
    else:

        def ignored(parts: tuple[str, ...]) -> bool:
            if any(part.lower() in taken for part in parts):
                return True
            return valid_folder is not None and (folder / Path(*parts)).is_relative_to(valid_folder)

        material, others = _images(folder, folder, ignored)
        left_out += others
    div2k_validation = [p.name for p in material if _is_div2k_validation(p.path)]
    left_out += LeftOut(tuple((_DIV2K_VALIDATION, name) for name in div2k_validation))
    material = [p for p in material if not _is_div2k_validation(p.path)]
    if not material:
        raise ImageError(
            f"{train_folder or folder}: no image to train on; expected {folder}/train, {folder}/DIV2K_train_HR "
            f"or images anywhere below {folder}, outside folders named after a benchmark"
        )

    if valid_folder is not None:
        valid, others = _images(folder, valid_folder)
        return ImageSet(str(folder), tuple(material), tuple(valid), tests, left_out + others)
    train, valid = held_out(material)
    if not train:
        raise ImageError(
            f"{train_folder or folder}: one image cannot both train and validate; "
            f"add a second (different) image, or put images to validate on in {folder}/valid"
        )
    used = {image.name for image in (*train, *valid)}
    left_out += LeftOut(tuple((_COPY, image.name) for image in material if image.name not in used))
    return ImageSet(str(folder), tuple(train), tuple(valid), tests, left_out)


def present_benchmarks(folder: Path, names: Sequence[str] = BENCHMARKS) -> tuple[str, ...]:
    """Those of the benchmarks that lie below the folder, as `<set>/HR` or `<set>/GT`."""
    return tuple(name for name in names if _hr_of(_subfolder(folder, name)) is not None)


def held_out(images: Sequence[SourceImage]) -> tuple[list[SourceImage], list[SourceImage]]:
    """The images that train and those held out to validate, both in their order, chosen by file content alone.

    Of N different contents (SHA-256 of the file's bytes), N / 20 rounded are held out, but at least 4, at most 10
    and at most N − 1: those with the smallest digests. So names, folders and order have no say; an image that
    is added enters the held-out part only if its digest is that small, then pushing at most one other out, or
    fills the place that a larger N opened. Of files with the same content either all train, or the first
    validates and the others are dropped: no copy of a validation image trains.

    Raises:
        ImageError: a file cannot be read.
    """
    digests = [_file_digest(image.path) for image in images]
    contents = sorted(set(digests))
    count = min(max(4, round(len(contents) / 20)), 10, len(contents) - 1)
    chosen = set(contents[:count])
    first = dict(zip(reversed(digests), reversed(images), strict=True))
    train = [p for p, digest in zip(images, digests, strict=True) if digest not in chosen]
    valid = [p for p, digest in zip(images, digests, strict=True) if digest in chosen and first[digest] is p]
    return (train, valid) if valid else ([], list(images))


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise ImageError(f"{path}: cannot be read ({exc.strerror}); replace or remove the file") from exc


def _subfolder(folder: Path, name: str) -> Path | None:
    """The subfolder of that name in any case; where there are several, the exact one, else the first by name."""
    alike = [child for child in subfolders(folder) if child.name.lower() == name.lower()]
    return min(alike, key=lambda child: (child.name != name, child.name), default=None)


def _hr_of(benchmark: Path | None) -> Path | None:
    return None if benchmark is None else container_of(benchmark)


def _place_of_splits(folder: Path) -> Path:
    """The folder in which to look for those that train and validate: itself, or its HR folder if only that has them."""

    def has_splits(place: Path) -> bool:
        names = {name.lower() for name in (*TRAIN_FOLDERS, *DIV2K_TRAIN)}
        return any(child.name.lower() in names for child in subfolders(place))

    if has_splits(folder) or images_in(folder):
        return folder
    container = container_of(folder)
    return container if container is not None and has_splits(container) else folder


def _split(place: Path, names: Sequence[str], of_div2k: Sequence[str]) -> Path | None:
    """The folder that trains, or validates; None if there is none.

    Raises:
        ImageError: several hold images and might be it.
    """
    present = [child for name in names if (child := _subfolder(place, name)) is not None]
    filled = [child for child in present if holds_image(child)]
    if len(filled) > 1:
        listed = " and ".join(child.name for child in filled)
        raise ImageError(
            f"{place}: expected one of the folders {', '.join(names)}, found {listed}; rename those that are not to be "
            "used, or move them elsewhere"
        )
    others = [child for name in of_div2k if (child := _subfolder(place, name)) is not None]
    return next(iter((*filled, *present, *others)), None)


def _unused(folder: Path, used: Collection[Path | None], taken: Collection[str]) -> LeftOut:
    """Images, and folders with images, that are next to those that are used; benchmarks are expected there."""
    expected = [child for child in subfolders(folder) if child in used or child.name.lower() in taken]
    images = LeftOut(tuple((_UNUSED_IMAGE, name) for name in images_in(folder)))
    return unused_folders(folder, expected) + images


def _images(
    root: Path, folder: Path, ignored: Callable[[tuple[str, ...]], bool] = lambda parts: False
) -> tuple[list[SourceImage], LeftOut]:
    found = ground_truth_among(scan(folder), ignored=ignored)
    images = [SourceImage(path.relative_to(root).as_posix(), path) for path in found.paths]
    return images, found.left_out.below(folder.relative_to(root))


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
            + ", and there is no such folder; put them there, or take the benchmark out of the experiment"
        )
    tests: dict[str, tuple[SourceImage, ...]] = {}
    left_out = LeftOut()
    for name, hr in folders.items():
        if hr is not None:
            images, others = _images(folder, hr)
            tests[name] = tuple(images)
            left_out += others + unused_folders(hr.parent, [hr]).below(hr.parent.name)
    return tests, left_out
