"""Enlarge images and folders of images with trained weights: python -m sr_core.upscale --help."""

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
    """Exit status: 0 all enlarged, 2 bad usage or a bad input (the others are enlarged), 130 interrupted."""
    parser = Parser(
        PROG,
        description="NAME.jpg becomes DIR/NAME_x2.png, a folder's images keep their paths below it. Alpha, grey and "
        "colour profile are kept, images are turned upright. What is in DIR already is kept, so the same command "
        "goes on after an interruption.",
    )
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="IN", help="an image, or a folder of images at any depth")
    add("--weights", required=True, type=Path, metavar="FILE", help="a .safetensors with its config.json, or released")
    add("--out", required=True, type=Path, metavar="DIR", help="where to write; made if it is not there")
    add("--scale", type=int, choices=SCALES, help="of released x2 or x3 weights, which do not tell it themselves")
    add("--self-ensemble", action="store_true", help="average over eight flips and turns (eight times the work)")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the convolutions (default: fp32)")
    add("--device", metavar="D", help="cpu or cuda:N (default: cuda:0 where there is one, else cpu)")
    add("--overwrite", action="store_true", help="enlarge again what is in DIR already")
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

    device = resolve(device=args.device or ("cuda:0" if torch.cuda.is_available() else "cpu")).device
    with needing_gpu(device):
        model = load_model(args.weights, args.scale, note=say_note).to(device)
    plan = plan_outputs(args.inputs, args.out, model.scale)
    outputs, faults = plan.sources, plan.faults
    for fault in faults:
        _say_error(fault)
    if plan.left_out:
        print(plan.left_out.line(), file=sys.stderr, flush=True)
    try:
        make_output_folder(args.out)
    except PermissionError as exc:
        raise SuiteError(f"--out {args.out}: cannot be written ({exc.strerror}); choose another folder") from exc
    except OSError as exc:
        raise SuiteError(f"--out {args.out}: expected a folder, or a place for one ({exc.strerror})") from exc
    waiting = {output: source for output, source in outputs.items() if args.overwrite or not _is_there(output)}
    if kept := len(outputs) - len(waiting):
        print(
            f"{kept} of {len(outputs)} are in {args.out} already and stay; --overwrite enlarges them anew", flush=True
        )

    pixels = {output: count_pixels(source) for output, source in waiting.items()}
    total, done, failed = max(1, sum(pixels.values())), 0, len(faults)
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
    print(f"{len(waiting) + len(faults) - failed} enlarged {model.scale} times, {kept} kept, {failed} failed")
    return BAD_INPUT if failed else 0


def _is_there(output: Path) -> bool:
    try:
        return output.exists()
    except OSError:  # such as a name that is too long, which is told when its turn comes
        return False


def _say_error(message: str) -> None:
    show_progress("")
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
