"""Build a patch store from folders of images: `python -m sr_core.prepare --images DIR --scale 2 3 4 --out FILE`."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from sr_core.config import Kernel, Scale
from sr_core.errors import ImageError, StoreError
from sr_core.process.cli import Parser, run_command, show_progress
from sr_core.process.output import cannot_write

_HDF5 = b"\x89HDF\r\n\x1a\n"
"""The first bytes of every HDF5 file."""
DAMAGED = 2
"""Exit status if `--verify` finds the store damaged."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments, build or verify the store, and return the exit status."""
    parser = Parser("python -m sr_core.prepare", description="store the HR and LR of folders of images for training")
    parser.add_argument(
        "--images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of images, split as by study.run --data; may be repeated",
    )
    parser.add_argument("--scale", type=int, nargs="+", choices=get_args(Scale), default=[2], help="default: 2")
    parser.add_argument(
        "--kernel",
        nargs="+",
        choices=get_args(Kernel),
        default=["matlab_bicubic"],
        metavar="KERNEL",
        help=f"downsampling kernels: {', '.join(get_args(Kernel))}; default: matlab_bicubic",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the store; updated if it exists")
    parser.add_argument(
        "--verify", action="store_true", help="finally read the whole store and compare it with its checksums"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes; default: one per core")
    args = parser.parse_args(argv)
    if not args.images and not args.verify:
        parser.error("expected --images DIR, or --verify to check an existing store")
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers must be at least 1, got {args.workers}")
    return run_command(lambda: prepare(args))


def prepare(args: argparse.Namespace) -> int:
    """Update the store if `--images` is given, verify it if `--verify` is given, and return the exit status."""
    if args.images:
        _prepare(args)
    return _verify(args.out) if args.verify else 0


def _check_out(path: Path) -> None:
    """Check, before anything is written, that a store can be written to the path.

    Raises:
        StoreError: the path is not writable, or holds something that is not a patch store.
    """
    try:
        _check_place(path)
    except OSError as exc:  # e.g. the name is too long, or a folder or file cannot be read
        raise StoreError(cannot_write("--out", path, exc)) from exc


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise StoreError(
            f"--out {path}: expected a file, got a folder; give a file name in it, such as {path / 'a.h5'}"
        )
    if path.exists() and not path.is_file():
        raise StoreError(f"--out {path}: expected a file, got a pipe or a device; give the name of a file")
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(_HDF5))
        if start != _HDF5:
            raise StoreError(
                f"--out {path}: already exists and is not a patch store; choose another name (the file is unchanged)"
            )
    target = Path(os.path.realpath(path))
    folder = next(parent for parent in target.parents if parent.is_dir())
    for place in (folder, target) if target.exists() else (folder,):
        if not os.access(place, os.W_OK):
            raise StoreError(f"--out {path}: {place} is read-only; choose another place")


def _prepare(args: argparse.Namespace) -> None:
    _check_out(args.out)
    from sr_core.images.scan import LeftOut
    from sr_core.process.progress import ProgressBar, pixels_text
    from sr_core.store.known import KnownImages
    from sr_core.store.layers import Lr
    from sr_core.store.preparation import prepare_store
    from sr_core.store.sources import ImageSet, folder_images

    sets = [(folder, folder_images(folder)) for folder in args.images]
    if len(sets) == 1:
        images = sets[0][1]
        left_out = images.left_out
    else:
        names = [folder.resolve().name for folder, _ in sets]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ImageError(f"--images: two folders are named {repeated[0]}; rename one of them")

        def named(split: str) -> tuple[object, ...]:
            return tuple(
                replace(image, name=f"{name}/{image.name}")
                for name, (_, part) in zip(names, sets, strict=True)
                for image in getattr(part, split)
            )

        left_out = LeftOut()
        for name, (_, part) in zip(names, sets, strict=True):
            left_out += part.left_out.below(name)
        images = ImageSet(", ".join(map(str, args.images)), named("train"), named("valid"))  # type: ignore[arg-type]
    lr: set[Lr] = {(split, s, kernel) for split in ("train", "valid") for s in args.scale for kernel in args.kernel}
    known_images = KnownImages(args.out.with_name(f"{args.out.name}.pictures.json"))
    target = Path(os.path.realpath(args.out))  # a link stays, and its target is written
    with ProgressBar("preparing", text=pixels_text) as progress:
        store = prepare_store(target, images, lr, known=known_images, workers=args.workers, progress=progress.at)
    if left_out:
        print(left_out.line(), file=sys.stderr, flush=True)
    lines = sorted({f"x{scale} {kernel}" for _, scale, kernel in store.lr})
    train = len(store.records("train"))
    valid = len(store.records("valid"))
    print(f"{args.out}: {train} training and {valid} validation images")
    print(f"LR: {', '.join(lines)}; {args.out.stat().st_size / 1e6:.0f} MB; fingerprint {store.fingerprint[:16]}")
    if not args.verify:
        print(f"next: python -m sr_core.prepare --verify --out {args.out}")


def _verify(path: Path) -> int:
    from sr_core.store.hdf5 import verify

    damaged = verify(path, lambda done, total: show_progress(f"verifying: {done}/{total} images"))
    show_progress("")
    if damaged:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise StoreError(
            f"{path}: {len(damaged)} images do not match their checksums: {', '.join(damaged[:5])}{more}; delete the "
            "file and build the store again"
        )
    print(f"{path}: all images match their checksums")
    return 0


if __name__ == "__main__":
    sys.exit(main())
