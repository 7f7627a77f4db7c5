"""`python -m sr_core.prepare --images DIR --scale 2 3 4 --out FILE`: a patch store from folders of images."""

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
"""How every file of HDF5 begins."""
DAMAGED = 2
"""Exit status of a store that `--verify` finds damaged."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("python -m sr_core.prepare", description="make HR and LR of folders of images ready for training")
    parser.add_argument(
        "--images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="images, split as study.run --data does it; give it again for more folders",
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
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the store; brought up to date if there"
    )
    parser.add_argument("--verify", action="store_true", help="re-read everything (in the end) against its checksums")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; default: one per core")
    args = parser.parse_args(argv)
    if not args.images and not args.verify:
        parser.error("expected --images DIR, or --verify to check a store that is there")
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers must be at least 1, got {args.workers}")
    return run_command(lambda: prepare(args))


def prepare(args: argparse.Namespace) -> int:
    """Bring the store up to date, then verify it; each only if asked for."""
    if args.images:
        _prepare(args)
    return _verify(args.out) if args.verify else 0


def _check_out(path: Path) -> None:
    """Raises StoreError, before anything is written, if no store can be there or something else is."""
    try:
        _check_place(path)
    except OSError as exc:  # a name that is too long, a folder or file without permission
        raise StoreError(cannot_write("--out", path, exc)) from exc


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"--out {path}: expected a file, this is a folder; give a name in it, such as {path / 'a.h5'}")
    if path.exists() and not path.is_file():
        raise StoreError(f"--out {path}: expected a file, this is a pipe or a device; give the name of a file")
    if path.exists():
        with path.open("rb") as file:
            start = file.read(len(_HDF5))
        if start != _HDF5:
            raise StoreError(f"--out {path}: is there and no patch store; choose another name, it stays as it is")
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
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ImageError(f"--images: two folders are named {twice[0]}, so their images would be too; rename one")

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
    known = KnownImages(args.out.with_name(f"{args.out.name}.pictures.json"))
    target = Path(os.path.realpath(args.out))  # a link stays, and what it points to is written
    with ProgressBar("preparing", text=pixels_text) as progress:
        store = prepare_store(target, images, lr, known=known, workers=args.workers, progress=progress.at)
    if left_out:
        print(left_out.line(), file=sys.stderr, flush=True)
    lines = sorted({f"x{scale} {kernel}" for _, scale, kernel in store.lr})
    print(f"{args.out}: {len(store.records('train'))} images to train and {len(store.records('valid'))} to validate")
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
            "file and prepare it again"
        )
    print(f"{path}: every sample matches its checksum")
    return 0


if __name__ == "__main__":
    sys.exit(main())
