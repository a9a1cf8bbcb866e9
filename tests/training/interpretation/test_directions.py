"""Directions of generators whose answer is planted: units, names, evidence, classes, w."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.networks import ImageShape, Style
from training.export.onnx_graphs import to_bytes
from training.interpretation.directions import MIN_EVIDENCE, Subject, find_directions, name
from training.interpretation.sheet import sheet, summary, table
from training.interpretation.style_directions import pca, sefa

DIM, SIDE = 6, 12


class Planted(nn.Module):
    """A grey square on black; latent 2 moves it to the right, 4 makes it brighter."""

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_parameter("some", nn.Parameter(torch.zeros(())))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = torch.arange(SIDE, dtype=z.dtype)
        # Of class 1, latent 0 moves it instead.
        place = z[:, 2] if label is None else torch.where(label == 1, z[:, 0], z[:, 2])
        centre = SIDE / 2 + 1.5 * place
        column = torch.exp(-((x - centre[:, None]) ** 2) / 4)
        row = torch.exp(-((x - SIDE / 2) ** 2) / 4)
        bright = 0.9 + 0.25 * z[:, 4]
        img = bright[:, None, None] * row[:, None] * column[:, None, :]
        return 2 * img[:, None] - 1


def subject(G: nn.Module, num_classes: int = 0) -> Subject:
    return Subject(G=G.eval(), z_dim=DIM, num_classes=num_classes, classes={})


def generate_of(G: nn.Module):  # type: ignore[no-untyped-def]
    @torch.no_grad()
    def generate(z, label=None, psi=None):  # type: ignore[no-untyped-def]
        return to_bytes(
            G(torch.from_numpy(z), None if label is None else torch.from_numpy(label))
        ).numpy()

    return generate


@pytest.fixture(scope="module")
def planted():  # type: ignore[no-untyped-def]
    G = Planted()
    return find_directions(subject(G), generate_of(G), num=3, latents_each=64)


def test_what_moves_the_pixels_is_found_and_named_by_what_follows(planted) -> None:  # type: ignore[no-untyped-def]
    shared = planted.sets["z"]
    unit = shared.steps / np.linalg.norm(shared.steps, axis=1, keepdims=True)
    assert abs(unit[0, 2]) > 0.99
    assert abs(unit[1, 4]) > 0.99
    assert shared.names[0] in ("position to the right", "ink in the left half")
    assert shared.names[1] in ("brightness", "area", "contrast")
    for number in range(2):
        rho = shared.evidence[number, planted.concepts.index(shared.names[number])]
        assert rho > MIN_EVIDENCE  # more of a direction is more of its name
    assert "named by what follows" in summary(planted)


def test_one_unit_is_the_pixels_standard_deviation_to_first_order(planted) -> None:  # type: ignore[no-untyped-def]
    shared, sigma = planted.sets["z"], planted.protocol["pixel standard deviation"]
    length = np.linalg.norm(shared.steps, axis=1)
    change = length * np.sqrt(shared.eigenvalues / SIDE**2)
    assert change == pytest.approx([sigma] * shared.num, rel=1e-3)


def test_pictures_rise_with_the_amount(planted) -> None:  # type: ignore[no-untyped-def]
    row = list(planted.sets["z"].names).index("position to the right")
    columns = planted.sets["z"].pictures[row, ..., 0].astype(float).sum(1)
    places = columns @ np.arange(SIDE) / columns.sum(1)
    assert (np.diff(places) > 0).all()


def test_directions_that_lead_nowhere_are_left_out(planted) -> None:  # type: ignore[no-untyped-def]
    assert planted.sets["z"].num == 2  # the third would need steps longer than any latent


def test_classes_have_directions_of_their_own() -> None:
    G = Planted(2)
    found = find_directions(subject(G, 2), generate_of(G), num=3, latents_each=64)
    of_class = found.sets["class"]
    unit = of_class.steps / np.linalg.norm(of_class.steps, axis=2, keepdims=True)
    assert abs(unit[0, 0, 2]) > 0.99
    assert abs(unit[1, 0, 0]) > 0.99
    assert of_class.evidence.shape == (2, of_class.num, len(found.concepts))
    assert found.golden.labels is not None
    text = table(found)
    assert "| class:0 of class 1 |" in text
    assert sheet(found, "class")[:4] == b"\x89PNG"


def test_a_style_model_has_directions_of_w_too() -> None:
    torch.manual_seed(0)
    shape = ImageShape(resolution=16, channels=3)
    family = Style(z_dim=DIM, w_dim=5, mapping_layers=2, channel_base=64, channel_max=6)
    G = family.generator(shape).eval().requires_grad_(False)
    found = find_directions(subject(G), generate_of(G), num=2, latents_each=8)
    assert set(found.sets) == {"z", "sefa", "pca"}
    assert found.sets["sefa"].steps.shape == (2, 5)
    assert sheet(found, "pca")[:4] == b"\x89PNG"
    assert "| sefa:0 |" in table(found)


def test_sefa_and_pca_find_what_was_planted() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3, bias=False)
            self.layer.scale = 2.0  # type: ignore[assignment]
            self.other = nn.Linear(3, 4)

    synthesis = Reader()
    with torch.no_grad():
        synthesis.layer.weight.copy_(torch.diag(torch.tensor([1.0, 5.0, 3.0, 0.0]))[:3])
    found = sefa(synthesis, 4, 2)
    assert found.values.tolist() == pytest.approx([100, 36])
    assert found.vectors.argmax(1).tolist() == [1, 2]

    def mapping(z: Tensor, label: Tensor | None) -> Tensor:
        return z * torch.tensor([1.0, 0.1, 4.0])

    z = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    axes = pca(mapping, z, None, 2)  # type: ignore[arg-type]
    assert axes.vectors.argmax(1).tolist() == [2, 0]
    assert axes.values.tolist() == pytest.approx([16, 1], rel=0.1)


def test_a_name_is_given_once_and_only_on_evidence() -> None:
    rho = np.array([[0.7, 0.65], [-0.9, 0.61], [0.6, -0.6]])
    names, signs = name(rho, ("area", "width"))
    assert names == ["width", "area", ""]
    assert signs.tolist() == [1, -1, 1]
