"""Units of planted generators are found first; random sets are like each other."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models.networks.tiny import TINY, classes, players
from training.interpretation.artifacts import Real
from training.interpretation.dissected import Dissected, ablated
from training.interpretation.effects import against_random, holm, like
from training.interpretation.unit_files import units_table
from training.interpretation.unit_layers import Layer, masked, num_units, place_of, unit_layers
from training.interpretation.units import find_units, quality_ratio

PLANTED, NUM, SIDE = 5, 60, 12


class Maps(nn.Module):
    """[N, z] to maps [N, 60, 12, 12]: unit 5 is a square in the upper left, others are noise."""

    def forward(self, z: Tensor) -> Tensor:
        maps = (
            torch.sin(
                17 * z[:, 1:2, None, None]
                + torch.arange(NUM * SIDE * SIDE).reshape(1, NUM, SIDE, SIDE) * 1.7
            ).abs()
            * 0.01
        )
        square = torch.zeros(SIDE, SIDE)
        square[1:6, 1:6] = 1
        maps[:, PLANTED] = (z[:, 0] > 0)[:, None, None] * square
        return maps


class Planted(nn.Module):
    """Sums its maps to a grey image."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = Maps()
        self.to_img = nn.Conv2d(NUM, 1, 1, bias=False)
        nn.init.constant_(self.to_img.weight, 1.0)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        img: Tensor = 2 * self.to_img(self.maps(z)) - 1
        return img


