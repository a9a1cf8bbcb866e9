import pytest

from training.cli.command import parse
from training.data import Batches, load
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import ConfigError
from training.optim.schedules import Schedule, Timetable

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]


def test_linear_and_cosine_go_from_start_to_end_and_stay() -> None:
    linear = Schedule.parse("r1=0.2@10")
    cosine = Schedule.parse("r1=0.2@10:cosine")
    assert [linear.at(1.0, nimg) for nimg in (0, 2500, 5000, 10_000, 99_000)] == pytest.approx(
        [1.0, 0.8, 0.6, 0.2, 0.2]
    )
    assert [cosine.at(1.0, nimg) for nimg in (0, 2500, 5000, 10_000, 99_000)] == pytest.approx(
        [1.0, 0.2 + 0.8 * 0.853553, 0.6, 0.2, 0.2]
    )


@pytest.mark.parametrize("text", ["optim_G.lr=0@500", "r1=0.1@50:cosine", "ema_kimg=1e-05@2.5"])
def test_a_schedule_reads_what_it_writes(text: str) -> None:
    assert str(Schedule.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["r1", "r1=1", "r1=1@", "r1=x@3", "r1=1@0", "r1=1@-3", "r1=nan@3", "r1=1@3:zigzag"]
)
def test_a_schedule_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="schedules"):
        Schedule.parse(text)


def test_what_has_no_schedule_stays() -> None:
    assert Timetable().at("r1", 0.3, 10**9) == 0.3
    assert not Timetable()


def test_the_loop_follows_its_schedules() -> None:
    """The learning rate, a beta, a penalty's weight: as they are after half of the way."""
    words = ["--regularizers", "r1=1", "--schedules", "optim_G.lr=0@0.064", "r1=0@0.064"]
    config = parse(["digits", *TINY, *words, "optim_D.beta2=0.5@0.064"]).config
    images = load(config.data)
    state = State.fresh(config, images.shape, images.images.device)
    stepper = Stepper(config, state, Batches(images, batch_size=16, seed=0))
    plain = config.__class__(**{**vars(config), "schedules": ()})
    state_plain = State.fresh(plain, images.shape, images.images.device)
    unscheduled = Stepper(plain, state_plain, Batches(images, batch_size=16, seed=0))
    stepper.step()
    unscheduled.step()
    first = stepper.meters.means()["loss_D.r1"]
    assert first == pytest.approx(unscheduled.meters.means()["loss_D.r1"])
    stepper.step()
    stepper.step()
    (group_G,), (group_D,) = (player.optimizer.param_groups for player in (state.G, state.D))
    assert group_G["lr"] == pytest.approx(config.optim_G.lr / 2)
    assert group_D["betas"][1] == pytest.approx((0.99 + 0.5) / 2)
    for _ in range(3):
        stepper.step()
    before = [parameter.detach().clone() for parameter in state.G.parameters]
    stepper.meters.reset()
    stepper.step()
    assert all((a == b).all() for a, b in zip(before, state.G.parameters, strict=True))
    assert stepper.meters.means()["loss_D.r1"] == 0
