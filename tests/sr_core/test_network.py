"""The network: sizes, cost, exact values of its parts, and the effects of temperature and input range."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_core.config import ModelConfig, Scale
from sr_core.model.attention import AttentionInAttention, BranchWeights
from sr_core.model.initial import initialise
from sr_core.model.network import A2N
from sr_core.model.upsample import EnlargeStage

A2N_M = ModelConfig(non_attention_kernel_size=1)
TINY = ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=2, reduction=4)


def network(config: ModelConfig = TINY, scale: Scale = 2, seed: int = 7) -> A2N:
    model = A2N(config, scale)
    initialise(model, seed)
    return model


def image(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("config", "scale", "count"),
    [
        (ModelConfig(), 2, 1_036_443),
        (ModelConfig(), 3, 1_036_443),
        (ModelConfig(), 4, 1_047_459),
        (A2N_M, 2, 831_643),
        (A2N_M, 3, 831_643),
        (A2N_M, 4, 842_659),
    ],
)
def test_parameters_are_as_many_as_published(config: ModelConfig, scale: Scale, count: int) -> None:
    assert sum(p.numel() for p in A2N(config, scale).parameters()) == count


@contextmanager
def counted_multiply_adds(model: nn.Module) -> Iterator[list[int]]:
    counts: list[int] = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        counts.append(output.numel() * layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    yield counts
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    ("config", "scale", "giga"),
    [
        (ModelConfig(), 2, 247.5),
        (ModelConfig(), 3, 117.7),
        (ModelConfig(), 4, 72.4),
        (A2N_M, 2, 200.3),
        (A2N_M, 3, 96.7),
        (A2N_M, 4, 60.6),
    ],
)
def test_a_1280x720_output_costs_the_published_multiply_adds(config: ModelConfig, scale: Scale, giga: float) -> None:
    model = A2N(config, scale)
    with torch.inference_mode(), counted_multiply_adds(model) as counts:
        sr = model(torch.zeros(1, 3, 4, 4))
    per_output_pixel = sum(counts) / sr[0, 0].numel()
    assert per_output_pixel * 1280 * 720 / 1e9 == pytest.approx(giga, rel=0.005)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_height_and_width_grow_by_the_scale(scale: Scale) -> None:
    assert network(scale=scale)(image(2, 3, 5, 7)).shape == (2, 3, 5 * scale, 7 * scale)


def set_taps(layer: nn.Module, *values: float, bias: float | None = None) -> None:
    """One value per output channel, in the centre of the kernel."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    with torch.no_grad():
        layer.weight.zero_()
        centre = layer.weight[..., layer.weight.shape[-2] // 2, layer.weight.shape[-1] // 2]
        (centre if layer.weight.dim() == 4 else layer.weight).copy_(torch.tensor(values)[:, None])
        if bias is not None:
            layer.bias.fill_(bias)


def test_a_block_of_one_channel_has_the_values_computed_by_hand() -> None:
    config = ModelConfig(n_feats=1, upsampler_feats=1, n_blocks=1, reduction=1, temperature=6 / math.log(3))
    block = AttentionInAttention(config)
    set_taps(block.enter, 2)  # 3 -> 6
    set_taps(block.branch_weights.squeeze, 0.5)  # 6 -> 3
    set_taps(block.branch_weights.score, 1, -1)  # 3, -3: their difference over t is ln 3, so 0.75 and 0.25
    set_taps(block.attention.gate_context, -0.5)  # 6 -> -3, leaky -0.6
    set_taps(block.attention.gate, 1, bias=0.6)  # 0: half open
    set_taps(block.attention.features, 2)  # 6 -> 12, gated 6
    set_taps(block.attention.fuse, 2)  # 12
    set_taps(block.non_attention, -16)  # -96
    set_taps(block.leave, 5)  # 0.75 * 12 - 0.25 * 96 = -15, leaky -3 -> -15
    assert block(torch.tensor([[[[3.0]]]])).item() == pytest.approx(3 - 15, rel=1e-6)


def test_a_stage_of_the_tail_has_the_values_computed_by_hand() -> None:
    stage = EnlargeStage(1, 1, 3)
    set_taps(stage.enlarge, 0.5, bias=1)  # 4 -> 3
    set_taps(stage.gate, 0, bias=-math.log(3))  # a quarter: 0.75
    set_taps(stage.refine, -4, bias=1)  # -2, leaky -0.4
    torch.testing.assert_close(stage(torch.tensor([[[[4.0]]]])), torch.full((1, 1, 3, 3), -0.4))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_without_detail_the_output_is_the_enlarged_input_plus_a_constant(scale: Scale, mode: str) -> None:
    skip = {"bilinear": ModelConfig(n_feats=4), "nearest": ModelConfig(n_feats=4, skip_interpolation="nearest")}
    model = network(skip[mode], scale)
    with torch.no_grad():
        model.to_rgb.weight.zero_()
        model.to_rgb.bias.fill_(51)  # of 255: a fifth
    lr = image(1, 3, 6, 5)
    enlarged = F.interpolate(lr, size=(6 * scale, 5 * scale), mode=mode)
    torch.testing.assert_close(model(lr), enlarged + 0.2)


def branch_weights(x: Tensor, *, temperature: float, seed: int = 3) -> Tensor:
    """Branch weights (N, 2) of newly initialised modules that differ only in temperature."""
    module = BranchWeights(ModelConfig(temperature=temperature))
    initialise(module, seed)
    with torch.inference_mode():
        return torch.cat(module(x), dim=1).flatten(1)


def test_branch_weights_sum_to_one_for_each_image_by_itself() -> None:
    x = 10 * image(3, 40, 4, 4)
    together = branch_weights(x, temperature=1)
    torch.testing.assert_close(together.sum(1), torch.ones(3))
    torch.testing.assert_close(together[2:], branch_weights(x[2:], temperature=1))
    assert not torch.equal(together[0], together[1])


def test_a_low_temperature_picks_one_branch_and_a_high_one_weighs_both_alike() -> None:
    x = image(4, 40, 4, 4)
    picked = branch_weights(x, temperature=1e-6)
    assert torch.equal(picked.amax(1), torch.ones(4))
    assert torch.equal(picked.amin(1), torch.zeros(4))
    torch.testing.assert_close(branch_weights(x, temperature=1e6), torch.full((4, 2), 0.5))


def test_brighter_pixels_mean_what_a_lower_temperature_means() -> None:
    x = image(2, 40, 4, 4)
    torch.testing.assert_close(branch_weights(255 * x, temperature=30), branch_weights(x, temperature=30 / 255))


def test_at_range_1_and_temperature_30_the_branches_start_alike() -> None:
    x = image(8, 40, 16, 16)
    assert (branch_weights(x, temperature=30) - 0.5).abs().max() < 2e-3
    assert (branch_weights(255 * x, temperature=30) - 0.5).abs().max() > 2e-2


def test_a_range_of_255_is_a_range_of_1_with_other_first_and_last_weights() -> None:
    wide = network(ModelConfig(n_feats=8, n_blocks=2))
    narrow = A2N(ModelConfig(n_feats=8, n_blocks=2, input_range=1), 2)
    narrow.load_state_dict(wide.state_dict())
    with torch.no_grad():
        narrow.head.weight.mul_(255)
        narrow.to_rgb.weight.div_(255)
        narrow.to_rgb.bias.div_(255)
    lr = image(2, 3, 8, 8)
    torch.testing.assert_close(narrow(lr), wide(lr))
    assert not torch.allclose(network(narrow.config)(lr), wide(lr), atol=1e-2)  # equal weights are another network


def test_an_image_does_not_feel_the_others_in_its_batch() -> None:
    model = network()
    lr = image(3, 3, 9, 8)
    torch.testing.assert_close(model(lr)[1:2], model(lr[1:2]))


def test_every_pixel_feels_the_whole_image_through_the_branch_weights() -> None:
    config = ModelConfig(n_feats=8, n_blocks=1, temperature=1.0)  # at 0.1 the softmax is within an ulp of (1, 0)
    model = network(config)
    lr = image(1, 3, 64, 64)
    changed = lr.clone()
    changed[..., 60:, 60:] = 1
    corner = (slice(None), slice(None), slice(0, 8), slice(0, 8))  # far beyond what the convolutions see
    assert not torch.equal(model(lr)[corner], model(changed)[corner])


def test_with_symmetric_kernels_a_flip_of_the_input_flips_the_output() -> None:
    model = network(scale=3)
    lr = image(1, 3, 7, 9)
    assert not torch.allclose(model(lr.flip(3)).flip(3), model(lr), atol=1e-3)  # in general it does not
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_((layer.weight + layer.weight.flip(3)) / 2)
    torch.testing.assert_close(model(lr.flip(3)).flip(3), model(lr), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    """In-place activations must not change tensors that autograd has saved."""
    block = AttentionInAttention(ModelConfig(n_feats=3, reduction=1, temperature=0.5)).double()
    stage = EnlargeStage(3, 2, 2).double()
    initialise(block, 1)
    initialise(stage, 2)
    x = image(2, 3, 3, 4).double().requires_grad_()
    parameters = [*block.parameters(), *stage.parameters()]
    assert torch.autograd.gradcheck(lambda x, *_: stage(block(x)), (x, *parameters))


def test_every_parameter_gets_a_gradient_from_deterministic_kernels() -> None:
    model = network(scale=4)
    torch.use_deterministic_algorithms(True)
    try:
        model(image(2, 3, 8, 8)).square().sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_initial_values_are_pytorchs_default_distribution() -> None:
    for name, values in network(ModelConfig(n_blocks=1)).named_parameters():
        layer = network(ModelConfig(n_blocks=1)).get_submodule(name.rpartition(".")[0])
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        bound = 1 / math.sqrt(layer.weight[0].numel())
        assert values.abs().max() <= bound
        if values.numel() > 1000:  # uniform in ±bound: standard deviation bound / sqrt 3
            assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert abs(values.mean().item()) < 0.06 * bound


def test_initial_values_depend_on_seed_and_name_alone() -> None:
    base = network(TINY).state_dict()
    others = {
        "deeper": network(ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=5)),
        "x4": network(TINY, 4),
        "A2N-M": network(ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=2, non_attention_kernel_size=1)),
    }
    for other in others.values():
        shared = {name: t for name, t in other.state_dict().items() if name in base and t.shape == base[name].shape}
        assert len(shared) >= len(base) - 2
        assert all(torch.equal(t, base[name]) for name, t in shared.items())
    assert torch.equal(network(TINY).head.weight, base["head.weight"])
    assert not torch.equal(network(TINY, seed=8).head.weight, base["head.weight"])
    assert not torch.equal(base["blocks.0.enter.weight"], base["blocks.1.enter.weight"])


def test_initial_values_do_not_depend_on_the_memory_format_and_leave_the_global_generator_alone() -> None:
    model = A2N(TINY, 2)
    nn.utils.convert_conv2d_weight_memory_format(model, torch.channels_last)
    before = torch.random.get_rng_state()
    initialise(model, 7)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(t, network().state_dict()[name]) for name, t in model.state_dict().items())


def test_a_layer_without_initial_values_is_refused() -> None:
    with pytest.raises(AssertionError, match="BatchNorm2d"):
        initialise(nn.Sequential(nn.BatchNorm2d(3)), 1)
