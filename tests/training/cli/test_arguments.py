"""What the command line refuses: the option, the value, what is allowed, the remedy."""

import tomllib
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import pytest
from tyro import _errors as tyro_errors

from training.cli import arguments
from training.cli.arguments import nearest, peek, read
from training.cli.command import parse
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
            "by default. Required for folder, whose images may\nalso lie in a .zip or .tar "
            "archive, in WebDataset's shards, or packed. Add --data.path PATH",
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
    with pytest.raises(
        ConfigError, match=r"^--num-images is 'x', allowed: a whole number; its def"
    ):
        parse_evaluation(["--num-images", "x"], None)


@dataclass(frozen=True, kw_only=True)
class Simple:
    """Stands for a command."""

    num: int = 3


def test_a_failure_without_a_message_here_is_left_to_tyro(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kind of failure that a later release of tyro brings still ends with exit code 2."""
    monkeypatch.setattr(arguments._Messages, "_unknown", lambda messages, event: None)
    with pytest.raises(SystemExit) as ended:
        read(Simple, ["--nun", "4"], Simple(), prog="simple", description="")
    assert ended.value.code == 2
    assert "--nun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--a", "x", "--b", "1"], "1"),
        (["--b=2", "--a"], "2"),
        (["--b", "--a", "1"], None),
        (["--a", "b"], None),
        (["--b", "1", "--b", "2"], "2"),
    ],
)
def test_peek_reads_one_option_before_the_others(words: list[str], value: str | None) -> None:
    assert peek(words, "--b") == value


MOVED = (
    "tyro's private parse errors moved: compare tyro/_errors.py with training/cli/arguments.py, "
    "and then set the release in pyproject.toml and in the locks"
)


def test_tyro_is_the_release_whose_private_errors_were_checked() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    train = project["project"]["optional-dependencies"]["train"]
    assert f"tyro=={version('tyro')}" in train, MOVED


@pytest.mark.parametrize(
    ("event", "names"),
    [
        (tyro_errors.UnrecognizedArgs, {"tokens"}),
        (tyro_errors.InstantiationFailure, {"message", "argument"}),
        (tyro_errors.InvalidChoice, {"argument", "value", "choices"}),
        (tyro_errors.BadValue, {"argument", "reason"}),
        (tyro_errors.MissingArgs, {"missing_arguments"}),
    ],
)
def test_tyros_private_errors_hold_what_is_read_of_them(
    event: type[tyro_errors.ParseErrorEvent], names: set[str]
) -> None:
    assert names <= {field.name for field in fields(event)}, MOVED


@pytest.mark.parametrize(
    "words",
    [
        ["--regularizers", "none"],
        ["--regularizers=none"],
        ["--regularizers", "none", "--seed", "3"],
        ["--seed", "3", "--regularizers", "none"],
        ["--regularizers"],
    ],
)
def test_none_is_an_empty_list_as_messages_print_it(words: list[str]) -> None:
    assert parse(["digits"]).config.regularizers
    command = parse(["digits", *words])
    assert command.config.regularizers == ()
    assert command.config.seed == (3 if "3" in words else 0)


def test_none_is_no_word_of_other_options() -> None:
    with pytest.raises(ConfigError, match="regularizers is 'none'"):
        parse(["digits", "--regularizers", "none", "r1=1"])
    assert parse(["digits", "--name", "none"]).name == "none"
    assert parse(["digits", "--schedules", "none", "--data.weights", "none"]).config.schedules == ()


def test_a_negative_flag_says_that_it_turns_off(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["digits", "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--data.no-conditional Turns off: Give the networks the class of each image" in words
    assert "--compute.compile Compile the networks" in words
