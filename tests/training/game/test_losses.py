"""Penalties under image transforms: dD(T(x))/dx, T what happens to an image before D sees it."""

import pytest
import torch
from torch import Tensor

from training.game.forward import Batch
from training.game.losses import Game, ImageTransform, Losses
from training.game.penalties import PENALTIES
from training.game.regularizers import Term
from training.transforms.augmentation import AugmentConfig
from training.transforms.augmentation_ops import AUGMENTATIONS

WEIGHT = torch.tensor([1.0, -2.0, 2.0, 0.0]).view(1, 2, 2)  # of norm 3
OF_AN_IMAGE = sorted(name for name, entry in PENALTIES.items() if entry.gradients)
POINT = {"r1": "real", "r2": "fake", "wgan-gp": "interpolated", "dragan": "perturbed"}


def linear(img: Tensor, label: Tensor | None) -> Tensor:
    return (WEIGHT.to(img) * img).flatten(1).sum(1)


def bent(img: Tensor, label: Tensor | None) -> Tensor:
    return img.tanh().flatten(1).square().sum(1)


def twice(img: Tensor, batch: Batch, seed: int) -> Tensor:
    return 2 * img


def make_batch(real_img: Tensor) -> Batch:
    return Batch(real_img=real_img, label=None, z=real_img, key=9)


def pictures(seed: int, num: int = 6, size: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, 3, size, size, generator=generator, dtype=torch.float64) * 2 - 1


def play(game: Game, D: object, real_img: Tensor, fake_img: Tensor) -> Losses:
    return game.losses("D", lambda z, label: z, D, make_batch(real_img), fake_img)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OF_AN_IMAGE)
def test_a_penalty_is_taken_through_the_transforms(name: str) -> None:
    """T(x) = 2x and D(x) = wx: the gradient is 2w, of norm 6; by T(x) it would be of norm 3."""
    game = Game("wasserstein", (Term(name=name, weight=1.0),), joint=True, transforms=(twice,))
    img = torch.rand(6, 1, 2, 2)
    loss = play(game, linear, img, img.flip(0)).terms[name].item()
    expected = {"r1": 18.0, "r2": 18.0, "zero-gp": 36.0, "wgan-gp": 25.0, "dragan": 25.0}
    assert loss == pytest.approx(expected[name], rel=1e-5)


def augmented(*policy: str) -> ImageTransform:
    return AugmentConfig(policy=policy).transform(lambda cur_nimg: 0.9)


TRANSFORMS: dict[str, tuple[tuple[ImageTransform, ...], tuple[Term, ...]]] = {
    "ada": ((augmented("ada"),), ()),
    "diffaugment": ((augmented("diffaugment"),), ()),
    **{name: ((augmented(name),), ()) for name in AUGMENTATIONS},
    "input noise": ((), (Term(name="instance-noise", weight=0.5),)),
    "all": ((augmented(*AUGMENTATIONS), twice), (Term(name="instance-noise", weight=0.5),)),
}


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("name", ["r1", "r2"])
@pytest.mark.parametrize("kind", TRANSFORMS)
def test_gradients_are_differences_of_what_d_says_of_a_changed_image(
    kind: str, name: str, joint: bool
) -> None:
    transforms, noise = TRANSFORMS[kind]
    terms = (Term(name=name, weight=1.0), *noise)
    game = Game("non-saturating", terms, joint=joint, transforms=transforms)
    sides = {"real": pictures(1, size=6), "fake": pictures(2, size=6)}
    side = POINT[name]
    found = play(game, bent, sides["real"], sides["fake"]).forward.gradient(side)
    direction, step = pictures(3, size=6), 1e-6
    logits = [
        play(game, bent, moved["real"], moved["fake"]).forward.logits[side]
        for moved in (sides | {side: sides[side] + sign * step * direction} for sign in (1, -1))
    ]
    slope = (logits[0] - logits[1]) / (2 * step)
    torch.testing.assert_close((found * direction).flatten(1).sum(1), slope, rtol=1e-6, atol=1e-8)
    loss = play(game, bent, sides["real"], sides["fake"]).terms[name]
    torch.testing.assert_close(loss, 0.5 * found.square().flatten(1).sum(1).mean())


def test_penalty_points_lie_among_images_before_the_noise() -> None:
    """Between two black images lies a black one, with as much noise as any image has."""
    terms = (Term(name="wgan-gp", weight=1.0), Term(name="instance-noise", weight=1.0))
    game = Game("wasserstein", terms, joint=True)
    black = torch.zeros(500, 1, 8, 8)
    images = play(game, linear_of(8), black, black).forward.images
    for point in ("real", "fake", "interpolated"):
        assert images[point].std().item() == pytest.approx(1.0, rel=0.02)
    assert (images["interpolated"] - images["real"]).std() > 1.3  # noise of its own


def linear_of(size: int) -> object:
    return lambda img, label: img.flatten(1)[:, :size].sum(1)


def test_the_spread_of_dragan_is_that_of_the_data_without_noise() -> None:
    seen: list[Tensor] = []

    def watched(img: Tensor, batch: Batch, seed: int) -> Tensor:
        seen.append(img.detach())
        return img

    terms = (Term(name="dragan", weight=1.0), Term(name="instance-noise", weight=5.0))
    game = Game("wasserstein", terms, joint=True, transforms=(watched,))
    real_img = torch.rand(40, 1, 8, 8)
    play(game, linear_of(8), real_img, real_img)
    real, _, perturbed = seen
    assert torch.equal(real, real_img)
    assert 0 < (perturbed - real).max() <= 0.5 * real.std()


def doubled(img: Tensor, seed: int) -> Tensor:
    return 2 * img


def test_a_measurement_belongs_to_g() -> None:
    """The data is damaged already, so D's images are measured ones, and so are penalty points."""
    terms = (Term(name="r2", weight=1.0), Term(name="zero-gp", weight=1.0))
    game = Game("wasserstein", terms, joint=True, measurement=doubled)
    real_img, fake_img = torch.zeros(6, 1, 2, 2), torch.ones(6, 1, 2, 2)
    losses = play(game, linear, real_img, fake_img)
    images = losses.forward.images
    assert torch.equal(images["real"], real_img)
    assert torch.equal(images["fake"], 2 * fake_img)
    assert images["interpolated"].amax() > 1  # between 0 and the measured 2
    assert losses.terms["r2"].item() == pytest.approx(4.5)  # by the measured image


def test_transforms_follow_the_measurement_and_are_differentiated() -> None:
    terms = (Term(name="r2", weight=1.0),)
    game = Game("wasserstein", terms, joint=True, measurement=doubled, transforms=(twice,))
    losses = play(game, linear, torch.zeros(4, 1, 2, 2), torch.ones(4, 1, 2, 2))
    assert (losses.forward.fake_img == 4).all()
    assert losses.terms["r2"].item() == pytest.approx(18.0)


def test_only_an_adapted_probability_is_the_batchs() -> None:
    img = pictures(1).float()
    fixed = AugmentConfig(policy=("brightness",)).transform(lambda cur_nimg: cur_nimg / 10)
    adapted = AugmentConfig(policy=("brightness",), target=0.6).transform(lambda cur_nimg: 0.0)
    off = Batch(real_img=img, label=None, z=img, key=0, augment_p=1.0)
    on = Batch(real_img=img, label=None, z=img, key=0, augment_p=0.0, cur_nimg=10)
    assert torch.equal(fixed(img, off, 3), img)
    assert not torch.equal(fixed(img, on, 3), img)
    assert not torch.equal(adapted(img, off, 3), img)
    assert torch.equal(adapted(img, on, 3), img)
