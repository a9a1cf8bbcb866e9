"""No round waits for its device: a GPU would stand still meanwhile."""

from dataclasses import replace

import pytest
import torch

from models.networks import ImageShape
from tests.training.engine.pretended_device import META, pretended
from training.data import Batches, ImageSet
from training.engine.state import State
from training.engine.stepper import Stepper
from training.recipes import RECIPES


@pytest.mark.parametrize("name", ["ada", "diffaugment", "dragan", "rpgan-r1r2", "wgan"])
def test_a_round_asks_its_device_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(RECIPES[name].config, batch_size=8)
    num_classes = 10 if config.data.conditional else 0
    shape = ImageShape(
        resolution=config.data.resolution, channels=config.data.channels, num_classes=num_classes
    )
    with pretended(monkeypatch) as waits:
        images = torch.empty(
            64, shape.channels, shape.height, shape.width, dtype=torch.uint8, device=META
        )
        labels = torch.empty(64, dtype=torch.int64, device=META) if num_classes else None
        names = tuple(map(str, range(10))) if num_classes else None
        image_set = ImageSet("none", images, labels, names, fingerprint="none", skipped=())
        state = State.fresh(config, shape, META)
        played = Stepper(config, state, Batches(image_set, batch_size=8, seed=0))
        played.step()  # the first one makes what the later ones have
        waits.places.clear()
        played.step()
    assert waits.places == []
