import dataclasses
import re
from pathlib import Path

import pytest
import torch

from models.networks import MLP, ImageShape
from training.cli.command import parse
from training.data import Batches, DataConfig, load
from training.data.sources import DATASETS
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import ConfigError
from training.recipes import DEFAULT, RECIPES


def test_the_default_is_embedded() -> None:
    assert parse([]).config == RECIPES[DEFAULT].config
    assert RECIPES[DEFAULT].config.data.dataset == "digits"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_each_names_itself_and_its_paper(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.config.recipe == name
    assert "arXiv:" in recipe.paper
    assert recipe.about


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_each_says_its_data_and_what_others_reached(name: str) -> None:
    recipe = RECIPES[name]
    data = recipe.config.data
    points = DATASETS[data.dataset].points
    form = "points of the plane" if points else f"{data.resolution}x{data.resolution}"
    assert form in recipe.data
    assert data.dataset in recipe.data
    assert ("by class" in recipe.data) == data.conditional
    assert re.search(r"\d|^none for ", recipe.published)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_was_measured_is_the_zoos(name: str) -> None:
    """docs/zoo.md has each method's figures on digits; a recipe repeats them for --list."""
    page = (Path(__file__).parents[3] / "docs" / "zoo.md").read_text()
    (part,) = re.findall(r"^## digits\n(.*?)^## ", page, re.M | re.S)
    (kimg,) = re.findall(r"^([\d.]+) kimg", part, re.M)
    number = r"([\d.]+)(?: \+- [\d.]+)?"
    rows = re.findall(rf"^\| `{name}` \| {number} \| {number} ", part, re.M)
    said = [
        f"digits, {kimg} kimg: Frechet distance {distance}, coverage {coverage}"
        for distance, coverage in rows
    ]
    assert [RECIPES[name].measured] == (said or [RECIPES[name].measured])
    assert bool(said) != RECIPES[name].measured.startswith("not ")


def test_article_is_the_articles_gan_as_it_stands() -> None:
    config = RECIPES["article"].config
    assert config.network == MLP(z_dim=100, hidden=256, dropout=0.3)
    assert (config.objective, config.regularizers, config.ema_kimg) == ("non-saturating", (), 0)
    assert config.optim_G == config.optim_D
    assert (config.optim_G.lr, config.optim_G.betas) == (2e-4, (0.5, 0.999))
    assert (config.batch_size, config.init_D) == (64, "family")
    assert (config.data.dataset, config.data.resolution) == ("mnist", 28)


def test_goodfellow_is_the_game_of_the_first_paper() -> None:
    config = RECIPES["goodfellow"].config
    shape = ImageShape(resolution=28, channels=1)
    G, D = config.network.generator(shape), config.network.discriminator(shape)
    sizes = [tuple(parameter.shape) for parameter in (*G.parameters(), *D.parameters())]
    assert [size for size in sizes if len(size) == 2] == [
        *((1200, 100), (1200, 1200), (784, 1200)),
        *((1200, 784), (1200, 240), (1, 240)),  # 240 units of five pieces
    ]
    assert config.objective == "non-saturating"
    assert config.regularizers == ()
    for optim in (config.optim_G, config.optim_D):
        assert (optim.method, optim.lr, optim.betas) == ("sgd", 0.1, (0.5, 0.0))
    assert config.batch_size == 100


def test_folder_needs_a_folder(tmp_path: object) -> None:
    config = parse(["folder", "--data.path", str(tmp_path)]).config
    assert str(config.data.path) == str(tmp_path)


def test_anomaly_needs_a_class() -> None:
    with pytest.raises(ConfigError, match=r"--data\.only is not given, allowed: .*one class"):
        parse(["anomaly"])
    config = parse(["anomaly", "--data.only", "3"]).config
    assert config.data.only == "3"
    assert config.data.held_out > 0
    kept = load(config.data)
    assert kept.held_out is not None
    assert set((kept.classes or ()) + (kept.held_out.classes or ())) == {"3"}


def test_every_method_of_the_article_has_its_recipe() -> None:
    """The names that docs and other tools call them by."""
    named = "article dcgan wgan wgan-gp sngan dragan lsgan hinge-resnet progressive rpgan-r1r2"
    assert {*named.split(), "style", "vaegan", "digits", "folder"} <= RECIPES.keys()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_each_plays_a_round_on_two_images(name: str) -> None:
    """Every recipe's game on tiny networks: it moves both players and stays finite."""
    config = RECIPES[name].config
    few = {"ngf": 1, "ndf": 2, "nef": 2, "channel_base": 32, "channel_max": 16, "hidden": 8}
    few |= {"units": 4, "pieces": 2}
    few |= {"group_width": 4, "mapping_layers": 1, "w_dim": 8, "embed_dim": 4}
    options = {field.name for field in dataclasses.fields(config.network)}
    network = dataclasses.replace(
        config.network, **{key: value for key, value in few.items() if key in options}
    )
    data = DataConfig(conditional=config.data.conditional, resolution=16)
    if config.network.points:
        data = config.data
    config = dataclasses.replace(config, network=network, data=data, batch_size=8)
    images = load(data)
    state = State.fresh(config, images.shape, torch.device("cpu"))
    before = [parameter.detach().clone() for parameter in state.parameters()]
    stepper = Stepper(config, state, Batches(images, batch_size=8, seed=0))
    stepper.step()
    stepper.step()
    assert stepper.non_finite() is None
    moved = [not torch.equal(a, b) for a, b in zip(before, state.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 3  # growing networks start with their first stage
