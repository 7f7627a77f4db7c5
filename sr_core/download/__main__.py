"""Fetch the field's images where there is a network: python -m sr_core.download --help."""

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
"""Folder below DIR for archives on their way and what is known of them; hidden, so that nothing there trains."""


@dataclass(frozen=True, slots=True)
class Archive:
    """One file to fetch, and what is wanted of it."""

    url: str
    published: Content
    images: Mapping[str, int]
    """Folder below DIR -> how many images it gets."""
    wanted: re.Pattern[str]
    """Matches the name of a wanted member; its last group is the path below DIR."""

    @property
    def name(self) -> str:
        return PurePosixPath(self.url).name

    @property
    def folders(self) -> list[str]:
        """The folders that appear in DIR."""
        return [folder.split("/")[0] for folder in self.images]


# DIV2K: https://data.vision.ee.ethz.ch/cvl/DIV2K/. Sizes and SHA-256 are those that TensorFlow Datasets publishes
# (tensorflow_datasets/url_checksums/div2k.txt); other projects pin the same.
# Training is 0001-0800; repacked archives are about whose DIV2K_train_HR holds the validation images 0801-0900 too.
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

# The benchmark pack of EDSR (Lim et al. 2017), whose README names the address but no checksum. Size and SHA-256 are
# those that YeapJieShen/single-image-super-resolution found there and pins (tests/utils/test_imresize.py).
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
    """Exit status: 0 everything is there and right, 2 bad usage, no network or wrong data, 130 interrupted."""
    args = _parse(argv)
    return run_command(lambda: _download(args))


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(PROG, description="Fetch images to train on or to be measured with. Run again, it continues.")
    add = parser.add_argument
    add(
        "pack",
        choices=PACKS,
        help="div2k: 800 training and 100 validation images, 4.0 GB. "
        "benchmark: Set5, Set14, B100 and Urban100 with their LR, 0.25 GB",
    )
    add("--to", required=True, type=Path, metavar="DIR", help="folder for them, then used as --data DIR")
    add("--url-base", metavar="URL", help="a mirror that has the archives under their published names")
    add(
        "--any-edition",
        action="store_true",
        help="take an archive that was packed anew: its size and SHA-256 are not compared with the published ones, "
        "but with those of its first download",
    )
    args = parser.parse_args(argv)
    if args.url_base and not re.fullmatch(r"https?://\S+", args.url_base):
        parser.error(f"--url-base {args.url_base}: expected an address that begins with http:// or https://")
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
    """The folders still to come; raises DownloadError where one is there that is not as this command leaves it."""
    unpacked = DownloadRecord.of(path).unpacked or {}
    missing = []
    for folder in archive.folders:
        known = {name: content for name, content in unpacked.items() if name.startswith(f"{folder}/")}
        if not (to / folder).exists() or ((to / folder).is_dir() and not any((to / folder).iterdir())):
            missing.append(folder)
            continue
        if not known:
            raise DownloadError(
                f"{to / folder}: is there, and not from this command; move it away or choose another --to"
            )
        with ProgressBar(f"checking {folder}", text=bytes_text) as progress:
            wrong = damaged(to, known, progress.at)
        if wrong:
            raise DownloadError(
                f"{to / wrong[0]}: is missing or changed, {len(wrong)} of {len(known)} files are; "
                f"move {to / folder} away and run again"
            )
        print(f"{folder}: there, {len(known)} files as they were downloaded")
    return missing


def _install(
    archive: Archive, folders: Collection[str], to: Path, path: Path, url_base: str | None, any_edition: bool
) -> None:
    url = archive.url if url_base is None else f"{url_base.rstrip('/')}/{archive.name}"
    published = None if any_edition else archive.published
    print(f"{archive.name}: from {url}", flush=True)
    with ProgressBar(archive.name, text=bytes_text) as progress:
        fetch(url, path, published, progress=progress.at, say=_say)
    origin = "published" if published else f"recorded, {DownloadRecord.of(path).sha256}"
    _say(f"{archive.name}: {bytes_text(path.stat().st_size)}, SHA-256 as {origin}; unpacking")

    def place(name: str) -> str | None:
        found = archive.wanted.fullmatch(name)
        return found[1] if found and found[1].split("/")[0] in folders else None

    try:
        with ProgressBar(f"unpacking {archive.name}", text=bytes_text) as progress:
            unpack(path, to, place, partial(_check, archive, folders), progress=progress.at)
    except BadArchiveError:
        if published is None:
            DownloadRecord.forget(path)  # what it was must not be expected from the next download
        raise
    with writing(path):
        path.unlink()
    for folder, count in archive.images.items():
        if folder.split("/")[0] in folders:
            _say(f"{folder}: {count} images")


def _check(archive: Archive, folders: Collection[str], paths: Collection[str]) -> None:
    for folder, count in archive.images.items():
        if folder.split("/")[0] in folders:
            found = sum(str(PurePosixPath(path).parent) == folder for path in paths)
            if found != count:
                raise BadArchiveError(
                    f"{archive.name}: holds {found} images for {folder}, expected {count}; it is another archive"
                )


def _say(line: str) -> None:
    show_progress("")
    print(line, flush=True)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Keeps a second download out of the folder; the kernel lets go however this process ends."""
    with writing(state / "lock"):
        file = (state / "lock").open("a")
    with file:
        held = lock(file)
        if held == "theirs":
            raise DownloadError(f"{state.parent}: another download into this folder is running; wait for it")
        if held == "unsupported":
            _say(f"{state.parent}: this file system has no locks; start no second download into this folder")
        yield


if __name__ == "__main__":
    sys.exit(main())
