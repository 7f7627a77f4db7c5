"""Detection of the ground truth (HR) in a folder that also holds LR images or results of the same scenes.

Downloads mix them in a few usual ways. These are supported:

| in the folder | ground truth |
|---|---|
| `HR`, `GT`, `GTmod12`, `original` or `target`, next to other folders | the first of these; of `GTmodN` the largest N |
| folders of the same names and sizes (by a factor) next to it, such as `HR/a.png` and `results/a.png` | `HR/a.png` |
| subfolders `LR*`, `LQ*`, `*_LR_*`, `X2`, `lowres`, … | the images outside them |
| `a_HR.png` (or `a_GT.png`) next to `a_LR.png`, `a_bicubic.png`, … | `a_HR.png` |
| `HR_a.png` next to `LR_a.png` | `HR_a.png` |
| `a.png` next to `ax2.png`, `a_x2.png`, `a_LRBI_x2.png`, `a_lr.png` smaller or larger by that factor | `a.png` |
| `a_SRF_2_HR.png` and `a_SRF_3_HR.png`, cropped for each scale | the one of the given scale, else the smallest |

All other images of the same scenes are left out and reported.
Only names below the folder decide. A folder of LR images that is given by its own path is therefore used as it is.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from sr_core.errors import ImageError
from sr_core.images.scan import LeftOut, Scan, holds_image, images_in, is_folder, scan, subfolders
from sr_core.process.names import printable
from sr_core.store.counterparts import DEGRADED, LR, counterparts_among, is_version, of_other_scales, scene_of, truth_of

LR_FOLDER = "LR folder"
UNUSED_FOLDER = "unused folder"
COUNTERPART = "LR or result image"
OTHER_SCALE = "image of another scale"

_LR_TOKEN = re.compile(
    rf"{LR}{DEGRADED}(?:x?\d{{1,2}}x?)?[mdw]?s?|(?:bi|bd|dn|bic|bicubic)x\d|bicubic|downsampled|downscaled",
    re.IGNORECASE,
)
_LOW_RESOLUTION = re.compile(r"(?<![a-z])low[\W_]*(?:res|resolution|quality)(?![a-z])", re.IGNORECASE)
_SCALE_FOLDER = re.compile(r"(?:x[2-8]|[2-8]x)(?:[_-]sub)?", re.IGNORECASE)
_SCALE_NAMED = re.compile(
    r"(?:(?:\b|_)(?:(?:lr|lq)[a-z]*?|bi|bd|dn|bic|bicubic)?x|srf_?)([2-8])(?![\da-z])|(?<![\da-z])([2-8])x(?![\da-z])",
    re.IGNORECASE,
)
_CAPITALS = (re.compile(r"(?<=[a-z0-9])(?=[A-Z])"), re.compile(r"(?<=[A-Z])(?=[A-Z][a-z])"))
"""The beginnings of words that follow without a separator: `matlabLRx4`, `LRImages`."""
_CONTAINERS = (
    r"hr|high[_ -]?res(?:olution)?",
    r"gt|ground[_ -]?truth",
    r"gtmod(?P<n>\d+)",
    r"original",
    r"targets?",
)
_OF_TARGETS = ("input", "inputs")


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The HR images of a folder."""

    folder: Path
    """The given folder, or its subfolder that holds the HR images."""
    names: tuple[str, ...]
    """Paths relative to `folder`, with forward slashes, sorted."""
    left_out: LeftOut
    """The entries that are not used, named relative to the given folder."""

    @property
    def paths(self) -> list[Path]:
        return [self.folder / name for name in self.names]


def ground_truth(folder: Path, *, scale: int | None = None) -> GroundTruth:
    """The HR images of a benchmark, or of another folder that holds one set.

    Args:
        scale: selects among HR images that were cropped for each scale.
    Raises:
        ImageError: there is no such folder, its ground truth is missing or ambiguous, or an entry cannot be used.
    """
    container = None if not is_folder(folder) or images_in(folder) else container_of(folder)
    if container is None:
        return ground_truth_among(scan(folder), scale=scale)
    inside = ground_truth_among(scan(container), scale=scale)
    left_out = inside.left_out.below(container.name) + unused_folders(folder, [container])
    return GroundTruth(container, inside.names, left_out)


