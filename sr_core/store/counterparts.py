"""Detection of images that are LR versions or results of other images in the folder, by name and size."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from sr_core.errors import ImageError
from sr_core.images.files import image_sides
from sr_core.process.names import folded

LR = r"(?:lr|lq)"
DEGRADED = r"(?:bi|bic|bicubic|bd|dn|blur|down|unknown|mild|wild|difficult|jpe?g|noise|real)?"
"""`LR` and then `DEGRADED`: the marks in names of images that are not ground truth."""

_SEPARATOR = r"[_\-. ]"
_TRUTH_LAST = re.compile(rf"(?P<scene>.+){_SEPARATOR}(?:hr|gt)(?:{_SEPARATOR}?x\d)?", re.IGNORECASE)
_TRUTH_FIRST = re.compile(rf"(?:hr|gt){_SEPARATOR}(?P<scene>.+)", re.IGNORECASE)
_LR_FIRST = re.compile(rf"{LR}{DEGRADED}{_SEPARATOR}(?P<scene>.+)", re.IGNORECASE)
_METHOD = re.compile(r"[^\W\d]")
"""The first character of a method that follows the name of a scene. A digit would number another scene."""
_LR_LAST = re.compile(rf"{LR}{DEGRADED}(?![a-z])", re.IGNORECASE)
_KNOWN_METHOD = re.compile(
    r"(?:sr|bicubic|bilinear|nearest|lanczos|srcnn|selfexsr|glasner|scsr|a\+|kim|vdsr|edsr|rcan|esrgan)(?![a-z])",
    re.IGNORECASE,
)
_OF_A_SCALE = re.compile(rf"(?P<before>.+?){_SEPARATOR}?x(?P<n>[2-8])[mdw]?", re.IGNORECASE)
_OF_ANY_SCALE = re.compile(rf"(?P<before>.+?){_SEPARATOR}(?P<mark>{LR}{DEGRADED}|bicubic)", re.IGNORECASE)
_CROPPED_FOR = re.compile(rf"(?:(?<![a-z])srf[_-]?|{_SEPARATOR}(?:hr|gt){_SEPARATOR}?x)([2-8])(?!\d)", re.IGNORECASE)
_SCALES = range(2, 9)

_SidesOf = Callable[[str], tuple[int, int] | None]


def truth_of(stem: str) -> str | None:
    """The scene of a name that is marked as ground truth: `a` of `a_HR`, `HR_a`, `a_HR_x2`."""
    match = _TRUTH_LAST.fullmatch(stem) or _TRUTH_FIRST.fullmatch(stem)
    return match["scene"] if match else None


def scene_of(name: str) -> str:
    """The name without its folder, suffix and marks of HR, LR or scale, in one spelling."""
    stem = PurePosixPath(name).stem
    for pattern in (_TRUTH_LAST, _TRUTH_FIRST, _LR_FIRST):
        match = pattern.fullmatch(stem)
        if match:
            return folded(match["scene"])
    bases = [base for base, _ in _bases(stem)]
    return folded(bases[-1] if bases else stem)


def _bases(stem: str) -> list[tuple[str, Iterable[int]]]:
    """Possible names of the original of this image, each with the possible scales."""
    bases: list[tuple[str, Iterable[int]]] = []
    scales: Iterable[int] = _SCALES
    match = _OF_A_SCALE.fullmatch(stem)
    if match:
        stem = match["before"]
        scales = [int(match["n"])]
        bases.append((stem, scales))
    match = _OF_ANY_SCALE.fullmatch(stem)
    if match:
        is_result = match["mark"].lower() not in ("lr", "lq")  # "lr" may also mean lower right
        bases.append((match["before"], [1, *scales] if is_result else scales))
    return bases


def counterparts_among(root: Path, names: Sequence[str]) -> set[str]:
    """The names of those images that are LR images or results of other images in the list.

    Args:
        root: the folder that the names are relative to.
    """
    by_stem = {(PurePosixPath(name).parent.parts, folded(PurePosixPath(name).stem)): name for name in names}
    sides = cache(lambda name: _sides(root / name))
    counterparts: set[str] = set()
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(PurePosixPath(name).parent.as_posix(), []).append(name)
    for inside in by_folder.values():
        counterparts |= _marked_counterparts(inside, sides)
    for name in names:
        path = PurePosixPath(name)
        for base, scales in _bases(path.stem):
            for place in _places(path.parent.parts):
                original = by_stem.get((place, folded(base)))
                if original is None or original == name:
                    continue
                if _is_resized(sides(original), sides(name), scales):
                    counterparts.add(name)
    return counterparts


def _marked_counterparts(names: Sequence[str], sides: _SidesOf) -> set[str]:
    """Counterparts of marked ground truth in one folder: `a_LR` next to `a_HR`, `LR_a` next to `HR_a`."""
    last: dict[str, str] = {}
    first: set[str] = set()
    unmarked: list[str] = []
    for name in names:
        stem = PurePosixPath(name).stem
        if match := _TRUTH_LAST.fullmatch(stem):
            last[folded(match["scene"])] = name
        elif match := _TRUTH_FIRST.fullmatch(stem):
            first.add(folded(match["scene"]))
        else:
            unmarked.append(name)

    counterparts: set[str] = set()
    scenes_of: dict[str, set[str]] = {}
    candidates: list[tuple[str, str]] = []
    for name in unmarked if last or first else ():
        stem = PurePosixPath(name).stem
        lr = _LR_FIRST.fullmatch(stem)
        if lr and folded(lr["scene"]) in first:
            counterparts.add(name)
        for scene, method in _split_at_separators(stem):
            truth = last.get(folded(scene))
            if truth is None:
                continue
            scenes_of.setdefault(folded(method), set()).add(truth)
            if _LR_LAST.match(method) or (not method and _is_resized(sides(truth), sides(name), _SCALES)):
                counterparts.add(name)
            else:
                candidates.append((name, truth))

    # Ford_GT next to Ford_Mustang is not a pair.
    are_pairs = counterparts or any(_KNOWN_METHOD.match(m) or len(scenes) > 1 for m, scenes in scenes_of.items())
    if are_pairs:
        for name, truth in candidates:
            if _is_resized(sides(truth), sides(name), (1, *_SCALES)):
                counterparts.add(name)
    return counterparts


def _split_at_separators(stem: str) -> list[tuple[str, str]]:
    """All splits of a name into a possible scene and a method. The method does not begin with a digit."""
    separators = [match for match in re.finditer(_SEPARATOR, stem) if _METHOD.match(stem, match.end())]
    return [(stem, ""), *((stem[: match.start()], stem[match.end() :]) for match in separators)]


def _places(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The folder itself, and the folders that result when one part of its path is left out."""
    return [parts, *(parts[:i] + parts[i + 1 :] for i in range(len(parts)))]


