"""How a device multiplies float32 numbers: with all their digits ("ieee"), or rounded to fewer first ("tf32", "bf16").

Torch keeps one setting per library and operation, for the whole process. By default a GPU's convolutions round their
factors to 10 bits (TF32). This is the only module that touches these settings. Torch has an older and a newer way to
set them, and functions of the older way raise an error once the two disagree, so both are kept in agreement for matrix
products. Convolutions have the newer way alone: the older one cannot tell them from recurrent networks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from sr_core.errors import ConfigError

Multiplication = Literal["ieee", "tf32"]

_ROUNDED = ("tf32", "bf16")
"""Values of torch's settings under which factors lose digits."""

_FEWER_DIGITS = ("bf16", "f16", "tf32", "any")
_OVERRIDES: dict[str, dict[str, tuple[str, ...]]] = {
    "cuda": {"NVIDIA_TF32_OVERRIDE": ("0", "1")},
    "cpu": {"ONEDNN_DEFAULT_FPMATH_MODE": _FEWER_DIGITS, "DNNL_DEFAULT_FPMATH_MODE": _FEWER_DIGITS},
}
"""Environment variables by kind of device, with values that no setting of torch can overrule."""


def set_multiplication(of_convolutions: Multiplication) -> None:
    """Let this process multiply float32 numbers with all their digits, except perhaps in a GPU's convolutions."""
    for place in _places():
        place.fp32_precision = "ieee"
    _settle_older_way()
    torch.backends.cudnn.conv.fp32_precision = of_convolutions  # type: ignore[attr-defined]


@contextmanager
def exact_multiplication() -> Iterator[None]:
    """In this block float32 numbers are multiplied with all their digits on every device; then as before.

    Every validation runs in it, so that a score does not depend on how a network was trained, on the caller's settings
    or on the defaults of torch.
    """
    before = [(place, place.fp32_precision) for place in _places()]
    changed = [(place, value) for place, value in before if value in _ROUNDED]
    older: str | None = None
    try:
        for place, _ in changed:
            place.fp32_precision = "ieee"
        older = _settle_older_way()
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older)
            changed = before  # some of which that has set, too
        for place, value in changed:
            place.fp32_precision = value


def check_environment(device: str) -> None:
    """Raises ConfigError if an environment variable overrules on this device what torch's settings say.

    Args:
        device: a torch device.
    """
    for name, values in _OVERRIDES.get(torch.device(device).type, {}).items():
        value = os.environ.get(name, "")
        if value.lower() in values:
            raise ConfigError(
                f"environment variable {name}={value}: expected it unset, because it overrules train.precision and "
                f"the exact arithmetic of validations on {device}; type: unset {name}"
            )


def _places() -> tuple[Any, ...]:
    """Where torch keeps the setting of each operation that a network here consists of."""
    backends: Any = torch.backends
    return backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul


def _settle_older_way() -> str | None:
    """Make the older setting of matrix products agree with "ieee" of the newer one; its value before, if that changed.

    Functions of torch that read the older one raise an error if the two disagree.
    """
    older = torch.get_float32_matmul_precision()
    if older == "highest":
        return None
    torch.set_float32_matmul_precision("highest")
    return older
