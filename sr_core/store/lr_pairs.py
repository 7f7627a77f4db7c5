"""Matching of LR images to HR images by their paths."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from sr_core.errors import ImageError
from sr_core.process.names import folded, printable
from sr_core.store.ground_truth import scales_named

_SEPARATOR = r"[_\-. ]"
_MARKED = re.compile(rf"(?P<before>^|.*{_SEPARATOR})(?P<mark>hr|gt)(?P<after>$|{_SEPARATOR}.*)", re.IGNORECASE)

_Fits = Callable[[PurePosixPath], bool]


def matched(hr: Mapping[str, str], lr: Sequence[str], folder: Path, scale: int) -> dict[str, str]:
    """The path of the LR image of each HR image, by the name of the HR image.

    For `000/0001.png`, the first match counts. First comes an image of its name (or `0001x2`, `0001_LRBI_x2` and
    similar) in `000`. Next comes one in a folder of the scale, such as `X2/000` or `000/LRbicx2`. Last comes the only
    image of its name anywhere outside folders of other scales. No LR image is used for two HR images.

    Args:
        hr: paths of HR images relative to their folder, by name.
        lr: paths of LR images relative to their folder.
        folder: the folder of the LR images, for messages.
    Raises:
        ImageError: an HR image has no LR image, has several, or shares one with another HR image.
    """
    lr_images = _LrImages(lr, scale)
    pairs: dict[str, str] = {}
    for stage in (lr_images.at_the_same_place, lr_images.in_a_folder_of_the_scale):
        for name, path in hr.items():
            if name not in pairs:
                pairs |= _one(stage(path), name, folder)

    taken = set(pairs.values())
    places = {PurePosixPath(path).parent.as_posix() for path in hr.values()}
    for name, path in hr.items():
        if name in pairs:
            _check_rivals(lr_images, path, pairs[name], taken, places, folder)
            continue
        candidates = [candidate for candidate in lr_images.anywhere(path) if candidate not in taken]
        pairs |= _one(candidates, name, folder)
        if name not in pairs:
            wanted = ", ".join(printable(stem) for stem in _stems(PurePosixPath(path).stem, scale))
            raise ImageError(f"{folder}: no LR image of {name}; expected a file named {wanted} at scale {scale}")
    _check_own(pairs, folder)
    return pairs


class _LrImages:
    """LR images by name, for look-up at one scale."""

    def __init__(self, images: Iterable[str], scale: int) -> None:
        self._scale = scale
        self._by_stem: dict[str, list[str]] = {}
        for image in images:
            self._by_stem.setdefault(folded(PurePosixPath(image).stem), []).append(image)

    def at_the_same_place(self, hr: str) -> list[str]:
        place = PurePosixPath(hr).parent
        return self._first(hr, lambda image: image.parent == place)

    def in_a_folder_of_the_scale(self, hr: str) -> list[str]:
        place = PurePosixPath(hr).parent.parts

        def fits(image: PurePosixPath) -> bool:
            parts = image.parent.parts
            return any(
                self._scale in scales_named(part) and parts[:i] + parts[i + 1 :] == place
                for i, part in enumerate(parts)
            )

        return self._first(hr, fits)

    def anywhere(self, hr: str) -> list[str]:
        return self._first(hr, lambda image: not self.is_of_another_scale(image))

    def is_of_another_scale(self, image: PurePosixPath) -> bool:
        named = set().union(*map(scales_named, image.parent.parts))
        return bool(named) and self._scale not in named

    def named(self, stem: str) -> list[str]:
        return [image for image in self._by_stem[folded(stem)] if PurePosixPath(image).stem == stem]

    def _first(self, hr: str, fits: _Fits) -> list[str]:
        """The images that fit, for the first possible name that has any."""
        for stem in _stems(PurePosixPath(hr).stem, self._scale):
            alike = [image for image in self._by_stem.get(folded(stem), ()) if fits(PurePosixPath(image))]
            exact = [image for image in alike if PurePosixPath(image).stem == stem]
            if alike:
                return exact or alike
        return []


def _stems(hr: str, scale: int) -> list[str]:
    """Possible names of the LR image of an HR image, without suffix, the most specific first."""
    stems = [f"{hr}x{scale}", f"{hr}_LRBI_x{scale}"]
    marked = _MARKED.fullmatch(hr)
    if marked:
        before = marked["before"]
        after = marked["after"]
        for mark in ("LR", "LQ", "LRBI", f"LR{scale}"):
            stems.append(before + (mark if marked["mark"].isupper() else mark.lower()) + after)
        scene = (before + after).strip("_-. ")
        stems += [f"{scene}x{scale}", f"{scene}_x{scale}", f"{scene}_LRBI_x{scale}", scene]
    stems += [hr, f"{hr}_x{scale}", *(f"{hr}x{scale}{kind}" for kind in "mdw"), f"{hr}_LR", f"{hr}_LQ"]
    return list(dict.fromkeys(stem for stem in stems if stem))


def _one(candidates: Sequence[str], name: str, folder: Path) -> dict[str, str]:
    if len(candidates) > 1:
        raise _several(candidates, name, folder)
    return {name: candidates[0]} if candidates else {}


def _several(candidates: Sequence[str], name: str, folder: Path) -> ImageError:
    places = sorted({PurePosixPath(image).parent.as_posix() for image in candidates} - {"."})
    remedy = (
        f"give --lr the folder of the right ones, such as {folder / places[0]}"
        if places
        else "move the wrong ones to another folder"
    )
    listed = ", ".join(printable(str(folder / image)) for image in candidates)
    return ImageError(f"{folder}: {len(candidates)} LR images of {name}: {listed}; {remedy}")


def _check_rivals(lr_images: _LrImages, hr: str, lr: str, taken: set[str], places: set[str], folder: Path) -> None:
    """Check that no other image of the same name is in a subfolder without belonging to an HR image.

    Raises:
        ImageError: there is such an image, so the LR image is ambiguous.
    """
    place = PurePosixPath(hr).parent
    stem = PurePosixPath(lr).stem
    if PurePosixPath(lr).parent != place:
        return
    rivals = [
        image
        for image in lr_images.named(stem)
        if image not in taken
        and PurePosixPath(image).parent.is_relative_to(place)
        and PurePosixPath(image).parent.as_posix() not in places
        and not any(scales_named(part) for part in PurePosixPath(image).parent.parts)
    ]
    if rivals:
        name = PurePosixPath(hr).with_suffix("").as_posix()
        raise _several([lr, *rivals], printable(name), folder)


def _check_own(pairs: Mapping[str, str], folder: Path) -> None:
    """Check that every HR image has an LR image of its own.

    Raises:
        ImageError: one LR image matches two HR images.
    """
    owners: dict[str, str] = {}
    for name, lr in pairs.items():
        first = owners.setdefault(lr, name)
        if first != name:
            raise ImageError(
                f"{folder / lr}: is the only LR image for both {first} and {name}; expected one LR image for each, at "
                "the same relative path as the HR image"
            )
