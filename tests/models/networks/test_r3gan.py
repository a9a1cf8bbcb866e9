import pytest
import torch
from torch import nn

from models.networks import R3GAN, ImageShape
from models.networks.r3gan import ResidualBlock
from tests.models.networks.tiny import TINY, inputs, players

SHAPE = ImageShape(resolution=16, channels=1)


def test_a_branch_starts_at_zero():
    torch.manual_seed(0)
    for player in (TINY["r3gan"].generator(SHAPE), TINY["r3gan"].discriminator(SHAPE)):
        blocks = [module for module in player.modules() if isinstance(module, ResidualBlock)]
        assert len(blocks) == 3 * 2
        for block in blocks:
            x = torch.randn(2, block.narrow.out_channels, 4, 4)
            assert torch.equal(block(x), x)
    G, _ = players("r3gan")  # stirred
    block = next(module for module in G.modules() if isinstance(module, ResidualBlock))
    assert not torch.allclose(block(x), x, atol=1e-3)


def test_fix_up_makes_weights_smaller_with_depth():
    """L^(-1/4) times the gain of leaky ReLU over the root of the fan-in."""
    torch.manual_seed(0)
    block = ResidualBlock(64, R3GAN()._blocks(), 16)
    gain = (2 / 1.04) ** 0.5 * 16**-0.25
    assert block.widen.weight.std().item() == pytest.approx(gain / 8, rel=0.03)
    assert block.spatial.weight.std().item() == pytest.approx(gain / (16 * 9) ** 0.5, rel=0.03)
    assert block.spatial.groups == 128 // 16


def test_both_players_are_made_of_the_same_blocks_and_no_norm():
    options = R3GAN(channel_base=384, channel_max=12, group_width=4)
    shape = ImageShape(resolution=64, channels=3)
    G, D = options.generator(shape), options.discriminator(shape)
    widths = [
        [m.narrow.out_channels for m in player.modules() if isinstance(m, ResidualBlock)]
        for player in (G, D)
    ]
    assert widths[0] == widths[1][::-1] == [12] * 8 + [6] * 2
    norms = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
    assert not [m for player in (G, D) for m in player.modules() if isinstance(m, norms)]


def test_z_scales_the_learned_map():
    G, _ = players("r3gan")
    z, _, _ = inputs("r3gan")
    seen = []
    G.layers.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    G(z)
    scales = G.modulation(z)
    assert torch.allclose(seen[0], scales[:, :, None, None] * G.basis, atol=1e-6)


def test_groups_must_divide_every_bottleneck():
    options = R3GAN(channel_base=320, channel_max=40, group_width=16)
    options.check(ImageShape(resolution=8, channels=1))
    with pytest.raises(
        ValueError, match=r"group_width is 16, allowed are divisors of 40, .* 20 ch"
    ):
        options.generator(SHAPE)
