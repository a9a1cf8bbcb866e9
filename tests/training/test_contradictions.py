"""Options that contradict each other are refused before anything starts, naming both."""

import pytest

from models.networks import ImageShape
from training.command import parse
from training.errors import ConfigError

REFUSED = {
    "a critic has no labels to smooth": (
        ["--objective", "wasserstein", "--regularizers", "label-smoothing=0.1"],
        r"label-smoothing.*minimax, non-saturating.*--objective wasserstein",
    ),
    "no encoder": (["--regularizers", "prior=1"], r"prior.*family 'dcgan' has no encoder"),
    "the same penalty twice": (["--regularizers", "r1=1", "r1=2"], "each name once"),
    "a negative gamma": (["--regularizers", "r1=-1"], r"r1 is -1\.0, allowed: a weight of 0"),
    "a lazy constraint": (["--regularizers", "clip=0.1/4"], r"clip is 4, allowed: 1"),
    "no bound": (["--regularizers", "clip=0"], r"clip is 0\.0, allowed: a weight above 0"),
    "spectral norm of zeros": (
        ["--regularizers", "spectral=1", "--init-D", "kaiming"],
        r"spectral.*init_D=kaiming",
    ),
    "both at once, one of them twice": (
        ["--update", "extragradient", "--steps-D", "5"],
        r"steps_D is 5, allowed: 1.*update=extragradient",
    ),
    "parts of a whole": (
        ["--regularizers", "consensus=1", "--accumulate", "2"],
        r"consensus.*accumulate=2",
    ),
    "uneven parts": (
        ["--batch-size", "32", "--accumulate", "5"],
        r"accumulate is 5.*divisor of batch_size=32",
    ),
    "a schedule of what isn't there": (
        ["--regularizers", "r1=1", "--schedules", "r2=0@1"],
        r"schedules is 'r2', allowed: .*optim_G\.lr.*r1",
    ),
    "a schedule of what was built in": (
        ["--regularizers", "spectral=1", "--init-D", "family", "--schedules", "spectral=0@1"],
        r"schedules is 'spectral'",
    ),
    "a half-life that is not looked at": (
        ["--average", "uniform", "--schedules", "ema_kimg=1@1"],
        r"schedules is 'ema_kimg'",
    ),
    "nothing to adapt": (["--augment.target", "0.6"], r"augment\.target is 0\.6.*augment\.policy"),
    "a sign that says nothing": (
        ["--objective", "relativistic", "--augment.policy", "ada", "--augment.target", "0.6"],
        r"augment\.target is 0\.6.*hinge.*objective=relativistic",
    ),
    "an augmentation that there is not": (
        ["--augment.policy", "mirror"],
        r"augment\.policy is 'mirror', allowed: diffaugment, ada",
    ),
    "a beta of one": (["--schedules", "optim_G.beta2=1@1"], r"optim_G\.beta2 is 1\.0.*\[0, 1\)"),
    "progressive at 48 pixels": (
        ["--network", "progressive", "--data.resolution", "48"],
        r"resolution is 48, the family 'progressive' makes 8, 16",
    ),
    "labels without classes": (
        ["folder", "--data.path", "x", "--data.dataset", "celeba", "--data.conditional"],
        r"data\.conditional is True.*'celeba' has no classes",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_it_is_refused_naming_both(case: str) -> None:
    words, says = REFUSED[case]
    words = words if not words[0].startswith("--") else ["digits", *words]
    with pytest.raises(ConfigError, match=says):
        refuse(words)


def refuse(words: list[str]) -> None:
    config = parse(words).config
    config.check_shape(ImageShape(resolution=config.data.resolution, channels=1))
