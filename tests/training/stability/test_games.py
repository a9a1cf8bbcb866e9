"""The gauge: golden values that were computed apart, closed forms, and verdicts by playing."""

import json
import re
from pathlib import Path

import pytest
import torch

from training.errors import StabilityError
from training.game.objectives import OBJECTIVES
from training.game.regularizers import REGULARIZERS
from training.game.updates import UPDATES
from training.stability.__main__ import main
from training.stability.closed_form.gauge import Check
from training.stability.closed_form.golden import checks
from training.stability.closed_form.simulation import METHODS, ORDERS, Method, play, verdict
from training.stability.closed_form.toy_games import dirac
from training.stability.closed_form.zoo import COUPLINGS, NONE, ROUNDS, WITHOUT, row, zoo
from training.stability.commands import games as command
from training.stability.commands.games import Games
from training.transforms.input_noise import INPUT_NOISES

CHECKS = {(check.game, check.quantity): check for check in checks()}
ROWS = list(zoo())

# Computed apart from this code: torch.func.jacrev, 60 points of Gauss-Hermite quadrature, numpy.
GOLDEN = {
    ("Dirac, R1", "lambda"): -0.15 + 0.476970j,
    ("Dirac, instance noise 0.8", "lambda"): -0.16 + 0.473709j,
    ("Dirac, consensus", "lambda"): -0.075 + 0.5j,
    ("Dirac, simultaneous, R1", "mu"): 0.895 + 0.333879j,
    ("Dirac, alternating, R1", "mu"): 0.83375 + 0.307995j,
    ("Dirac, alternating", "mu"): 0.93875 + 0.344599j,
    ("Dirac, alternating, 5 steps of D", "mu"): 0.69375 + 0.720216j,
    ("Dirac, extragradient", "mu"): 0.8775 + 0.35j,
    ("Dirac, optimistic", "mu"): 0.857071 + 0.35j,
    ("LQ, wasserstein", "lambda"): 2j,
    ("LQ, wasserstein, R1", "lambda"): -0.6 + 1.907878j,
    ("LQ, minimax", "lambda"): -0.75 + 0.661438j,
    ("LQ, minimax, R1", "lambda"): -2.256918,
    ("mean of a normal, S = 0.04 along, 0.04 across", "lambda"): -0.01 + 0.4999j,
    ("mean of a normal, S = 4", "lambda"): -0.133975,
    ("mean of a normal, S = 10 along, 1 across", "lambda"): -4.949490,
    ("stable, not Nash, tau = 0.4", "lambda"): 0.05 + 0.444410j,
    ("stable, not Nash", "tau*"): 0.5,
    ("bilinear, momentum -0.5 and 0, c = 0.35", "radius"): 0.986169,
    ("bilinear, momentum 0.5 and 0.5, c = 0.35", "radius"): 1.183286,
    ("bilinear, momentum -0.5 and 0, c = 1", "radius"): 0.872175,
    ("Dirac, R1, simultaneous, frozen Adam of momentum -0.5", "largest step"): 2.093023,
    ("Dirac, R1, simultaneous, frozen Adam of momentum 0.5", "largest step"): 0.434783,
    ("Dirac, R1, simultaneous, frozen Adam of momentum 0.9", "largest step"): 0.069385,
    ("Dirac, R1", "d lambda / d gamma"): -0.5 - 0.157243j,
    ("Dirac, simultaneous", "exponent"): 0.057779,
    ("Dirac, simultaneous, R1", "exponent"): -0.0457835,
    ("Dirac, alternating", "exponent"): 0.0,
    ("Dirac, R1", "critical weight"): 1.0,
    ("Dirac, R1, rate of D 4 times G's", "critical gamma"): 0.5,
    ("Dirac, R1, rate of D 0.25 times G's", "critical gamma"): 2.0,
}


@pytest.mark.parametrize("name", CHECKS, ids=" ".join)
def test_the_instrument_measures_what_is_known_in_closed_form(name: tuple[str, str]) -> None:
    check = CHECKS[name]
    assert check.passes, f"{check.measured} against {check.expected}"


@pytest.mark.parametrize("name", GOLDEN, ids=" ".join)
def test_golden_values(name: tuple[str, str]) -> None:
    apart = min(abs(value - GOLDEN[name]) for value in CHECKS[name].measured)
    assert apart < 1e-6


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_combination_of_the_zoo_has_its_closed_form(objective: str) -> None:
    rows = [each for each in ROWS if each.objective == objective]
    failed = [check for each in rows for check in each.checks if not check.passes]
    assert failed == []
    assert all(len(each.checks) == 1 + 2 * len(UPDATES) for each in rows if not each.why_not)


