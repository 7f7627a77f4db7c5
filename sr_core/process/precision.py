"""The precision of float32 products: with all digits ("ieee"), or with factors rounded first ("tf32", "bf16").

Torch has one setting per library and operation, for the whole process. By default, convolutions on a GPU round their
factors to 10 bits (TF32). Only this module changes these settings. Torch has an older and a newer interface for them,
and functions of the older one raise an error if the two disagree. For matrix products both are therefore kept equal.
For convolutions only the newer one is used, because the older one also affects recurrent networks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from sr_core.errors import ConfigError

Multiplication = Literal["ieee", "tf32"]

_ROUNDED = ("tf32", "bf16")
"""Values of torch's settings that round the factors."""

_FEWER_DIGITS = ("bf16", "f16", "tf32", "any")
_OVERRIDES: dict[str, dict[str, tuple[str, ...]]] = {
    "cuda": {"NVIDIA_TF32_OVERRIDE": ("0", "1")},
    "cpu": {"ONEDNN_DEFAULT_FPMATH_MODE": _FEWER_DIGITS, "DNNL_DEFAULT_FPMATH_MODE": _FEWER_DIGITS},
}
"""Environment variables by kind of device, each with the values that torch's settings cannot override."""


def set_multiplication(of_convolutions: Multiplication) -> None:
    """Set exact float32 products in this process, and the given precision for convolutions on a GPU."""
    for place in _places():
        place.fp32_precision = "ieee"
    _settle_older_way()
    torch.backends.cudnn.conv.fp32_precision = of_convolutions  # type: ignore[attr-defined]


@contextmanager
def exact_multiplication() -> Iterator[None]:
    """Use exact float32 products on every device in this block, and restore the settings afterwards.

    Every validation runs in it, so that a score does not depend on the precision of training, on the caller's settings
    or on torch's defaults.
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
            changed = before  # the older interface has changed some of them too
        for place, value in changed:
            place.fp32_precision = value


def check_environment(device: str) -> None:
    """Check that no environment variable overrides torch's settings on this device.

    Args:
        device: a torch device.
    Raises:
        ConfigError: a variable does.
    """
    for name, values in _OVERRIDES.get(torch.device(device).type, {}).items():
        value = os.environ.get(name, "")
        if value.lower() in values:
            raise ConfigError(
                f"environment variable {name}={value}: expected it unset, because it overrides train.precision and "
                f"the exact arithmetic of validations on {device}; type: unset {name}"
            )


def _places() -> tuple[Any, ...]:
    """The objects that hold torch's settings for the operations of the networks here."""
    backends: Any = torch.backends
    return backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul


def _settle_older_way() -> str | None:
    """Set the older interface for matrix products to "ieee", and return its previous value if that changed.

    Functions of torch that read the older interface raise an error if the two disagree.
    """
    older = torch.get_float32_matmul_precision()
    if older == "highest":
        return None
    torch.set_float32_matmul_precision("highest")
    return older
