"""Options that contradict each other are refused before anything starts, naming both."""

import ast
import re
from pathlib import Path

import pytest

from models.networks import FAMILIES, ImageShape
from training.cli.command import parse
from training.config import rules
from training.config.rules import RULES, notes
from training.data.sources import DATASETS
from training.errors import ConfigError
from training.game.objectives import OBJECTIVES
from training.game.penalties import PENALTIES
from training.game.updates import UPDATES
from training.optim.constraints import CONSTRAINTS
from training.optim.initialization import INITIALIZATIONS
from training.optim.optimizers import METHODS
from training.recipes import RECIPES
from training.transforms.input_noise import INPUT_NOISES

REFUSED = {
    "a critic has no labels to smooth": (
        ["--objective", "wasserstein", "--regularizers", "label-smoothing=0.1"],
        r"label-smoothing.*minimax, non-saturating.*--objective wasserstein",
    ),
    "no encoder": (["--regularizers", "prior=1"], r"prior.*family 'dcgan' has no encoder"),
    "pixels of damaged images": (
        [
            *("--network", "vaegan", "--corruption", "mask=0.5"),
            *("--regularizers", "pixel-reconstruction=1"),
        ],
        "pixel-reconstruction.*without --corruption.*take reconstruction",
    ),
    "no mapping network": (
        ["--regularizers", "path-length=2/4"],
        r"path-length.*family 'dcgan' has no mapping network: set --network style",
    ),
    "the same penalty twice": (["--regularizers", "r1=1", "r1=2"], "each name once"),
    "a negative gamma": (["--regularizers", "r1=-1"], r"r1 is -1\.0, allowed: a weight of 0"),
    "a lazy constraint": (["--regularizers", "clip=0.1/4"], r"interval of clip is 4, allowed: 1"),
    "never": (["--regularizers", "r1=1/0"], r"interval of r1 is 0, allowed: 1 step or more"),
    "targets beyond fake": (
        ["--regularizers", "label-smoothing=0.5"],
        r"label-smoothing is 0\.5, allowed: a weight below 0\.5",
    ),
    "targets beyond fake, lazily": (
        ["--regularizers", "label-smoothing=0.1/16"],
        r"label-smoothing is 0\.1, allowed: a weight below 0\.03125.*interval of 16",
    ),
    "targets beyond fake in the end": (
        ["--regularizers", "label-smoothing=0.1/2", "--schedules", "label-smoothing=0.3@1"],
        r"schedules: label-smoothing is 0\.3, allowed: a weight below 0\.25",
    ),
    "two bounds of one weight": (
        ["--regularizers", "spectral=1", "clip=0.1", "--init-D", "family"],
        r"clip is 'clip', allowed: without spectral",
    ),
    "no norm to divide by": (
        ["--network", "r3gan", "--regularizers", "spectral=1"],
        r"spectral is 'spectral', allowed: without --network r3gan; layers of its D start at 0",
    ),
    "no way up": (
        ["--augment.policy", "ada", "--augment.target", "0.6", "--augment.probability", "0"],
        r"augment\.probability is 0\.0, allowed: above 0.*augment\.target=0\.6",
    ),
    "a rate of D": (["--optim-D.lr", "-1"], r"optim_D\.lr is -1\.0.*set --optim-D\.lr"),
    "a rate of G": (["--optim-G.lr", "-1"], r"optim_G\.lr is -1\.0.*set --optim-G\.lr"),
    "a method of G": (["--optim-G.method", "x"], r"optim_G\.method is 'x'.*--optim-G\.method"),
    "a moment that isn't": (
        ["--optim-D.method", "sgd"],
        r"optim_D\.betas.*set --optim-D\.betas M 0",
    ),
    "no bound": (["--regularizers", "clip=0"], r"clip is 0\.0, allowed: a weight above 0"),
    "spectral norm of zeros": (
        ["--regularizers", "spectral=1", "--init-D", "kaiming"],
        r"spectral.*init_D=kaiming",
    ),
    "both at once, one of them twice": (
        ["--update", "extragradient", "--steps-D", "5"],
        r"steps_D is 5, allowed: 1.*update=extragradient",
    ),
    "both at once, one of them alone": (
        ["--update", "simultaneous", "--fresh-batch-G"],
        r"fresh_batch_G is True, allowed: False.*update=simultaneous",
    ),
    "moments that there are not": (
        ["--unrolled-steps", "1", "--unrolled-adam", "--optim-D.method", "rmsprop"],
        r"unrolled_adam is True, allowed: False with optim_D\.method=rmsprop; set --opt",
    ),
    "parts of a whole": (
        ["--regularizers", "consensus=1", "--accumulate", "2"],
        r"consensus.*accumulate=2",
    ),
    "parts of an average": (
        ["--objective", "relativistic-average-hinge", "--accumulate", "2"],
        r"objective is 'relativistic-average-hinge', allowed: without accumulate=2.*no mean over",
    ),
    "parts of a mean": (
        ["--regularizers", "feature-matching=1", "--accumulate", "2"],
        r"feature-matching.*accumulate=2",
    ),
    "packs that don't come out even": (
        ["--packing", "3", "--data.no-conditional"],
        r"packing is 3, allowed: a divisor of batch_size=32",
    ),
    "packs of parts": (
        ["--packing", "2", "--data.no-conditional", "--accumulate", "2"],
        r"packing is 2, allowed: 1 with accumulate=2",
    ),
    "packs by class": (["--packing", "2"], r"packing is 2, allowed: 1 with data\.conditional"),
    "packs beside an encoder": (
        ["--packing", "2", "--data.no-conditional", "--network", "vaegan"],
        r"packing is 2, allowed: 1 with vaegan",
    ),
    "no pack at all": (["--packing", "0"], r"packing is 0, allowed: 1 or more"),
    "backwards": (
        ["--update", "alternating-extrapolation", "--extrapolation", "-1"],
        r"extrapolation is -1\.0, allowed: 0 or more",
    ),
    "both at once, looking ahead": (
        ["--update", "alternating-extrapolation", "--steps-D", "2"],
        r"steps_D is 2, allowed: 1",
    ),
    "a momentum that torch takes for none": (
        ["--optim-D.method", "rmsprop", "--schedules", "optim_D.beta1=-0.5@1"],
        r"optim_D\.beta1 is -0\.5, allowed: \[0, 1\)",
    ),
    "images on points": (
        ["--data.dataset", "ring-8", "--data.resolution", "2x1", "--data.no-conditional"],
        r"network is 'dcgan', allowed: a family of points; .*--network plane",
    ),
    "points on images": (["--network", "plane"], r"network is 'plane', allowed: a family of im"),
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


IDLE = {
    "init_D": (
        ["hinge-resnet", "--init-D", "kaiming"],
        ["--network", "dcgan", "--regularizers", "r1=1"],
    ),
    "extrapolation": (
        ["--extrapolation", "1.5"],
        ["--update", "alternating-extrapolation"],
    ),
    "unrolled_lr": (["--unrolled-lr", "0.5"], ["--unrolled-steps", "1"]),
    "unrolled_adam": (["--unrolled-adam"], ["--unrolled-steps", "1"]),
    "lazy_steps": (["--lazy-steps"], ["--regularizers", "r1=0.3/16"]),
    "lookahead_alpha": (["--lookahead-alpha", "0.2"], ["--lookahead-steps", "5"]),
    "ema_kimg": (["--average", "uniform", "--ema-kimg", "1"], ["--average", "ema"]),
    "ema_rampup": (["--ema-kimg", "0", "--ema-rampup", "1"], ["--schedules", "ema_kimg=1@1"]),
    "augment.probability": (["--augment.probability", "0.5"], ["--augment.policy", "ada"]),
    "augment.interval": (
        ["--augment.policy", "ada", "--augment.interval", "8"],
        ["--augment.target", "0.6"],
    ),
    "augment.speed_kimg": (
        ["--augment.policy", "ada", "--augment.speed-kimg", "5"],
        ["--augment.target", "0.6"],
    ),
    "watchdog.max_rescues": (["--watchdog.max-rescues", "9"], ["--watchdog.action", "rescue"]),
    "watchdog.ignore": (
        ["--watchdog.action", "off", "--watchdog.ignore", "collapse"],
        ["--watchdog.action", "warn"],
    ),
}


@pytest.mark.parametrize("option", [rule.option for rule in RULES])
def test_an_option_that_nothing_looks_at_is_refused_until_something_does(option: str) -> None:
    words, more = IDLE[option]
    words = words if not words[0].startswith("--") else ["digits", *words]
    with pytest.raises(ConfigError, match=rf"{re.escape(option)} is .*, allowed: with .*--.*"):
        parse(words)
    parse([*words, *more])


def test_what_a_recipe_has_and_does_not_use_is_no_mistake() -> None:
    for recipe in RECIPES:
        one_class = ["--data.only", "3"] if recipe == "anomaly" else []
        needs_path = DATASETS[RECIPES[recipe].config.data.dataset].needs_path
        parse([recipe, *(["--data.path", "x"] if needs_path else []), *one_class])
    parse(["unrolled", "--unrolled-steps", "0"])  # its unrolled_lr isn't the default
    parse(["digits", "--average", "uniform"])  # nor its ema_kimg
    parse(["ada", "--augment.target", "0"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--compute.compile"], "compute.compile: D is not compiled, as r1, r2 differentiates"),
        (["--compute.compile", "--regularizers", "consensus=1"], "neither player is compiled"),
        (["--compute.compile", "--unrolled-steps", "2"], "D unrolled, as G sees it, is not"),
        (["--network.d-norm", "batch"], "what r1, r2 penalises is its gradient by a batch"),
    ],
)
def test_what_is_computed_otherwise_is_said(words: list[str], says: str) -> None:
    assert any(says in line for line in notes(parse(["digits", *words]).config))
    assert not notes(parse(["digits"]).config)
    assert not notes(parse(["dcgan", "--compute.compile"]).config)


def test_rules_know_no_entry_by_name() -> None:
    """What a rule needs to know of an entry, the entry says: a new one needs no new rule."""
    registries = (CONSTRAINTS, INITIALIZATIONS, INPUT_NOISES, METHODS, OBJECTIVES, PENALTIES)
    names = {name for registry in (*registries, UPDATES, FAMILIES) for name in registry}
    constants = {
        node.value
        for node in ast.walk(ast.parse(Path(rules.__file__).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not names & constants
