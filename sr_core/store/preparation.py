"""From image files to a patch store: in parallel, a few images in memory at a time, and never the same work twice.

Every finished image lies as a part beside the store until all are there; then the parts become the store. An image
that an existing store has, by its pixels, is taken from there, with whatever LR it has.
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
"""An image of a store: its split, and its number there."""


def prepare_store(
    path: Path,
    images: ImageSet,
    lr: Iterable[Lr],
    *,
    known: KnownImages | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PatchStore:
    """Brings a store up to date: it then has these images, with this LR and what LR it had before.

    Whatever happens on the way, the path holds the new store or what was there before, and a later call goes on with
    what was finished. Another process that prepares the same store is waited for.

    Args:
        known: the files read before; learns those that are read here.
        workers: processes; by default one per core where there is enough to do.
        progress: is told (pixels done, estimated pixels in all) after each image that had to be made.
    Raises:
        ImageError: an image cannot be read, or is smaller than one LR pixel.
        StoreError: the store cannot be written, or what lies there is damaged or no store.
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
        made = _make_parts([task for task in tasks if task.layers], known, workers, progress)
        write_store(path, _entries(tasks, made, wanted, old), wanted)
        return load_store(path)


def _task(
    split: Split, image: SourceImage, wanted: frozenset[Lr], old: PatchStore | None, where: Where | None, folder: Path
) -> PartTask:
    """What has to be made for an image: no layer where the old store has all."""
    layers = layers_for(split, wanted)
    task = PartTask(split, image, file_key(image.path), tuple(layers), folder)
    if old is None or where is None:
        return task
    there = layers_for(where[0], old.lr)
    return replace(task, layers=tuple(n for n in layers if n not in there), stored=(old.path, *where))


def _make_parts(
    tasks: list[PartTask],
    known: KnownImages,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[Path, ManifestEntry]:
    """The record of every part by its path, once all are there."""
    made = {task.path: record for task in tasks if (record := record_in(task.path)) is not None}
    todo = [task for task in tasks if task.path not in made]
    bytes_in_all = sum(task.key[0] for task in tasks)
    bytes_done = sum(task.key[0] for task in tasks if task.path in made)
    pixels_done = sum(record.height * record.width for record in made.values())

    def tell() -> None:
        if progress is not None and bytes_done:
            progress(pixels_done, round(pixels_done * bytes_in_all / bytes_done))

    tell()
    try:
        with Workers(workers or share_out(task.image.path for task in todo)) as pool:
            for number, record in pool.results(make_part, todo):
                made[todo[number].path] = record
                bytes_done += todo[number].key[0]
                pixels_done += record.height * record.width
                tell()
    finally:  # what was read need not be read again, even if the next image is damaged
        for task in todo:
            if (record := made.get(task.path)) is not None:
                known.learn(task.image, task.key, (record.height, record.width, record.sha256))
        known.save()
    return made


def _entries(
    tasks: list[PartTask], made: dict[Path, ManifestEntry], wanted: frozenset[Lr], old: PatchStore | None
) -> Iterator[Entry]:
    """The images of the new store, each put together from its part and from the old store."""
    for task in tasks:
        images: dict[Layer, Image] = read_part(task.path) if task.layers else {}
        record = made.get(task.path)
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
    """The folder for a store's parts, held by this process alone; it goes when the block ends well.

    Without locks it is a folder that no other process knows; then it goes however the block ends.
    """
    folder = path.with_name(f"{path.name}.parts")
    try:
        held = _hold(folder)
        if held is None:
            folder = unique_name(folder)
            folder.mkdir(parents=True)
    except OSError as exc:
        raise StoreError(f"{path}: the patch store cannot be written ({exc}); use another folder") from exc
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        if held is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            os.close(held)


def _hold(folder: Path) -> int | None:
    """Makes the folder and waits for its lock, which ends with the file; None where there are no locks."""
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
