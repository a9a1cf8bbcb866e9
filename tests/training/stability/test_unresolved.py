"""What didn't converge, or isn't finite, is told in words, and never as a figure."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.stability.conftest import MakeRun
from tests.training.stability.test_spectrum import analysis_of
from training.engine.checkpoint import Checkpoints, read
from training.errors import StabilityError
from training.optim.optimizers import OptimizerConfig
from training.optim.schedules import Schedule
from training.stability import equilibrium as equilibria
from training.stability.__main__ import main
from training.stability.analysis import step_limit
from training.stability.commands.exponent import verdict as exponent_verdict
from training.stability.commands.results import keep
from training.stability.commands.spectrum import verdict
from training.stability.equilibrium import Equilibrium, equilibrium
from training.stability.progress import Progress
from training.stability.rounds.frozen_optimizers import plain, standing
from training.stability.run_game import RunGame
from training.stability.spectrum import extremes, spectra
from training.stability.twins import Exponent


class QuadraticGame:
    """A game with constant Hessians: J = -[[H_G, c], [-c, H_D]], each a diagonal."""

    def __init__(self, of_G: Tensor, of_D: Tensor, interaction: float = 0.0) -> None:
        self._own = {"G": of_G, "D": of_D}
        self._pull = {"G": -interaction, "D": interaction}
        self.sizes = {"G": len(of_G), "D": len(of_D)}
        self.size = len(of_G) + len(of_D)

    def rows(self, player: str) -> slice:
        return slice(0, self.sizes["G"]) if player == "G" else slice(self.sizes["G"], None)

    def jvp_of(self, player: str, u: Tensor) -> Tensor:
        own = -self._own[player] * u[self.rows(player)]
        other = self._pull[player]
        return own + other * u[self.rows("D" if player == "G" else "G")] if other else own

    def jvp(self, u: Tensor) -> Tensor:
        return torch.cat([self.jvp_of(player, u) for player in "GD"])

    def own_block(self, player: str, u: Tensor) -> Tensor:
        return self._own[player] * u


def crowded(num: int) -> Tensor:
    """Eigenvalues that crowd at 0: a few steps of ARPACK don't find the smallest."""
    return torch.logspace(-8, 0, num, dtype=torch.float64)


def far_apart(num: int) -> Tensor:
    return torch.cat([torch.tensor([0.5, 3.0]), torch.linspace(1, 2, num - 2)]).double()


def test_an_eigenvalue_that_is_not_found_is_none() -> None:
    values = crowded(3000)
    least, most = extremes(lambda u: values * u, len(values))
    assert least is None
    assert most == pytest.approx(1, rel=1e-2)
    found = extremes(lambda u: far_apart(200) * u, 200)
    assert found == pytest.approx((0.5, 3.0), rel=1e-3)


@pytest.mark.parametrize(("of_G", "of_D"), [(far_apart(200), crowded(3000)),
                                            (crowded(3000), far_apart(200))])  # fmt: skip
def test_a_point_of_unknown_curvature_is_undecided(of_G: Tensor, of_D: Tensor) -> None:
    """It was called Nash where D's Hessian was unknown: min(1, nan) is 1."""
    found = equilibrium(QuadraticGame(of_G, of_D))  # type: ignore[arg-type]
    assert "undecided" in found.kind(is_stable=True)
    assert any("ARPACK didn't find the smallest" in line for line in found.unresolved)


def test_a_negative_direction_decides_without_the_other_player() -> None:
    point = Equilibrium(block_G=(None, None), block_D=(-1.0, None), schur_G=None, tau=None)
    assert "not Nash" in point.kind(is_stable=True)


def test_an_inverse_that_does_not_converge_gives_no_complement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    game = QuadraticGame(-far_apart(100), far_apart(100), interaction=1.0)
    resolved = equilibrium(game)  # type: ignore[arg-type]
    assert resolved.schur_G == pytest.approx((1 / 3 - 3, 2 - 0.5), rel=1e-3)
    assert resolved.unresolved == ()
    solve = equilibria.cg
    monkeypatch.setattr(equilibria, "cg", lambda *a, **k: solve(*a, **{**k, "maxiter": 2}))
    found = equilibrium(game)  # type: ignore[arg-type]
    assert found.schur_G == (None, None)
    assert "conjugate gradients" in found.unresolved[0]
    assert "undecided" in found.kind(is_stable=False)


def test_a_product_that_is_not_finite_ends_the_search() -> None:
    with pytest.raises(FloatingPointError):
        spectra(lambda u: u * torch.inf, 100)


