"""Keeps results that take long to compute next to the report, under a digest of everything they depend on."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sr_core.errors import ImageError
from sr_core.images.files import Image, png_bytes, read_image
from sr_core.process.durable import write_durably
from study.question.config import short_digest

_NAME = re.compile(r"(importance|kernels|scene)-[0-9a-f]{16}\.(json|png)")
"""Names of the cache's files. A file with any other name does not belong to the cache."""


@dataclass(slots=True)
class Cache:
    """A folder of results. `sweep` removes the results that this run has not used."""

    folder: Path
    _used: set[Path] = field(default_factory=set)

    def value(self, kind: str, key: Any, compute: Callable[[], Any]) -> Any:
        """Return a cached value, or compute and keep it. A new value also passes through JSON, so that runs agree.

        Args:
            key: everything that the value depends on.
        """
        path = self._path(kind, key, "json")
        try:
            return json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            text = json.dumps(compute())
            self._write(path, text.encode())
            return json.loads(text)

    def image(self, kind: str, key: Any, compute: Callable[[], Image]) -> Image:
        """Return a cached image, or compute and keep it.

        Args:
            key: everything that the image depends on.
        """
        path = self._path(kind, key, "png")
        if path.is_file():
            try:
                return read_image(path)
            except ImageError:  # the file is damaged: compute the image again
                pass

        image = compute()
        self._write(path, png_bytes(image))
        return image

    def sweep(self) -> None:
        """Remove the cache's files that this run has not used."""
        for path in self.folder.glob("*-*.*"):
            if path not in self._used and _NAME.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _path(self, kind: str, key: Any, suffix: str) -> Path:
        path = self.folder / f"{kind}-{short_digest(key)}.{suffix}"
        assert _NAME.fullmatch(path.name), path.name  # otherwise `sweep` would never remove it
        self._used.add(path)
        return path

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, content)
