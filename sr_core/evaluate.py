"""Score weights, or bicubic, on a folder of images: python -m sr_core.evaluate --help."""

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

if TYPE_CHECKING:  # loaded after the arguments are parsed: --help answers at once
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


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 scored, 2 bad usage or input, 130 interrupted."""
    args = _parse(argv)
    return run_command(lambda: _evaluate(args))


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = Parser(
        PROG,
        description="PSNR [dB] and SSIM on Y, for each image of a benchmark and their mean, in which an image "
        "counts at most 100 dB.",
    )
    add = parser.add_argument
    add(
        "--weights",
        required=True,
        metavar="FILE",
        help="a .safetensors with its config.json, a released .pt, or bicubic",
    )
    hr_help = "HR images, or a folder whose HR/ or GT/ holds them; LR images next to them are left out"
    add("--benchmark", required=True, type=Path, metavar="DIR", help=hr_help)
    add("--scale", required=True, type=int, choices=SCALES, help="enlargement factor")
    add("--lr", type=Path, metavar="DIR", help="read LR images from here (NAMEx2, NAME_LRBI_x2, NAME, …)")
    add("--kernel", choices=KERNELS, metavar="K", help=f"make LR by one of {', '.join(KERNELS)} (default: the first)")
    add(
        "--protocol",
        choices=get_args(EvaluationProtocol),
        default="canonical",
        help="what is compared (default: canonical)",
    )
    add("--self-ensemble", action="store_true", help="average over eight flips and turns (eight times the work)")
    add("--device", metavar="D", help="cpu or cuda:N (default: cuda:0 where there is one, else cpu)")
    add("--csv", type=Path, metavar="FILE", help="also write name, psnr, ssim to this file, the mean last")
    add(
        "--json",
        action="store_true",
        help="print one JSON object and nothing else; null where an image's PSNR is infinite",
    )
    args = parser.parse_args(argv)
    if args.kernel and args.lr:
        parser.error("--kernel makes LR images and --lr reads them: give one of the two")
    if args.protocol == "blog" and args.kernel not in (None, "pillow_bicubic"):
        parser.error(f"--protocol blog is defined by pillow_bicubic LR, got --kernel {args.kernel}: leave it out")
    if args.self_ensemble and args.weights == BICUBIC:
        parser.error("--self-ensemble is for networks, not for --weights bicubic")
    return args


def _evaluate(args: Namespace) -> int:
    from sr_core.store.ground_truth import ground_truth

    if args.csv is not None:
        check_output(args.csv, "--csv")
    found = ground_truth(args.benchmark, scale=args.scale)
    images, left_out = _named(found), found.left_out
    lr_images = None
    if args.lr is not None:
        lr_images, left_out = _matched(images, found, args.benchmark, args.lr, args.scale)
    kernel: Kernel = "pillow_bicubic" if args.protocol == "blog" else args.kernel or "matlab_bicubic"
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
    """Score and print every image and the mean; what was left out comes last, after all that could be refused."""
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
    """The arguments under which another network's scores can be compared with these."""
    given = ["--benchmark", str(args.benchmark), "--scale", str(args.scale)]
    given += ["--lr", str(args.lr)] if args.lr is not None else []
    given += ["--kernel", args.kernel] if args.kernel is not None else []
    given += ["--protocol", args.protocol] if args.protocol != "canonical" else []
    return shlex.join(given)


def _named(found: "GroundTruth") -> dict[str, Path]:
    """HR images by name: the path below their folder without suffix, which in a flat folder is the stem."""
    named: dict[str, Path] = {}
    for path in found.paths:
        name = printable(path.relative_to(found.folder).with_suffix("").as_posix())
        first = named.setdefault(name, path)
        if first is not path:
            raise ImageError(f"{path}: {first.name} has the same name; rename one of the two")
    return named


def _matched(
    images: dict[str, Path], hr: "GroundTruth", benchmark: Path, folder: Path, scale: int
) -> "tuple[dict[str, Path], LeftOut]":
    """The LR image of each HR image, and what of both folders is not used."""
    from sr_core.images.scan import LeftOut, scan
    from sr_core.store.lr_pairs import matched

    found = scan(folder)
    found.check()
    if not found.images:
        raise found.nothing()
    same = {path.resolve() for path in images.values()}  # --lr may hold the HR images too
    lr_names = [name for name in found.images if (folder / name).resolve() not in same]
    relative = {name: path.relative_to(hr.folder).as_posix() for name, path in images.items()}
    pairs = matched(relative, lr_names, folder, scale)
    used = set(pairs.values())
    unused = LeftOut(tuple((_UNUSED_LR, name) for name in lr_names if name not in used))

    hr_root, lr_root = benchmark.resolve(), folder.resolve()
    needed = {place for name in used for place in (lr_root / name, *(lr_root / name).parents)}
    left_out = hr.left_out.without(lambda name: hr_root / name in needed)
    told = {hr_root / name for _, name in left_out.entries}
    others = (found.left_out + unused).without(
        lambda name: not told.isdisjoint((lr_root / name, *(lr_root / name).parents))
    )
    return {name: folder / lr for name, lr in pairs.items()}, left_out + others.below(folder)


def _enlarger(weights: str, scale: Scale, self_ensemble: bool, device: str | None, stack: ExitStack) -> "Enlarge":
    """What makes SR of LR, in a thread that ends with the stack."""
    if weights == BICUBIC:
        from sr_core.metrics.evaluate import bicubic_baseline

        return lambda lr: bicubic_baseline(lr, scale)
    import torch

    from sr_core.model.inference import super_resolve
    from sr_core.model.weights import load_model
    from sr_core.training.memory import needing_gpu
    from sr_core.training.own_thread import inference_thread
    from sr_core.training.runtime import resolve

    chosen = resolve(device=device or ("cuda:0" if torch.cuda.is_available() else "cpu")).device
    with needing_gpu(chosen):
        model = load_model(Path(weights), scale, note=say_note).to(chosen)
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
    """Raises ImageError where an image cannot be scored for its size, before the work on the others is done."""
    from sr_core.images.files import image_sides
    from sr_core.metrics.evaluate import least_side

    least, small = least_side(scale, protocol), []
    for number, (name, hr_path) in enumerate(images.items(), 1):
        show_progress(f"sizes: {number}/{len(images)}")
        shorter, longer = image_sides(hr_path)
        if shorter < least:
            small.append(f"{hr_path} has {shorter} pixels on its shorter side")
        elif lr_images is not None and image_sides(lr_images[name]) != (shorter // scale, longer // scale):
            _pair(hr_path, lr_images[name], scale=scale, kernel=kernel, protocol=protocol)  # knows which is which
    show_progress("")
    if small:
        more = f"; and {len(small) - 3} more" if len(small) > 3 else ""
        raise ImageError(
            f"{'; '.join(small[:3])}{more}: to be scored at scale {scale} an image needs at least {least} pixels a "
            "side; replace or remove it"
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
    """LR, made or read, and HR."""
    from sr_core.images.files import read_image
    from sr_core.metrics.evaluate import lr_hr_pair

    lr, hr = lr_hr_pair(read_image(hr_path), scale, kernel, protocol)
    if lr_path is None:
        return lr, hr
    made, lr = lr, read_image(lr_path)
    if lr.shape != made.shape:
        raise ImageError(
            f"{lr_path}: expected {made.shape[1]}x{made.shape[0]} pixels, {hr_path.name} at scale {scale}; "
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
        return  # the reader of the pipe wanted no more
    except OSError as exc:
        raise SuiteError(cannot_write("--csv", path, exc)) from exc


if __name__ == "__main__":
    sys.exit(main())