def _sides(path: Path) -> tuple[int, int] | None:
    try:
        return image_sides(path)
    except ImageError:  # reported when the pixels are read
        return None


def _is_resized(original: tuple[int, int] | None, other: tuple[int, int] | None, scales: Iterable[int]) -> bool:
    """True if the other image has the size of the original reduced or enlarged by one of the scales."""
    if original is None or other is None:
        return False
    for s in scales:
        enlarged = all(side * s == result for side, result in zip(original, other, strict=True))
        reduced = all(lr in (side // s, -(-side // s)) for side, lr in zip(original, other, strict=True))
        if enlarged or reduced:
            return True
    return False


def is_version(root: Path, name: str, original: str) -> bool:
    """True if an image has the size of the original, or that size reduced or enlarged by a scale."""
    return _is_resized(_sides(root / original), _sides(root / name), (1, *_SCALES))


def of_other_scales(names: Sequence[str], scale: int | None) -> set[str]:
    """The HR images that were cropped for other scales than the given one.

    If a scene has no HR image for the given scale, its HR image for the smallest scale is used instead.
    """
    alike: dict[str, dict[int, list[str]]] = {}
    for name in names:
        stem = PurePosixPath(name).stem
        match = _CROPPED_FOR.search(stem)
        if match:
            folder = re.sub(r"(?i)(srf_?|x)\d", "*", PurePosixPath(name).parent.as_posix())
            key = f"{folder}/{_CROPPED_FOR.sub('*', stem)}"
            alike.setdefault(folded(key), {}).setdefault(int(match[1]), []).append(name)
    others: set[str] = set()
    for by_scale in alike.values():
        chosen = scale if scale in by_scale else min(by_scale)
        for cropped_for, files in by_scale.items():
            if cropped_for != chosen:
                others.update(files)
    return others
