import math
from typing import Any

import pytest
import torch
from torch import Tensor

from training.cli.command import parse
from training.config.training import TrainingConfig
from training.data import Batches, ImageSet, load
from training.engine.loop import Hooks, fit
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import NonFiniteError
from training.game.forward import Batch, Bound, Player
from training.game.losses import Game, Losses
from training.game.objectives import OBJECTIVES
from training.game.updates import MicroBatch, Part, RoundBatch

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load(tiny().data)


def tiny(*words: str) -> TrainingConfig:
    return parse(["digits", *TINY, "--total-kimg", "0.064", "--tick-kimg", "0.032", *words]).config


def make(config: TrainingConfig, digits: ImageSet) -> Stepper:
    return Stepper(config, State.fresh(config, digits.shape, CPU), batches_of(config, digits))


def batches_of(config: TrainingConfig, images: ImageSet) -> Batches:
    return Batches(images, batch_size=config.batch_size, seed=config.seed)


def hooks(**given: Any) -> Hooks:
    quiet: dict[str, Any] = {
        "should_stop": lambda: False,
        "should_report": lambda: False,
        "report": lambda cur_nimg, means: None,
        "tick": lambda tick, state, means: None,
        "last_good": lambda: "checkpoint-7",
    }
    return Hooks(**{**quiet, **given})


