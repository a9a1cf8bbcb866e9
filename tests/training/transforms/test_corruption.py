"""Corruption as a measurement: golden values, two derivatives, and what G learns behind it."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.svm import SVC
from torch.autograd import gradcheck, gradgradcheck

from models.bundle.generator import CpuGenerator, Sampler
from models.repository import Repository
from training.cli.command import parse
from training.cli.listing import listing
from training.config.training import from_builtins, to_builtins
from training.data import DataConfig, load
from training.errors import ConfigError
from training.evaluation.features.svm import features
from training.run import main
from training.transforms.corruption import CORRUPTIONS, Corruption, measure


def pictures(num=4, channels=3, size=10, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, channels, size, size, generator=generator).to(dtype) * 1.8 - 0.9


def of(*texts):
    return tuple(Corruption.parse(text) for text in texts)


def test_masked_pixels_are_black_in_all_channels():
    img = pictures(num=20, size=32)
    out = measure(img, of("mask=0.3"), 7)
    black = (out == -1).all(1)
    assert torch.equal(out == -1, black[:, None].expand_as(out))
    assert torch.equal(out.permute(0, 2, 3, 1)[~black], img.permute(0, 2, 3, 1)[~black])
    assert abs(black.float().mean() - 0.3) < 4 * math.sqrt(0.21 / black.numel())
    assert not torch.equal(black[0], black[1])


def test_noise_has_its_deviation_and_is_clipped():
    img = torch.zeros(20, 1, 32, 32)
    out = measure(img, of("noise=0.2"), 7)
    assert abs(out.std() - 0.2) < 0.01
    assert abs(out.mean()) < 0.01
    assert measure(img + 0.9, of("noise=0.5"), 7).max() == 1
    assert measure(img - 0.9, of("noise=0.5"), 7).min() == -1


def test_blur_golden():
    """A point becomes the outer product of a normal density, sampled and normalised."""
    img = torch.zeros(1, 1, 15, 15)
    img[0, 0, 7, 7] = 1
    out = measure(img, of("blur=1"), 0)
    place = np.arange(-3, 4)
    density = np.exp(-(place**2) / 2)
    density /= density.sum()
    expected = np.zeros((15, 15))
    expected[4:11, 4:11] = np.outer(density, density)
    assert np.abs(out[0, 0].numpy() - expected).max() < 1e-6
    flat = torch.full((2, 3, 4, 4), 0.25)
    assert torch.allclose(measure(flat, of("blur=30"), 0), flat, atol=1e-6)  # edges are repeated


def test_a_seed_decides_and_measurements_follow_each_other():
    img = pictures()
    both = of("blur=0.7", "noise=0.1", "mask=0.2")
    assert torch.equal(measure(img, both, 3), measure(img, both, 3))
    assert not torch.equal(measure(img, both, 3), measure(img, both, 4))
    assert (measure(img, both, 3) == -1).any()  # masked last
    assert not torch.equal(measure(img, of("mask=0.2", "blur=0.7"), 3), measure(img, both, 3))
    twice = measure(torch.zeros(1, 1, 64, 64), of("noise=0.1", "noise=0.1"), 3)
    assert abs(twice.std() - 0.1 * math.sqrt(2)) < 0.01  # independent of each other


@pytest.mark.parametrize("text", ["mask=0.5", "noise=0.1", "blur=0.8"])
def test_both_derivatives(text):
    img = pictures(2, 1, 5, torch.float64).requires_grad_()

    def D(img):
        return measure(img, of(text), 3).tanh().flatten(1).square().sum(1)

    assert gradcheck(D, (img,))
    assert gradgradcheck(D, (img,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fog=1", r"corruption is 'fog', allowed: mask, noise, blur"),
        ("mask=1", r"corruption: mask is 1\.0, allowed: above 0, at most 0\.99: share of the"),
        ("noise=0", r"corruption: noise is 0\.0, allowed: above 0"),
        ("blur=-1", r"corruption: blur is -1\.0"),
        ("noise=nan", r"corruption: noise is nan"),
        ("mask", r"corruption is 'mask', allowed: NAME=STRENGTH; for instance mask=0\.5"),
    ],
)
def test_what_is_no_corruption_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(["--corruption", text])


def test_on_the_command_line_and_in_the_record():
    config = parse(["--corruption", "blur=1", "mask=0.5"]).config
    assert config.corruption == of("blur=1", "mask=0.5")
    assert [str(each) for each in config.corruption] == ["blur=1", "mask=0.5"]
    assert from_builtins(to_builtins(config), "here") == config
    for name, entry in CORRUPTIONS.items():
        assert name in listing()
        assert entry.about in listing()


@pytest.mark.slow
def test_trained_on_corrupted_digits_clean_digits_come_out(tmp_path):
    """Half of the pixels are black: with the measurement G draws whole strokes, without it dots."""
    image_set = load(DataConfig(resolution=16))
    clean, labels = image_set.images, image_set.labels.numpy()
    damaged = measure(clean.float() / 127.5 - 1, of("mask=0.5"), 5)
    damaged = ((damaged + 1) * 127.5).round().to(torch.uint8)
    for i, (image, label) in enumerate(zip(damaged[:, 0].numpy(), labels, strict=True)):
        (tmp_path / "set" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "set" / str(label) / f"{i:04}.png")
    judge = SVC(C=10.0, gamma="scale").fit(features(clean), labels)
    pool = clean.flatten(1).float() / 255

    def distance(images):
        """To the nearest clean digit, on average."""
        return torch.cdist(images.flatten(1).float() / 255, pool).amin(1).mean().item()

    def generated(*options):
        network = "--network.ngf 8 --network.ndf 8 --network.z-dim 16 --batch-size 32 --ema-kimg 1"
        optim = "--optim-G.lr 2e-3 --optim-D.lr 2e-3 --regularizers r1=0.3 r2=0.3"
        data = "--data.conditional --data.resolution 16 --data.channels 1"
        length = "--total-kimg 8 --tick-kimg 8"
        places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
        places += ["--evaluation", "none", "--directions", "0"]
        words = [*f"{network} {optim} {data} {length}".split(), *places, *options]
        assert main(["folder", "--data.path", str(tmp_path / "set"), *words]) == 0
        bundle = Repository(tmp_path / "models").bundle("set")
        sampler = Sampler(CpuGenerator(bundle.model_path), z_dim=16, num_classes=10)
        seeds = np.arange(500, dtype=np.uint64)
        images = torch.from_numpy(sampler(seeds)).permute(0, 3, 1, 2)
        agreement = (judge.predict(features(images)) == sampler.labels(seeds)).mean()
        return distance(images), agreement

    without, _ = generated()
    with_it, agreement = generated("--corruption", "mask=0.5")
    assert with_it < 0.7 * without < 0.7 * distance(damaged[:500])
    assert agreement > 0.9
