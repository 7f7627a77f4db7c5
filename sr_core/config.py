"""Every hyperparameter, declared once: type, default, legal values, meaning.

Each section goes only to the stage that reads it. A range to search belongs to an experiment; how to run
(threads, device) belongs to `sr_core.training.runtime`.
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
"""Downsampling kernels by name; `sr_core.images.degrade` says what each one does."""
Engine = Literal["auto", "eager", "compiled", "graphed"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
EvaluationProtocol = Literal["canonical", "blog"]
"""Evaluation protocols by name; `sr_core.metrics.evaluate` says what each one does."""

KERNELS: tuple[str, ...] = get_args(Kernel)
SCALES: tuple[int, ...] = get_args(Scale)

_ZERO_IN_FLOAT32 = 2.0**-150
"""The largest number that becomes 0 when it is rounded to float32, whose least one above 0 is twice as large."""


def _one_of(name: str, value: object, legal: tuple[Any, ...]) -> None:
    # 2.0 and True equal whole numbers, but a config that holds them has another hash.
    if not any(type(value) is type(v) and value == v for v in legal):
        raise ConfigError(f"{name} must be one of {', '.join(map(str, legal))}; got {value!r}")


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return float(value) == float(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _positive(name: str, value: float) -> None:
    if not (_is_number(value) and 0 < value < math.inf):
        raise ConfigError(f"{name} must be > 0 and finite, got {value!r}")


def _positive_float32(name: str, value: float) -> None:
    """As `_positive`, of a number that enters the arithmetic of training, which is float32."""
    _positive(name, value)
    if value <= _ZERO_IN_FLOAT32:
        raise ConfigError(
            f"{name} must be at least 1.4e-45, got {value!r}: training computes with 32-bit numbers, in which that is 0"
        )


def _decay(name: str, value: float) -> None:
    if not (_is_number(value) and 0 <= value < 1):
        raise ConfigError(f"{name} must be at least 0 and below 1, got {value!r}")


def _count(name: str, value: int, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The A2N network ("Attention in Attention Network", arXiv 2104.09497); A2N-M has kernel size 1 below."""

    n_feats: int = 40
    """Channels of the trunk."""
    upsampler_feats: int = 24
    """Channels of the tail, after the first enlarging 3x3."""
    n_blocks: int = 16
    """Attention-in-attention blocks in the trunk."""
    reduction: int = 4
    """Divides n_feats to the hidden width of the attention dropout module. Legal: 1 … n_feats."""
    temperature: float = 30.0
    """Divides the branch logits before the softmax: towards 0 picks one branch, large weighs both alike. Legal: > 0."""
    input_range: Literal[1, 255] = 255
    """The network sees pixels in 0..input_range. Not scale-free: it decides what a temperature means."""
    non_attention_kernel_size: Literal[1, 3] = 3
    """The non-attention branch's convolution: 3 is A2N, 1 is A2N-M."""
    skip_interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """Enlarges the input that is added to the output (bilinear: align_corners=False, the authors' code)."""

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
    """What one training patch is."""

    scale: Scale = 2
    """Enlargement factor."""
    lr_patch_size: int = 64
    """Side of the square LR patch, in LR pixels."""
    train_kernel: Kernel = "matlab_bicubic"
    """Downsampling that makes the training LR."""
    sampling: Literal["images", "pixels", "subimages"] = "images"
    """How a patch finds its place: uniform over images, uniform over pixels, or inside the blog's sub-images."""
    subimage_window: int = 480
    """Side of a sub-image, in HR pixels; only for sampling "subimages"."""
    subimage_step: int = 200
    """Distance between sub-images, in HR pixels; only for sampling "subimages"."""
    augmentation: Literal["dihedral", "none"] = "dihedral"
    """All eight flips and quarter turns with equal chance, or the patch as it is."""

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
    """The optimisation. Everything that advances is counted in patches, so that batch sizes compete at equal work."""

    budget_patches: int = 1_920
    """Training patches in all."""
    batch_size: int = 16
    """Patches in one optimiser step. Must divide budget_patches, which is checked where all counts are known."""
    learning_rate: float = 1e-3
    """Adam's step size at the start of the schedule."""
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    """Learning rate over patches / budget_patches: constant, half a cosine to 0, or multiplied at equal distances."""
    step_interval: float = 0.1
    """Fraction of the budget between two drops; only for schedule "step"."""
    step_factor: float = 0.5
    """What a drop multiplies by; only for schedule "step". Legal: 0 < … ≤ 1."""
    loss: Literal["l1", "l2", "charbonnier"] = "l1"
    """|d|, d², or sqrt(d² + eps) of the difference d, pixels in 0..1 whatever the network's input range."""
    charbonnier_eps: float = 1e-6
    """eps in sqrt(d² + eps), d in 0..1."""
    loss_reduction: Literal["mean", "sum"] = "mean"
    """Over every sample of the batch. Adam hides the factor between the two; its epsilon does not quite."""
    adam_beta1: float = 0.9
    """Decay of the gradient's running mean, per step. Legal: 0 ≤ … < 1."""
    adam_beta2: float = 0.999
    """Decay of the squared gradient's running mean, per step. Legal: 0 ≤ … < 1."""
    adam_eps: float = 1e-8
    """Added to the root of the squared gradient's mean."""
    ema_horizon_patches: float = 192.0
    """Weights are averaged over about this many patches (decay exp(-batch_size / horizon) a step, bias-corrected)."""
    engine: Engine = "auto"
    """How a step is executed; auto: what is fastest on this machine, compilation paid for. Never swept."""
    precision: Precision = "auto"
    """Of the network's arithmetic; weights, optimiser and validations stay fp32. auto: bf16 where a GPU has it, else
    fp32. tf32 is fp32 but for a GPU's convolutions, which round their factors to 10 bits. Never swept."""
    deterministic: bool | None = None
    """Same seed, same bits, on a GPU too, where it costs speed; None: on a CPU only. Never swept."""

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
    """How a network is scored while it trains. Never swept: it is the ruler."""

    kernel: Kernel = "matlab_bicubic"
    """Downsampling that makes validation and test LR, whatever the training kernel is."""
    protocol: EvaluationProtocol = "canonical"
    """What is done to the pixels before PSNR and SSIM."""
    every_patches: int = 480
    """Training patches between two validations."""
    crops: int = 6
    """Validation crops in all, spread evenly over the validation images."""
    lr_crop_size: int = 96
    """Side of a square validation crop in LR pixels; less where a validation image holds no such square."""

    def __post_init__(self) -> None:
        _one_of("evaluation.kernel", self.kernel, KERNELS)
        _one_of("evaluation.protocol", self.protocol, get_args(EvaluationProtocol))
        _count("evaluation.every_patches", self.every_patches)
        _count("evaluation.crops", self.crops)
        _count("evaluation.lr_crop_size", self.lr_crop_size, 24)
