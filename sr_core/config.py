"""Declares every hyperparameter once: its type, default, legal values and meaning.

Each section goes only to the stage that reads it. An experiment defines the ranges to search. How a training runs on a
machine (threads, device) is defined in `sr_core.training.runtime`.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, get_args

from sr_core.errors import ConfigError

Scale = Literal[2, 3, 4]
Kernel = Literal[
    "matlab_bicubic",
    "pillow_bicubic",
    "pillow_bilinear",
    "pillow_lanczos",
    "pillow_box",
    "cv2_cubic",
    "cv2_area",
    "nearest",
    "blur_subsample",
]
"""Names of the downsampling kernels, which `sr_core.images.degrade` describes."""
Engine = Literal["auto", "eager", "compiled", "graphed"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
EvaluationProtocol = Literal["canonical", "blog"]
"""Names of the evaluation protocols, which `sr_core.metrics.evaluate` describes."""

KERNELS: tuple[str, ...] = get_args(Kernel)
SCALES: tuple[int, ...] = get_args(Scale)

_MAX_ROUNDED_TO_ZERO = 2.0**-150
"""The largest number that float32 rounds to 0. The smallest positive float32 is twice as large."""


def _one_of(name: str, value: object, legal: tuple[Any, ...]) -> None:
    # 2.0 == 2 and True == 1, but a config that holds 2.0 or True has a different hash.
    if not any(type(value) is type(choice) and value == choice for choice in legal):
        raise ConfigError(f"{name} must be one of {', '.join(map(str, legal))}; got {value!r}")


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(value) == float(value)
    except OverflowError:  # an integer that is too large for a float
        return False


def _positive(name: str, value: float) -> None:
    if not (_is_number(value) and 0 < value < math.inf):
        raise ConfigError(f"{name} must be > 0 and finite, got {value!r}")


def _positive_float32(name: str, value: float) -> None:
    """Like `_positive`, for a number that takes part in the float32 arithmetic of training."""
    _positive(name, value)
    if value <= _MAX_ROUNDED_TO_ZERO:
        raise ConfigError(
            f"{name} must be at least 1.4e-45, got {value!r}: training computes in float32, which rounds it to 0"
        )


def _decay(name: str, value: float) -> None:
    if not (_is_number(value) and 0 <= value < 1):
        raise ConfigError(f"{name} must be at least 0 and below 1, got {value!r}")


def _count(name: str, value: int, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The network: A2N ("Attention in Attention Network", arXiv 2104.09497) or its smaller variant A2N-M."""

    n_feats: int = 40
    """Number of channels in the trunk. Legal: at least 1."""
    upsampler_feats: int = 24
    """Number of channels in the upsampler, after its first 3x3 convolution. Legal: at least 1."""
    n_blocks: int = 16
    """Number of attention-in-attention blocks in the trunk. Legal: at least 1."""
    reduction: int = 4
    """Reduction ratio of the attention dropout module. Its hidden layer has n_feats // reduction units.
    Legal: 1 to n_feats."""
    temperature: float = 30.0
    """Divides the branch logits before the softmax. A value near 0 selects one branch, and a large value weights both
    branches equally. Legal: greater than 0."""
    input_range: Literal[1, 255] = 255
    """The network computes with pixel values from 0 to input_range. The softmax is not scale-free, so a temperature is
    only comparable at the same input range."""
    non_attention_kernel_size: Literal[1, 3] = 3
    """Kernel size of the non-attention branch's convolution, in pixels: 3 in A2N, 1 in A2N-M."""
    skip_interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """Interpolation that enlarges the input, which is then added to the output. The authors' code uses bilinear
    (align_corners=False)."""

    def __post_init__(self) -> None:
        _count("model.n_feats", self.n_feats)
        _count("model.upsampler_feats", self.upsampler_feats)
        _count("model.n_blocks", self.n_blocks)
        _count("model.reduction", self.reduction)
        if self.reduction > self.n_feats:
            raise ConfigError(
                f"model.reduction must be at most model.n_feats ({self.n_feats}), got {self.reduction}: "
                "the attention dropout module would have no hidden unit"
            )
        _positive_float32("model.temperature", self.temperature)
        _one_of("model.input_range", self.input_range, (1, 255))
        _one_of("model.non_attention_kernel_size", self.non_attention_kernel_size, (1, 3))
        _one_of("model.skip_interpolation", self.skip_interpolation, ("bilinear", "nearest"))


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """How training patches are made."""

    scale: Scale = 2
    """Enlargement factor."""
    lr_patch_size: int = 64
    """Side length of the square LR patch, in LR pixels. Legal: at least 4."""
    train_kernel: Kernel = "matlab_bicubic"
    """Downsampling kernel that makes the LR images for training."""
    sampling: Literal["images", "pixels", "subimages"] = "images"
    """How the position of a patch is drawn. "images" draws an image uniformly, then a position in it. "pixels" draws
    uniformly over the pixels of all images. "subimages" draws inside overlapping sub-images, as the blog's recipe
    does."""
    subimage_window: int = 480
    """Side length of a sub-image, in HR pixels. Used only if sampling is "subimages". Legal: at least the HR patch
    size."""
    subimage_step: int = 200
    """Distance between neighbouring sub-images, in HR pixels. Used only if sampling is "subimages". Legal: at least
    1."""
    augmentation: Literal["dihedral", "none"] = "dihedral"
    """How a patch is augmented. "dihedral" applies one of the eight flips and quarter turns, each with equal
    probability. "none" leaves the patch unchanged."""

    def __post_init__(self) -> None:
        _one_of("data.scale", self.scale, SCALES)
        _count("data.lr_patch_size", self.lr_patch_size, 4)
        _one_of("data.train_kernel", self.train_kernel, KERNELS)
        _one_of("data.sampling", self.sampling, ("images", "pixels", "subimages"))
        _count("data.subimage_window", self.subimage_window)
        _count("data.subimage_step", self.subimage_step)
        if self.sampling == "subimages" and self.subimage_window < self.lr_patch_size * self.scale:
            raise ConfigError(
                f"data.subimage_window must hold an HR patch of {self.lr_patch_size * self.scale} pixels "
                f"(data.lr_patch_size × data.scale), got {self.subimage_window}"
            )
        _one_of("data.augmentation", self.augmentation, ("dihedral", "none"))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How the network is optimised. Progress is counted in patches, so that all batch sizes train on equally many."""

    budget_patches: int = 1_920
    """Number of training patches in total. Legal: a multiple of batch_size."""
    batch_size: int = 16
    """Number of patches per optimiser step. Legal: a divisor of budget_patches."""
    learning_rate: float = 1e-3
    """Learning rate of Adam at the start of the schedule. Legal: greater than 0."""
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    """How the learning rate changes over the budget. "constant" keeps it. "cosine" lowers it to 0 along half a cosine.
    "step" multiplies it by step_factor at regular intervals."""
    step_interval: float = 0.1
    """Distance between two drops of the learning rate, as a fraction of the budget. Used only if schedule is "step".
    Legal: greater than 0."""
    step_factor: float = 0.5
    """Factor by which each drop multiplies the learning rate. Used only if schedule is "step". Legal: greater than 0,
    at most 1."""
    loss: Literal["l1", "l2", "charbonnier"] = "l1"
    """Loss per sample: abs(d) for l1, d² for l2, sqrt(d² + charbonnier_eps) for charbonnier. d is the difference of two
    pixel values from 0 to 1, whatever the input range of the network is."""
    charbonnier_eps: float = 1e-6
    """The constant added to d² in the Charbonnier loss, with d from 0 to 1. Legal: greater than 0."""
    loss_reduction: Literal["mean", "sum"] = "mean"
    """Whether the loss is the mean or the sum over all samples of the batch. Adam cancels the constant factor between
    the two, except for the effect of adam_eps."""
    adam_beta1: float = 0.9
    """Decay rate per step of Adam's running mean of the gradient. Legal: at least 0, below 1."""
    adam_beta2: float = 0.999
    """Decay rate per step of Adam's running mean of the squared gradient. Legal: at least 0, below 1."""
    adam_eps: float = 1e-8
    """Constant added to the denominator of Adam's update. Legal: greater than 0."""
    ema_horizon_patches: float = 192.0
    """Length of the exponential moving average of the weights, in patches. The decay per step is
    exp(-batch_size / ema_horizon_patches), with bias correction. Legal: greater than 0."""
    engine: Engine = "auto"
    """How a training step is executed. "eager" runs it kernel by kernel, "compiled" compiles the network, and "graphed"
    replays a CUDA graph. "auto" measures which is fastest on this machine, including compile time. Never searched."""
    precision: Precision = "auto"
    """Arithmetic of the network in training. "auto" is bf16 on a GPU that supports it, otherwise fp32. "tf32" is fp32,
    except that a GPU's convolutions round their factors to 10 bits. Weights, optimiser and validation use fp32. Never
    searched."""
    deterministic: bool | None = None
    """Whether the same seed gives bitwise equal results. This makes a GPU slower. None means yes on a CPU and no on a
    GPU. Never searched."""

    def __post_init__(self) -> None:
        _count("train.budget_patches", self.budget_patches)
        _count("train.batch_size", self.batch_size)
        _positive_float32("train.learning_rate", self.learning_rate)
        _one_of("train.schedule", self.schedule, ("constant", "cosine", "step"))
        _positive_float32("train.step_interval", self.step_interval)
        _positive("train.step_factor", self.step_factor)
        if self.step_factor > 1:
            raise ConfigError(f"train.step_factor must be at most 1, got {self.step_factor!r}")
        _one_of("train.loss", self.loss, ("l1", "l2", "charbonnier"))
        _positive_float32("train.charbonnier_eps", self.charbonnier_eps)
        _one_of("train.loss_reduction", self.loss_reduction, ("mean", "sum"))
        _decay("train.adam_beta1", self.adam_beta1)
        _decay("train.adam_beta2", self.adam_beta2)
        _positive_float32("train.adam_eps", self.adam_eps)
        _positive("train.ema_horizon_patches", self.ema_horizon_patches)
        _one_of("train.engine", self.engine, get_args(Engine))
        _one_of("train.precision", self.precision, get_args(Precision))
        _one_of("train.deterministic", self.deterministic, (None, True, False))


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How a network is scored during training. Never searched, because all trials need the same measure."""

    kernel: Kernel = "matlab_bicubic"
    """Downsampling kernel that makes the LR images for validation and test, whatever the training kernel is."""
    protocol: EvaluationProtocol = "canonical"
    """How pixels are processed before PSNR and SSIM are computed: "canonical" as in benchmark tables, "blog" as in the
    A2N reimplementation."""
    every_patches: int = 480
    """Number of training patches between two validations. Legal: at least 1."""
    crops: int = 6
    """Number of validation crops in total, distributed evenly over the validation images. Legal: at least 1."""
    lr_crop_size: int = 96
    """Side length of a square validation crop, in LR pixels. It is reduced if a validation image is too small. Legal:
    at least 24."""

    def __post_init__(self) -> None:
        _one_of("evaluation.kernel", self.kernel, KERNELS)
        _one_of("evaluation.protocol", self.protocol, get_args(EvaluationProtocol))
        _count("evaluation.every_patches", self.every_patches)
        _count("evaluation.crops", self.crops)
        _count("evaluation.lr_crop_size", self.lr_crop_size, 24)
