"""An encoder is trained, exported and published; it stops and goes on as if it hadn't stopped."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from models.bundle import ENCODER, Bundle
from models.bundle.anomaly import SCORE
from models.bundle.inversion import ENCODER_GOLDEN, FIND
from models.bundle.verification import verify
from models.networks import ImageShape
from models.repository import Repository
from training.data import ImageSet
from training.errors import CheckpointError, ConfigError
from training.inversion.__main__ import main
from training.inversion.encoder_command import EncoderCommand
from training.inversion.figures import CLASSES, OWN
from training.inversion.fit import EncoderFit, FitConfig, Subject, UnrolledEncoder
from training.inversion.network import EncoderConfig
from training.inversion.opened import Opened
from training.inversion.seen import ENCODER_IMAGES
from training.inversion.work import CHECKPOINT, METRICS, Work

SHAPE = ImageShape(resolution=8, channels=1, num_classes=2)
CONFIG = FitConfig(network=EncoderConfig(width=8, hidden=16, passes=2), kimg=0.08, batch_size=4)


class Planted(torch.nn.Module):
    """Images whose upper half has z, by a fixed matrix, and whose lower half the class."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(2, 32, generator=torch.manual_seed(1)))

    def forward(self, z: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        assert label is not None
        upper = torch.tanh(0.5 * z @ self.weight)
        lower = (label[:, None] * 2.0 - 1).expand(-1, 32)
        return torch.cat([upper, lower], 1).reshape(-1, 1, 8, 8)


def subject() -> Subject:
    return Subject(Planted().requires_grad_(False), 2, SHAPE, infers_label=True)


def real() -> ImageSet:
    images = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    return ImageSet("t", images, torch.arange(6) % 2, ("a", "b"), "0" * 64, ())


def test_it_learns_the_way_back_and_the_class() -> None:
    config = FitConfig(
        network=EncoderConfig(width=8, hidden=32, passes=2), kimg=4, batch_size=32, lr=3e-3
    )
    fit = EncoderFit(subject(), config, None)
    whole = UnrolledEncoder(fit.average, fit.subject, 2)
    z, label = torch.randn(64, 2), torch.arange(64) % 2
    image = ((fit.subject.G(z, label) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    given = (image, None, torch.ones(64, 8, 8, dtype=torch.uint8), torch.zeros(64, 2))
    with torch.no_grad():
        before = float((whole(*given)[0] - z).square().mean())
    while fit.step < config.num_steps:
        fit.advance()
    with torch.no_grad():
        found, scores = whole(*given)
    assert float((found - z).square().mean()) < 0.1 * before
    assert (scores.argmax(1) == label).all()


def test_a_resumed_training_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    said: list[str] = []
    whole = EncoderFit(subject(), CONFIG, real())
    Work(tmp_path / "whole", "m", said.append).train(whole, resume=False)
    half = EncoderFit(subject(), CONFIG, real())
    for _ in range(7):
        half.advance()
    work = Work(tmp_path / "half", "m", said.append)
    work._save(half)
    with pytest.raises(CheckpointError, match="go on with --resume"):
        work.train(EncoderFit(subject(), CONFIG, real()), resume=False)
    rest = EncoderFit(subject(), CONFIG, real())
    work.train(rest, resume=True)
    assert f"goes on at step 7 of {CONFIG.num_steps}" in said
    done = f"{CONFIG.num_steps - 7} of {CONFIG.num_steps} steps"
    assert said[-1].startswith(f"Trained the encoder: {done}")
    for one, other in zip(whole.average.parameters(), rest.average.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / "half" / METRICS).read_text().count("pixels")
    with pytest.raises(CheckpointError, match="is of another model"):
        Work(tmp_path / "half", "other", said.append).train(rest, resume=True)
    (tmp_path / "half" / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="choose another --folder"):
        work.train(rest, resume=True)


def test_a_training_goes_on_with_the_images_that_it_began_with(tmp_path: Path) -> None:
    images = real()
    fit = EncoderFit(subject(), CONFIG, images)
    fit.advance()
    Work(tmp_path, "m", print, images.content)._save(fit)
    before = fit.average.state_dict()
    changed = EncoderFit(subject(), CONFIG, images)
    with pytest.raises(CheckpointError, match=r"the images are not those that .* began with"):
        Work(tmp_path, "m", print, "f" * 64).train(changed, resume=True)
    assert changed.step == 0
    Work(tmp_path, "m", print, images.content)._enter(changed, resume=True)
    assert changed.step == 1
    for name, values in changed.average.state_dict().items():
        assert torch.equal(values, before[name])
    # A checkpoint of an earlier release doesn't say which images it had.
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del state["images"]
    torch.save(state, tmp_path / CHECKPOINT)
    Work(tmp_path, "m", print, "f" * 64)._enter(changed, resume=True)


def test_the_next_version_has_an_encoder_and_the_same_model(repository: Repository) -> None:
    old, new = Bundle.open(repository.root / "tiny" / "1"), repository.bundle("tiny")
    assert new.manifest.version == 2
    added = new.manifest.files.keys() - old.manifest.files.keys()
    assert added == {ENCODER, ENCODER_GOLDEN, ENCODER_IMAGES, SCORE}
    kept = old.manifest.files.keys() - {"card.md"}
    assert {name: new.manifest.files[name] for name in kept} == {
        name: old.manifest.files[name] for name in kept
    }
    assert "directions.npz" in kept
    assert verify(new) <= 2
    figures = {metric.name: metric for metric in new.manifest.metrics}
    assert figures[OWN].value > 5
    assert figures[CLASSES].protocol["n"] == 100
    assert (new.path / "card.md").read_text().count("## The way back") == 1


def test_a_class_that_is_given_is_the_one_that_is_searched_under(model: Bundle) -> None:
    opened, images = Opened(model), model.golden.images[:3]
    found = opened.encode(images)
    assert found.labels is not None
    again = opened.encode(images, found.labels)
    assert np.allclose(again.z, found.z, atol=1e-5)
    other = (found.labels + 1) % 3
    told = opened.encode(images, other)
    assert not np.allclose(told.z, found.z, atol=1e-3)
    assert np.allclose(told.label_scores, found.label_scores, atol=1e-5)  # of the image alone
    mixed = opened.encode(images, np.array([FIND, other[1], FIND]))
    assert np.allclose(mixed.z[[0, 2]], found.z[[0, 2]], atol=1e-5)
    assert np.allclose(mixed.z[1], told.z[1], atol=1e-5)


def test_a_start_and_a_mask_matter(model: Bundle) -> None:
    opened = Opened(model)
    assert opened.traits.infers_label
    images = model.golden.images[:3]
    plain = opened.encode(images)
    assert plain.label_scores is not None
    assert plain.label_scores.shape == (3, 3)
    start = np.ones((3, 4), np.float32)
    assert not np.allclose(opened.encode(images, start=start).z, plain.z, atol=1e-3)
    mask = np.ones((3, 16, 16), np.uint8)
    mask[:, :8] = 0
    masked = opened.encode(images, mask=mask).z
    assert not np.allclose(masked, plain.z, atol=1e-4)
    hidden = images.copy()
    hidden[:, :8] = 77  # what the mask hides isn't read
    assert np.allclose(opened.encode(hidden, mask=mask).z, masked, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, ""),
        (["encode", "x"], 2, "COMMAND is 'encode'"),
        (["encoder"], 2, "MODEL is not given"),
        (["encoder", "nothing"], 4, "MODEL is 'nothing'"),
        (["encoder", "{bundle}", "--real", "0", "--passes", "0"], 2, "passes is 0"),
        (["encoder", "{bundle}", "--real", "0", "--kimg", "0"], 2, "kimg is 0"),
        (["encoder", "{bundle}", "--real", "0", "--width", "1"], 2, "width is 1"),
        (["encoder", "{bundle}", "--data.dataset", "digits"], 2, "the model has a, b, c"),
        (
            ["encoder", "{bundle}", "--data.dataset", "digits", "--data.no-conditional"],
            2,
            "data is 'without classes'",
        ),
    ],
)
def test_refusals(
    plain: Bundle, words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(bundle=plain.path) for word in words]) == code
    assert text in capsys.readouterr().err


def test_images_that_are_too_small_for_an_encoder(plain: Bundle) -> None:
    image = msgspec.structs.replace(plain.manifest.image, height=4)
    small = replace(plain, manifest=msgspec.structs.replace(plain.manifest, image=image))
    allowed = r"MODEL is '4 pixels', allowed: 8 or more on each side; choose a model with larger"
    with pytest.raises(ConfigError, match=allowed):
        EncoderCommand(real=0).run(small, print)
