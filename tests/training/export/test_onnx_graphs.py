"""Every family becomes a graph that does what torch does; w is truncated; encoders go both ways."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator, Sampler
from models.latents import latents
from models.networks.layers import PixelNorm
from tests.models.networks.tiny import players
from training.data import ImageSet
from training.errors import ExportError
from training.export import onnx_graphs
from training.export.exporter import check_batch_independence, export
from training.export.onnx_graphs import (
    TruncatedGenerator,
    byte_encoder,
    byte_generator,
    mean_w,
    to_bytes,
    to_onnx,
)

FAMILIES = ("resnet", "resnet-concat-layer-mean", "progressive", "r3gan", "style", "vaegan")
NUM_SEEDS = 64


@pytest.fixture
def few_latents(monkeypatch):
    """A mean w that costs no time."""
    monkeypatch.setattr(onnx_graphs, "MEAN_W_SEEDS", 300)


def image_set(num_classes=0, num=20):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 1, 8, 8), dtype=torch.uint8, generator=generator)
    names = tuple("abc"[:num_classes]) or None
    labels = torch.arange(num) % num_classes if num_classes else None
    return ImageSet("tiny", images, labels, names, "0" * 64, ())


def publish(G, data, destination):
    return export(
        G_ema=G,
        z_dim=5,
        image_set=data,
        recipe="test",
        options={},
        metrics=None,
        name="tiny",
        destination=destination,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("few_latents")
@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_graph_does_what_torch_does(name, num_classes, tmp_path):
    G, _ = players(name, resolution=8, channels=3, num_classes=num_classes)
    G.requires_grad_(False).eval()
    wrapped = byte_generator(G, z_dim=5, num_classes=num_classes)
    data = to_onnx(wrapped, 5, conditional=num_classes > 0)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    model = onnx.load_from_string(data)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not model.functions
    assert not [tensor for tensor in model.graph.initializer if "encoder" in tensor.name]
    taken = [value.name for value in model.graph.input]
    expected_inputs = ["z", *["label"] * (num_classes > 0), *["psi"] * (name == "style")]
    assert taken == expected_inputs
    seeds = np.arange(NUM_SEEDS, dtype=np.uint64)
    sampler = Sampler(CpuGenerator(path, num_threads=1), z_dim=5, num_classes=num_classes)
    label = sampler.labels(seeds)
    expected = to_bytes(
        G(torch.from_numpy(latents(seeds, 5)), None if label is None else torch.from_numpy(label))
    )
    assert len(expected.unique()) > 50  # else nothing was compared
    assert np.abs(sampler(seeds).astype(int) - expected.numpy()).max() <= 1
    check_batch_independence(sampler)


def test_pixel_norm_gives_a_row_the_same_bits_in_any_batch():
    x = np.random.default_rng(0).standard_normal((9, 64, 8, 8)).astype(np.float32)
    given = {"x": torch.zeros(2, 64, 8, 8)}
    data = onnx_graphs.convert(PixelNorm().eval(), given, outputs=("y",), what="layer")
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    (together,) = session.run(["y"], {"x": x})
    assert np.allclose(together, PixelNorm()(torch.from_numpy(x)), atol=1e-6)
    for size in (1, 3):
        parts = [session.run(["y"], {"x": x[i : i + size]})[0] for i in range(0, 9, size)]
        assert np.array_equal(np.concatenate(parts), together)


@pytest.mark.parametrize("num_classes", [0, 2])
def test_mean_w_is_over_the_latents_of_the_contract(num_classes, few_latents):
    G, _ = players("style", num_classes=num_classes)
    z = torch.from_numpy(latents(range(300), 5))
    with torch.no_grad():
        w = [
            G.mapping(z, torch.full((300,), label) if num_classes else None).mean(0)
            for label in range(max(num_classes, 1))
        ]
    found = mean_w(G.mapping, z_dim=5, num_classes=num_classes)
    assert torch.allclose(found, torch.stack(w) if num_classes else w[0], atol=1e-5)


@pytest.mark.parametrize("num_classes", [0, 2])
def test_psi_pulls_each_row_towards_the_mean_of_its_class(num_classes, few_latents):
    G, _ = players("style", num_classes=num_classes)
    G.requires_grad_(False).eval()
    wrapped = byte_generator(G, z_dim=5, num_classes=num_classes)
    assert isinstance(wrapped, TruncatedGenerator)
    z = torch.from_numpy(latents(range(4), 5))
    label = torch.arange(4) % 2 if num_classes else None
    psi = torch.tensor([1.0, 0.5, 0.0, -0.5])
    found = wrapped(z, label, psi)
    w, mean = G.mapping(z, label), wrapped.w_mean
    mean = mean[label] if num_classes else mean.expand(4, -1)
    pulled = torch.stack([w[0], (w[1] + mean[1]) / 2, mean[2], 1.5 * mean[3] - 0.5 * w[3]])
    expected = to_bytes(G.synthesis(pulled))
    assert (found.int() - expected.int()).abs().max() <= 1
    assert torch.equal(wrapped(z, label), to_bytes(G(z, label)))


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [0, 2])
def test_real_images_go_to_latents_and_back(num_classes, tmp_path):
    G, _ = players("vaegan", resolution=8, num_classes=num_classes)
    data = image_set(num_classes)
    bundle = Bundle.open(publish(G, data, tmp_path / "bundle").path)
    bundle.verify_files()
    assert "encoder.onnx" in bundle.manifest.files
    (parity,) = bundle.manifest.metrics
    assert parity.name == "encoder parity with torch (max difference of z)"
    assert parity.protocol == {"images": 20}
    assert parity.value < 1e-4
    text = (bundle.path / "card.md").read_text()
    assert "`encoder.onnx` takes image: uint8 [N, 8, 8, 1]" in text
    assert ("label: int64 [N]" in text) == bool(num_classes)

    images = data.images.permute(0, 2, 3, 1).contiguous().numpy()
    feed = {"image": images} | ({"label": data.labels.numpy()} if num_classes else {})
    session = ort.InferenceSession(bundle.path / "encoder.onnx", providers=["CPUExecutionProvider"])
    (z,) = session.run(["z"], feed)
    assert z.shape == (20, 5)
    assert z.dtype == np.float32
    found = CpuGenerator(bundle.model_path)(z, feed.get("label"))
    G.eval()
    with torch.no_grad():
        mu, _ = G.encoder(data.images / 127.5 - 1, data.labels)
        expected = to_bytes(G(mu, data.labels)).numpy()
    assert len(np.unique(expected)) > 20
    assert np.abs(found.astype(int) - expected).max() <= 1
    # The generator's file is the generator alone.
    names = [tensor.name for tensor in onnx.load(bundle.model_path).graph.initializer]
    assert not [name for name in names if "encoder" in name]


def test_a_generator_without_an_encoder_has_no_such_file():
    G, _ = players("dcgan")
    assert byte_encoder(G) is None


class MixesRows(nn.Module):
    """An encoder to refuse."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 5)

    def forward(self, img, label=None):
        mu = self.linear(img.flatten(1))
        return mu - mu.mean(0, keepdim=True), mu


def test_an_encoder_that_mixes_rows_is_refused(tmp_path):
    G, _ = players("vaegan", resolution=8)
    G.encoder = MixesRows()
    with pytest.raises(ExportError, match=r"encoder\.onnx differs from torch .* mixes the images"):
        publish(G, image_set(), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []
