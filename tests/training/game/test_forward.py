import dataclasses

import pytest
import torch
from torch import nn

from models.networks import DCGAN, ImageShape
from training.game.forward import Batch, rows_are_independent, run_discriminator
from training.game.penalty_points import Point

SHAPE = ImageShape(resolution=16, channels=1, num_classes=3)
BOTH: frozenset[Point] = frozenset({"real", "fake"})


def make_D(norm: str = "none") -> nn.Module:
    torch.manual_seed(0)
    family = DCGAN(z_dim=4, ngf=4, ndf=4, d_norm="batch" if norm == "batch" else "none")
    return family.discriminator(SHAPE).double()


def make_batch() -> tuple[Batch, torch.Tensor]:
    torch.manual_seed(1)
    real_img = torch.randn(6, 1, 16, 16, dtype=torch.float64)
    label = torch.arange(6) % 3
    batch = Batch(real_img=real_img, label=label, z=torch.zeros(6, 4), key=0)
    return batch, torch.randn(6, 1, 16, 16, dtype=torch.float64)


def test_one_joint_pass_gives_what_two_passes_give() -> None:
    D = make_D()
    batch, fake_img = make_batch()
    one = run_discriminator(D, batch, fake_img, gradients=BOTH, joint=True)
    two = run_discriminator(D, batch, fake_img, gradients=BOTH, joint=False)
    assert one.real_logits is not None
    assert two.real_logits is not None
    torch.testing.assert_close(one.real_logits, two.real_logits)
    torch.testing.assert_close(one.fake_logits, two.fake_logits)
    for side in BOTH:
        torch.testing.assert_close(one.gradient(side), two.gradient(side))


def test_gradients_are_those_of_each_logit_by_its_own_image() -> None:
    D = make_D()
    batch, fake_img = make_batch()
    seen = run_discriminator(D, batch, fake_img, gradients=frozenset[Point]({"fake"}))
    img = fake_img[2:3].clone().requires_grad_()
    assert batch.label is not None
    (expected,) = torch.autograd.grad(D(img, batch.label[2:3]).sum(), img)
    torch.testing.assert_close(seen.gradient("fake")[2:3], expected)
    with pytest.raises(KeyError):
        seen.gradient("real")


def test_a_packed_d_judges_real_ones_together_and_generated_ones_together() -> None:
    """Image i stands with i + N/2, never with one of the other side; a logit for each pack."""
    D = DCGAN(z_dim=4, ngf=4, ndf=4).discriminator(
        ImageShape(resolution=16, channels=1).packed(2)
    ).double()  # fmt: skip
    batch, fake_img = make_batch()
    batch = dataclasses.replace(batch, label=None)
    packs = {
        "real": torch.cat([batch.real_img[:3], batch.real_img[3:]], 1),
        "fake": torch.cat([fake_img[:3], fake_img[3:]], 1),
    }
    for joint in (True, False):
        seen = run_discriminator(D, batch, fake_img, gradients=BOTH, joint=joint, packing=2)
        for side, img in packs.items():
            leaf = img.clone().requires_grad_()
            logits = D(leaf)
            torch.testing.assert_close(seen.logits[side], logits)
            (expected,) = torch.autograd.grad(logits.sum(), leaf)
            torch.testing.assert_close(seen.gradient(side), expected)


@pytest.mark.parametrize("point", ["interpolated", "perturbed"])
def test_the_images_of_a_pack_have_one_share(point: str) -> None:
    """A point between packs lies on the line between them: D(x) is differentiated by packs."""
    D = DCGAN(z_dim=4, ngf=4, ndf=4).discriminator(
        ImageShape(resolution=16, channels=1).packed(2)
    ).double()  # fmt: skip
    batch, fake_img = make_batch()
    batch = dataclasses.replace(batch, label=None)
    seen = run_discriminator(D, batch, fake_img, gradients={point}, packing=2)
    moved = seen.images[point] - batch.real_img
    if point == "interpolated":
        shares = (moved / (fake_img - batch.real_img)).flatten(1)
        torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))
        shares = shares[:, 0]
    else:  # the largest of so many uniform values times the share is all but the share
        shares = moved.flatten(1).amax(1) / (0.5 * batch.real_img.std())
    torch.testing.assert_close(shares[:3], shares[3:], rtol=0.03, atol=0)
    assert len(set(shares[:3].tolist())) == 3
    assert seen.gradient(point).shape == (3, 2, 16, 16)


def test_the_callers_tensors_keep_their_flags() -> None:
    batch, fake_img = make_batch()
    run_discriminator(make_D(), batch, fake_img, gradients=BOTH)
    assert not batch.real_img.requires_grad
    assert not fake_img.requires_grad


def test_real_images_are_judged_only_on_request() -> None:
    batch, fake_img = make_batch()
    assert run_discriminator(make_D(), batch, fake_img, with_real=False).real_logits is None


def test_batch_norm_makes_rows_depend_on_each_other() -> None:
    assert rows_are_independent(make_D("none"))
    assert not rows_are_independent(make_D("batch"))
