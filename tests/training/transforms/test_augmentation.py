"""Augmentation: golden values, the identity at 0, two derivatives, and the controller."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from training.errors import ConfigError
from training.transforms.augmentation import (
    AugmentConfig,
    _recolour,
    _resample,
    adapt,
    augment,
    overfitting,
)
from training.transforms.augmentation_ops import AUGMENTATIONS, POLICIES, Draws
from training.transforms.filter_bank import filter_bank, filtered

ALL = tuple(AUGMENTATIONS)


def pictures(num=8, channels=3, height=12, width=16, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, channels, height, width, generator=generator).to(dtype) * 2 - 1


def draws(num, seed=0, height=12, width=16):
    generator = torch.Generator().manual_seed(seed)
    return Draws(num=num, height=height, width=width, generator=generator)


def test_every_augmentation_of_both_papers_is_there():
    assert POLICIES["diffaugment"] == ("color", "translation", "cutout")
    written = {*POLICIES["diffaugment"], *POLICIES["ada-all"], "rotate"}  # ada's turns come in twos
    assert set(ALL) == written


@pytest.mark.parametrize("name", ALL)
def test_colours_of_images_with_alpha_change_as_without_and_alpha_stays(name):
    img = pictures(channels=4)
    changed = augment(img, (name,), 0.7, 5)
    assert torch.equal(changed[:, :3], augment(img[:, :3], (name,), 0.7, 5))
    recolours = AUGMENTATIONS[name].kind in ("colour", "spectrum") or name in ("color", "noise")
    assert torch.equal(changed[:, 3:], img[:, 3:]) == recolours


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_with_probability_0_images_are_what_they_were(name, channels):
    img = pictures(channels=channels)
    for probability in (0.0, torch.tensor(0.0)):
        assert torch.equal(augment(img, (name,), probability, 5), img)
    assert torch.equal(augment(img, ALL, 0.0, 5), img)
    assert torch.equal(augment(img, (), 1.0, 5), img)


@pytest.mark.parametrize("name", ALL)
def test_a_seed_decides(name):
    img = pictures(num=64)
    once = augment(img, (name,), 0.7, 5)
    assert torch.equal(once, augment(img, (name,), torch.tensor(0.7), 5))
    assert not torch.equal(once, img)
    assert not torch.equal(once, augment(img, (name,), 0.7, 6))
    assert once.shape == img.shape
    assert once.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_rows_do_not_mix(name):
    img = pictures()
    other = img.clone()
    other[3] = 0.5
    changed = augment(img, (name,), 1.0, 1) != augment(other, (name,), 1.0, 1)
    assert changed.flatten(1).any(1).nonzero().flatten().tolist() in ([3], [])


def test_what_one_draws_does_not_depend_on_the_others():
    img = pictures()
    both = augment(img, ("flip", "cutout"), 1.0, 9)
    assert torch.equal(both, augment(augment(img, ("flip",), 1.0, 9), ("cutout",), 1.0, 9))


@pytest.mark.parametrize("name", ["hue", "saturation"])
def test_grey_images_have_no_hue(name):
    img = pictures(channels=1)
    assert torch.equal(augment(img, (name,), 1.0, 2), img)


def test_a_luma_flip_inverts_grey_images():
    """As in ADA's code: the mean of the reflected r = g = b is -x."""
    img = pictures(64, channels=1)
    flipped = augment(img, ("luma-flip",), 1.0, 2)
    inverted = (flipped + img).abs().amax((1, 2, 3)) < 1e-6
    kept = (flipped - img).abs().amax((1, 2, 3)) < 1e-6
    assert bool((inverted ^ kept).all())
    assert 16 < inverted.sum() < 48


@pytest.mark.parametrize("policy", [POLICIES["ada-all"], POLICIES["diffaugment"]])
@pytest.mark.parametrize("channels", [1, 3])
def test_both_derivatives(policy, channels):
    """R1 differentiates the gradient of D(T(x)) by x, T the augmentation, once more."""
    img = pictures(2, channels, 5, 6, torch.float64).requires_grad_()

    def D(img):
        return augment(img, policy, 0.8, 3).tanh().flatten(1).square().sum(1)

    assert gradcheck(D, (img,))
    assert gradgradcheck(D, (img,))


