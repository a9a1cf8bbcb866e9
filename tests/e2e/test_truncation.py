"""A model with a mapping network from torch to HTTP: psi acts on w, inside the graph."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from models.bundle import Bundle
from models.latents import latents
from models.networks import ImageShape, Style
from models.repository import Repository
from serving.inference.accelerator.fixed_run import FixedRun
from serving.inference.engine import Engine
from serving.inference.sessions import Compute, open_cpu
from training.data import ImageSet
from training.export.exporter import export
from training.export.onnx_graphs import ByteGenerator, byte_generator

pytestmark = pytest.mark.e2e

SEEDS = [0, 7, 2**64 - 1]
LABELS = [1, 0, 1]
CPU = Compute(device="cpu", num_threads=1)


@pytest.fixture(scope="module")
def styled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ByteGenerator]:
    """A conditional style bundle, untrained, and what it was exported from."""
    torch.manual_seed(0)
    options = Style(z_dim=6, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8)
    G = options.generator(ImageShape(resolution=8, channels=3, num_classes=2))
    G.eval().requires_grad_(False)
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    data = ImageSet("tiny", images, torch.arange(4) % 2, ("a", "b"), "0" * 64, ())
    bundle = export(
        G_ema=G,
        z_dim=6,
        image_set=data,
        recipe="test",
        options={},
        metrics=None,
        name="styled",
        destination=tmp_path_factory.mktemp("styled") / "bundle",
    )
    assert bundle.manifest.has_mapping
    return bundle, byte_generator(G, z_dim=6, num_classes=2)


def expected(G: ByteGenerator, psi: float) -> npt.NDArray[np.uint8]:
    z, label = torch.from_numpy(latents(SEEDS, 6)), torch.tensor(LABELS)
    images: npt.NDArray[np.uint8] = G(z, label, torch.full((3,), psi)).numpy()
    return images


def difference(found: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> int:
    assert found.shape == wanted.shape
    return int(np.abs(found.astype(int) - wanted).max())


@pytest.mark.parametrize("buckets", [(), (2, 4)])
def test_the_engine_takes_a_psi_for_each_row(
    styled: tuple[Bundle, ByteGenerator], buckets: tuple[int, ...]
) -> None:
    bundle, G = styled
    engine = Engine(bundle, CPU, max_rows=4, buckets=buckets)
    z, label = latents(SEEDS, 6), np.array(LABELS)
    psi = np.array([1.0, 0.5, 0.0], np.float32)
    found = engine(z, label, psi)
    for row, value in enumerate(psi):
        assert difference(found[row], expected(G, float(value))[row]) <= 1
    assert difference(expected(G, 1.0), expected(G, 0.5)) > 5  # else nothing was told apart


def test_a_fixed_shape_takes_psi_too(styled: tuple[Bundle, ByteGenerator]) -> None:
    """What CUDA runs, on the CPU: bound inputs, rows padded with zeros."""
    bundle, G = styled
    run = FixedRun(open_cpu(bundle.model_path, 1), bundle.manifest, 4, CPU)
    psi = np.full(3, 0.5, np.float32)
    found = run({"z": latents(SEEDS, 6), "label": np.array(LABELS), "psi": psi})
    assert difference(found, expected(G, 0.5)) <= 1


def test_truncation_over_http(
    styled: tuple[Bundle, ByteGenerator], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    bundle, G = styled
    Repository(tmp_path / "models").publish("styled", bundle)
    server = start_server(tmp_path / "models")
    for psi in (0.5, 1.0, 0.0):
        reply = server.generate(seeds=SEEDS, labels=LABELS, truncation=psi, format="npy")
        assert reply.status_code == 200, reply.text
        assert difference(np.load(io.BytesIO(reply.content)), expected(G, psi)) <= 1
    # Latents of one's own are truncated likewise: psi scales w, not z.
    reply = server.generate(
        latents=latents(SEEDS, 6).tolist(), labels=LABELS, truncation=0.5, format="npy"
    )
    assert difference(np.load(io.BytesIO(reply.content)), expected(G, 0.5)) <= 1
    # The ends of a walk are its waypoints, truncated.
    ends = {"seeds": [SEEDS[0], SEEDS[2]], "label": 1, "frames": 3, "truncation": 0.5}
    reply = server.post("/v1/interpolate", json=ends | {"format": "strip"})
    assert reply.status_code == 200, reply.text
    strip = np.asarray(Image.open(io.BytesIO(reply.content)))
    assert difference(strip[:, :8], expected(G, 0.5)[0]) <= 1
    assert difference(strip[:, 16:], expected(G, 0.5)[2]) <= 1
    assert server.stop() == 0
