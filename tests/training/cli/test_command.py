import json
from pathlib import Path

import pytest

from models.networks import DCGAN, MLP
from training.cli.command import CONFIG, parse
from training.cli.listing import listing
from training.config.training import from_builtins
from training.engine.distributed import World
from training.errors import CheckpointError, ConfigError
from training.game.objectives import OBJECTIVES
from training.game.regularizers import REGULARIZERS, Term
from training.game.updates import UPDATES
from training.optim.optimizers import METHODS
from training.recipes import RECIPES
from training.transforms.augmentation_ops import AUGMENTATIONS


def test_options_override_the_recipe() -> None:
    options = "--total-kimg 3 --seed 7 --network.ngf 8 --optim-D.lr 0.01 --regularizers r1=2/4"
    places = ["--runs", "r", "--repository", "m", "--name", "n"]
    command = parse(["mnist", *options.split(), *places])
    config = command.config
    assert (config.recipe, config.total_kimg, config.seed) == ("mnist", 3.0, 7)
    assert config.network == DCGAN(ngf=8)
    assert config.optim_D.lr == 0.01
    assert config.regularizers == (Term(name="r1", weight=2.0, interval=4),)
    assert (command.options.runs, command.options.repository) == (Path("r"), Path("m"))
    assert command.name == "n"
    assert parse(["mnist"]).name == "mnist"


@pytest.mark.parametrize("words", [["--network", "mlp"], ["--network=mlp"]])
def test_another_family_brings_its_own_options(words: list[str]) -> None:
    command = parse(["cifar10", *words, "--network.hidden", "32"])
    assert command.config.network == MLP(hidden=32)


def test_naming_the_recipes_own_family_keeps_its_options() -> None:
    assert parse(["--network", "dcgan"]).config == RECIPES["digits"].config


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonesuch"], r"RECIPE is 'nonesuch', allowed: digits, article"),
        (["--total-kimg", "-1"], r"total_kimg is -1.0, allowed"),
        (["--total-kimg", "x"], r"--total-kimg"),
        (["--network", "nonesuch"], r"network is 'nonesuch', allowed: dcgan, maxout, mlp"),
        (["--network.ngf", "0"], r"ngf is 0"),
        (["--regularizers", "r1=-1"], r"regularizers: r1 is -1.0"),
        (["--objective", "nonesuch"], r"objective is 'nonesuch'"),
        (["--data.dataset", "nonesuch"], r"data.dataset is 'nonesuch'"),
        (["--name", "a/b"], r"model name 'a/b' is not allowed"),
        (["--nonesuch"], r"--nonesuch"),
        (["folder"], r"--data.path"),
    ],
)
def test_mistakes_are_named(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(words)


def test_an_unknown_device_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"device is 'abacus', allowed: auto, cpu"):
        parse(["--device", "abacus"]).device(World())
    assert parse(["--device", "cpu"]).device(World()).type == "cpu"


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("--total-kimg", "--ema-kimg", "--network.ngf", "--optim-G.lr", "--resume"):
        assert option in text
    assert "thousands" in text


def test_the_record_of_a_run_gives_the_defaults_of_its_resumption(tmp_path: Path) -> None:
    command = parse(["--seed", "5", "--network.ngf", "8", "--name", "mine", "--repository", "m"])
    (tmp_path / CONFIG).write_text(command.to_json())
    resumed = parse(["--resume", str(tmp_path), "--total-kimg", "77"])
    assert resumed.config.seed == 5
    assert resumed.config.network == command.config.network
    assert resumed.config.total_kimg == 77
    assert (resumed.name, resumed.options.repository) == ("mine", Path("m").absolute())
    with pytest.raises(CheckpointError, match=r"RECIPE is 'article'.*is of 'digits'"):
        parse(["article", "--resume", str(tmp_path)])


def test_resuming_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"resume is .*config\.json"):
        parse(["--resume", str(tmp_path)])
    (tmp_path / CONFIG).write_text("[1, 2]")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        parse(["--resume", str(tmp_path)])


def test_the_resolved_configuration_is_json_that_reads_back() -> None:
    command = parse(["--dry-run"])
    record = json.loads(command.to_json())
    assert from_builtins(record["training"], "here") == command.config


def test_the_listing_names_every_entry() -> None:
    text = listing()
    for name in (*RECIPES, *OBJECTIVES, *REGULARIZERS, *AUGMENTATIONS, *UPDATES, *METHODS):
        assert name in text
    for recipe in RECIPES.values():
        for said in (recipe.paper, recipe.about, recipe.data, recipe.published, recipe.measured):
            assert said in text


def test_the_listings_columns_stand_apart() -> None:
    lines = [line for line in listing().splitlines() if line.startswith("  ")]
    names = (*RECIPES, *OBJECTIVES, *REGULARIZERS, *AUGMENTATIONS, *UPDATES, *METHODS)
    column = max(map(len, names)) + 4
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)