def test_a_run_that_has_diverged_is_refused_in_words(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    (path,) = Checkpoints(run / "checkpoints").paths()
    content = read(path).content
    name = next(iter(content["G"]))
    content["G"][name] = torch.full_like(content["G"][name], torch.nan)
    torch.save(content, path)
    for command in ("spectrum", "gamma"):
        assert main([command, str(run)]) == StabilityError.exit_code
        assert "has diverged here" in capsys.readouterr().err


def test_a_result_stays_in_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    keep(tmp_path, "path", 12, {"a": np.float64(1)}, said.append)
    (path,) = (tmp_path / "stability").iterdir()
    assert path.name == "path-0000000012.json"
    assert json.loads(path.read_text())["a"] == 1
    assert said == []
    (tmp_path / "file").write_text("")
    keep(tmp_path / "file", "path", 12, {}, said.append)
    assert "Not a directory" in said[0]


def test_one_block_has_no_error(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["exponent", str(tiny_run), "--rounds", "4", "--block", "2", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["standard_error"] is None
    assert found["not_finite"] == {"standard_error": "infinity"}
    kept = json.loads(next((tiny_run / "stability").glob("exponent-*.json")).read_text())
    assert kept["exponent"] == found["exponent"]


def test_a_round_that_is_not_resolved_decides_nothing() -> None:
    assert verdict(analysis_of(1.001, residual=0.05), 1e-3).startswith("Undecided")
    assert verdict(analysis_of(1.5, residual=0.05), 1e-3).startswith("Growth now")


STOPPED = ("optim_G.lr=0@0.5", "optim_D.lr=0@0.5")


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_rates_of_0_have_no_limit_and_no_growth(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], optimizer: str
) -> None:
    betas = (0.5, 0.0) if optimizer == "sgd" else (0.5, 0.999)
    options = OptimizerConfig(method=optimizer, lr=1e-3, betas=betas)
    schedules = tuple(map(Schedule.parse, STOPPED))
    run = str(make_run(schedules=schedules, optim_G=options, optim_D=options))
    words = ["spectrum", run, "--batches", "1", "--num", "1"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    limit = found["step_limit"]
    assert [limit[name] for name in ("factor", "below", "above")] == [None] * 3
    assert (found["radius"], found["flow"], found["region"]) == (None, None, None)
    for told in (found["verdict"], limit["says"]):
        assert "the rates are 0 here" in told.lower()
        assert "choose another checkpoint" in told
    assert main(["exponent", run]) == StabilityError.exit_code
    assert "the rates are 0 here: nothing moves" in capsys.readouterr().err


def test_one_player_that_stands_still_is_named(make_run: MakeRun) -> None:
    run = make_run(schedules=(Schedule.parse(STOPPED[1]),))
    game = RunGame.open(run)
    (batch,) = game.batches(1)
    limit = step_limit(
        game.round(game.field(batch).at()), drift=1e-3, progress=Progress(lambda line: None)
    )
    assert (limit.factor, limit.standing) == (None, "the rate of D is 0 here: D stands still")
    told = verdict(replace(analysis_of(1.1), limit=limit), 1e-3)
    assert told.startswith("The rate of D is 0 here: D stands still; ")
    assert "Growth now" in told


def test_an_optimiser_without_a_step_has_no_limit() -> None:
    unmoved = replace(plain(0.1), scale=torch.zeros(1))
    assert standing({"G": unmoved, "D": unmoved}).endswith("nothing moves")
    assert standing({"G": unmoved, "D": plain(0.1)}) == (
        "the optimiser of G has taken no step yet: G stands still"
    )
    assert standing({"G": plain(0.1), "D": plain(0.1)}) == ""


def test_an_exponent_below_the_rounding_of_the_distance_is_none() -> None:
    """Twins of rates of 1e-13 keep their distance to the last digits, which said "they meet"."""
    still = Exponent(blocks=(-1e-12, -1e-12, -1.1e-12), value=-1e-12, rounding=7e-9)
    assert exponent_verdict(still).startswith("Neither parts nor closes")
    assert exponent_verdict(replace(still, rounding=0.0)).startswith("Twins meet")


def test_the_rounding_of_an_exponent_is_that_of_the_weights(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = OptimizerConfig(lr=1e-15)
    run = str(make_run(1, optim_G=slow, optim_D=slow))
    assert main(["exponent", run, "--rounds", "8", "--block", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 1e-10 < found["standard_error"] < 1e-7
    assert found["verdict"].startswith("Neither parts nor closes")