def weights(state: State) -> list[Tensor]:
    networks = (state.G.network, state.D.network, state.G_ema)
    values = [value for network in networks for value in network.state_dict().values()]
    return [value.clone() for value in values if value.is_floating_point()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_seed_decides_everything(digits: ImageSet) -> None:
    ends = []
    for seed in (1, 1, 2):
        stepper = make(tiny("--seed", str(seed)), digits)
        torch.rand(seed * 7)  # what others drew from the global generator doesn't matter
        fit(stepper, hooks())
        ends.append(weights(stepper.state))
    assert equal(ends[0], ends[1])
    assert not equal(ends[0], ends[2])


def test_both_players_and_the_average_move(digits: ImageSet) -> None:
    stepper = make(tiny(), digits)
    start = weights(stepper.state)
    stepper.step()
    stepper.step()
    moved = [not torch.equal(a, b) for a, b in zip(start, weights(stepper.state), strict=True)]
    assert all(moved)
    assert stepper.state.cur_nimg == 32


def test_ticks_come_when_they_are_due_and_at_the_end(digits: ImageSet) -> None:
    ticks: list[tuple[int, int]] = []
    config = tiny("--total-kimg", "0.112", "--tick-kimg", "0.04")
    seen = hooks(tick=lambda tick, state, means: ticks.append((tick, state.cur_nimg)))
    assert fit(make(config, digits), seen)
    assert ticks == [(1, 48), (2, 80), (3, 112)]


def test_a_tick_gets_the_means_of_every_term(digits: ImageSet) -> None:
    means: dict[str, float] = {}
    fit(make(tiny(), digits), hooks(tick=lambda tick, state, found: means.update(found)))
    assert set(means) == {
        "loss_D.adversarial",
        "loss_D.r1",
        "loss_D.r2",
        "gradient_D",
        "scores.real",
        "scores.fake",
        "D_real",
        "D_fake",
        "loss_G.adversarial",
        "gradient_G",
    }
    assert 0 < means["D_real"] < 1


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_only_a_classifiers_scores_become_probabilities(digits: ImageSet, objective: str) -> None:
    stepper = make(tiny("--objective", objective), digits)
    with torch.no_grad():
        stepper.state.D.network.head.weight.zero_()  # type: ignore[union-attr]
        stepper.state.D.network.head.bias.fill_(-3.0)  # type: ignore[union-attr]
        stepper.state.D.network.embed.weight.zero_()  # type: ignore[union-attr]
    stepper.step()
    means = stepper.meters.means()
    assert (means["scores.real"], means["scores.fake"]) == (-3.0, -3.0)
    probabilities = {name: means[name] for name in ("D_real", "D_fake") if name in means}
    is_classifier = objective in ("minimax", "non-saturating")
    wanted = dict.fromkeys(("D_real", "D_fake"), 1 / (1 + math.exp(3))) if is_classifier else {}
    assert probabilities == pytest.approx(wanted)


def test_it_stops_between_two_steps(digits: ImageSet) -> None:
    stepper = make(tiny(), digits)
    assert not fit(stepper, hooks(should_stop=lambda: stepper.state.cur_nimg >= 32))
    assert stepper.state.cur_nimg == 32


def test_a_lazy_term_comes_at_its_interval_and_makes_up_for_it(digits: ImageSet) -> None:
    once = make(tiny("--regularizers", "r1=1"), digits)
    lazy = make(tiny("--regularizers", "r1=1/2"), digits)
    for stepper in (once, lazy):
        stepper.step()
    assert lazy.meters.means()["loss_D.r1"] == pytest.approx(2 * once.meters.means()["loss_D.r1"])
    lazy.meters.reset()
    lazy.step()
    assert "loss_D.r1" not in lazy.meters.means()


@pytest.mark.parametrize("interval", [2, 3, 5])
@pytest.mark.parametrize("steps_G", [1, 2])
@pytest.mark.parametrize("steps_D", [1, 2, 5])
def test_an_interval_counts_the_steps_of_the_player_whose_loss_it_is(
    digits: ImageSet, steps_D: int, steps_G: int, interval: int
) -> None:
    words = ["--regularizers", f"drift=1/{interval}", f"orthogonal-G=1/{interval}"]
    words += ["--steps-D", str(steps_D), "--steps-G", str(steps_G), "--batch-size", "2"]
    stepper = make(tiny(*words), digits)
    names: list[str] = []
    add = stepper.meters.add
    stepper.meters.add = lambda seen, values: (names.extend(seen), add(seen, values))[1]  # type: ignore[method-assign]
    num_rounds = 2 * interval
    for _ in range(num_rounds):
        stepper.step()
    for player, term, num in (("D", "drift", steps_D), ("G", "orthogonal-G", steps_G)):
        losses = [name for name in names if name.startswith(f"loss_{player}.")]
        applied = [
            following == f"loss_{player}.{term}"
            for name, following in zip(losses, [*losses[1:], ""], strict=True)
            if name == f"loss_{player}.adversarial"
        ]
        assert applied == [step % interval == 0 for step in range(num * num_rounds)]


@pytest.mark.parametrize("player", ["D", "G"])
def test_a_step_that_is_not_finite_moves_nothing_and_is_named(
    digits: ImageSet, player: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = make(tiny(), digits)
    stepper.step()
    real = Game.losses

    def poisoned(
        self: Game, name: str, G: Player, D: Player, batch: Batch, img: Tensor, *, part: Part
    ) -> Losses:
        losses = real(self, name, G, D, batch, img, part=part)
        if batch.step_D == 2 and name == player:
            losses.terms["adversarial"] = losses.terms["adversarial"] * torch.tensor(torch.inf)
        return losses

    monkeypatch.setattr(Game, "losses", poisoned)
    stepper.step()
    mover = stepper.state.player(player)
    before = [parameter.clone() for parameter in mover.parameters]
    moments = [moment["exp_avg"].clone() for moment in mover.optimizer.state.values()]
    with pytest.raises(NonFiniteError) as raised:
        fit(stepper, hooks())
    message = str(raised.value)
    assert f"loss_{player}.adversarial, gradient_{player} is not finite in tick 2" in message
    assert "0.032 kimg" in message
    assert "checkpoint-7" in message
    assert equal(before, mover.parameters)
    after = [moment["exp_avg"] for moment in mover.optimizer.state.values()]
    assert equal(moments, after)


def test_on_an_accelerator_nothing_moves_until_the_loop_asks(digits: ImageSet) -> None:
    """The guard's flag stays up: steps after the bad one change nothing, without being asked."""
    stepper = make(tiny(), digits)
    stepper.step()
    with torch.no_grad():
        stepper.state.D.parameters[0].fill_(torch.nan)
    G_before = [parameter.clone() for parameter in stepper.state.G.parameters]
    for _ in range(3):
        stepper.step()
    assert equal(G_before, stepper.state.G.parameters)
    non_finite = stepper.non_finite()
    assert non_finite is not None
    assert non_finite.cur_nimg == 16
    assert "loss_D.adversarial" in non_finite.terms


def test_g_minimises_its_loss_and_leaves_d_alone(digits: ImageSet) -> None:
    stepper = make(tiny(), digits)
    stepper.step()
    for player in (stepper.state.G, stepper.state.D):
        assert all(parameter.grad is None for parameter in player.parameters)


def test_each_loss_is_a_function_of_both_players_parameters(digits: ImageSet) -> None:
    """The mixed second derivative, the game's rotation, runs through the code that trains."""
    config = tiny()
    state = State.fresh(config, digits.shape, CPU)
    G, D = state.G.network, state.D.network
    game = Game(config.objective, config.regularizers, joint=True)
    batch = Batch(
        real_img=torch.randn(4, 1, 16, 16),
        label=torch.arange(4),
        z=torch.randn(4, config.network.z_dim),
        key=3,
    )
    params_G, params_D = dict(G.named_parameters()), dict(D.named_parameters())

    bound_G, bound_D = Bound(G, params_G), Bound(D, params_D)
    losses = game.losses("D", bound_G, bound_D, batch)
    again = game.losses("D", G, D, batch)
    assert torch.equal(losses.total, again.total)
    (by_D,) = torch.autograd.grad(losses.total, params_D["head.weight"], create_graph=True)
    mixed = torch.autograd.grad(by_D.sum(), list(params_G.values()))
    assert any(gradient.abs().max() > 0 for gradient in mixed)
    assert game.losses("G", bound_G, bound_D, batch).total.requires_grad


def test_augmentation_reaches_both_sides_and_adapts_to_how_far_d_overfits(
    digits: ImageSet,
) -> None:
    """D that knows every real image drives the probability up, to what was asked for at most."""
    words = ["--augment.policy", "shift", "--augment.target", "0.6", "--augment.interval", "1"]
    words.append("--augment.speed-kimg")
    stepper = make(tiny(*words, "0.016", "--augment.probability", "0.7"), digits)
    with torch.no_grad():
        stepper.state.D.network.head.bias.fill_(50.0)  # type: ignore[union-attr]
    stepper.step()
    assert stepper.state.augment_p.item() == pytest.approx(0.7)
    means = stepper.meters.means()
    assert means["r_t"] == 1.0
    assert means["augment_p"] == pytest.approx(0.7)


PARTS = {
    "dropout, and points between": [
        *("--network", "mlp", "--data.no-conditional", "--init-D", "family"),
        *("--regularizers", "wgan-gp=1", "dragan=1", "r1=0.1"),
    ],
    "what D sees": [
        *("--network", "mlp", "--data.no-conditional", "--init-D", "family"),
        *("--augment.policy", "ada", "diffaugment", "--corruption", "mask=0.2", "noise=0.2"),
        *("--regularizers", "instance-noise=0.3", "dragan=1", "wgan-gp=1", "r1=1", "r2=1"),
    ],
    "noise, mixing and groups of images": [
        *("--network", "style", "--network.w-dim", "8", "--network.channel-base", "64"),
    ],
    "pairs": [
        *("--network", "r3gan", "--network.channel-base", "64", "--network.group-width", "4"),
        *("--init-D", "family", "--objective", "relativistic"),
    ],
}


@pytest.mark.parametrize("game", PARTS)
def test_a_batch_in_parts_is_the_same_batch(digits: ImageSet, game: str) -> None:
    """Each row draws what it draws in the whole; groups of images hold the same ones."""
    ends = []
    for accumulate in ("1", "4"):
        words = ["digits", "--data.resolution", "16", "--batch-size", "16", *PARTS[game]]
        config = parse([*words, "--accumulate", accumulate]).config
        stepper = make(config, load(config.data))
        losses = []
        for _ in range(3):
            stepper.step()
            losses.append(stepper.meters.means())
        ends.append(losses)
    for whole, parts in zip(*ends, strict=True):
        for name, value in whole.items():
            # Scores are differences about 0, and in games of pairs their level is free.
            size = 1e-3 if name.startswith("scores.") else 1e-5
            assert parts[name] == pytest.approx(value, rel=1e-3, abs=size), name


def test_a_fixed_augmentation_changes_what_d_sees(digits: ImageSet) -> None:
    losses = []
    for probability in ("0", "1"):
        words = ["--augment.policy", "diffaugment", "--augment.probability", probability]
        stepper = make(tiny(*words), digits)
        stepper.step()
        losses.append(stepper.meters.means()["loss_D.adversarial"])
    plain = make(tiny(), digits)
    plain.step()
    assert losses[0] == plain.meters.means()["loss_D.adversarial"] != losses[1]


@pytest.mark.parametrize("steps_G", [1, 2])
def test_a_fresh_batch_for_g_has_other_latents_and_images(digits: ImageSet, steps_G: int) -> None:
    """The references draw one; by default G has what D's last step saw, made once for both."""
    words = ("--steps-D", "2", "--steps-G", str(steps_G))
    seen: dict[bool, list[tuple[Tensor, Tensor]]] = {}
    for fresh in (False, True):
        config = tiny(*words, *(["--fresh-batch-G"] if fresh else []))
        stepper = make(config, digits)
        batches_D = [each.micro_batches[0].batch for each in stepper.batches_D()]
        last = RoundBatch([MicroBatch(batches_D[-1])])
        batches_G = [each.micro_batches[0].batch for each in stepper.batches_G(last)]
        assert len(batches_G) == steps_G
        assert [batch.step_G for batch in batches_G[int(not fresh) :]] == list(
            range(int(not fresh), steps_G)
        )
        seen[fresh] = [(batch.z, batch.real_img) for batch in (*batches_D, *batches_G)]
    for before, after in zip(seen[False][:2], seen[True][:2], strict=True):
        assert torch.equal(before[0], after[0])  # D's are as they were
        assert torch.equal(before[1], after[1])
    assert torch.equal(seen[False][2][0], seen[False][1][0])
    own = seen[True][2:]
    for z, real_img in own:
        assert not any(torch.equal(z, other) for other, _ in seen[True][:2])
        assert not any(torch.equal(real_img, other) for _, other in seen[True][:2])
    assert len({float(z.sum()) for z, _ in own}) == len({float(i.sum()) for _, i in own}) == steps_G
    stepper.step()
    assert stepper.non_finite() is None


def test_a_probability_is_adapted_by_the_mean_of_an_interval(digits: ImageSet) -> None:
    """Four steps of D from one adaptation to the next (Karras et al. 2020, sec. 3.1)."""
    words = ["--augment.policy", "flip", "--augment.target", "0.6", "--augment.speed-kimg", "0.64"]
    stepper = make(tiny(*words, "--optim-D.lr", "0.01"), digits)
    found = []
    for _ in range(8):
        stepper.step()
        found.append((float(stepper.state.augment_p), float(stepper.state.augment_signs[1])))
    assert [number for _, number in found] == [1, 2, 3, 0, 1, 2, 3, 0]
    values = [value for value, _ in found]
    assert values[0] == values[1] == values[2] == 0
    assert values[3] in (0.0, pytest.approx(0.1))  # 64 of 640 images
    assert values[3] == values[4] == values[5] == values[6]


def test_the_running_mean_of_path_lengths_follows_the_steps_that_measure(digits: ImageSet) -> None:
    words = ["--network", "style", "--network.channel-base", "64", "--network.channel-max", "8"]
    words += ["--network.mapping-layers", "1", "--network.w-dim", "8", "--data.resolution", "8"]
    words += ["--network.z-dim", "8", "--regularizers", "path-length=2/2", "--batch-size", "16"]
    config = parse(["digits", *words, "--total-kimg", "0.064", "--tick-kimg", "0.032"]).config
    images = load(config.data)
    stepper = make(config, images)
    found = []
    for _ in range(4):
        stepper.step()
        found.append(float(stepper.state.path_length))
    assert stepper.non_finite() is None
    assert 0 < found[0] == found[1] < found[2] == found[3]  # from 0 on; due every second step
