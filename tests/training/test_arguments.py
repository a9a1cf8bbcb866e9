"""What the command line refuses: the option, the value, what is allowed, the remedy."""

from pathlib import Path

import pytest

from training.arguments import nearest
from training.command import parse
from training.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--total-king", "5"],
            "--total-king is no option here, allowed: what python -m training.run [RECIPE] --help "
            "lists; the nearest is --total-kimg",
        ),
        (
            ["--api-processes", "2"],
            "--api-processes is no option here, allowed: what python -m training.run [RECIPE] "
            "--help lists; leave it out",
        ),
        (
            ["--lits"],
            "--lits is no option here, allowed: what python -m training.run [RECIPE] --help lists; "
            "the nearest is --list",
        ),
        (
            ["--data.conditional"],
            "--data.conditional is no option here: it is on already, allowed: "
            "--data.no-conditional",
        ),
        (
            ["--compute.no-compile"],
            "--compute.no-compile is no option here: it is off already, allowed: --compute.compile",
        ),
        (
            ["--network.mixing", "0.5"],
            "--network.mixing is no option of this network, allowed: --network.z-dim, "
            "--network.ngf, --network.ndf, --network.embed-dim, --network.d-norm, "
            "--network.d-mbstd; choose its family with --network style",
        ),
        (
            ["--network", "style", "--network.mixing", "2"],
            "network.mixing is 2.0, must lie in [0, 1]; set --network.mixing",
        ),
        (
            ["--evaluation", "x"],
            "--evaluation is 'x', allowed: quick, full, none; set --evaluation to one",
        ),
        (
            ["--total_kimg=x"],
            "--total-kimg is 'x', allowed: a number; its default here is 70",
        ),
        (
            ["--network.ngf", "1.5", "--seed", "3"],
            "--network.ngf is '1.5', allowed: a whole number; its default here is 16",
        ),
        (
            ["--optim-D.betas", "0", "x"],
            "--optim-D.betas is '0 x', allowed: two numbers; its default here is 0.0 0.99",
        ),
        (["--seed"], "--seed has no value, allowed: 1; write --seed VALUE"),
        (
            ["--optim-D.betas", "1"],
            "--optim-D.betas has too few values, allowed: 2; write --optim-D.betas VALUE VALUE",
        ),
        (
            ["folder"],
            "--data.path is not given, allowed: PATH: Folder that holds the set's files; ./data "
            "by default, required for folder. Add --data.path PATH",
        ),
        (
            ["--dry-run", "3"],
            "'3' stands alone, allowed: --options and their values, after the first word; "
            "leave it out, or write its option before it",
        ),
    ],
)
def test_a_refusal_names_option_value_allowed_and_remedy(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(words)
    assert str(refused.value) == says


def test_a_recipe_that_is_nearly_one_is_suggested() -> None:
    with pytest.raises(ConfigError, match=r"RECIPE is 'wgangp'.*the nearest is wgan-gp; --list"):
        parse(["wgangp"])
    assert nearest("nonesuch", ["digits", "article"]) == ""


def test_evaluation_refuses_in_the_same_words(tmp_path: Path) -> None:
    from training.evaluate import Command
    from training.evaluate import _parse as parse_evaluation

    assert isinstance(parse_evaluation([], None), Command)
    with pytest.raises(ConfigError, match=r"^--num-image is no option here.*--num-images$"):
        parse_evaluation(["--num-image", "3"], None)
