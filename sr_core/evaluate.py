"""Scores a network or bicubic interpolation on a benchmark: python -m sr_core.evaluate --help."""

import csv
import io
import json
import math
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sr_core.config import KERNELS, SCALES, EvaluationProtocol, Kernel, Scale
from sr_core.errors import ImageError, SuiteError
from sr_core.process.cli import Parser, run_command, say_note, show_progress
from sr_core.process.names import printable, visible
from sr_core.process.output import cannot_write, check_output, write_output

if TYPE_CHECKING:  # at run time they are imported after the arguments are parsed, so that --help is fast
    import numpy as np
    from numpy.typing import NDArray

    from sr_core.images.files import Image
    from sr_core.images.scan import LeftOut
    from sr_core.metrics.evaluate import Score
    from sr_core.store.ground_truth import GroundTruth

    Enlarge = Callable[[Image], NDArray[np.float32] | Image]

PROG = "python -m sr_core.evaluate"
BICUBIC = "bicubic"
_UNUSED_LR = "unused LR image"
_MAX_SMALL_IMAGES_NAMED = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 for success, 2 for bad usage or input, 130 if interrupted."""
    args = _parse(argv)
    return run_command(lambda: _evaluate(args))


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(
        PROG,
        description="Prints PSNR [dB] and SSIM on the Y channel for each image of a benchmark, then their mean. "
        "An image counts at most 100 dB in the mean.",
    )
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        metavar="FILE",
        help="a .safetensors file next to its config.json, a released .pt file, or bicubic",
    )
    benchmark_help = "folder of HR images, or a folder that contains HR/ or GT/; LR images next to them are left out"
    add("--benchmark", required=True, type=Path, metavar="DIR", help=benchmark_help)
    add("--scale", required=True, type=int, choices=SCALES, help="enlargement factor")
    add("--lr", type=Path, metavar="DIR", help="folder of LR images to read (NAMEx2, NAME_LRBI_x2, NAME, …)")
    add(
        "--kernel",
        choices=KERNELS,
        metavar="K",
        help=f"kernel that makes the LR images: {', '.join(KERNELS)} (default: the first)",
    )
    add(
        "--protocol",
        choices=get_args(EvaluationProtocol),
        default="canonical",
        help="how pixels are processed before they are compared (default: canonical)",
    )
    add(
        "--self-ensemble",
        action="store_true",
        help="average over the eight flips and turns (takes eight times as long)",
    )
    add("--device", metavar="D", help="cpu or cuda:N (default: cuda:0 if available, else cpu)")
    add(
        "--csv",
        type=Path,
        metavar="FILE",
        help="also write name, psnr and ssim to this file, with the mean in the last row",
    )
    add(
        "--json",
        action="store_true",
        help="print only a JSON object; an infinite PSNR becomes null",
    )
    args = parser.parse_args(argv)
    if args.kernel and args.lr:
        parser.error("--kernel makes LR images and --lr reads them: give one of the two")
    if args.protocol == "blog" and args.kernel not in (None, "pillow_bicubic"):
        parser.error(f"--protocol blog always uses pillow_bicubic, got --kernel {args.kernel}: omit --kernel")
    if args.self_ensemble and args.weights == BICUBIC:
        parser.error("--self-ensemble needs a network, got --weights bicubic: omit --self-ensemble")
    return args


def _evaluate(args: Namespace) -> int:
    from sr_core.store.ground_truth import ground_truth

    if args.csv is not None:
        check_output(args.csv, "--csv")
    hr = ground_truth(args.benchmark, scale=args.scale)
    images = _named(hr)
    left_out = hr.left_out

    lr_images = None
    if args.lr is not None:
        lr_images, left_out = _matched(images, hr, args.benchmark, args.lr, args.scale)

    kernel: Kernel = args.kernel or "matlab_bicubic"
    if args.protocol == "blog":
        kernel = "pillow_bicubic"
    _check_sizes(images, lr_images, scale=args.scale, kernel=kernel, protocol=args.protocol)

    with ExitStack() as stack:
        enlarge = _enlarger(args.weights, args.scale, args.self_ensemble, args.device, stack)
        return _score_all(args, images, lr_images, kernel, enlarge, left_out)


def _score_all(
    args: Namespace,
    images: dict[str, Path],
    lr_images: dict[str, Path] | None,
    kernel: Kernel,
    enlarge: "Enlarge",
    left_out: "LeftOut",
) -> int:
    """Score every image, then print and write the scores and their mean. The line on skipped files comes last."""
    from sr_core.metrics.evaluate import describe_protocol, mean_score

    width = max(map(len, (*map(visible, images), "image")))
    if not args.json:
        print(f"{'image':<{width}}  PSNR [dB]    SSIM", flush=True)
    scores: dict[str, Score] = {}
    for name, hr_path in images.items():
        show_progress(f"{len(scores) + 1}/{len(images)} {visible(name)}")
        lr_path = lr_images[name] if lr_images else None
        scores[name] = _score_one(hr_path, lr_path, enlarge, scale=args.scale, kernel=kernel, protocol=args.protocol)
        show_progress("")
        if not args.json:
            print(_row(name, scores[name], width), flush=True)
    mean = mean_score(list(scores.values()))

    if args.csv is not None:
        _write_csv(args.csv, [*scores.items(), ("mean", mean)])
    if args.json:
        lr_origin = f"made by {kernel}" if args.lr is None else f"read from {args.lr}"
        rows = [{"name": name, **_numbers(score)} for name, score in scores.items()]
        protocol = describe_protocol(args.protocol) | {"lr": lr_origin} | _network(args)
        print(json.dumps({"images": rows, "mean": _numbers(mean), "protocol": protocol}))
    else:
        print(_row("mean", mean, width))
        other = "FILE.safetensors" if args.weights == BICUBIC else BICUBIC
        print(f"next: {PROG} --weights {other} {_conditions(args)}", flush=True)
    if left_out:
        print(left_out.line(), file=sys.stderr, flush=True)
    return 0


def _conditions(args: Namespace) -> str:
    """The arguments that give another network comparable scores, as a shell would read them."""
    arguments = ["--benchmark", str(args.benchmark), "--scale", str(args.scale)]
    if args.lr is not None:
        arguments += ["--lr", str(args.lr)]
    if args.kernel is not None:
        arguments += ["--kernel", args.kernel]
    if args.protocol != "canonical":
        arguments += ["--protocol", args.protocol]
    return shlex.join(arguments)


def _named(hr: "GroundTruth") -> dict[str, Path]:
    """HR images by name. The name is the path within their folder, without its suffix.

    Raises:
        ImageError: two images have the same name.
    """
    named: dict[str, Path] = {}
    for path in hr.paths:
        name = printable(path.relative_to(hr.folder).with_suffix("").as_posix())
        first = named.setdefault(name, path)
        if first is not path:
            raise ImageError(f"{path}: {first.name} has the same name; rename one of the two")
    return named


def _matched(
    images: dict[str, Path], hr: "GroundTruth", benchmark: Path, folder: Path, scale: int
) -> "tuple[dict[str, Path], LeftOut]":
    """The LR image of each HR image, and the files of both folders that are left out.

    Raises:
        ImageError: an HR image has no LR image, or more than one, or the folder cannot be read.
    """
    from sr_core.images.scan import LeftOut, scan
    from sr_core.store.lr_pairs import matched

    scanned = scan(folder)
    scanned.check()
    if not scanned.images:
        raise scanned.nothing()
    hr_files = {path.resolve() for path in images.values()}  # --lr may name a folder that holds the HR images too
    lr_names = [name for name in scanned.images if (folder / name).resolve() not in hr_files]
    relative = {name: path.relative_to(hr.folder).as_posix() for name, path in images.items()}
    pairs = matched(relative, lr_names, folder, scale)
    used = set(pairs.values())
    unused = LeftOut(tuple((_UNUSED_LR, name) for name in lr_names if name not in used))

    hr_root = benchmark.resolve()
    lr_root = folder.resolve()

    def with_parents(name: str) -> set[Path]:
        place = lr_root / name
        return {place, *place.parents}

    used_places: set[Path] = set()
    for name in used:
        used_places |= with_parents(name)
    left_out = hr.left_out.without(lambda name: hr_root / name in used_places)
    listed = {hr_root / name for _, name in left_out.entries}
    lr_left_out = (scanned.left_out + unused).without(lambda name: not listed.isdisjoint(with_parents(name)))
    return {name: folder / lr for name, lr in pairs.items()}, left_out + lr_left_out.below(folder)


def _enlarger(weights: str, scale: Scale, self_ensemble: bool, device: str | None, stack: ExitStack) -> "Enlarge":
    """A function that enlarges an LR image. A network runs in its own thread, which ends when the stack closes."""
    if weights == BICUBIC:
        from sr_core.metrics.evaluate import bicubic_baseline

        return lambda lr: bicubic_baseline(lr, scale)
    import torch

    from sr_core.model.inference import super_resolve
    from sr_core.model.weights import load_model
    from sr_core.training.memory import needing_gpu
    from sr_core.training.own_thread import inference_thread
    from sr_core.training.runtime import resolve

    if device is None:
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    device = resolve(device=device).device
    with needing_gpu(device):
        model = load_model(Path(weights), scale, note=say_note).to(device)
    thread = stack.enter_context(inference_thread())
    return lambda lr: thread(super_resolve, model, lr, self_ensemble=self_ensemble)


def _check_sizes(
    images: dict[str, Path],
    lr_images: dict[str, Path] | None,
    *,
    scale: int,
    kernel: Kernel,
    protocol: EvaluationProtocol,
) -> None:
    """Check all image sizes before any image is scored.

    Raises:
        ImageError: an image is too small to be scored, or an LR image does not have the size that its HR image
            requires.
    """
    from sr_core.images.files import image_sides
    from sr_core.metrics.evaluate import least_side

    least = least_side(scale, protocol)
    small: list[str] = []
    for number, (name, hr_path) in enumerate(images.items(), 1):
        show_progress(f"sizes: {number}/{len(images)}")
        shorter, longer = image_sides(hr_path)
        if shorter < least:
            small.append(f"{hr_path} has {shorter} pixels on its shorter side")
        elif lr_images is not None and image_sides(lr_images[name]) != (shorter // scale, longer // scale):
            _pair(hr_path, lr_images[name], scale=scale, kernel=kernel, protocol=protocol)  # names the wrong one
    show_progress("")
    if small:
        listed = "; ".join(small[:_MAX_SMALL_IMAGES_NAMED])
        if len(small) > _MAX_SMALL_IMAGES_NAMED:
            listed += f"; and {len(small) - _MAX_SMALL_IMAGES_NAMED} more"
        raise ImageError(
            f"{listed}: to be scored at scale {scale} an image needs at least {least} pixels on each side; replace or "
            "remove it"
        )


def _score_one(
    hr_path: Path, lr_path: Path | None, enlarge: "Enlarge", *, scale: int, kernel: Kernel, protocol: EvaluationProtocol
) -> "Score":
    from sr_core.metrics.evaluate import require_finite, score

    lr, hr = _pair(hr_path, lr_path, scale=scale, kernel=kernel, protocol=protocol)
    sr = enlarge(lr)
    require_finite(sr, hr_path)
    return score(sr, hr, scale=scale, protocol=protocol)


def _pair(
    hr_path: Path, lr_path: Path | None, *, scale: int, kernel: Kernel, protocol: EvaluationProtocol
) -> "tuple[Image, Image]":
    """The LR image, downsampled from HR or read from `lr_path`, and the HR image to compare with.

    Raises:
        ImageError: the LR file does not have the size that its HR image requires.
    """
    from sr_core.images.files import read_image
    from sr_core.metrics.evaluate import lr_hr_pair

    downsampled, hr = lr_hr_pair(read_image(hr_path), scale, kernel, protocol)
    if lr_path is None:
        return downsampled, hr

    lr = read_image(lr_path)
    if lr.shape != downsampled.shape:
        height, width = downsampled.shape[:2]
        raise ImageError(
            f"{lr_path}: expected {width}x{height} pixels, {hr_path.name} at scale {scale}; "
            f"got {lr.shape[1]}x{lr.shape[0]}"
        )
    return lr, hr


def _row(name: str, score: "Score", width: int) -> str:
    return f"{visible(name):<{width}}  {score.psnr:9.3f}  {score.ssim:.4f}"


def _network(args: Namespace) -> dict[str, str]:
    ensemble = "eight flips and turns" if args.self_ensemble else "none"
    return {"scale": str(args.scale), "weights": args.weights, "self_ensemble": ensemble}


def _numbers(score: "Score") -> dict[str, float | None]:
    return {"psnr": None if score.psnr == math.inf else score.psnr, "ssim": score.ssim}


def _write_csv(path: Path, rows: "Sequence[tuple[str, Score]]") -> None:
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["name", "psnr", "ssim"])
    writer.writerows([printable(name), score.psnr, score.ssim] for name, score in rows)
    try:
        write_output(path, table.getvalue().encode())
    except BrokenPipeError:
        return  # the reader of the pipe has closed it
    except OSError as exc:
        raise SuiteError(cannot_write("--csv", path, exc)) from exc


if __name__ == "__main__":
    sys.exit(main())
