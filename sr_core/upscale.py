"""Enlarges images and folders of images with trained weights: python -m sr_core.upscale --help."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from sr_core.config import SCALES
from sr_core.errors import ImageError, SuiteError
from sr_core.process.cli import BAD_INPUT, Parser, run_command, say_note, show_progress
from sr_core.process.names import visible
from sr_core.process.output import make_output_folder
from sr_core.process.progress import ProgressBar, pixels_text

PROG = "python -m sr_core.upscale"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    It is 0 if all images were enlarged, 2 for bad usage or a bad image, 130 if interrupted. A bad image does not stop
    the others from being enlarged.
    """
    parser = Parser(
        PROG,
        description="Enlarges NAME.jpg to DIR/NAME_x2.png. Images in a folder keep their relative paths. Alpha, "
        "greyscale and the colour profile are kept, and images are turned upright. Images already in DIR are "
        "skipped, so the same command resumes after an interruption.",
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        type=Path,
        metavar="IN",
        help="an image, or a folder that is searched for images at any depth",
    )
    add(
        "--weights",
        required=True,
        type=Path,
        metavar="FILE",
        help="a .safetensors file next to its config.json, or a released .pt file",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="output folder; created if it does not exist")
    add("--scale", type=int, choices=SCALES, help="enlargement factor; required for released x2 and x3 weights")
    add(
        "--self-ensemble",
        action="store_true",
        help="average over the eight flips and turns (takes eight times as long)",
    )
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="precision of the convolutions (default: fp32)")
    add("--device", metavar="D", help="cpu or cuda:N (default: cuda:0 if available, else cpu)")
    add("--overwrite", action="store_true", help="replace images that already exist in DIR")
    args = parser.parse_args(argv)
    return run_command(lambda: _upscale(args))


def _upscale(args: Namespace) -> int:
    import torch

    from sr_core.images.own_images import count_pixels, plan_outputs
    from sr_core.model.enlarge import enlarge_file
    from sr_core.model.weights import load_model
    from sr_core.training.memory import needing_gpu
    from sr_core.training.own_thread import inference_thread
    from sr_core.training.runtime import resolve

    device = args.device
    if device is None:
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    device = resolve(device=device).device
    with needing_gpu(device):
        model = load_model(args.weights, args.scale, note=say_note).to(device)

    plan = plan_outputs(args.inputs, args.out, model.scale)
    for fault in plan.faults:
        _say_error(fault)
    if plan.left_out:
        print(plan.left_out.line(), file=sys.stderr, flush=True)
    _make_out_folder(args.out)

    outputs = plan.sources
    waiting = {output: source for output, source in outputs.items() if args.overwrite or not _exists(output)}
    skipped = len(outputs) - len(waiting)
    if skipped:
        print(
            f"skipping {skipped} of {len(outputs)} images that already exist in {args.out}; --overwrite replaces them",
            flush=True,
        )

    pixels = {output: count_pixels(source) for output, source in waiting.items()}
    total = max(1, sum(pixels.values()))
    done = 0
    failed = len(plan.faults)
    with inference_thread() as thread, ProgressBar("upscaling", text=pixels_text) as progress:
        for output, source in waiting.items():

            def advance(part: float, done: int = done, own: int = pixels[output]) -> None:
                progress.at(done + int(part * own), total)

            advance(0)
            try:
                options = {"self_ensemble": args.self_ensemble, "precision": args.precision}
                thread(enlarge_file, model, source, output, progress=advance, **options)
            except ImageError as exc:
                failed += 1
                _say_error(str(exc))
            else:
                show_progress("")
                print(f"{visible(str(source))} -> {visible(str(output))}", flush=True)
            done += pixels[output]

    enlarged = len(waiting) + len(plan.faults) - failed
    print(f"{enlarged} enlarged {model.scale} times, {skipped} skipped, {failed} failed")
    return BAD_INPUT if failed else 0


def _make_out_folder(folder: Path) -> None:
    """Create the output folder if it does not exist.

    Raises:
        SuiteError: it cannot be created or written to.
    """
    try:
        make_output_folder(folder)
    except PermissionError as exc:
        raise SuiteError(f"--out {folder}: cannot be written ({exc.strerror}); choose another folder") from exc
    except OSError as exc:
        raise SuiteError(f"--out {folder}: expected a folder, or a place for one ({exc.strerror})") from exc


def _exists(output: Path) -> bool:
    try:
        return output.exists()
    except OSError:  # for example a name that is too long, which `enlarge_file` reports
        return False


def _say_error(message: str) -> None:
    show_progress("")
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
