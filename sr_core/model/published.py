"""Converts between our tensor names and those of the released A2N weights.

The released file is a plain dict of tensors (https://github.com/haoyuc/A2N). It determines the size of every layer. It
does not determine the temperature, the input range or, because x2 and x3 have the same tensors, the scale.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

from torch import Tensor

from sr_core.config import ModelConfig, Scale
from sr_core.errors import CheckpointError, ConfigError

RELEASED_TEMPERATURE: Final = 30.0
RELEASED_INPUT_RANGE: Final = 255
_MAX_NAMES_SHOWN: Final = 3

_OURS_TO_PUBLISHED = {
    "head": "conv_first",
    "blocks.#.enter": "AAB_trunk.#.conv_first",
    "blocks.#.branch_weights.squeeze": "AAB_trunk.#.ADM.0",
    "blocks.#.branch_weights.score": "AAB_trunk.#.ADM.2",
    "blocks.#.attention.gate_context": "AAB_trunk.#.attention.k1",
    "blocks.#.attention.gate": "AAB_trunk.#.attention.k2",
    "blocks.#.attention.features": "AAB_trunk.#.attention.k3",
    "blocks.#.attention.fuse": "AAB_trunk.#.attention.k4",
    "blocks.#.non_attention": "AAB_trunk.#.non_attention",
    "blocks.#.leave": "AAB_trunk.#.conv_last",
    "trunk_end": "trunk_conv",
    "tail.0.enlarge": "upconv1",
    "tail.0.gate": "att1.conv",
    "tail.0.refine": "HRconv1",
    "tail.1.enlarge": "upconv2",
    "tail.1.gate": "att2.conv",
    "tail.1.refine": "HRconv2",
    "to_rgb": "conv_last",
}
"""Maps our module names to the released ones. # stands for the number of a block. Tensors (weight, bias) have the same
names in both."""
_PUBLISHED_TO_OURS = {published: ours for ours, published in _OURS_TO_PUBLISHED.items()}
_BLOCK_NUMBER = re.compile(r"(?:blocks|AAB_trunk)\.(\d+)\.")


def is_published(state: Mapping[str, Tensor]) -> bool:
    """True if the state dict contains the trunk of an A2N under its released name, which no other network uses."""
    return "conv_first.weight" in state and any(name.startswith("AAB_trunk.") for name in state)


def require_published(state: Mapping[str, Tensor]) -> None:
    """Check that these are A2N weights under their released names.

    Raises:
        CheckpointError: they are not. The message names some of the tensors.
    """
    if is_published(state):
        return
    missing = "AAB_trunk.0.ADM.0.weight" if "conv_first.weight" in state else "conv_first.weight"
    names = ", ".join(list(state)[:_MAX_NAMES_SHOWN])
    if len(state) > _MAX_NAMES_SHOWN:
        names += ", …"
    raise CheckpointError(
        f"not released A2N weights: no tensor {missing!r} among {len(state)} ({names}); this is a different network, "
        "use weights of an A2N"
    )


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names.

    Raises:
        CheckpointError: a tensor has a name that no released A2N has.
    """
    return _renamed(state, _PUBLISHED_TO_OURS, "released A2N weights")


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the released names.

    Raises:
        CheckpointError: a tensor has a name that our A2N does not have.
    """
    return _renamed(state, _OURS_TO_PUBLISHED, "our A2N weights")


def published_config(state: Mapping[str, Tensor], scale: Scale) -> ModelConfig:
    """The model config of a released state dict.

    Layer sizes come from the tensors. Temperature and input range are the authors' values.

    Args:
        state: tensors under their released names.
        scale: the scale of the network. Only x4 can be checked, because it alone has a second upsampler stage.
    Raises:
        CheckpointError: the tensors are not those of an A2N, or not of an A2N for this scale.
    """
    n_feats = _shape(state, "conv_first.weight", 4)[0]
    hidden = _shape(state, "AAB_trunk.0.ADM.0.weight", 2)[0]
    if ("upconv2.weight" in state) != (scale == 4):
        actual = "4" if scale != 4 else "2 or 3"
        raise CheckpointError(f"these released weights enlarge by {actual}, expected weights for scale {scale}")
    try:
        return ModelConfig(
            n_feats=n_feats,
            upsampler_feats=_shape(state, "upconv1.weight", 4)[0],
            n_blocks=len({block[1] for block in map(_BLOCK_NUMBER.match, state) if block}),
            reduction=max(1, n_feats // max(1, hidden)),
            temperature=RELEASED_TEMPERATURE,
            input_range=RELEASED_INPUT_RANGE,
            non_attention_kernel_size=_kernel_size(state),
        )
    except ConfigError as exc:
        raise CheckpointError(f"no A2N has weights of these sizes: {exc}") from exc


def scale_of_published(state: Mapping[str, Tensor]) -> Scale:
    """The scale of a released state dict, if its tensors determine it. Only x4 weights do.

    Raises:
        CheckpointError: the weights may be for x2 or x3.
    """
    if "upconv2.weight" not in state:
        raise CheckpointError("released weights for x2 and x3 contain the same tensors; give their scale with --scale")
    return 4


def _renamed(state: Mapping[str, Tensor], modules: Mapping[str, str], kind: str) -> dict[str, Tensor]:
    return {_rename(name, modules, kind): tensor for name, tensor in state.items()}


def _rename(name: str, modules: Mapping[str, str], kind: str) -> str:
    module, _, parameter = name.rpartition(".")
    block = _BLOCK_NUMBER.match(name)
    number = block[1] if block else ""
    key = module.replace(f".{number}.", ".#.", 1) if block else module
    if key not in modules or parameter not in ("weight", "bias"):
        raise CheckpointError(f"expected {kind}, which have no tensor {name!r}")
    return f"{modules[key].replace('#', number)}.{parameter}"


def _kernel_size(state: Mapping[str, Tensor]) -> Literal[1, 3]:
    size = _shape(state, "AAB_trunk.0.non_attention.weight", 4)[-1]
    match size:
        case 1 | 3:
            return size
    raise CheckpointError(f"no A2N has weights of these sizes: non-attention kernel of {size}, expected 1 or 3")


def _shape(state: Mapping[str, Tensor], name: str, n_dims: int) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"not released A2N weights: no tensor {name!r} among {len(state)}")
    shape = tuple(state[name].shape)
    if len(shape) != n_dims:
        raise CheckpointError(f"not released A2N weights: {name} has shape {shape}, expected {n_dims} dimensions")
    return shape