def test_r1_through_augmentation_reaches_the_weights():
    weight = torch.randn(3 * 12 * 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    img = pictures().requires_grad_()
    logits = (augment(img, ALL, 0.9, 4).flatten(1) @ weight).tanh()
    (gradient,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    (by_weight,) = torch.autograd.grad(gradient.square().sum(), weight)
    assert by_weight.isfinite().all()
    assert by_weight.abs().max() > 0


def test_flips_and_quarter_turns_are_exact():
    img = pictures(64, 2, 9, 9)
    flipped = augment(img, ("flip",), 1.0, 0)
    turned = augment(img, ("rotate90",), 1.0, 0)
    kinds = set()
    for i in range(64):
        sides = [torch.equal(flipped[i], img[i]), torch.equal(flipped[i], img[i].flip(2))]
        assert sum(sides) == 1
        turns = [torch.equal(turned[i], img[i].rot90(k, (1, 2))) for k in range(4)]
        assert sum(turns) == 1
        kinds.add((sides.index(True), turns.index(True)))
    assert len(kinds) == 8


def test_whole_shifts_are_exact_and_mirror_the_edge():
    img = pictures(200, 1, 16, 16)
    shifted = augment(img, ("shift",), 1.0, 0)
    padded = torch.nn.functional.pad(img, (2, 2, 2, 2), mode="reflect")
    seen = set()
    for i in range(200):
        places = [
            (y - 2, x - 2)
            for y in range(5)
            for x in range(5)
            if torch.equal(shifted[i], padded[i, :, y : y + 16, x : x + 16])
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) == 25


def test_resampling_golden():
    """Half a pixel to the right in a row of 1 2 4 8: the means of neighbours, the last mirrored."""
    img = torch.tensor([1.0, 2, 4, 8]).view(1, 1, 1, 4)
    half = torch.tensor([[[1.0, 0, 0.5], [0, 1, 0], [0, 0, 1]]])
    assert _resample(img, half).flatten().tolist() == [1.5, 3.0, 6.0, 6.0]
    double = torch.tensor([[[0.5, 0, 0], [0, 1, 0], [0, 0, 1]]])  # looks at the middle half
    assert _resample(img, double).flatten().tolist() == [1.75, 2.5, 3.5, 5.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("luma-flip", [-0.6, -0.3, 0.0]),  # x - 2 mean(x) with mean .3
        ("brightness", None),
        ("contrast", None),
        ("saturation", None),
        ("hue", None),
    ],
)
def test_colours_golden(name, expected):
    colour = torch.tensor([0.0, 0.3, 0.6])
    num = 200
    out = _recolour(
        colour.view(1, 3, 1, 1).repeat(num, 1, 1, 1), AUGMENTATIONS[name].draw(draws(num))
    )
    out = out[:, :, 0, 0]
    mean = out.mean(1, keepdim=True)
    if expected is not None:
        changed = (out - colour).abs().amax(1) > 1e-3
        assert torch.allclose(out[changed], torch.tensor(expected), atol=1e-6)
        assert 0.35 < changed.float().mean() < 0.65
    if name == "brightness":
        assert torch.allclose(out - mean, (colour - 0.3).expand(num, 3), atol=1e-6)
        assert abs((mean - 0.3).std() - 0.2) < 0.04
    if name == "contrast":
        assert torch.allclose(out[:, 2], 2 * out[:, 1], atol=1e-6)
        assert abs((out[:, 1] / 0.3).log2().std() - 0.5) < 0.1
    if name in ("saturation", "hue"):
        assert torch.allclose(mean, torch.full_like(mean, 0.3), atol=1e-6)
        distance = (out - mean).norm(dim=1) / (colour - 0.3).norm()
        if name == "hue":
            assert torch.allclose(distance, torch.ones(num), atol=1e-5)
            assert out.std(0).min() > 0.2
        else:
            assert abs(distance.log2().std() - 1.0) < 0.2


def test_grey_colour_maps_keep_the_papers_mean_over_channels():
    maps = AUGMENTATIONS["contrast"].draw(draws(1))
    factor = maps[0, 0, 0].item()
    img = torch.tensor([0.5, -0.25]).view(1, 1, 1, 2)
    assert torch.allclose(_recolour(img, maps).flatten(), img.flatten() * factor)


def test_scaling_and_turning_keep_the_centre_and_are_what_they_say():
    maps = AUGMENTATIONS["rotate"].draw(draws(500))[:, :2, :2]
    assert torch.allclose(maps @ maps.mT, torch.eye(2).expand(500, 2, 2), atol=1e-5)
    assert torch.allclose(torch.linalg.det(maps), torch.ones(500), atol=1e-5)
    for name, power in (("scale", 2.0), ("stretch", 0.0)):
        maps = AUGMENTATIONS[name].draw(draws(2000))
        area = torch.linalg.det(maps)
        assert torch.allclose(area, maps[:, 0, 0] ** power, atol=1e-4)
        assert abs(maps[:, 0, 0].log2().std() - 0.2) < 0.02
    maps = AUGMENTATIONS["fraction"].draw(draws(2000, height=40, width=80))
    assert abs(maps[:, 0, 2].std() - 10) < 0.7
    assert abs(maps[:, 1, 2].std() - 5) < 0.35


def test_diffaugment_color_golden():
    img = pictures(3, 3, 4, 4)
    drawn = AUGMENTATIONS["color"].draw(draws(3))
    out = AUGMENTATIONS["color"].pixels(img, drawn)
    for i in range(3):
        add, saturate, spread = drawn[i].tolist()
        assert -0.5 <= add < 0.5
        assert 0 <= saturate < 2
        assert 0.5 <= spread < 1.5
        x = img[i] + add
        x = (x - x.mean(0)) * saturate + x.mean(0)
        x = (x - x.mean()) * spread + x.mean()
        assert torch.allclose(out[i], x, atol=1e-6)


def test_diffaugment_translation_and_cutout_golden():
    img = torch.ones(300, 1, 16, 16)
    moved = augment(img, ("translation",), 1.0, 0)
    downs = {
        (round(16 - m.amax(2).sum().item()), round(16 - m.amax(1).sum().item())) for m in moved
    }
    assert {down for down, _ in downs} == {0, 1, 2}  # an eighth of 16 at most, either way
    ramp = torch.arange(16.0).view(1, 1, 1, 16).repeat(300, 1, 16, 1) + 1
    drawn = AUGMENTATIONS["translation"].draw(draws(300, height=16, width=16))
    moved = AUGMENTATIONS["translation"].pixels(ramp, drawn)
    for i in range(300):
        down, right = drawn[i].int().tolist()
        expected = torch.zeros(16, 16)
        rows = slice(max(down, 0), 16 + min(down, 0))
        columns = slice(max(right, 0), 16 + min(right, 0))
        expected[rows, columns] = ramp[0, 0, 0, columns] - right
        assert torch.equal(moved[i, 0], expected)
    cut = 1 - augment(img, ("cutout",), 1.0, 0)
    areas = cut.sum((1, 2, 3))
    assert areas.max() == 64  # half by half, where it lies inside
    assert areas.min() >= 16
    assert ((cut == 0) | (cut == 1)).all()


@pytest.mark.parametrize("probability", [0.2, 0.79])
def test_the_share_of_untouched_images_does_not_leak(probability):
    """Below .8 an unturned image stays the likeliest of the four (Karras et al. 2020, fig. 4)."""
    num = 4000
    img = torch.arange(9.0).view(1, 1, 3, 3).repeat(num, 1, 1, 1)
    turned = augment(img, ("rotate90",), probability, 8)
    shares = torch.tensor(
        [(turned == img[0].rot90(k, (1, 2))).flatten(1).all(1).sum() / num for k in range(4)]
    )
    expected = torch.full((4,), probability / 4)
    expected[0] += 1 - probability
    assert torch.allclose(shares, expected, atol=4 * math.sqrt(0.25 / num))
    assert shares[0] > shares[1:].max() + 0.1


def test_shares_multiply_the_probability():
    """R3GAN's colours are applied at half of it: about a quarter of the images at a half."""
    config = AugmentConfig(policy=("r3gan", "flip=0.25"))
    assert config.shares["brightness"] == 0.5
    assert config.shares["erase"] == 1
    assert config.shares["flip"] == 0.25  # the last one counts
    img = pictures(4000, 1, 2, 2)
    changed = (augment(img, ("brightness=0.5",), 0.5, 3) != img).flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(0.25, abs=0.03)
    full = augment(img, ("brightness",), 0.5, 3)
    assert torch.equal(augment(img, ("brightness=0.5",), 0.5, 3)[changed], full[changed])


@pytest.mark.parametrize("text", ["flip=0", "flip=1.5", "flip=x", "flip="])
def test_a_share_is_a_share(text):
    with pytest.raises(ConfigError, match=rf"augment\.policy is '{text}', allowed: NAME or NAME=S"):
        AugmentConfig(policy=(text,))


@pytest.mark.parametrize("probability", [0.3, torch.tensor(0.3)])
def test_before_or_after_it_is_stretched_an_image_turns_with_the_probability(probability):
    """Each of both turns with 1 - sqrt(1 - p) (Karras et al. 2020, app. B)."""
    img = pictures(4000, 1, 4, 4)
    turned = [
        (augment(img, (name,), probability, 5) != img).flatten(1).any(1).float().mean().item()
        for name in ("rotate-before", "rotate-after")
    ]
    assert turned == pytest.approx([1 - 0.7**0.5] * 2, abs=0.025)
    both = augment(img, ("rotate-before", "rotate-after"), probability, 5)
    assert (both != img).flatten(1).any(1).float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_octaves_sum_up_to_the_image():
    bank = filter_bank()
    unit = torch.zeros(bank.shape[1], dtype=torch.float64)
    unit[bank.shape[1] // 2] = 1
    assert bank.shape == (4, 43)
    torch.testing.assert_close(bank.sum(0), unit, atol=1e-12, rtol=0)
    torch.testing.assert_close(bank, bank.flip(1), atol=1e-12, rtol=0)
    # The finest filter is that of sym2: (-1, 0, 9, 16, 9, 0, -1) / 32 with alternating signs.
    finest = torch.tensor([1.0, 0, -9, 16, -9, 0, 1], dtype=torch.float64) / 32
    torch.testing.assert_close(bank[3, 18:25], finest, atol=1e-12, rtol=0)
    img = pictures(3, 3, 9, 14)
    torch.testing.assert_close(filtered(img, torch.ones(3, 4)), img, atol=1e-5, rtol=0)


def test_a_gain_is_of_its_octave_and_keeps_the_expected_power():
    flat = torch.full((2, 1, 8, 8), 0.5)
    gains = torch.tensor([[2.0, 7, 7, 7], [1.0, 0, 0, 0]])
    out = filtered(flat, gains)  # along rows and along columns: the square of the gain
    torch.testing.assert_close(out[:, 0, 3, 3], torch.tensor([2.0, 0.5]), atol=1e-4, rtol=0)
    drawn = AUGMENTATIONS["band-2"].draw(draws(500))
    power = (drawn.square() * torch.tensor([10.0, 1, 1, 1]) / 13).sum(1)
    torch.testing.assert_close(power, torch.ones(500))
    assert (drawn[:, 2] / drawn[:, 0]).log2().std().item() == pytest.approx(1, abs=0.1)


def test_noise_and_erase_golden():
    img = torch.zeros(400, 3, 8, 8)
    sigma = augment(img, ("noise",), 1.0, 1).flatten(1).std(1)
    assert sigma.mean().item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.1)
    cut = AUGMENTATIONS["erase"].pixels(torch.ones(1, 1, 4, 8), torch.tensor([[0.5, 0.25]]))
    expected = torch.ones(4, 8)
    expected[1:3, :4] = 0  # half the height around the middle, half the width around a quarter
    assert torch.equal(cut[0, 0], expected)


def test_half_precision_stays_half_precision():
    img = pictures(dtype=torch.bfloat16)
    assert augment(img, ALL, 1.0, 0).dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same():
    img = pictures()
    there = augment(img.cuda(), ALL, 0.8, 3).cpu()
    assert torch.allclose(there, augment(img, ALL, 0.8, 3), atol=1e-5)


def test_overfitting_golden():
    assert overfitting(torch.tensor([2.0, 0.1, -3.0, 5.0])) == 0.5
    assert overfitting(torch.tensor([-1.0, 1.0, 0.0])) == 0.0


@pytest.mark.parametrize(
    ("probability", "r_t", "expected"),
    [
        (0.3, 0.9, 0.3 + 0.05),  # overfits: more
        (0.3, 0.1, 0.3 - 0.05),
        (0.3, 0.6, 0.3),  # on the target
        (0.01, -1.0, 0.0),
        (0.99, 1.0, 1.0),
    ],
)
def test_the_controller_golden(probability, r_t, expected):
    """25,000 images at 500 kimg from 0 to 1: a step of 0.05."""
    stepped = adapt(torch.tensor(probability), torch.tensor(r_t), num_images=25_000)
    assert stepped.item() == pytest.approx(expected, abs=1e-6)


def test_the_controller_goes_from_0_to_1_in_its_time():
    probability = torch.tensor(0.0)
    for step in range(1000):
        probability = adapt(
            probability, torch.tensor(0.8), num_images=256, target=0.6, speed_kimg=256.0
        )
        if step == 498:
            assert probability.item() == pytest.approx(0.499, abs=1e-3)
    assert probability.item() == pytest.approx(1.0, abs=1e-3)
