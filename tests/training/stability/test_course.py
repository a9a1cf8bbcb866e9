"""The path angle of fields that are known, the condition number of a linear G, and the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.errors import StabilityError
from training.stability.__main__ import main
from training.stability.commands.path import verdict
from training.stability.course import conditioning, path_angle

START, END = torch.tensor([1.0, 0.0]).double(), torch.zeros(2).double()


def test_a_sink_attracts_and_a_source_repels() -> None:
    sink = path_angle(lambda w: -w, START, END)
    assert sink.attraction == pytest.approx(2)  # from -1 before the end to +1 beyond it
    assert sink.cosines[0] == pytest.approx(-1)
    assert sink.speeds[0] == pytest.approx(1.1)
    assert "attracts" in verdict(sink)
    assert "repels" in verdict(path_angle(lambda w: w, START, END))


def test_a_centre_does_neither() -> None:
    def turning(w: Tensor) -> Tensor:
        return torch.stack([-w[1], w[0]])

    found = path_angle(turning, START, END)
    assert found.attraction == pytest.approx(0, abs=1e-9)
    assert "circles" in verdict(found)


class Linear(nn.Module):
    def __init__(self, singular: list[float]) -> None:
        super().__init__()
        self.matrix = torch.diag(torch.tensor(singular).double())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return z @ self.matrix


def test_the_condition_number_of_a_linear_generator() -> None:
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).double()
    assert conditioning(Linear([6.0, 2.0]), z, None) == pytest.approx([3.0] * 3)
    assert np.isinf(conditioning(Linear([6.0, 0.0]), z, None)).all()


def test_the_path_of_a_run(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["path", str(tiny_run), "--points", "24"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["cosine"]) == 24
    assert np.abs(found["cosine"]).max() <= 1 + 1e-9
    assert min(found["speed"]) > 0
    assert found["speed_G_average"] == pytest.approx(found["speed_G_last"])  # ema_kimg is 0
    assert main(words) == 0
    assert "Condition number of dG/dz" in capsys.readouterr().out
    (checkpoint,) = (tiny_run / "checkpoints").iterdir()
    assert main([*words, "--since", checkpoint.name]) == StabilityError.exit_code
    assert "there is no line" in capsys.readouterr().err
