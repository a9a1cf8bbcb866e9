"""The game is the training: the same weights as its command line's, whatever is drawn of it."""

import json
import shlex
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.cli.command import parse
from training.data import Batches, load
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import ConfigError
from training.lab import game as lab_game
from training.lab.clouds import CLOUDS, DRAWN, Cloud, packed, unpacked
from training.lab.frames import MAGIC, NUM_ARROWS, NUM_POINTS, Frames
from training.lab.game import Game, digest
from training.lab.parameters import Parameters
from training.lab.snapshots import content_of
from training.lab.spectrometer import Place, measured

SMALL = Parameters(width_G=8, width_D=8, batch_size=16)
DIAMOND = packed(np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]]))


@pytest.fixture(autouse=True)
def early_digest(monkeypatch):
    monkeypatch.setattr(lab_game, "DIGEST_ROUND", 20)


def played(parameters, num, *, frames=False):
    game, maker = Game(parameters), Frames()
    for _ in range(num):
        game.step()
        if frames:
            maker.frame(game, {})
    return game


@pytest.mark.parametrize("data", ["ring-8", "two-moons", DRAWN])
def test_the_command_line_trains_to_the_digest_that_the_game_shows(data, tmp_path, monkeypatch):
    parameters = replace(SMALL, data=data, points=DIAMOND if data == DRAWN else "")
    game = played(parameters, 20, frames=True)
    assert game.digest
    monkeypatch.chdir(tmp_path)
    (tmp_path / "points.csv").write_text(game.cloud.csv())
    config = parse(shlex.split(parameters.command(kimg=1.0))[3:]).config
    images = load(config.data)
    state = State.fresh(config, images.shape, torch.device("cpu"))
    batches = Batches(images, batch_size=config.batch_size, seed=config.seed)
    stepper = Stepper(config, state, batches)
    for _ in range(20):
        stepper.step()
    assert digest(state) == game.digest


def test_back_in_time_and_forward_again_is_the_same_game():
    game = played(SMALL, 25)
    found = game.digest
    game.back_to(14)
    assert (game.round, game.digest) == (10, "")
    while game.round < 20:
        game.step()
    assert game.digest == found
    assert game.is_of_its_link


def test_a_change_goes_on_from_where_the_players_stand_or_begins_anew():
    game = played(SMALL, 20)
    before, steps = digest(game.state), game.state.D.optimizer.state_dict()["state"][0]["step"]
    assert not game.change(replace(SMALL, objective="wasserstein", lr_D=0.01))
    assert (game.round, digest(game.state)) == (20, before)
    assert game.state.D.optimizer.param_groups[0]["lr"] == 0.01
    assert game.state.D.optimizer.state_dict()["state"][0]["step"] == steps  # moments are kept
    assert not game.is_of_its_link
    game.step()
    assert not game.change(replace(game.parameters, method_D="sgd", beta2_D=0.0))
    game.step()
    game.back_to(20)  # Adam's moments are no use to the new method
    game.step()
    for option in ({"width_G": 9}, {"seed": 3}, {"regularizers": ()} | {"packing": 2}):
        assert game.change(replace(game.parameters, **option))
        assert game.round == 0
        assert game.is_of_its_link
        game.step()


def test_a_change_keeps_the_slow_weights_of_lookahead():
    game = played(replace(SMALL, lookahead_steps=4), 6)
    slow = [each.clone() for each in game.state.slow]
    assert not torch.equal(slow[0], next(iter(game.state.parameters())))
    assert not game.change(replace(game.parameters, lr_D=0.01))
    assert all(map(torch.equal, game.state.slow, slow))


def test_players_move_alone():
    game = Game(SMALL)
    whole = {name: getattr(game.state, name).network for name in "GD"}
    for who, other in (("D", "G"), ("G", "D")):
        before = {name: [p.clone() for p in net.parameters()] for name, net in whole.items()}
        game.step(who)
        moved = {
            name: any(
                not torch.equal(p, q) for p, q in zip(net.parameters(), before[name], strict=True)
            )
            for name, net in whole.items()
        }
        assert moved == {who: True, other: False}
    assert not game.is_of_its_link


def test_snapshots_are_bounded(monkeypatch):
    monkeypatch.setattr(lab_game, "SNAPSHOT_ROUNDS", 1)
    monkeypatch.setattr(lab_game, "MAX_SNAPSHOT_BYTES", 10_000)
    game = played(SMALL, 12)
    assert 2 <= len(game.rounds_kept) < 6
    assert game.rounds_kept[-1] == 12


def test_a_frame_is_what_stands_there():
    game = played(SMALL, 3)
    content = Frames().frame(game, {"playing": True})
    assert content[:4] == MAGIC
    (length,) = struct.unpack("<I", content[4:8])
    head = json.loads(content[8 : 8 + length])
    assert head["round"] == 3
    assert head["playing"]
    assert np.isfinite(head["means"]["gradient_D"])
    sizes = {name: size for name, (size, _) in head["arrays"].items()}
    assert sizes["points"] == sizes["average"] == 2 * NUM_POINTS
    assert sizes["arrows"] == 2 * NUM_ARROWS
    assert len(content) == 8 + length + 4 * sum(sizes.values())


def test_a_diverged_game_says_so_and_can_go_back():
    game = played(SMALL, 10)
    with torch.no_grad():
        game.state.D.parameters[0].fill_(torch.nan)
    game.step()
    assert game.failure is not None
    assert "loss_D.adversarial" in game.failure.terms
    Frames().frame(game, {})
    game.back_to(10)
    game.step()
    assert game.failure is None


@pytest.mark.parametrize("name", [name for name in CLOUDS if name != DRAWN])
def test_a_cloud_covers_itself_and_a_point_does_not(name):
    cloud = Cloud(name)
    seen = cloud.image_set.seen(slice(0, 2000)).reshape(-1, 2).numpy()
    found = cloud.coverage(seen)
    assert found.caught == found.of
    assert found.good_share > 0.97
    assert found.reverse_kl < 0.05
    one = cloud.coverage(np.tile(seen[:1], (500, 1)))
    assert one.caught == 1
    assert one.reverse_kl > 0.5


@pytest.mark.parametrize("text", ["!", "AAAA", "AAA"])
def test_points_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="points is"):
        unpacked(text)


@pytest.mark.parametrize("width", [4, 16])
def test_eigenvalues_are_measured_where_the_game_stands(width):
    parameters = replace(SMALL, width_G=width, width_D=width)
    game = played(parameters, 5)
    place = Place(
        parameters=parameters, content=content_of(game.state), round=5, with_limit=width == 4
    )
    found = measured(place, game.cloud)
    assert "refused" not in found
    assert found["isDense"] == (width == 4)
    assert found["radius"] > 0
    assert len(found["flow"]) > 5
    assert ("limit" in found) == (width == 4)
    json.dumps(found, allow_nan=False)


def test_a_game_with_a_kink_has_no_eigenvalues():
    parameters = replace(SMALL, regularizers=Parameters().regularizers[:0])
    game = played(parameters, 2)
    clipped = replace(parameters, regularizers=(lab_game_term("clip=1"),))
    place = Place(parameters=clipped, content=content_of(game.state), round=2, with_limit=False)
    assert "no derivative" in measured(place, game.cloud)["refused"]


def lab_game_term(text):
    from training.game.regularizers import Term

    return Term.parse(text)
