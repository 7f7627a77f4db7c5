"""What image files were when they were last read, so that a large set need not be read again to be known."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from sr_core.errors import StoreError
from sr_core.images.files import read_image
from sr_core.process.whole_file import whole_file
from sr_core.process.workers import Workers, share_out
from sr_core.store.manifest import Manifest, ManifestEntry, in_order, manifest_entry
from sr_core.store.sources import ImageSet, SourceImage

_Key = tuple[int, int]
"""Size in bytes and time of the last change in ns: a file with both as they were is taken to be as it was."""


class KnownImages:
    """Sizes and digests of image files by absolute path; kept in a JSON file if there is a place for it."""

    def __init__(self, path: Path | None = None) -> None:
        """Reads what is there; a file that is missing or damaged knows nothing."""
        self._path, self._new = path, False
        self._known: dict[str, tuple[_Key, tuple[int, int, str]]] = {}
        try:
            stored = json.loads(path.read_text("utf-8")) if path is not None else {}
            self._known = {
                name: ((int(size), int(changed)), (int(height), int(width), str(sha256)))
                for name, (size, changed, height, width, sha256) in stored.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            pass

    def record(self, split: str, image: SourceImage) -> ManifestEntry | None:
        """What the image is, unless its file has changed or was never read."""
        key, content = self._known.get(_name(image), (None, None))
        if content is None or key != file_key(image.path):
            return None
        height, width, sha256 = content
        return ManifestEntry(split, image.name, height, width, sha256)  # type: ignore[arg-type]  # a split

    def learn(self, image: SourceImage, key: _Key, content: tuple[int, int, str]) -> None:
        """Height, width and digest of an image when its file had this key; `save` keeps it."""
        self._known[_name(image)] = key, content
        self._new = True

    def save(self) -> None:
        """Writes the file, if there is a place for it and anything new. Raises StoreError where it cannot."""
        if self._path is None or not self._new:
            return
        text = json.dumps({name: [*key, *content] for name, (key, content) in self._known.items()}, indent=0)
        try:
            with whole_file(self._path) as file:
                file.write(text.encode())
        except OSError as exc:
            raise StoreError(f"{self._path}: cannot be written ({exc}); make room or use another folder") from exc
        self._new = False

    def manifest_of(
        self,
        images: ImageSet,
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Manifest:
        """The manifest that a store of these images has; reads only those that are not known. Writes nothing.

        Args:
            workers: processes that read; by default one per core where there is enough to read.
            progress: is told (images, all images) after each.
        Raises:
            ImageError: an image cannot be read.
        """
        listed = list(in_order(images))
        records = [self.record(split, image) for split, image in listed]
        unknown = [number for number, record in enumerate(records) if record is None]
        keys = [file_key(listed[number][1].path) for number in unknown]  # before reading: a change meanwhile shows
        tasks = [listed[number] for number in unknown]
        done = len(listed) - len(unknown)
        with Workers(workers or share_out(image.path for _, image in tasks)) as pool:
            for at, record in pool.results(_read, tasks):
                records[unknown[at]] = record
                done += 1
                if progress is not None:
                    progress(done, len(listed))
        for (_, image), key, number in zip(tasks, keys, unknown, strict=True):
            if (now := records[number]) is not None:
                self.learn(image, key, (now.height, now.width, now.sha256))
        return tuple(record for record in records if record is not None)


def file_key(path: Path) -> _Key:
    """What changes when a file does; (-1, -1) where there is none."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _read(task: tuple[str, SourceImage]) -> ManifestEntry:
    split, image = task
    return manifest_entry(split, image, read_image(image.path))  # type: ignore[arg-type]  # a split


def _name(image: SourceImage) -> str:
    return os.path.abspath(image.path)  # noqa: PTH100  # as typed: a link is not followed
