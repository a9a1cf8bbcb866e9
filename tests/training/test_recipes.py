import pytest

from models.networks import MLP
from training.command import parse
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


def test_article_is_the_articles_gan_as_it_stands() -> None:
    config = RECIPES["article"].config
    assert config.network == MLP(z_dim=100, hidden=256, dropout=0.3)
    assert (config.objective, config.regularizers, config.ema_kimg) == ("non-saturating", (), 0)
    assert config.optim_G == config.optim_D
    assert (config.optim_G.lr, config.optim_G.betas) == (2e-4, (0.5, 0.999))
    assert (config.batch_size, config.init_D) == (64, "family")
    assert (config.data.dataset, config.data.resolution) == ("mnist", 28)


def test_folder_needs_a_folder(tmp_path: object) -> None:
    config = parse(["folder", "--data.path", str(tmp_path)]).config
    assert str(config.data.path) == str(tmp_path)