def test_every_entry_of_the_registries_has_a_row_or_a_reason() -> None:
    assert set(COUPLINGS) == {each.objective for each in ROWS} == set(OBJECTIVES)
    assert set(ROUNDS) == set(UPDATES)
    measured = {each.regularizer for each in ROWS if each.flow is not None} - {NONE}
    noises = {"instance-noise"}  # in the golden table
    assert ("Dirac, instance noise 0.8", "lambda") in CHECKS
    assert noises == set(INPUT_NOISES)
    assert measured | set(WITHOUT) | noises == set(REGULARIZERS)
    assert not measured & set(WITHOUT)


def test_a_new_entry_without_a_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OBJECTIVES, "new", OBJECTIVES["minimax"])
    with pytest.raises(KeyError, match="new"):
        row("new", NONE)


@pytest.mark.parametrize("name", [name for name, why in WITHOUT.items() if "kink at the eq" in why])
def test_where_a_kink_is_told_there_is_one(name: str) -> None:
    field = dirac(f"{name}=0.3", objective="wasserstein").field()
    aside = 1e-4 * torch.tensor([0.0, 1.0], dtype=torch.float64)
    before, after = field(field.place - aside), field(field.place + aside)
    assert (after - before).abs().max() > 1  # however small the step: it jumps


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("order", ORDERS)
def test_playing_gives_the_papers_verdict(method: Method, order: str) -> None:
    assert (verdict(play(method, order)) == "converges") == method.paper_says


def test_a_verdict_tells_circling_from_growing() -> None:
    found = {method.name: verdict(play(method, "simultaneous")) for method in METHODS[:2]}
    assert found == {"minimax GAN": "diverges", "non-saturating GAN": "circles"}


def test_a_measurement_that_differs_fails_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Check(game="Dirac", quantity="lambda", measured=(0.5j, -0.5j), expected=(0.4j, -0.4j))
    monkeypatch.setattr(command, "checks", lambda: [wrong])
    monkeypatch.setattr(command, "zoo", lambda: ROWS[:9])
    assert main(["games", "--no-simulate"]) == StabilityError.exit_code
    assert "1 differ from the closed form: Dirac: lambda" in capsys.readouterr().err


def test_paths_are_drawn_and_results_are_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "METHODS", METHODS[:1])
    monkeypatch.setattr(command, "checks", lambda: [CHECKS["Dirac, R1", "lambda"]])
    monkeypatch.setattr(command, "zoo", lambda: ROWS[:9])
    picture = tmp_path / "paths.svg"
    assert main(["games", "--json", "--trajectory", str(picture)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["simulation"] == [
        {
            "method": "minimax GAN",
            "paper": False,
            "simultaneous": "diverges",
            "alternating": "circles",
        }
    ]
    assert [each["regularizer"] for each in content["zoo"]][:3] == ["none", "r1", "r2"]
    assert content["zoo"][1]["checks"][0]["closed_form"] == content["games"][0]["closed_form"]
    assert content["zoo"][3]["why_not"] == WITHOUT["wgan-gp"] == content["without"]["wgan-gp"]
    assert content["games"][0]["measured"][0] == pytest.approx([-0.15, 0.476970], abs=1e-6)
    assert picture.read_text().count("<polyline") == 2


def test_a_picture_that_cant_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "METHODS", ())
    monkeypatch.setattr(command, "checks", lambda: [CHECKS["Dirac, R1", "lambda"]])
    monkeypatch.setattr(command, "zoo", lambda: ROWS[:9])
    assert main(["games", "--trajectory", str(tmp_path / "none" / "paths.svg")]) == 2
    assert "trajectory is" in capsys.readouterr().err


def test_the_table_has_both_numbers() -> None:
    text = Games(simulate=False).run(Path(), lambda line: None)
    assert "-0.150000 +- 0.476970i" in text
    assert re.search(r"^minimax +r1 +-0.150000 \+- 0.476970i +-0.117861 +-0.045784 ", text, re.M)
    for name, why in WITHOUT.items():
        assert f"\n{name}: {why}" in text
    docs = (Path(__file__).parents[3] / "docs" / "stability.md").read_text()
    told = re.search(r"prints (\d+) numbers .*? and (\d+) of the Dirac-GAN", docs, re.S)
    assert told is not None
    num_combined = sum(len(each.checks) for each in ROWS)
    assert tuple(map(int, told.groups())) == (len(CHECKS), num_combined)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["game"], 2, "COMMAND is 'game', allowed: games"),
        (["games", "--draw"], 2, "--draw is no option here"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    assert message in capsys.readouterr().err