def unused_folders(folder: Path, used: Collection[Path]) -> LeftOut:
    """The subfolders that hold images but are not used."""
    others = [child for child in subfolders(folder) if child not in used]
    return LeftOut(
        tuple(
            (LR_FOLDER if is_lr_folder(child.name) else UNUSED_FOLDER, child.name)
            for child in others
            if holds_image(child)
        )
    )


def container_of(folder: Path) -> Path | None:
    """The subfolder named as the place of HR images (`HR`, `GT`, `GTmod12`, `original`, …), or None."""
    named = [child for child in subfolders(folder) if _container_rank(child.name) is not None]
    holding = [child for child in named if holds_image(child)]
    return min(holding or named, key=lambda child: _rank(child.name), default=None)


def ground_truth_among(
    entries: Scan, *, scale: int | None = None, ignored: Callable[[tuple[str, ...]], bool] = lambda parts: False
) -> GroundTruth:
    """The HR images among those of a folder.

    Args:
        entries: all entries of the folder.
        ignored: returns True if an entry does not belong to the set, given the parts of its path below the folder.
            If every image is ignored, the result is empty.
    Raises:
        ImageError: there is no ground truth, it is ambiguous, or an entry that may belong to it cannot be used.
    """

    def belongs(name: str) -> bool:
        return not ignored(PurePosixPath(name).parts)

    names = [name for name in sorted((*entries.images, *entries.unusable)) if belongs(name)]
    folders = _folders_left_out(entries.folder, names)
    below_left_out = _is_below(folders)
    truths = [name for name in names if not below_left_out(name)]
    faults = {name: entries.unusable[name] for name in truths if name in entries.unusable}
    for name, fault in entries.closed.items():
        if belongs(name) and not below_left_out(f"{name}/"):
            faults[name] = fault
    if faults:
        raise ImageError(faults[min(faults)])

    counterparts = counterparts_among(entries.folder, truths)
    truths = [name for name in truths if name not in counterparts]
    cropped = of_other_scales(truths, scale)
    truths = [name for name in truths if name not in cropped]
    left_out = LeftOut(
        tuple(entry for entry in entries.left_out.entries if belongs(entry[1]) and not below_left_out(entry[1]))
        + tuple((noun, name) for name, noun in folders.items())
        + tuple((COUNTERPART, name) for name in sorted(counterparts))
        + tuple((OTHER_SCALE, name) for name in sorted(cropped))
    )
    if not truths and (names or not entries.images):
        raise _no_ground_truth(entries, left_out, folders)
    return GroundTruth(entries.folder, tuple(truths), left_out)


def is_lr_folder(name: str) -> bool:
    """True if the name is that of a folder of LR images, e.g. `LR_bicubic`, `DIV2K_train_LR_x8`, `X2`, `low-res`."""
    if _SCALE_FOLDER.fullmatch(name) or _LOW_RESOLUTION.search(name):
        return True
    tokens = re.split(r"[\W_]+", name)
    for word_begins in _CAPITALS:
        tokens += re.split(r"[\W_]+", word_begins.sub("_", name))
    if any(token.lower() in ("hr", "gt") for token in tokens):
        return False
    return any(_LR_TOKEN.fullmatch(token) for token in tokens)


def scales_named(folder: str) -> set[int]:
    """The scales in a folder's name: 2 for `X2`, `2x`, `LRbicx2`, `DIV2K_train_LR_bicubic_X2` and `image_SRF_2`."""
    return {int(before or after) for before, after in _SCALE_NAMED.findall(folder)}


def _no_ground_truth(entries: Scan, left_out: LeftOut, folders: Mapping[str, str]) -> ImageError:
    if not folders:
        return entries.nothing()
    example = entries.folder / min(folders)
    return ImageError(
        f"{entries.folder}: expected HR images, but by their names all images in it are LR images or results "
        f"({left_out.line()}); if some are ground truth, give the path of their folder, such as {example}"
    )


