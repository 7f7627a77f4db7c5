"""One image through the network: range, layout, mode and the self-ensemble."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sr_core.config import ModelConfig, Scale
from sr_core.model.inference import super_resolve
from sr_core.model.initial import initialise
from sr_core.model.network import A2N

Pixels = NDArray[np.uint8]


def network(scale: Scale = 2) -> A2N:
    model = A2N(ModelConfig(n_feats=8, upsampler_feats=6, n_blocks=2), scale)
    initialise(model, 5)
    return model


def image(height: int, width: int) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_output_is_the_networks_in_units_of_255_not_rounded_not_clipped() -> None:
    model = network(3)
    lr = image(6, 9)
    with torch.no_grad():
        model.to_rgb.bias[:] = torch.tensor([-400.0, 0.0, 400.0])
        expected = model(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy() * 255
    sr = super_resolve(model, lr)
    assert (sr.shape, sr.dtype) == ((18, 27, 3), np.float32)
    np.testing.assert_allclose(sr, expected, atol=1e-3)
    assert sr[..., 0].max() < 0
    assert sr[..., 2].min() > 255
    assert not np.array_equal(sr, np.round(sr))


@pytest.mark.parametrize("training", [True, False])
def test_the_training_flag_is_as_before_even_after_an_error(training: bool) -> None:
    model = network().train(training)
    super_resolve(model, image(5, 5))
    assert model.training is training
    with pytest.raises(RuntimeError):
        super_resolve(model, image(5, 5)[..., :2])
    assert model.training is training
    assert model.blocks.training is training


def test_the_result_is_an_ordinary_writable_array_without_gradients() -> None:
    sr = super_resolve(network(), image(5, 5))
    sr += 1
    assert sr.flags.c_contiguous


def test_a_view_of_an_image_gives_what_its_copy_gives() -> None:
    model = network()
    view = image(9, 8)[::-1, ::2]
    np.testing.assert_array_equal(super_resolve(model, view), super_resolve(model, view.copy()))


SYMMETRIES: list[Callable[[NDArray[np.generic]], NDArray[np.generic]]] = [
    lambda x: x,
    lambda x: np.rot90(x, 1),
    lambda x: np.rot90(x, 2),
    lambda x: np.rot90(x, 3),
    lambda x: x[:, ::-1],
    lambda x: x[::-1],
    lambda x: x.swapaxes(0, 1),
    lambda x: np.rot90(x, 2).swapaxes(0, 1),
]
INVERSES = [SYMMETRIES[i] for i in (0, 3, 2, 1, 4, 5, 6, 7)]


def test_the_self_ensemble_is_the_mean_of_eight_views_turned_back() -> None:
    model = network()
    lr = image(6, 9)
    views = [back(super_resolve(model, np.asarray(see(lr)))) for see, back in zip(SYMMETRIES, INVERSES, strict=True)]
    ensemble = super_resolve(model, lr, self_ensemble=True)
    assert ensemble.shape == (12, 18, 3)
    np.testing.assert_allclose(ensemble, np.mean(views, axis=0), atol=1e-3)
    assert np.abs(ensemble - super_resolve(model, lr)).max() > 0.1


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_the_self_ensemble_turns_with_its_input(symmetry: Callable[[Pixels], Pixels]) -> None:
    model = network()
    lr = image(6, 9)
    turned = super_resolve(model, symmetry(lr), self_ensemble=True)
    np.testing.assert_allclose(turned, symmetry(super_resolve(model, lr, self_ensemble=True)), atol=1e-3)
