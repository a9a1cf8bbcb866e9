import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from training.game.forward import Batch, Forward, run_discriminator
from training.game.losses import Game
from training.game.objectives import OBJECTIVES
from training.game.penalties import PENALTIES, half_squared_norm, one_centred
from training.game.penalty_points import PENALTY_POINTS
from training.game.regularizers import Term
from training.transforms.augmentation import AugmentConfig
from training.transforms.corruption import Corruption, measure

REAL = torch.tensor([[1.0, 2.0], [0.0, -1.0]])[:, None, None]
FAKE = torch.tensor([[3.0, 0.5], [1.0, 1.0]])[:, None, None]


def cubic(img: Tensor, label: Tensor | None) -> Tensor:
    """D(x) = sum x^3 / 3, whose gradient is x^2."""
    return (img**3 / 3).flatten(1).sum(1)


def make_batch(real_img: Tensor = REAL) -> Batch:
    return Batch(real_img=real_img, label=None, z=torch.zeros(len(real_img), 1), key=5)


def value(name: str) -> float:
    penalty = PENALTIES[name]
    return penalty.value(
        run_discriminator(cubic, make_batch(), FAKE, gradients=penalty.gradients)
    ).item()


def test_half_squared_norm_is_a_mean_over_images() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert half_squared_norm(gradient).item() == pytest.approx((25 + 1) / 4)


def test_one_centred_is_a_mean_over_images_and_finite_at_no_gradient() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    loss = one_centred(gradient)
    assert loss.item() == pytest.approx((4**2 + 1) / 2, rel=1e-5)
    (second,) = torch.autograd.grad(loss, gradient)
    assert second.isfinite().all()


def test_r1_is_half_the_squared_gradient_on_real_images() -> None:
    assert value("r1") == pytest.approx(((1 + 16) + (0 + 1)) / 4)


def test_r2_is_half_the_squared_gradient_on_fake_images() -> None:
    assert value("r2") == pytest.approx(((81 + 0.0625) + (1 + 1)) / 4)


@pytest.mark.parametrize(("name", "point"), [("wgan-gp", "interpolated"), ("dragan", "perturbed")])
def test_one_centred_penalties_are_taken_at_their_points(name: str, point: str) -> None:
    generator = torch.Generator().manual_seed(5 + 3)
    norms = PENALTY_POINTS[point](REAL, FAKE, generator, REAL).square().flatten(1).norm(dim=1)
    assert value(name) == pytest.approx((norms - 1).square().mean().item(), rel=1e-5)


def test_interpolated_images_lie_between_those_of_a_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    real_img, fake_img = torch.zeros(500, 1, 2, 2), torch.ones(500, 1, 2, 2)
    shares = PENALTY_POINTS["interpolated"](real_img, fake_img, generator, real_img)
    assert torch.equal(shares.amin((1, 2, 3)), shares.amax((1, 2, 3)))
    assert 0.45 < shares.mean() < 0.55
    assert shares.min() < 0.02
    assert shares.max() > 0.98


def test_perturbed_images_go_a_share_of_the_way_to_half_a_standard_deviation() -> None:
    """s/2 a u, a of the image, u of the value: P(a u < t) = t - t ln t."""
    generator = torch.Generator().manual_seed(0)
    real_img = torch.randn(4000, 1, 4, 4, generator=generator) * 3
    moved = PENALTY_POINTS["perturbed"](real_img, real_img, generator, real_img) - real_img
    product = (moved / (0.5 * real_img.std())).flatten(1)
    assert product.min() > -1e-5
    assert product.max() < 1
    for t in (0.05, 0.25, 0.5, 0.8):
        below = (product < t).float().mean().item()
        assert below == pytest.approx(t - t * math.log(t), abs=0.01)
    # An image's values share a: the greatest of 16 is a E[max u] = 16/17 a, and E[a] = 1/2.
    assert product.amax(1).mean().item() == pytest.approx(8 / 17, abs=0.02)
    assert product.amax(1).min() < 0.01


def test_zero_gp_has_no_half() -> None:
    generator = torch.Generator().manual_seed(5 + 3)
    gradient = PENALTY_POINTS["interpolated"](REAL, FAKE, generator, REAL).square()
    assert value("zero-gp") == pytest.approx(2 * half_squared_norm(gradient).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["minimax", "non-saturating"])
def test_label_smoothing_smooths_the_targets_of_real_images_alone(name: str) -> None:
    s = 0.1
    seen = run_discriminator(cubic, make_batch(), FAKE)
    assert seen.real_logits is not None
    found = OBJECTIVES[name].loss_D(seen.real_logits, seen.fake_logits)
    found = found + s * PENALTIES["label-smoothing"].value(seen)
    expected = (1 - s) * softplus(-seen.real_logits) + s * softplus(seen.real_logits)
    torch.testing.assert_close(found, expected.mean() + softplus(seen.fake_logits).mean())


