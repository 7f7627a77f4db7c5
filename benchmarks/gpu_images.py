"""Copies a folder of images as lossless WebP files, each compared with its original, up to a size in all.

    python benchmarks/gpu_images.py DIR OUT [--most-mib 30]

Images that do not train come first. Of the others an evenly spread part is taken, as many as there is room for.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import PIL.Image

SUFFIXES = {".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg"}
TRAINING = "train"
MISSES = 10
"""After so many images that do not fit, no other is tried."""


def packed(path: Path) -> tuple[str, bytes]:
    """The suffix and the bytes that take its place: the same samples, or the file itself if WebP has no such kind."""
    whole = path.read_bytes()
    with PIL.Image.open(path) as image:
        if image.mode != "RGB" or image.format in ("JPEG", "WEBP") or image.getexif():
            return path.suffix, whole
        file = io.BytesIO()
        image.save(file, "WEBP", lossless=True, quality=70, method=4)
        with PIL.Image.open(io.BytesIO(file.getvalue())) as again:
            if not np.array_equal(np.asarray(again.convert("RGB")), np.asarray(image)):
                raise RuntimeError(f"{path}: WebP does not give the same samples back")
    return (".webp", file.getvalue()) if file.tell() < len(whole) else (path.suffix, whole)


def spread(paths: list[Path]) -> list[Path]:
    """In an order whose every beginning is spread evenly over the list."""
    count = len(paths)
    golden = (5**0.5 - 1) / 2
    return [paths[i] for i in sorted(range(count), key=lambda i: (i * golden) % 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--most-mib", type=float, default=30)
    args = parser.parse_args()
    found = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        print(f"error: no image below {args.folder}", file=sys.stderr)
        return 2
    trains = [path for path in found if TRAINING in path.relative_to(args.folder).parts[0].lower()]
    ordered = [path for path in found if path not in set(trains)] + spread(trains)
    room = args.most_mib * 2**20
    count = taken = original = too_large = 0
    for path in ordered:
        suffix, content = packed(path)
        if taken + len(content) > room:
            too_large += 1
            if too_large == MISSES:
                break
            continue
        count += 1
        target = args.out / path.relative_to(args.folder).with_suffix(suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        taken += len(content)
        original += path.stat().st_size
    print(
        f"{count} images in {args.out}: {taken / 2**20:.1f} MiB, {original / 2**20:.1f} before, the same samples; "
        f"{len(ordered) - count} left out for want of room"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