# Folders


@cache
def _container_rank(name: str) -> tuple[int, int] | None:
    for rank, pattern in enumerate(_CONTAINERS):
        match = re.fullmatch(pattern, name, re.IGNORECASE)
        if match:
            cropped_to = int(match.groupdict().get("n") or 0)
            return rank, -cropped_to
    return None


def _rank(name: str) -> tuple[tuple[int, int], bool, str]:
    return _container_rank(name) or (len(_CONTAINERS), 0), name != name.upper(), name


def _folders_left_out(root: Path, names: Sequence[str]) -> dict[str, str]:
    """The folders that hold no ground truth according to their names, each with its kind."""
    direct: dict[str, list[str]] = {}
    for name in names:
        direct.setdefault(PurePosixPath(name).parent.as_posix(), []).append(name)
    children: dict[str, set[str]] = {}
    for place in direct:
        while place != ".":
            above = PurePosixPath(place).parent.as_posix()
            children.setdefault(above, set()).add(place)
            place = above

    left_out: dict[str, str] = {}
    waiting = ["."]
    while waiting:
        place = waiting.pop()
        inside = sorted(children.get(place, ()))
        containers = [child for child in inside if _container_rank(PurePosixPath(child).name) is not None]
        chosen = min(containers, key=lambda child: _rank(PurePosixPath(child).name), default=None)
        if chosen is not None and place in direct:
            _check_different(root, place, direct[place], chosen, names)
        for child in inside:
            base = PurePosixPath(child).name
            is_input = base.lower() in _OF_TARGETS and bool(containers)
            if is_input or (is_lr_folder(base) and not _all_marked(child, names)):
                left_out[child] = LR_FOLDER
            elif (
                chosen is not None
                and child != chosen
                and ((child in containers and place not in direct) or _shows_the_same(root, child, chosen, direct))
            ):
                left_out[child] = UNUSED_FOLDER
            else:
                waiting.append(child)
    return dict(sorted(left_out.items()))


def _shows_the_same(root: Path, folder: str, container: str, direct: Mapping[str, Sequence[str]]) -> bool:
    """True if, by name and size, each image in a folder is a result of the image at the same place in an HR folder."""

    def below(top: str) -> list[tuple[PurePosixPath, str]]:
        return [
            (PurePosixPath(place).relative_to(top) / scene_of(name), name)
            for place, names in direct.items()
            if place == top or place.startswith(f"{top}/")
            for name in names
        ]

    originals = dict(below(container))
    results = below(folder)
    if any(scene not in originals for scene, _ in results):
        return False
    return all(is_version(root, name, originals[scene]) for scene, name in results)


def _all_marked(folder: str, names: Iterable[str]) -> bool:
    """True if the name of every image in a folder marks it as ground truth."""
    stems = [PurePosixPath(name).stem for name in names if name.startswith(f"{folder}/")]
    return all(truth_of(stem) is not None for stem in stems)


def _check_different(root: Path, place: str, direct: Iterable[str], container: str, names: Iterable[str]) -> None:
    """Check that the images next to an HR folder have other names than those in it.

    Raises:
        ImageError: an image of the same name is in both places.
    """
    inside = {scene_of(name) for name in names if name.startswith(f"{container}/")}
    both = [PurePosixPath(name).name for name in direct if scene_of(name) in inside]
    if both:
        more = ", …" if len(both) > 1 else ""
        raise ImageError(
            f"{root / place}: this folder and its subfolder {PurePosixPath(container).name} hold images of the same "
            f"names ({printable(both[0])}{more}), so the ground truth is ambiguous; give the path of the folder with "
            f"the ground truth, such as {root / container}"
        )


def _is_below(folders: Iterable[str]) -> Callable[[str], bool]:
    beginnings = tuple(f"{folder}/" for folder in folders)
    return lambda name: name.startswith(beginnings)