class Featured(nn.Module):
    """D with x^2 as features."""

    def __init__(self, num_pixels: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -1.0]).repeat(num_pixels // 2))

    def forward(self, img: Tensor, label: Tensor | None = None, *, with_features: bool = False):  # type: ignore[no-untyped-def]
        features = img.flatten(1).square()
        logits = features @ self.weight
        return (logits, features) if with_features else logits


def test_feature_matching_compares_the_means_of_a_batch() -> None:
    game = Game("non-saturating", (Term(name="feature-matching", weight=2.0),), joint=True)
    fake_img = FAKE.clone().requires_grad_()
    losses = game.losses("G", nn.Identity(), Featured(), make_batch(), fake_img)
    difference = torch.tensor([0.5 - 5.0, 2.5 - 0.625])
    assert losses.terms["feature-matching"].item() == pytest.approx(
        2 * difference.square().sum().item()
    )
    (gradient,) = torch.autograd.grad(losses.terms["feature-matching"], fake_img)
    assert (gradient != 0).all()


def test_orthogonal_looks_at_what_rows_have_in_common() -> None:
    D = nn.Linear(2, 2)
    with torch.no_grad():
        D.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 1.0]]))
    seen = run_discriminator(lambda img, _: img.flatten(1).sum(1), make_batch(), FAKE)
    seen = type(seen)(**{**vars(seen), "D": D, "G": D})
    assert PENALTIES["orthogonal"].value(seen).item() == pytest.approx(2 * 5.0**2)
    assert PENALTIES["orthogonal-G"].value(seen).item() == pytest.approx(2 * 5.0**2)
    with torch.no_grad():
        D.weight.copy_(torch.tensor([[0.6, 0.8], [-0.8, 0.6]]))
    assert PENALTIES["orthogonal"].value(seen).item() == pytest.approx(0, abs=1e-6)


def test_the_priors_divergence_is_kingmas() -> None:
    mu, logvar = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)]])
    seen = run_discriminator(cubic, make_batch(), FAKE)
    seen.__dict__["reconstruction"] = (REAL, mu, logvar)
    expected = 0.5 * 1 + 0.5 * (4 - 1 - math.log(4))
    assert PENALTIES["prior"].value(seen).item() == pytest.approx(expected)


def test_a_reconstruction_is_compared_in_pixels_too() -> None:
    """By hand: 1/2 of the mean square, and nothing where the image came back."""
    seen = run_discriminator(cubic, make_batch(), FAKE)
    nothing = torch.zeros(len(REAL), 1)
    for added, expected in ((0.0, 0.0), (0.5, 0.125), (-2.0, 2.0)):
        seen.__dict__["reconstruction"] = (REAL + added, nothing, nothing)
        value = PENALTIES["pixel-reconstruction"].value(seen).item()
        assert value == pytest.approx(expected, abs=1e-6)


def test_a_reconstruction_is_seen_as_the_real_image_that_it_is_of() -> None:
    """G that rebuilds an image rightly pays nothing, however it is changed before D sees it."""
    policy = AugmentConfig(policy=("shift", "brightness"))
    terms = (Term(name="reconstruction", weight=1.0), Term(name="instance-noise", weight=0.5))
    game = Game(
        "non-saturating", terms, joint=True, transforms=(policy.transform(lambda cur_nimg: 1.0),)
    )

    def rebuilding(z: Tensor, label: Tensor | None, img: Tensor | None = None) -> object:
        return z if img is None else (img, z, z)

    img = torch.randn(4, 1, 2, 2)
    losses = game.losses("G", rebuilding, Featured(4), make_batch(img), torch.randn(4, 1, 2, 2))
    assert losses.forward.images["real"].sub(img).abs().max() > 0.1
    assert losses.terms["reconstruction"].item() == 0


def test_a_reconstruction_is_damaged_as_all_of_gs_images_are() -> None:
    def masked(img: Tensor, seed: int) -> Tensor:
        return measure(img, (Corruption(name="mask", strength=0.99),), seed)

    terms = (Term(name="reconstruction", weight=1.0),)
    game = Game("non-saturating", terms, joint=True, measurement=masked)
    seen: list[Tensor] = []

    class Watching(Featured):
        def forward(self, img: Tensor, label: Tensor | None = None, **kwargs: bool):  # type: ignore[no-untyped-def]
            seen.append(img)
            return super().forward(img, label, **kwargs)

    def rebuilding(z: Tensor, label: Tensor | None, img: Tensor | None = None) -> object:
        return z if img is None else (img, z, z)

    img = torch.rand(8, 1, 4, 4)
    game.losses("G", rebuilding, Watching(16), make_batch(img), torch.rand(8, 1, 4, 4))
    both, rebuilt = seen
    assert torch.equal(both[:8], img)  # damaged before the training
    assert (rebuilt == -1).float().mean() > 0.9


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_each_names_its_paper_and_asks_for_what_exists(name: str) -> None:
    penalty = PENALTIES[name]
    assert "arXiv:" in penalty.paper
    assert penalty.gradients <= {"real", "fake", *PENALTY_POINTS}


def test_path_lengths_are_drawn_to_their_running_mean() -> None:
    """G(w) = s w at each of two styles: J^T y = s y, so a length is s |y| over the pixels' root."""
    scale = torch.tensor(3.0, requires_grad=True)

    def G(z: Tensor, label: Tensor | None, *, with_styles: bool) -> tuple[Tensor, Tensor]:
        styles = z[:, None].expand(-1, 2, -1)  # [N, 2, 4]
        img = scale * (styles[:, 0] + styles[:, 1]).view(-1, 1, 2, 2)
        return img, styles

    num = 20_000
    z = torch.randn(num, 4, requires_grad=True)
    batch = Batch(real_img=z, label=None, z=z, key=0, path_length=5.0)
    forward = Forward(D=cubic, batch=batch, images={}, logits={}, gradients={}, G=G)
    torch.manual_seed(0)
    found = PENALTIES["path-length"].value(forward)
    # |y|^2 is chi-squared with 4 degrees of freedom: its root's mean is 1.87997, its square's 4.
    mean, square = 3 * 1.87997 / 2, 9 * 4 / 4
    measured = forward.measured["path_length"].item()
    assert measured == pytest.approx(mean, rel=0.01)
    target = 5 + 0.01 * (measured - 5)
    expected = square - 2 * target * mean + target**2
    assert found.item() == pytest.approx(expected, rel=0.03)
    (slope,) = torch.autograd.grad(found, scale)
    assert slope.item() == pytest.approx((2 * square - 2 * target * mean) / 3, rel=0.03)
