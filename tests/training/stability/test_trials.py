"""Trials of a penalty's weights: the rule of choice, the race, and a small run's own game."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.stability.conftest import MakeRun
from training.data import Batches
from training.engine.stepper import Stepper
from training.errors import ConfigError, StabilityError
from training.game.regularizers import Term
from training.optim.schedules import Schedule, Timetable
from training.report.stability_results import curves, results_of
from training.stability.__main__ import main
from training.stability.copies import copied
from training.stability.run_game import RunGame
from training.stability.trials.choice import choose, nearest
from training.stability.trials.quality import WORST
from training.stability.trials.race import FACTOR, MOST_MORE, NUM_WEIGHTS, Race, ladder, rounded
from training.stability.trials.trial import HALF_LIVES, Trial, config_of


def trial(weight: float, draw: int, quality: float) -> Trial:
    return Trial(weight=weight, draw=draw, quality=quality, figures={}, speed=None, cpu_s=1.0)


def trials(table: dict[float, list[float]]) -> list[Trial]:
    return [trial(w, draw, q) for w, row in table.items() for draw, q in enumerate(row)]


GOLDEN = {0.1: [0.50, 0.42, 0.46], 0.3: [0.55, 0.45, 0.50], 1.0: [0.52, 0.46, 0.49]}


def test_the_margin_is_that_of_a_t_test_without_the_draws_common_part() -> None:
    found = choose(trials(GOLDEN), 2.0)
    assert found is not None
    # By hand: residuals' squares sum to 0.0004, 4 degrees of freedom, t = 2.1318.
    assert found.error == pytest.approx(math.sqrt(0.0004 / 4 / 3), rel=1e-4)
    assert found.margin == pytest.approx(2.131847 * math.sqrt(2) * found.error, rel=1e-5)
    assert (found.best, found.alike, found.advice) == (0.3, (0.3, 1.0), 1.0)


@pytest.mark.parametrize(
    ("weights", "present", "advice"),
    [
        ((0.003, 0.01, 0.03), 1.0, 0.03),  # the least change from above
        ((0.1, 0.3), 0.01, 0.1),  # and from below
        ((0.01, 0.1, 1.0), 0.1, 0.1),  # the present one is as good: it stays
        ((0.0, 0.01), 0.1, 0.01),  # none is further than any
        ((0.0, 0.01), 0.0, 0.0),
        ((0.1, 0.3), 0.0, 0.1),
    ],
)
def test_of_equals_the_nearest_is_advised(
    weights: tuple[float, ...], present: float, advice: float
) -> None:
    assert nearest(weights, present) == advice


finite = st.floats(-5, 5).map(lambda x: round(x, 3))
tables = st.integers(2, 4).flatmap(
    lambda draws: st.dictionaries(
        st.sampled_from([0.01, 0.03, 0.1, 0.3, 1.0]),
        st.lists(finite, min_size=draws, max_size=draws),
        min_size=2,
    )
)


@given(tables, st.lists(finite, min_size=4, max_size=4))
def test_what_a_draw_does_to_all_weights_changes_no_choice(
    table: dict[float, list[float]], shifts: list[float]
) -> None:
    moved = {w: [q + s for q, s in zip(row, shifts, strict=False)] for w, row in table.items()}
    found, again = choose(trials(table), 0.3), choose(trials(moved), 0.3)
    assert found is not None
    assert again is not None
    assert found.error == pytest.approx(again.error, abs=1e-6)
    assert found.best in found.alike
    assert found.advice in found.alike
    means = {weight: sum(row) / len(row) for weight, row in table.items()}
    assert means[found.best] == pytest.approx(max(means.values()))


def test_weights_that_left_early_or_diverged_are_not_chosen() -> None:
    found = choose(trials({**GOLDEN, 3.0: [0.9], 0.03: [0.9, 0.9, WORST]}), 2.0)
    assert found == choose(trials(GOLDEN), 2.0)
    assert choose(trials({0.1: [WORST, WORST]}), 0.1) is None


def played(quality: Callable[[float, int], float], present: float, draws: int = 3) -> Race:
    race = Race(
        play=lambda weight, draw: trial(weight, draw, quality(weight, draw)),
        present=present,
        num_draws=draws,
    )
    assert list(race.run()) == race.trials
    return race


def peak(at: float) -> Callable[[float, int], float]:
    def quality(weight: float, draw: int) -> float:
        # Each draw moves all weights; beside that, a hundredth of noise.
        noise = 0.01 * math.sin(1000 * weight + 7 * draw)
        return 0.3 * draw - math.log10(weight / at) ** 2 + noise

    return quality


def test_the_ladder_is_half_decades_around_the_present_weight() -> None:
    assert ladder(0.3) == [0.00949, 0.03, 0.0949, 0.3, 0.949, 3.0, 9.49]
    without = ladder(0.0)
    assert without[0] == 0
    assert len(without) == NUM_WEIGHTS


@pytest.mark.parametrize("at", [0.03, 1.0, 30.0])
def test_a_race_finds_the_peak_also_beyond_the_ladder(at: float) -> None:
    race = played(peak(at), present=0.3)
    found = choose(race.trials, race.present)
    assert found is not None
    assert at / FACTOR <= found.best <= at * FACTOR
    lost = [t for t in race.trials if abs(math.log10(t.weight / at)) > 2]
    assert {t.draw for t in lost} <= {0, 1}, "what is far off leaves after two draws"
    assert len({t.weight for t in race.trials}) <= NUM_WEIGHTS + MOST_MORE


def test_what_diverges_leaves_and_the_present_weight_stays() -> None:
    race = played(lambda weight, draw: WORST if weight > 1 else peak(0.001)(weight, draw), 0.3)
    draws = {weight: [t.draw for t in race.trials if t.weight == weight] for weight in ladder(0.3)}
    assert draws[3.0] == draws[9.49] == [0]
    assert draws[0.3] == [0, 1, 2]
    dead = played(lambda _weight, _draw: WORST, 0.3)
    assert choose(dead.trials, 0.3) is None
    assert len(dead.trials) == NUM_WEIGHTS


def test_weights_that_the_penalty_does_not_allow_are_no_rungs() -> None:
    def play(weight: float, draw: int) -> Trial:
        if weight >= 1:
            raise ConfigError("too heavy")
        return trial(weight, draw, weight)

    race = Race(play=play, present=0.3, num_draws=2)
    assert max(t.weight for t in race.run()) == rounded(0.3 * FACTOR)
    with pytest.raises(ConfigError, match="too heavy"):
        list(Race(play=play, present=2.0, num_draws=2).run())


def test_a_copy_plays_what_the_run_would_play_and_the_run_stays(tiny_run: Path) -> None:
    game = RunGame.open(tiny_run)
    before = [each.detach().clone() for each in game.state.parameters()]
    copy = copied(game.config, game.state, game.image_set.device)
    ends = []
    for state in (copy, game.state):
        assert all(map(torch.equal, before, game.state.parameters()))
        source = Batches(game.image_set, batch_size=32, seed=game.config.seed)
        stepper = Stepper(game.config, state, source)
        for _ in range(6):
            stepper.step()
        ends.append([each.detach().clone() for each in state.parameters()])
    assert all(map(torch.equal, *ends))


def test_a_trial_has_its_weight_other_draws_and_schedules_of_its_own_length(
    make_run: MakeRun,
) -> None:
    run = make_run(
        regularizers=(Term.parse("r1=0.3/4"),),
        schedules=(
            Schedule(target="optim_G.lr", end=0.0, kimg=10.0),
            Schedule(target="optim_D.lr", end=0.0, kimg=40.0),
            Schedule(target="r1", end=0.0, kimg=10.0),
        ),
        total_kimg=20.0,
    )
    game = RunGame.open(run)
    here = game.state.cur_nimg
    first = config_of(game.config, "r1", 0.7, 0, kimg=2.0, since_nimg=here)
    other = config_of(game.config, "r2", 0.5, 0, kimg=2.0, since_nimg=here)
    config = config_of(game.config, "r1", 0.7, 1, kimg=2.0, since_nimg=here)
    assert config.regularizers == (Term.parse("r1=0.7/4"),)
    assert config.seed != first.seed != game.config.seed
    assert config.ema_kimg <= 2.0 / HALF_LIVES
    timetable = Timetable(config.schedules)
    # Half of the run is half of the trial.
    rates = [timetable.at("optim_G.lr", 1.0, here + nimg) for nimg in (0, 500, 1000, 2000)]
    assert rates == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert timetable.at("optim_D.lr", 1.0, here + 2000) == pytest.approx(0.5), "as far as the run"
    assert timetable.at("r1", 0.7, here + 1000) == 0.7
    assert other.regularizers[-1] == Term.parse("r2=0.5")


@pytest.fixture
def few_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.stability.trials.race.NUM_WEIGHTS", 3)
    monkeypatch.setattr("training.stability.trials.race.MOST_MORE", 0)


@pytest.mark.usefixtures("few_weights")
def test_a_run_is_tried_and_stays_what_it_is(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(regularizers=(Term.parse("r1=0.3"),))
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = ["gamma", str(run), "--trials", "0.64", "--draws", "2", "--num", "3"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "Advice of the trials: r1=" in text
    assert "CPU seconds" in text
    (kept,) = results_of(run).values()
    found = kept["trials"]["r1"]
    assert found["figure"] == "frechet_distance"
    assert {each["weight"] for each in found["trials"]} == {0.0949, 0.3, 0.949}
    assert all(each["figures"]["frechet_distance"] > 0 for each in found["trials"])
    assert len({each["speed"] for each in found["trials"]}) == len(found["trials"])
    assert found["advice"] == nearest(found["alike"], 0.3)
    assert {path: path.read_bytes() for path in files} == files
    assert "Trials of the weight of r1" in [chart["title"] for chart in curves(results_of(run))]


@pytest.mark.usefixtures("few_weights")
def test_a_game_without_a_jacobian_can_be_tried(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(num_rounds=2, regularizers=(Term.parse("clip=0.1"),))
    words = ["gamma", str(run), "--trials", "0.64", "--draws", "2", "--from-start"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "trials of 0.64 kimg from new weights on" in text
    assert "No Jacobian" in text
    assert "Advice of the trials: r1=" in text
    assert main(["gamma", str(run)]) == 11


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0.1"], "trials is 0.1, allowed: 0.64 .. "),
        (["--trials", "1e6"], "what is as long as it, train"),
        (["--trials", "nan"], "trials is nan"),
        (["--from-start"], "from_start is True, allowed: with --trials alone"),
        (["--draws", "5"], "draws is 5, allowed: with --trials alone"),
        (["--trials", "0.64", "--draws", "1"], "draws is 1, allowed: 2 .. 100"),
        (["--trials", "0.64", "--checkpoint", "none.pt"], "checkpoint is 'none.pt'"),
        (["--trials", "0.64", "--penalty", "path-length"], "mapping network"),
    ],
)
def test_what_cannot_be_tried_is_said(
    tiny_run: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["gamma", str(tiny_run), *words]) in (2, 4)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kimg", ["nan", "0.3"])
def test_a_run_that_is_shorter_than_any_trial_is_said(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], kimg: str
) -> None:
    run = make_run(1, total_kimg=0.5)  # a trial is 20 rounds of 32 images or more
    assert main(["gamma", str(run), "--trials", kimg]) == StabilityError.exit_code
    told = capsys.readouterr().err
    assert "the run is shorter than 20 rounds (0.5 kimg, of 0.64)" in told
    assert "allowed" not in told


def test_too_few_images_are_said(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.stability.trials.quality import Judge

    game = RunGame.open(make_run(num_rounds=1))
    few = replace(game.image_set, images=game.image_set.images[:12], labels=None)
    with pytest.raises(StabilityError, match="too few to tell"):
        Judge(few, game.config.network.z_dim)
