import torch
from torch import nn

from models.networks import ImageShape, MaxoutPair
from models.networks.maxout import Maxout

SHAPE = ImageShape(resolution=4, channels=1)


def test_a_unit_is_the_largest_of_its_pieces() -> None:
    layer = Maxout(1, 2, 3)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[1.0], [-1.0], [0.0], [2.0], [0.5], [-3.0]]))
        layer.linear.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, 1.0]))
    found = layer(torch.tensor([[2.0], [-0.25], [-2.0]]))
    expected = [[2.0, 4.0], [0.5, 1.75], [2.0, 7.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_g_sees_uniform_latents() -> None:
    """A normal z by its own distribution function: -1, -1/2, 0, 1/2, 1 at its quartiles."""
    G = MaxoutPair(z_dim=1, hidden=2).generator(SHAPE)
    seen: list[torch.Tensor] = []
    layers = G.layers
    assert isinstance(layers, nn.Sequential)
    layers[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    G(torch.tensor([[-9.0], [-0.6744898], [0.0], [0.6744898], [9.0]]))
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]))


def test_the_first_weights_lie_in_the_papers_ranges() -> None:
    torch.manual_seed(0)
    pair = MaxoutPair(hidden=64, units=64)
    for network, bound in ((pair.generator(SHAPE), 0.05), (pair.discriminator(SHAPE), 0.005)):
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any()
            else:
                assert 0.9 * bound < parameter.abs().max().item() <= bound


def test_d_sees_pixels_from_0_to_1() -> None:
    D = MaxoutPair(units=4, pieces=2).discriminator(SHAPE).eval()
    seen: list[torch.Tensor] = []
    layers = D.layers
    assert isinstance(layers, nn.Sequential)
    layers[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    D(torch.tensor([-1.0, 0.0, 0.5, 1.0] * 4).view(1, 1, 4, 4))
    torch.testing.assert_close(seen[0][0, :4], torch.tensor([0.0, 0.5, 0.75, 1.0]))
