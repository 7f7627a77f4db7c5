"""Copies a folder of images as lossless WebP files, up to a total size. Each copy is compared with its original.

    python benchmarks/gpu_images.py DIR OUT [--most-mib 30]

Validation and benchmark images come first. Of the training images, an evenly spread selection fills the rest.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import PIL.Image

SUFFIXES = {".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg"}
TRAINING = "train"
MAX_IMAGES_TOO_LARGE = 10
"""After this many images that do not fit, no other is tried."""


def packed(path: Path) -> tuple[str, bytes]:
    """Returns suffix and content of the copy: a WebP file with the same samples, or the file itself.

    A file stays as it is if it is JPEG or WebP, is not RGB, has EXIF data, or would not get smaller.
    """
    whole = path.read_bytes()
    with PIL.Image.open(path) as image:
        if image.mode != "RGB" or image.format in ("JPEG", "WEBP") or image.getexif():
            return path.suffix, whole
        file = io.BytesIO()
        image.save(file, "WEBP", lossless=True, quality=70, method=4)
        with PIL.Image.open(io.BytesIO(file.getvalue())) as again:
            if not np.array_equal(np.asarray(again.convert("RGB")), np.asarray(image)):
                raise RuntimeError(f"{path}: the WebP copy has other samples")
    return (".webp", file.getvalue()) if file.tell() < len(whole) else (path.suffix, whole)


def spread(paths: list[Path]) -> list[Path]:
    """Returns the paths in an order in which every prefix is spread evenly over the list."""
    count = len(paths)
    golden = (5**0.5 - 1) / 2
    return [paths[i] for i in sorted(range(count), key=lambda i: (i * golden) % 1)]


def main() -> int:
    """Copies the images and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of images; training images lie in a folder named *train*")
    parser.add_argument("out", type=Path, help="folder for the copies")
    parser.add_argument("--most-mib", type=float, default=30, help="total size in MiB; default: 30")
    args = parser.parse_args()
    images = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        print(f"error: no image below {args.folder}", file=sys.stderr)
        return 2

    training = [path for path in images if TRAINING in path.relative_to(args.folder).parts[0].lower()]
    others = [path for path in images if path not in set(training)]
    ordered = others + spread(training)
    max_bytes = args.most_mib * 2**20
    count = 0
    copied_bytes = 0
    original_bytes = 0
    too_large = 0
    for path in ordered:
        suffix, content = packed(path)
        if copied_bytes + len(content) > max_bytes:
            too_large += 1
            if too_large == MAX_IMAGES_TOO_LARGE:
                break
            continue
        count += 1
        target = args.out / path.relative_to(args.folder).with_suffix(suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        copied_bytes += len(content)
        original_bytes += path.stat().st_size

    print(
        f"{count} images in {args.out}: {copied_bytes / 2**20:.1f} MiB instead of {original_bytes / 2**20:.1f}, with "
        f"the same samples; {len(ordered) - count} left out for lack of room"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