def subject(**more: object) -> Dissected:
    values: dict[str, object] = {"z_dim": 3, "num_classes": 0, "classes": {}, "masks": {}}
    values["G"] = Planted().eval()
    return Dissected(**{**values, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found():  # type: ignore[no-untyped-def]
    return find_units(subject(), num_images=64, set_size=2)


def test_a_planted_unit_is_found_first(found) -> None:  # type: ignore[no-untyped-def]
    for concept in ("ink", "ink upper left", "area", "brightness"):
        column = found.agreement[:, found.concepts.index(concept)]
        assert column.argmax() == PLANTED, concept
        assert column[PLANTED] > 0.5
    lower = found.agreement[:, found.concepts.index("ink lower right")]
    assert lower[PLANTED] == 0


def test_switching_it_off_does_more_than_random_sets(found) -> None:  # type: ignore[no-untyped-def]
    effects = {each.concept: each for each in found.effects}
    area = effects["area"]
    assert PLANTED in area.units
    assert area.effect > 0.5
    assert area.p < 0.05
    assert found.effects[0].p <= found.effects[-1].p
    text = units_table(found)
    assert f"| ink upper left | {PLANTED} (12x12, 1.00)" in text


def test_a_random_set_is_of_the_same_layers() -> None:
    layers = [Layer("a", 4, 4, 4), Layer("b", 30, 8, 8), Layer("c", 6, 16, 16)]
    rng = np.random.default_rng(0)
    drawn = [like((3, 5, 33, 34), layers, rng) for _ in range(50)]
    assert all(len(set(units)) == 4 for units in drawn)
    for units in drawn:
        assert [place_of(layers, unit)[0].module for unit in units] == ["a", "b", "b", "c"]
    assert len(set(drawn)) > 40


class Spoiled(Planted):
    """Unit 9 puts a bright row on every image, as no real one has."""

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        maps = self.maps(z)
        img: Tensor = self.to_img(maps)
        return 2 * img + 2 * self.row(maps)[:, 9:10] - 1

    def __init__(self) -> None:
        super().__init__()
        self.row = Row()


class Row(nn.Module):
    """[N, 60, 12, 12]: unit 9 is a row of ones, others are as they come."""

    def forward(self, maps: Tensor) -> Tensor:
        rows = maps.clone()
        rows[:, 9] = 0
        rows[:, 9, 8] = 1
        return rows


def test_the_unit_that_spoils_images_is_found_and_no_other() -> None:
    def rows(images: np.ndarray) -> np.ndarray:
        """The means of four rows of blocks."""
        return images.reshape(len(images), 4, -1).mean(2) / 255

    def images(of: nn.Module, start: int) -> np.ndarray:
        seeds = np.arange(start, start + 200, dtype=np.uint64)
        return ablated(subject(G=of.eval()), [], seeds, ())

    real = Real(features=rows(images(Planted(), 0)), of=rows, num_images=64)
    found = find_units(subject(G=Spoiled().eval()), num_images=32, set_size=1, real=real)
    assert [each.unit for each in found.artifacts or ()] == [9]
    (artifact,) = found.artifacts or ()
    assert 0 < artifact.low < artifact.gain < artifact.high
    assert "| artifact unit |" in units_table(found)
    fine = Real(features=real.features, of=rows, num_images=64)
    found = find_units(subject(), num_images=32, set_size=1, real=fine)
    assert found.artifacts is not None
    assert PLANTED not in [each.unit for each in found.artifacts]
    assert ("No artifact units" in units_table(found)) is (found.artifacts == ())
    unlooked = find_units(subject(), num_images=32, set_size=1)
    assert "rtifact unit" not in units_table(unlooked)


def test_masks_that_a_user_gives() -> None:
    seeds = np.arange(32, dtype=np.uint64)
    mask = np.zeros((32, SIDE, SIDE), bool)
    mask[:, 1:6, 1:6] = (subject().inputs(seeds)[0][:, 0] > 0).numpy()[:, None, None]
    found = find_units(subject(seeds=seeds, masks={"the square": mask}), num_images=32)
    column = found.agreement[:, found.concepts.index("the square")]
    assert column.argmax() == PLANTED
    assert column[PLANTED] == pytest.approx(1)


def test_the_ratio_is_1_of_the_same_and_0_of_what_is_independent() -> None:
    rng = np.random.default_rng(0)
    concept = rng.random(20_000) < 0.3
    units = np.stack([concept, ~concept, rng.random(20_000) < 0.5, np.ones(20_000, bool)])
    ratio, overlap = quality_ratio(units, concept)
    assert ratio[:2] == pytest.approx([1, 1])
    assert (ratio[2:] < 1e-3).all()
    assert overlap == pytest.approx([1, 0, 0.23, 0.3], abs=0.02)


def test_a_random_set_s_interval_covers_0() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0.3, 2.0, (2000, 21))
    covered = [low <= 0 <= high for _, low, high, _ in (against_random(d[0], d[1:]) for d in draws)]
    assert 0.94 <= np.mean(covered) <= 0.965
    assert against_random(5.0, np.zeros(20))[3] == 0
    assert against_random(0.0, np.zeros(20))[3] == 1


def test_holm_s_correction() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("name", TINY)
def test_every_family_has_its_maps(name: str) -> None:
    num_classes = classes(name)
    G, _ = players(name, num_classes=num_classes)
    G = G.eval().requires_grad_(False)
    z = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    label = torch.tensor([0, 1]) if num_classes else None
    layers = unit_layers(G, z, label)
    if name in ("mlp", "maxout"):
        assert layers == []
        return
    sizes = [(layer.height, layer.width) for layer in layers]
    assert len(sizes) >= 2
    assert sizes == sorted(set(sizes))
    whole, num = G(z, label), num_units(layers)
    modules = dict(G.named_modules())
    with masked(modules, layers, torch.ones(2, num)):
        assert torch.equal(G(z, label), whole)
    mask = torch.ones(2, num)
    mask[1] = 0
    with masked(modules, layers, mask):
        without = G(z, label)
    assert torch.equal(without[0], whole[0])
    assert (without[1] - whole[1]).abs().max() > 1e-3
    assert torch.equal(G(z, label), whole)  # nothing stays behind
    assert place_of(layers, 0) == (layers[0], 0)
    assert place_of(layers, num - 1) == (layers[-1], layers[-1].channels - 1)
