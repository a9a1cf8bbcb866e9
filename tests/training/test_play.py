import pytest
import torch
from torch import nn

from models.networks import DCGAN, ImageShape
from training.play import Batch, play, rows_are_independent
from training.sites import Site

SHAPE = ImageShape(resolution=16, channels=1, num_classes=3)
BOTH: frozenset[Site] = frozenset({"real", "fake"})


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
    one = play(D, batch, fake_img, gradients=BOTH, joint=True)
    two = play(D, batch, fake_img, gradients=BOTH, joint=False)
    assert one.real_logits is not None
    assert two.real_logits is not None
    torch.testing.assert_close(one.real_logits, two.real_logits)
    torch.testing.assert_close(one.fake_logits, two.fake_logits)
    for side in BOTH:
        torch.testing.assert_close(one.gradient(side), two.gradient(side))


def test_gradients_are_those_of_each_logit_by_its_own_image() -> None:
    D = make_D()
    batch, fake_img = make_batch()
    seen = play(D, batch, fake_img, gradients=frozenset[Site]({"fake"}))
    img = fake_img[2:3].clone().requires_grad_()
    assert batch.label is not None
    (expected,) = torch.autograd.grad(D(img, batch.label[2:3]).sum(), img)
    torch.testing.assert_close(seen.gradient("fake")[2:3], expected)
    with pytest.raises(KeyError):
        seen.gradient("real")


def test_the_callers_tensors_keep_their_flags() -> None:
    batch, fake_img = make_batch()
    play(make_D(), batch, fake_img, gradients=BOTH)
    assert not batch.real_img.requires_grad
    assert not fake_img.requires_grad


def test_real_images_are_judged_only_on_request() -> None:
    batch, fake_img = make_batch()
    assert play(make_D(), batch, fake_img, judge_real=False).real_logits is None


def test_batch_norm_makes_rows_depend_on_each_other() -> None:
    assert rows_are_independent(make_D("none"))
    assert not rows_are_independent(make_D("batch"))
