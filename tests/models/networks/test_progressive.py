import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from models.networks import ImageShape, Progressive
from models.networks.progressive import Stage
from tests.models.networks.tiny import inputs, players

# Of 16 pixels: three stages, so four phases in the first half of the training.
STAYS = {0: 0.05, 1: 0.3, 2: 0.7}
FADES = {1: (0.125, 0.25), 2: (0.375, 0.5)}


def nearest(img, resolution):
    return interpolate(img, size=(resolution, resolution), mode="nearest")


def at(network, progress):
    network.set_progress(progress)
    return network


@pytest.mark.parametrize(
    ("progress", "index", "alpha"),
    [
        (0.0, 0, 1.0),
        (0.1249, 0, 1.0),
        (0.125, 1, 0.0),
        (0.1875, 1, 0.5),
        (0.25, 1, 1.0),
        (0.3, 1, 1.0),
        (0.375, 2, 0.0),
        (0.46875, 2, 0.75),
        (0.5, 2, 1.0),
        (1.0, 2, 1.0),
    ],
)
def test_the_schedule(progress, index, alpha):
    found = Stage.at(progress, num_stages=3, growth=0.5)
    assert found == Stage(index, pytest.approx(alpha))


def test_without_growth_the_whole_network_trains():
    assert Stage.at(0.0, num_stages=5, growth=0.0) == Stage(4, 1.0)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_is_a_share(progress):
    G, _ = players("progressive")
    with pytest.raises(ValueError, match=r"progress is .*, must lie in \[0, 1\]"):
        G.set_progress(progress)


@pytest.mark.parametrize("stage", [0, 1])
def test_an_early_generator_makes_large_pixels(stage):
    G, _ = players("progressive")
    z, _, _ = inputs("progressive")
    img = at(G, STAYS[stage])(z)
    assert img.shape == (6, 1, 16, 16)
    small = img[:, :, :: 4 >> stage, :: 4 >> stage]
    assert torch.equal(img, nearest(small, 16))
    assert not torch.equal(img, nearest(small[:, :, ::2, ::2], 16))


@pytest.mark.parametrize("stage", [1, 2])
def test_at_alpha_0_the_generator_is_the_stage_before(stage):
    G, _ = players("progressive")
    z, _, _ = inputs("progressive")
    start, end = FADES[stage]
    before, after = at(G, STAYS[stage - 1])(z), at(G, STAYS[stage])(z)
    assert torch.equal(at(G, start)(z), before)
    assert torch.equal(at(G, end)(z), after)
    half = at(G, (start + end) / 2)(z)
    assert torch.allclose(half, (before + after) / 2, atol=1e-6)
    assert not torch.allclose(before, after, atol=1e-2)


@pytest.mark.parametrize("stage", [1, 2])
def test_at_alpha_0_the_discriminator_is_the_stage_before(stage):
    _, D = players("progressive")
    _, img, _ = inputs("progressive")
    start, end = FADES[stage]
    before, after = at(D, STAYS[stage - 1])(img), at(D, STAYS[stage])(img)
    assert torch.allclose(at(D, start)(img), before, atol=1e-6)
    assert torch.equal(at(D, end)(img), after)
    assert not torch.allclose(before, after, atol=1e-3)


def test_an_early_discriminator_sees_means_only():
    _, D = players("progressive")
    _, img, _ = inputs("progressive")
    blurred = nearest(avg_pool2d(img, 4), 16)
    assert torch.allclose(at(D, 0.0)(img), at(D, 0.0)(blurred), atol=1e-6)
    assert not torch.allclose(at(D, 0.3)(img), at(D, 0.3)(blurred), atol=1e-3)


def test_progress_is_no_part_of_the_state():
    G, _ = players("progressive")
    z, _, _ = inputs("progressive")
    expected = G(z)
    at(G, 0.2)
    state = G.state_dict()
    assert not [key for key in state if "alpha" in key]
    fresh = Progressive(z_dim=5, channel_base=64, channel_max=6).generator(
        ImageShape(resolution=16, channels=1)
    )
    fresh.load_state_dict(state)
    assert torch.equal(fresh(z), expected)
    assert torch.equal(at(G, 1.0)(z), expected)


def test_48_pixels_are_refused():
    with pytest.raises(ValueError, match="resolution is 48, the family 'progressive' makes 8, 16"):
        Progressive().check(ImageShape(resolution=48, channels=3))


@pytest.mark.parametrize(("stage", "progress"), [(1, 0.1875), (2, 0.40625)])
def test_real_images_fade_in_as_generated_ones_do(stage, progress):
    """Karras et al. 2018, fig. 2: the stage's image and the one before, mixed by the same alpha."""
    _, D = players("progressive")
    _, img, _ = inputs("progressive")
    at(D, progress)
    alpha = float(D.growth.alpha)
    assert 0 < alpha < 1
    size = 4 << stage
    seen = avg_pool2d(img, 16 // size)
    before = nearest(avg_pool2d(seen, 2), size)
    shown = avg_pool2d(D.faded(img), 16 // size)
    torch.testing.assert_close(shown, alpha * seen + (1 - alpha) * before)
    assert not torch.allclose(shown, seen, atol=1e-3)


@pytest.mark.parametrize("progress", [0.05, 0.3, 0.7, 1.0])
def test_real_images_stay_as_they_are_while_no_stage_fades_in(progress):
    _, D = players("progressive")
    _, img, _ = inputs("progressive")
    assert at(D, progress).faded(img) is img
