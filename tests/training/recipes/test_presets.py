"""Presets: their sizes against the published ones, and the same code at small widths for real."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from models.networks import ImageShape
from training.data import Batches, ImageSet
from training.engine.state import State
from training.engine.stepper import Stepper
from training.export.onnx_graphs import TruncatedGenerator, byte_generator, to_onnx
from training.recipes.presets import RECIPES

CPU = torch.device("cpu")
NUM_CLASSES = {"r3gan-cifar10": 10, "r3gan-imagenet32": 1000}

# Parameters of G and D. StyleGAN2's are those that its code prints, but for the biases of the
# images of lower resolutions, which are one here; R3GAN's are 23.06 and 23.01 million in its paper.
PARAMETERS = {
    "r3gan-cifar10": (20_781_952, 21_280_512),
    "r3gan-ffhq256": (23_057_952, 23_009_568),
    "r3gan-imagenet32": (82_914_304, 86_548_992),
    "stylegan2-256": (24_767_458 - 3 * 6, 24_001_089),
    "stylegan2-ffhq1024": (30_370_060 - 3 * 8, 29_012_513),
    "sngan-cifar10": (4_276_739, 1_053_825),
    "wgan-gp-cifar10": (1_204_483, 1_053_825),
    "wgan-gp-64": (8_541_443, 7_492_801),
    "progressive-256": (23_051_989, 23_052_353),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_number_of_parameters(name: str) -> None:
    config = RECIPES[name].config
    shape = ImageShape(
        resolution=config.data.resolution, channels=3, num_classes=NUM_CLASSES.get(name, 0)
    )
    with torch.device("meta"):
        players = config.network.generator(shape), config.network.discriminator(shape)
    counts = [sum(each.numel() for each in player.parameters()) for player in players]
    assert tuple(counts) == PARAMETERS[name]


def test_r3gans_options_follow_the_authors_cosines() -> None:
    config = RECIPES["r3gan-ffhq256"].config
    found = {each.target: (each.end, each.kimg, each.shape) for each in config.schedules}
    assert found == {
        "r1": (15, 20_000, "cosine"),
        "r2": (15, 20_000, "cosine"),
        "ema_kimg": (500, 20_000, "cosine"),
        "augment.probability": (0.3, 20_000, "cosine"),
        "optim_G.lr": (5e-5, 20_000, "cosine"),
        "optim_D.lr": (5e-5, 20_000, "cosine"),
        "optim_G.beta2": (0.99, 20_000, "cosine"),
        "optim_D.beta2": (0.99, 20_000, "cosine"),
    }
    assert [(term.name, term.weight) for term in config.regularizers] == [("r1", 150), ("r2", 150)]
    assert (config.optim_G.lr, config.optim_G.betas) == (2e-4, (0.0, 0.9))
    assert (config.ema_kimg, config.augment.probability) == (0, 0)


def test_presets_mirror_and_regularise_as_their_code_does() -> None:
    """R3GAN's and StyleGAN2's commands mirror; StyleGAN2's lazy penalties have their own steps."""
    mirrored = {name for name, recipe in RECIPES.items() if recipe.config.data.mirror}
    assert mirrored == {name for name in RECIPES if name.startswith(("r3gan", "stylegan2"))}
    lazy = {name for name, recipe in RECIPES.items() if recipe.config.lazy_steps}
    assert lazy == {name for name in RECIPES if name.startswith("stylegan2")}


def small(name: str) -> Any:
    """The preset at 64 pixels at most, with narrow maps and batches of eight: the same code."""
    config = RECIPES[name].config
    few = {"ngf": 2, "ndf": 2, "channel_base": 256, "channel_max": 8, "group_width": 4}
    few |= {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "embed_dim": 4}
    options = {field.name for field in fields(config.network)}
    network = replace(config.network, **{k: v for k, v in few.items() if k in options})
    resolution = min(config.data.resolution, 64)
    data = replace(config.data, path=None, dataset="digits", resolution=resolution)
    return replace(config, network=network, data=data, batch_size=8, tick_kimg=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_rounds_and_the_export(name: str) -> None:
    config = small(name)
    draws = torch.Generator().manual_seed(0)
    size = config.data.resolution
    images = torch.randint(0, 256, (40, 3, size, size), generator=draws, dtype=torch.uint8)
    labels, names = None, None
    if config.data.conditional:
        labels, names = torch.arange(40) % 4, tuple("abcd")
    data = ImageSet("noise", images, labels, names, "0" * 64, ())
    state = State.fresh(config, data.shape, CPU)
    before = [parameter.detach().clone() for parameter in state.parameters()]
    stepper = Stepper(config, state, Batches(data, batch_size=8, seed=0))
    stepper.step()
    stepper.step()
    assert stepper.non_finite() is None
    moved = [not torch.equal(a, b) for a, b in zip(before, state.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 5  # growing networks start with their first stage
    z_dim, num_classes = config.network.z_dim, data.shape.num_classes
    G = byte_generator(state.G_ema, z_dim=z_dim, num_classes=num_classes)
    graph = to_onnx(G, z_dim, conditional=bool(num_classes))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    given = {"z": torch.randn(3, z_dim, generator=draws).numpy()}
    if num_classes:
        given["label"] = np.array([0, 3, 1])
    if isinstance(G, TruncatedGenerator):
        given["psi"] = np.array([1, 0.5, 1], np.float32)
    (found,) = session.run(None, given)
    with torch.no_grad():
        expected = G(**{key: torch.from_numpy(value) for key, value in given.items()}).numpy()
    assert found.shape == (3, size, size, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1
    for row in range(3):
        one = {key: value[row : row + 1] for key, value in given.items()}
        assert np.array_equal(session.run(None, one)[0], found[row : row + 1])
