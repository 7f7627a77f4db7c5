"""Which images of a folder are ground truth (HR), and which are LR images or results of the same scenes.

Downloads mix them in a few ways that recur. These are known:

| in the folder | ground truth |
|---|---|
| `HR`, `GT`, `GTmod12`, `original` or `target`, next to other folders | the first of these; of `GTmodN` the largest N |
| folders of the same names and sizes (by a factor) next to it, such as `HR/a.png` and `results/a.png` | `HR/a.png` |
| subfolders `LR*`, `LQ*`, `*_LR_*`, `X2`, `lowres`, … | what is outside of them |
| `a_HR.png` (or `a_GT.png`) next to `a_LR.png`, `a_bicubic.png`, … | `a_HR.png` |
| `HR_a.png` next to `LR_a.png` | `HR_a.png` |
| `a.png` next to `ax2.png`, `a_x2.png`, `a_LRBI_x2.png`, `a_lr.png` smaller or larger by that factor | `a.png` |
| `a_SRF_2_HR.png` and `a_SRF_3_HR.png`, cropped for each scale | that of the scale asked for, else the smallest |

Whatever else is there of the same scenes is left out and told.
Only names below the folder decide, so a folder of LR images that is asked for by its own name is taken as it is.
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
"""Where a word begins without a separator: `matlabLRx4`, `LRImages`."""
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
    """The folder asked for, or the one in it that holds the HR images."""
    names: tuple[str, ...]
    """Relative to `folder`, with forward slashes, sorted."""
    left_out: LeftOut
    """Named relative to the folder asked for."""

    @property
    def paths(self) -> list[Path]:
        return [self.folder / name for name in self.names]


def ground_truth(folder: Path, *, scale: int | None = None) -> GroundTruth:
    """The HR images of a benchmark or of another folder that holds one set.

    Args:
        scale: for sets that hold HR images cropped for each scale.
    Raises:
        ImageError: there is no such folder, no ground truth in it or no telling which it is, or an entry is unusable.
    """
    container = None if not is_folder(folder) or images_in(folder) else container_of(folder)
    if container is None:
        return ground_truth_among(scan(folder), scale=scale)
    found = ground_truth_among(scan(container), scale=scale)
    return GroundTruth(
        container, found.names, found.left_out.below(container.name) + unused_folders(folder, [container])
    )


def unused_folders(folder: Path, used: Collection[Path]) -> LeftOut:
    """The subfolders that hold images and are not used."""
    others = [child for child in subfolders(folder) if child not in used]
    return LeftOut(
        tuple(
            (LR_FOLDER if is_lr_folder(child.name) else UNUSED_FOLDER, child.name)
            for child in others
            if holds_image(child)
        )
    )


def container_of(folder: Path) -> Path | None:
    """The subfolder that by its name holds the HR images (`HR`, `GT`, `GTmod12`, `original`, …), or None."""
    named = [child for child in subfolders(folder) if _container_rank(child.name) is not None]
    holding = [child for child in named if holds_image(child)]
    return min(holding or named, key=lambda child: _rank(child.name), default=None)


def ground_truth_among(
    found: Scan, *, scale: int | None = None, ignored: Callable[[tuple[str, ...]], bool] = lambda parts: False
) -> GroundTruth:
    """The HR images among those of a folder.

    Args:
        ignored: whether something is no part of the set, from its path below the folder, part by part. If that is so
            of every image, the result is empty.
    Raises:
        ImageError: there are none or no telling which, or an entry that may be one cannot be used.
    """

    def belongs(name: str) -> bool:
        return not ignored(PurePosixPath(name).parts)

    names = [name for name in sorted((*found.images, *found.unusable)) if belongs(name)]
    folders = _folders_left_out(found.folder, names)
    below_left_out = _is_below(folders)
    kept = [name for name in names if not below_left_out(name)]
    faults = {name: found.unusable[name] for name in kept if name in found.unusable}
    faults |= {name: fault for name, fault in found.closed.items() if belongs(name) and not below_left_out(f"{name}/")}
    if faults:
        raise ImageError(faults[min(faults)])

    counterparts = counterparts_among(found.folder, kept)
    kept = [name for name in kept if name not in counterparts]
    cropped = of_other_scales(kept, scale)
    kept = [name for name in kept if name not in cropped]
    left_out = LeftOut(
        tuple(entry for entry in found.left_out.entries if belongs(entry[1]) and not below_left_out(entry[1]))
        + tuple((noun, name) for name, noun in folders.items())
        + tuple((COUNTERPART, name) for name in sorted(counterparts))
        + tuple((OTHER_SCALE, name) for name in sorted(cropped))
    )
    if not kept and (names or not found.images):
        raise _no_ground_truth(found, left_out, folders)
    return GroundTruth(found.folder, tuple(kept), left_out)


def is_lr_folder(name: str) -> bool:
    """Whether a folder of this name holds LR images, such as `LR_bicubic`, `DIV2K_train_LR_x8`, `X2`, `low-res`."""
    if _SCALE_FOLDER.fullmatch(name) or _LOW_RESOLUTION.search(name):
        return True
    tokens = re.split(r"[\W_]+", name)
    for word_begins in _CAPITALS:
        tokens += re.split(r"[\W_]+", word_begins.sub("_", name))
    if any(token.lower() in ("hr", "gt") for token in tokens):
        return False
    return any(_LR_TOKEN.fullmatch(token) for token in tokens)


def scales_named(folder: str) -> set[int]:
    """The scales in a folder's name: 2 of `X2`, `2x`, `LRbicx2`, `DIV2K_train_LR_bicubic_X2` and `image_SRF_2`."""
    return {int(before or after) for before, after in _SCALE_NAMED.findall(folder)}


def _no_ground_truth(found: Scan, left_out: LeftOut, folders: Mapping[str, str]) -> ImageError:
    if not folders:
        return found.nothing()
    example = found.folder / min(folders)
    return ImageError(
        f"{found.folder}: expected HR images, and by their names all below it are LR images or results "
        f"({left_out.line()}); if some are ground truth, name their folder itself, such as {example}"
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
    """Folders that hold no ground truth by their names, and what they are."""
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
    """Whether all below a folder are results of images at the same places below an HR folder, by names and sizes."""

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
    """Whether every image below a folder says in its own name that it is ground truth."""
    stems = [PurePosixPath(name).stem for name in names if name.startswith(f"{folder}/")]
    return all(truth_of(stem) is not None for stem in stems)


def _check_different(root: Path, place: str, direct: Iterable[str], container: str, names: Iterable[str]) -> None:
    """Raises ImageError if images next to an HR folder have the names of images in it."""
    inside = {scene_of(name) for name in names if name.startswith(f"{container}/")}
    both = [PurePosixPath(name).name for name in direct if scene_of(name) in inside]
    if both:
        raise ImageError(
            f"{root / place}: holds images of its own, and images of the same names in its folder "
            f"{PurePosixPath(container).name} ({printable(both[0])}{', …' if len(both) > 1 else ''}), so it is not "
            f"clear which are ground truth; name their folder itself, such as {root / container}"
        )


def _is_below(folders: Iterable[str]) -> Callable[[str], bool]:
    beginnings = tuple(f"{folder}/" for folder in folders)
    return lambda name: name.startswith(beginnings)
