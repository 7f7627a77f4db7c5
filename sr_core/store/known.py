"""Sizes and digests of image files that were read before, so that a large set is not read again to identify it."""

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
"""Size in bytes and time of the last change in ns. If both are equal, the file is considered unchanged."""


class KnownImages:
    """Sizes and digests of image files by absolute path, stored in a JSON file if a path is given."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the JSON file. A missing or damaged file counts as empty."""
        self._path = path
        self._new = False
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
        """The record of the image; None if its file has changed or was never read."""
        key, content = self._known.get(_name(image), (None, None))
        if content is None or key != file_key(image.path):
            return None
        height, width, sha256 = content
        return ManifestEntry(split, image.name, height, width, sha256)  # type: ignore[arg-type]  # a split

    def learn(self, image: SourceImage, key: _Key, content: tuple[int, int, str]) -> None:
        """Note the height, width and digest of an image whose file had this key. `save` stores them."""
        self._known[_name(image)] = key, content
        self._new = True

    def save(self) -> None:
        """Write the JSON file if a path was given and there is anything new.

        Raises:
            StoreError: the file cannot be written.
        """
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
        """The manifest of a store of these images. Reads only images that are new or changed, and writes nothing.

        Args:
            workers: number of processes that read; by default one per core if there is enough to read.
            progress: called with (images done, images in total) after each image.
        Raises:
            ImageError: an image cannot be read.
        """
        listed = list(in_order(images))
        records = [self.record(split, image) for split, image in listed]
        unknown = [number for number, record in enumerate(records) if record is None]
        keys = [
            file_key(listed[number][1].path) for number in unknown
        ]  # taken before reading, so that a later change shows
        tasks = [listed[number] for number in unknown]
        done = len(listed) - len(unknown)
        with Workers(workers or share_out(image.path for _, image in tasks)) as pool:
            for at, record in pool.results(_read, tasks):
                records[unknown[at]] = record
                done += 1
                if progress is not None:
                    progress(done, len(listed))
        for (_, image), key, number in zip(tasks, keys, unknown, strict=True):
            read = records[number]
            if read is not None:
                self.learn(image, key, (read.height, read.width, read.sha256))
        return tuple(record for record in records if record is not None)


def file_key(path: Path) -> _Key:
    """Size in bytes and time of the last change in ns of a file; (-1, -1) if it does not exist."""
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
