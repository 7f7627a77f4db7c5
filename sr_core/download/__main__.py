"""Download the image sets of the field: python -m sr_core.download --help."""

import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from sr_core.download.fetch import fetch
from sr_core.download.fetch_record import Content, DownloadRecord, writing
from sr_core.download.unpack import BadArchiveError, damaged, unpack
from sr_core.errors import DownloadError
from sr_core.process.cli import Parser, run_command, show_progress
from sr_core.process.locks import lock
from sr_core.process.output import make_output_folder
from sr_core.process.progress import ProgressBar, bytes_text

PROG = "python -m sr_core.download"
STATE = ".download"
"""Folder below DIR for archives and their download records. It is hidden, so no image in it is used for training."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive to download, and the images to unpack from it."""

    url: str
    published: Content
    images: Mapping[str, int]
    """Number of images by folder below DIR."""
    wanted: re.Pattern[str]
    """Matches the names of the members to unpack. Its last group is the path below DIR."""

    @property
    def name(self) -> str:
        """The file name at the end of the URL."""
        return PurePosixPath(self.url).name

    @property
    def folders(self) -> list[str]:
        """The top-level folders that this archive adds to DIR."""
        return [folder.split("/")[0] for folder in self.images]


# DIV2K: https://data.vision.ee.ethz.ch/cvl/DIV2K/. TensorFlow Datasets publishes these sizes and SHA-256 checksums
# (tensorflow_datasets/url_checksums/div2k.txt). Other projects pin the same values.
# Images 0001-0800 are for training. Some repacked archives also hold the validation images 0801-0900 in
# DIV2K_train_HR.
DIV2K = (
    Archive(
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip",
        Content(3_530_603_713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
        {"DIV2K_train_HR": 800},
        re.compile(r"(?:.+/)?(DIV2K_train_HR/(?!0000)0(?:[0-7]\d\d|800)\.png)"),
    ),
    Archive(
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",
        Content(448_993_893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
        {"DIV2K_valid_HR": 100},
        re.compile(r"(?:.+/)?(DIV2K_valid_HR/(?!0800)0(?:8\d\d|900)\.png)"),
    ),
)

# The benchmark pack of EDSR (Lim et al. 2017). Its README gives the address but no checksum. The size and SHA-256
# are those that YeapJieShen/single-image-super-resolution pins (tests/utils/test_imresize.py).
BENCHMARK = (
    Archive(
        "https://cv.snu.ac.kr/research/EDSR/benchmark.tar",
        Content(250_112_000, "80c21c333bbf6ceb5308b7243761f8284478274413a97b96f1d63e9045fd93e8"),
        {"Set5/HR": 5, "Set14/HR": 14, "B100/HR": 100, "Urban100/HR": 100},
        re.compile(r"(?:.+/)?((?:Set5|Set14|B100|Urban100)/(?:HR|LR_bicubic/X\d)/[^/.][^/]*\.png)"),
    ),
)

PACKS = {"div2k": DIV2K, "benchmark": BENCHMARK}


def main(argv: Sequence[str] | None = None) -> int:
    """Download a pack and return the exit status.

    0: all images are complete. 2: bad usage, no network or wrong data. 130: interrupted.
    """
    args = _parse(argv)
    return run_command(lambda: _download(args))


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(PROG, description="Download training or benchmark images. Run it again to resume.")
    add = parser.add_argument
    add(
        "pack",
        choices=PACKS,
        help="div2k: 800 training and 100 validation images, 4.0 GB; "
        "benchmark: Set5, Set14, B100 and Urban100 with their LR images, 0.25 GB",
    )
    add("--to", required=True, type=Path, metavar="DIR", help="folder for the images; use it as --data DIR later")
    add("--url-base", metavar="URL", help="URL of a mirror that serves the archives under their published names")
    add(
        "--any-edition",
        action="store_true",
        help="accept a repacked archive: compare its size and SHA-256 with those of the first download instead of the "
        "published ones",
    )
    args = parser.parse_args(argv)
    if args.url_base and not re.fullmatch(r"https?://\S+", args.url_base):
        parser.error(f"--url-base {args.url_base}: expected a URL that begins with http:// or https://")
    return args


def _download(args: Namespace) -> int:
    to: Path = args.to
    state = to / STATE
    with writing(state):
        make_output_folder(to)
        state.mkdir(exist_ok=True)
    with _alone(state):
        missing = [(archive, _missing(archive, to, state / archive.name)) for archive in PACKS[args.pack]]
        for archive, folders in missing:
            if folders:
                _install(archive, folders, to, state / archive.name, args.url_base, args.any_edition)
    folder = shlex.quote(str(to))
    if args.pack == "div2k":
        print(f"next: python -m study.run --experiment a2n_x2 --data {folder} --dry-run")
    else:
        print(f"next: python -m sr_core.evaluate --weights bicubic --benchmark {folder}/Set5 --scale 2")
    return 0


def _missing(archive: Archive, to: Path, path: Path) -> list[str]:
    """The folders of the archive that are not yet installed.

    Raises:
        DownloadError: a folder exists but was not written by this command, or was changed since.
    """
    unpacked = DownloadRecord.of(path).unpacked or {}
    missing = []
    for folder in archive.folders:
        installed = {name: content for name, content in unpacked.items() if name.startswith(f"{folder}/")}
        if not (to / folder).exists() or ((to / folder).is_dir() and not any((to / folder).iterdir())):
            missing.append(folder)
            continue
        if not installed:
            raise DownloadError(
                f"{to / folder}: already exists and was not downloaded by this command; "
                "move it away or choose another --to"
            )
        with ProgressBar(f"checking {folder}", text=bytes_text) as progress:
            wrong = damaged(to, installed, progress.at)
        if wrong:
            raise DownloadError(
                f"{to / wrong[0]}: {len(wrong)} of {len(installed)} files are missing or changed; "
                f"move {to / folder} away and run again"
            )
        print(f"{folder}: already downloaded, all {len(installed)} files are unchanged")
    return missing


def _install(
    archive: Archive, folders: Collection[str], to: Path, path: Path, url_base: str | None, any_edition: bool
) -> None:
    url = archive.url if url_base is None else f"{url_base.rstrip('/')}/{archive.name}"
    published = None if any_edition else archive.published
    print(f"{archive.name}: downloading from {url}", flush=True)
    with ProgressBar(archive.name, text=bytes_text) as progress:
        fetch(url, path, published, progress=progress.at, say=_say)
    if published:
        checksum = "SHA-256 matches the published one"
    else:
        checksum = f"SHA-256 recorded: {DownloadRecord.of(path).sha256}"
    _say(f"{archive.name}: {bytes_text(path.stat().st_size)}, {checksum}; unpacking")

    def place(name: str) -> str | None:
        match = archive.wanted.fullmatch(name)
        if match and match[1].split("/")[0] in folders:
            return match[1]
        return None

    try:
        with ProgressBar(f"unpacking {archive.name}", text=bytes_text) as progress:
            unpack(path, to, place, partial(_check, archive, folders), progress=progress.at)
    except BadArchiveError:
        if published is None:
            DownloadRecord.forget(path)  # the next download need not equal this one
        raise
    with writing(path):
        path.unlink()
    for folder, count in archive.images.items():
        if folder.split("/")[0] in folders:
            _say(f"{folder}: {count} images")


def _check(archive: Archive, folders: Collection[str], paths: Collection[str]) -> None:
    for folder, count in archive.images.items():
        if folder.split("/")[0] in folders:
            images = sum(str(PurePosixPath(path).parent) == folder for path in paths)
            if images != count:
                raise BadArchiveError(
                    f"{archive.name}: expected {count} images for {folder}, got {images}; this is a different archive"
                )


def _say(line: str) -> None:
    show_progress("")
    print(line, flush=True)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the lock of the folder, so that no second download runs there.

    The kernel releases the lock when this process ends, for any reason.
    """
    with writing(state / "lock"):
        file = (state / "lock").open("a")
    with file:
        owner = lock(file)
        if owner == "theirs":
            raise DownloadError(f"{state.parent}: another download into this folder is running; wait until it ends")
        if owner == "unsupported":
            _say(f"{state.parent}: this file system has no locks; do not start a second download into this folder")
        yield


if __name__ == "__main__":
    sys.exit(main())
