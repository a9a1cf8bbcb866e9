import pytest
import torch
from torch.nn import functional

from models.networks import ImageShape, Style
from models.networks.stylegan2 import ModulatedConv2d
from tests.models.networks.tiny import inputs, players, stirred


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_scaled_activations_are_scaled_weights(kernel, demodulate):
    """Against the convolution of Karras et al. 2020, eq. 1 and 3, row by row."""
    torch.manual_seed(0)
    layer = stirred(ModulatedConv2d(5, 7, kernel, 6, demodulate=demodulate))
    x, w = torch.randn(4, 5, 8, 8), torch.randn(4, 6)
    found = layer(x, w)
    for row in range(4):
        weight = layer.weight * layer.scale * layer.style(w[row : row + 1])[0, None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
            assert torch.allclose(weight.square().sum((1, 2, 3)), torch.ones(7), atol=1e-4)
        expected = functional.conv2d(x[row : row + 1], weight, padding=kernel // 2)
        assert torch.allclose(found[row : row + 1], expected, atol=1e-5)


def test_w_does_not_depend_on_the_length_of_z():
    G, _ = players("style")
    z, _, _ = inputs("style")
    assert torch.allclose(G.mapping(z), G.mapping(3 * z), atol=1e-5)


def test_an_image_is_mapping_then_synthesis():
    G, _ = players("style", num_classes=3)
    z, _, label = inputs("style", num_classes=3)
    G.eval()
    w = G.mapping(z, label)
    assert w.shape == (6, 6)
    assert torch.equal(G(z, label), G.synthesis(w))
    styles = w[:, None].expand(-1, G.synthesis.num_styles, -1)
    assert torch.equal(G.synthesis(styles), G.synthesis(w))


def test_noise_is_drawn_in_training_and_fixed_in_evaluation():
    G, _ = players("style")
    G.mixing = 0.0
    z, _, _ = inputs("style")
    assert torch.equal(G.eval()(z), G(z))
    assert not torch.allclose(G.train()(z), G(z), atol=1e-3)
    torch.manual_seed(3)
    first = G(z)
    torch.manual_seed(3)
    assert torch.equal(G(z), first)
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith("strength"):
                parameter.zero_()
    assert torch.equal(G.train()(z), G.eval()(z))


def test_rows_that_are_mixed_take_their_later_styles_from_another_w():
    G, _ = players("style")
    w, other = torch.zeros(4000, 6), torch.ones(4000, 6)
    torch.manual_seed(0)
    G.mixing = 0.5
    styles = G._mix(w, other)[:, :, 0]
    assert (styles.diff(dim=1) >= 0).all()  # zeros, then ones
    counts = styles.sum(1)
    assert counts.max() == G.synthesis.num_styles - 1  # the first style is always the first w's
    assert (counts > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    G.mixing = 1.0
    assert set(G._mix(w, other)[:, :, 0].sum(1).tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_mixing_changes_images_in_training_only():
    G, _ = players("style")
    z, _, _ = inputs("style")
    with torch.no_grad():
        for name, parameter in G.named_parameters():
            if name.endswith("strength"):
                parameter.zero_()
    G.mixing = 1.0
    assert torch.equal(G.eval()(z), G(z))
    assert not torch.allclose(G.train()(z), G.eval()(z), atol=1e-3)


def test_activations_neither_die_nor_explode_over_the_layers():
    torch.manual_seed(0)
    G = Style(z_dim=32, w_dim=32, channel_base=2048, channel_max=64).generator(
        ImageShape(resolution=64, channels=3)
    )
    seen = []
    for layer in (G.synthesis.first, *G.synthesis.layers):
        layer.register_forward_hook(lambda _, given, output: seen.append(output))
    G.eval()(torch.randn(16, 32))
    assert len(seen) == 9
    assert all(0.03 < x.square().mean().item() < 2 for x in seen)
