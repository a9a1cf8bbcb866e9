import pytest
import torch

from training.game.forward import Batch
from training.game.losses import Game
from training.game.regularizers import Term
from training.optim.schedules import Schedule, Timetable
from training.transforms.input_noise import INPUT_NOISES, instance_noise


def test_noise_has_the_spread_that_was_asked_for_and_follows_the_seed() -> None:
    img = torch.zeros(8, 1, 32, 32)
    noise = instance_noise(img, 0.3, 7)
    assert noise.std().item() == pytest.approx(0.3, rel=0.03)
    assert torch.equal(noise, instance_noise(img, 0.3, 7))
    assert not torch.equal(noise, instance_noise(img, 0.3, 8))


def test_d_sees_other_noise_on_each_side_and_in_each_players_turn() -> None:
    seen: list[torch.Tensor] = []

    def D(img: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        seen.extend(img.chunk(len(img) // 2))
        return img.flatten(1).sum(1)

    game = Game("relativistic", (Term(name="instance-noise", weight=1.0),), joint=True)
    zeros = torch.zeros(2, 1, 4, 4)
    batch = Batch(real_img=zeros, label=None, z=zeros, key=3)
    game.losses("D", lambda z, label: z, D, batch, zeros)
    game.losses("G", lambda z, label: z, D, batch, zeros)
    assert len(seen) == 4
    assert all((a - b).abs().max() > 0.1 for i, a in enumerate(seen) for b in seen[:i])


def test_noise_decays_with_its_schedule_to_nothing() -> None:
    timetable = Timetable((Schedule(target="instance-noise", end=0.0, kimg=1.0),))
    terms = (Term(name="instance-noise", weight=1.0),)
    game = Game("non-saturating", terms, joint=True, timetable=timetable)
    zeros = torch.zeros(2, 1, 4, 4)
    sizes = []

    def D(img: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        return img.sum((1, 2, 3))

    for cur_nimg in (0, 500, 1000):
        batch = Batch(real_img=zeros, label=None, z=zeros, key=3, cur_nimg=cur_nimg)
        losses = game.losses("D", lambda z, label: z, D, batch, zeros)
        sizes.append(losses.forward.fake_img.std().item())
    assert sizes[1] == pytest.approx(sizes[0] / 2)
    assert sizes[2] == 0


@pytest.mark.parametrize("name", sorted(INPUT_NOISES))
def test_each_names_its_paper(name: str) -> None:
    assert "arXiv:" in INPUT_NOISES[name].paper
