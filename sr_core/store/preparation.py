"""Preparation of a patch store from image files: in parallel, with few images in memory, and without repeated work.

Each finished image is kept as a part next to the store. When all parts are there, they are combined into the store.
If an existing store has an image with the same pixels, its HR and LR are reused.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sr_core.errors import StoreError
from sr_core.images.files import Image
from sr_core.process.locks import lock, unique_name
from sr_core.process.workers import Workers, share_out
from sr_core.store.hdf5 import PatchStore, load_store, write_store
from sr_core.store.known import KnownImages, file_key
from sr_core.store.layers import Entry, Layer, Lr
from sr_core.store.manifest import ManifestEntry, Split, in_order
from sr_core.store.parts import PartTask, layers_for, make_part, read_part, record_in
from sr_core.store.sources import ImageSet, SourceImage

Where = tuple[Split, int]
"""The place of an image in a store: its split, and its number there."""


def prepare_store(
    path: Path,
    images: ImageSet,
    lr: Iterable[Lr],
    *,
    known: KnownImages | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PatchStore:
    """Update a store, so that it has these images with this LR and the LR that it had before.

    The path always holds either the new store or the previous file. A later call resumes an interrupted one. If
    another process prepares the same store, this call waits for it.

    Args:
        known: the image files that were read before; files that are read here are added.
        workers: number of processes; by default one per core if there is enough to do.
        progress: called with (pixels done, estimated pixels in total) after each image that had to be made.
    Raises:
        ImageError: an image cannot be read, or is smaller than one LR pixel.
        StoreError: the store cannot be written, or the existing file is damaged or not a store.
    """
    known = known or KnownImages()
    with _parts_folder(path) as folder:
        old = load_store(path) if path.exists() else None
        wanted = frozenset(lr) | (old.lr if old else frozenset())
        listed = list(in_order(images))
        places: list[Where | None] = [None] * len(listed)
        if old is not None:
            manifest = known.manifest_of(images, workers)
            known.save()
            if manifest == old.manifest and wanted == old.lr:
                return old
            by_pixels = {record.sha256: where for where, record in _numbered(old)}
            places = [by_pixels.get(record.sha256) for record in manifest]
        tasks = [
            _task(split, image, wanted, old, where, folder)
            for (split, image), where in zip(listed, places, strict=True)
        ]
        records = _make_parts([task for task in tasks if task.layers], known, workers, progress)
        write_store(path, _entries(tasks, records, wanted, old), wanted)
        return load_store(path)


def _task(
    split: Split, image: SourceImage, wanted: frozenset[Lr], old: PatchStore | None, where: Where | None, folder: Path
) -> PartTask:
    """The part to make for an image. It has no layer if the old store has all of them."""
    layers = layers_for(split, wanted)
    task = PartTask(split, image, file_key(image.path), tuple(layers), folder)
    if old is None or where is None:
        return task
    stored = layers_for(where[0], old.lr)
    missing = tuple(layer for layer in layers if layer not in stored)
    return replace(task, layers=missing, stored=(old.path, *where))


def _make_parts(
    tasks: list[PartTask],
    known: KnownImages,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[Path, ManifestEntry]:
    """Make all parts that are missing, and return the record of every part by its path."""
    records: dict[Path, ManifestEntry] = {}
    for task in tasks:
        finished = record_in(task.path)
        if finished is not None:
            records[task.path] = finished

    todo = [task for task in tasks if task.path not in records]
    total_bytes = sum(task.key[0] for task in tasks)
    bytes_done = sum(task.key[0] for task in tasks if task.path in records)
    pixels_done = sum(record.height * record.width for record in records.values())

    def report() -> None:
        if progress is not None and bytes_done:
            progress(pixels_done, round(pixels_done * total_bytes / bytes_done))

    report()
    try:
        with Workers(workers or share_out(task.image.path for task in todo)) as pool:
            for number, record in pool.results(make_part, todo):
                records[todo[number].path] = record
                bytes_done += todo[number].key[0]
                pixels_done += record.height * record.width
                report()
    finally:  # images that were read are not read again, even if a later image is damaged
        for task in todo:
            new = records.get(task.path)
            if new is not None:
                known.learn(task.image, task.key, (new.height, new.width, new.sha256))
        known.save()
    return records


def _entries(
    tasks: list[PartTask], records: dict[Path, ManifestEntry], wanted: frozenset[Lr], old: PatchStore | None
) -> Iterator[Entry]:
    """Yield the images of the new store, each combined from its part and from the old store."""
    for task in tasks:
        images: dict[Layer, Image] = read_part(task.path) if task.layers else {}
        record = records.get(task.path)
        if old is not None and task.stored is not None:
            _, split, number = task.stored
            before = old.records(split)[number]
            record = ManifestEntry(task.split, task.image.name, before.height, before.width, before.sha256)
            for layer in layers_for(task.split, wanted):
                if layer not in images:
                    images[layer] = next(old.images(split, layer, [number]))
        assert record is not None
        yield Entry(record, {layer: images[layer] for layer in layers_for(task.split, wanted)})


def _numbered(store: PatchStore) -> Iterator[tuple[Where, ManifestEntry]]:
    splits: tuple[Split, Split] = ("train", "valid")
    for split in splits:
        for number, record in enumerate(store.records(split)):
            yield (split, number), record


@contextmanager
def _parts_folder(path: Path) -> Iterator[Path]:
    """The folder for a store's parts, locked by this process. It is deleted if the block ends without an error.

    On a file system without locks, the folder has a unique name and is deleted in any case.
    """
    folder = path.with_name(f"{path.name}.parts")
    try:
        lock_file = _locked_folder(folder)
        if lock_file is None:
            folder = unique_name(folder)
            folder.mkdir(parents=True)
    except OSError as exc:
        raise StoreError(f"{path}: the patch store cannot be written ({exc}); use another folder") from exc
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        if lock_file is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            os.close(lock_file)


def _locked_folder(folder: Path) -> int | None:
    """Create the folder, wait for its lock, and return the descriptor of the lock file; None if locks are missing.

    Closing the descriptor releases the lock.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except FileNotFoundError:  # another process has removed the folder
            continue
        if lock(file, wait=True) == "unsupported":
            os.close(file)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        try:  # the process that held it may have removed the folder since
            if os.path.samestat(os.fstat(file), (folder / "lock").stat()):
                return file
        except FileNotFoundError:
            pass
        os.close(file)
