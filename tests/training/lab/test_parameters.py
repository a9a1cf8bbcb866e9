"""A game's parameters: the URL and back, the command line of the same, refusals in words."""

import shlex
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from training.cli.command import parse
from training.config.training import flatten, to_builtins
from training.errors import ConfigError
from training.game.regularizers import Term
from training.lab.catalogue import catalogue
from training.lab.lessons import LESSONS
from training.lab.parameters import NAMES, Parameters, field_of, from_query

OTHER = {
    "data": "spiral",
    "objective": "hinge",
    "regularizers": "r1=0.5/16 clip=1",
    "update": "alternating",
    "optim_G.lr": "0.0001",
    "optim_D.method": "sgd",
    "optim_D.beta2": "0.0",
    "unrolled_steps": "2",
    "unrolled_lr": "0.3",
    "packing": "2",
    "average": "uniform",
    "network.width_D": "32",
    "seed": "7",
}


def test_a_url_reads_back_to_the_same_game():
    asked = from_query(OTHER)
    assert asked.query() != Parameters().query() == ""
    assert from_query(parse_qsl(asked.query(), keep_blank_values=True)) == asked
    assert from_query({"regularizers": ""}).regularizers == ()
    assert asked.regularizers == (
        Term(name="r1", weight=0.5, interval=16),
        Term(name="clip", weight=1.0),
    )


@pytest.mark.parametrize("query", [{}, OTHER, {"data": "grid-25", "regularizers": ""}])
def test_the_command_line_is_of_the_same_training(query):
    asked = from_query(query)
    words = shlex.split(asked.command(kimg=64.0))
    assert words[:4] == ["python", "-m", "training.run", "ring-8"]
    config = replace(asked.config, total_kimg=64.0, tick_kimg=3.2)
    assert flatten(to_builtins(parse(words[3:]).config)) == flatten(to_builtins(config))


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ({"packing": "3"}, "packing", "allowed: a divisor of batch_size=128"),
        ({"objective": "x"}, "objective", "allowed: minimax, non-saturating"),
        ({"optim_G.beta1": "2"}, "optim_G.beta1", "a first one in"),
        ({"regularizers": "foo=1"}, "regularizers", "allowed: r1, r2"),
        ({"regularizers": "r1"}, "regularizers", "allowed: NAME=WEIGHT"),
        ({"regularizers": "path-length=2"}, "regularizers", "has no mapping network"),
        ({"network.width_G": "9999"}, "network.width_G", "allowed: 1 .. 512 in the lab"),
        ({"network.activation": "x"}, "network.activation", "'relu'"),
        ({"optim_D.lr": "nan"}, "optim_D.lr", "allowed: 0 .. 10 in the lab"),
        ({"optim_D.lr": "0"}, "optim_D.lr", "a finite number above 0"),
        ({"seed": "x"}, "seed", "allowed: a whole number"),
        ({"steps_D": "2", "update": "simultaneous"}, "steps_D", "has one step of each a round"),
        ({"unrolled_lr": "0.3"}, "unrolled_lr", "with --unrolled-steps above 0"),
        ({"data": "drawn"}, "points", "draw some with the mouse"),
        ({"data": "drawn", "points": "!"}, "points", "pairs of 16 bits"),
        ({"data": "drawn", "points": "AAAAAAAAAAA"}, "points", "give different ones"),
        ({"points": "AAAA"}, "points", "they are of data=drawn"),
        ({"average": "uniform", "ema_kimg": "3"}, "ema_kimg", "with average=ema"),
        ({"data": "cats"}, "data", "allowed: ring-8, grid-25"),
        ({"lazy_steps": "maybe"}, "lazy_steps", "allowed: true, false"),
        ({"nope": "1"}, "", "nope is '1', allowed: data"),
    ],
)
def test_what_no_game_can_have_is_refused_beside_its_field(query, field, says):
    with pytest.raises(ConfigError, match="allowed") as refused:
        from_query(query)
    assert field_of(refused.value) == field
    assert says in str(refused.value)


def test_the_page_offers_every_parameter_once():
    found = catalogue()
    offered = [name for group in found["groups"].values() for name in group]
    assert sorted([*offered, "points"]) == sorted(NAMES)
    assert set(found["fields"]) == set(NAMES)
    names = {each["name"] for each in found["regularizers"]}
    assert {"r1", "wgan-gp", "spectral", "instance-noise"} <= names
    assert not names & {"prior", "path-length"}  # a game of points can't have these


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_every_lesson_is_a_link_to_games_that_can_be_played(lesson):
    from training.lab.fate import fate

    query = dict(parse_qsl(lesson.query, keep_blank_values=True))
    assert query.pop("lesson") == lesson.name
    small = {name[5:]: text for name, text in query.items() if name.startswith("fate.")}
    second = {name[2:]: text for name, text in query.items() if name.startswith("b.")}
    first = {name: text for name, text in query.items() if name[:2] != "b." and name[:5] != "fate."}
    assert from_query(first) == from_query(lesson.a)
    assert from_query({**first, **second}) == from_query({**lesson.a, **(lesson.b or {})})
    assert (lesson.b is None) or from_query({**first, **second}) != from_query(first)
    assert fate({**small, "rounds": "8"})["played"]
    assert all(sentence.endswith(".") for sentence in lesson.sentences)


def test_the_page_of_the_docs_has_every_link():
    text = (Path(__file__).parents[3] / "docs" / "lab.md").read_text()
    assert [lesson.title for lesson in LESSONS if f"`?{lesson.query}`" not in text] == []
