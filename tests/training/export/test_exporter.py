import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator
from models.bundle.manifest import Metric
from models.latents import latents
from models.networks import DCGAN, MLP, ImageShape, MaxoutPair
from training.data import ImageSet
from training.errors import ExportError
from training.export import exporter as module
from training.export.exporter import export, source_commit
from training.export.onnx_graphs import UInt8Generator, to_onnx


def image_set(resolution=16, channels=1, names=None):
    images = torch.zeros(5, channels, resolution, resolution, dtype=torch.uint8)
    labels = torch.zeros(5, dtype=torch.int64) if names else None
    return ImageSet("tiny", images, labels, names, "0" * 64, ())


def publish(G, data, destination, *, z_dim=6, metrics=None, **changes):
    arguments = {
        "G_ema": G,
        "z_dim": z_dim,
        "image_set": data,
        "recipe": "test",
        "options": {"total_kimg": 1, "nested": {"lr": 1e-3}},
        "metrics": metrics,
        "name": "tiny",
        "destination": destination,
    }
    return export(**(arguments | changes))


CASES = {
    "mlp": (MLP(hidden=8, z_dim=6), image_set(12)),
    "maxout": (MaxoutPair(hidden=8, z_dim=6), image_set(12)),
    "dcgan": (DCGAN(ngf=4, z_dim=6), image_set(16, 3)),
    "dcgan-classes": (DCGAN(ngf=4, z_dim=6, embed_dim=2), image_set(16, 1, ("a", "b", "c"))),
}


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory):
    """The bundle of an untrained network with loud weights, its G and its data."""
    family, data = CASES[request.param]
    torch.manual_seed(0)
    G = family.generator(data.shape).train()
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.mul_(3)
    before = copy.deepcopy(G.state_dict())
    bundle = publish(G, data, tmp_path_factory.mktemp("export") / "bundle")
    assert G.training
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())
    return bundle, G, data


def torch_images(G, data, seeds):
    G = copy.deepcopy(G).eval()
    z = torch.from_numpy(latents(seeds, 6))
    label = torch.tensor([s % len(data.label_names) for s in seeds]) if data.label_names else None
    with torch.no_grad():
        img = G(z, label)
    return ((img + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def onnx_images(bundle, data, seeds):
    label = None
    if data.label_names:
        label = np.array([s % len(data.label_names) for s in seeds], dtype=np.int64)
    return CpuGenerator(bundle.model_path)(latents(seeds, 6), label)


def test_the_file_gives_what_torch_gives(exported):
    bundle, G, data = exported
    seeds = [3, 2**64 - 1, 77, 1234567]
    expected = torch_images(G, data, seeds)
    found = onnx_images(bundle, data, seeds)
    assert found.dtype == np.uint8
    assert len(np.unique(expected)) > 1  # few of an untrained maxout, which lie about the middle
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_an_image_does_not_depend_on_its_batch(exported):
    bundle, _, data = exported
    seeds = list(range(100, 150))
    together = onnx_images(bundle, data, seeds)
    for i in (0, 17, 49):
        assert np.array_equal(onnx_images(bundle, data, [seeds[i]])[0], together[i])


def test_the_bundle_verifies(exported):
    bundle, _, data = exported
    again = Bundle.open(bundle.path)
    again.verify_files()
    assert again.verify_golden(CpuGenerator(again.model_path)) == 0
    manifest = again.manifest
    assert manifest.parity.num_seeds == 256
    assert manifest.parity.max_abs_diff <= 1
    assert manifest.labels == data.label_names
    assert manifest.options == {"total_kimg": 1, "nested": {"lr": 1e-3}}
    assert manifest.dataset.num_images == 5
    assert sorted(entry.name for entry in again.path.iterdir()) == [
        *("card.md", "golden.npz", "manifest.json", "model.onnx", "samples.png", "weights.npz")
    ]
    assert len(again.golden.seeds) == 16


def test_the_graph_is_standard_and_whole(exported):
    bundle, _, data = exported
    model = onnx.load(bundle.model_path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert not model.functions
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    assert [value.name for value in model.graph.input] == ["z", "label"][
        : 2 if data.label_names else 1
    ]
    assert [value.name for value in model.graph.output] == ["image"]
    batches = {
        value.type.tensor_type.shape.dim[0].dim_param
        for value in [*model.graph.input, *model.graph.output]
    }
    assert len(batches) == 1
    assert batches != {""}


def test_no_path_of_this_machine_is_in_the_bundle(exported):
    bundle, _, _ = exported
    root = str(Path(module.__file__).parents[1]).encode()
    for file in bundle.path.iterdir():
        content = file.read_bytes()
        assert root not in content
        assert sys.prefix.encode() not in content
        assert b"site-packages" not in content


def test_samples_are_seeds_in_reading_order(exported):
    bundle, _, data = exported
    canvas = np.asarray(Image.open(bundle.path / "samples.png"))
    size = data.shape.height
    canvas = canvas.reshape(10 * size, 10 * size, -1)
    images = onnx_images(bundle, data, list(range(100)))
    for i in (0, 7, 42, 99):
        y, x = i // 10 * size, i % 10 * size
        assert np.array_equal(canvas[y : y + size, x : x + size], images[i])


def test_the_card_says_how_to_call_it(exported):
    bundle, _, data = exported
    text = (bundle.path / "card.md").read_text()
    assert "curl -s http://localhost:8000/v1/generate" in text
    assert ('"labels": [' in text) == bool(data.label_names)
    assert "| parity with torch" in text
    assert all(f"| {name} |" in text for name in data.label_names or ())
    assert '"total_kimg": 1' in text


class Affine(nn.Module):
    """A generator to spoil: pixels are linear in z."""

    def __init__(self, size=4):
        super().__init__()
        self.size = size
        self.linear = nn.Linear(6, size * size)

    def forward(self, z, label=None):
        return torch.tanh(self.linear(z)).view(-1, 1, self.size, self.size)


class MixesRows(Affine):
    def forward(self, z, label=None):
        return super().forward(z - z.mean(0, keepdim=True))


class Unsupported(Affine):
    def forward(self, z, label=None):
        return super().forward(torch.linalg.matrix_exp(z[:, :4].reshape(-1, 2, 2)).mean() * z)


class DependsOnData(Affine):
    def forward(self, z, label=None):
        return super().forward(z if z.sum() > 0 else -z)


class WrongSize(Affine):
    def forward(self, z, label=None):
        return super().forward(z)[:, :, :3]


@pytest.fixture(scope="module")
def affine():
    """A generator and its ONNX file."""
    G = Affine()
    return G, to_onnx(UInt8Generator(G).eval(), 6, conditional=False)


@pytest.fixture
def converted(affine, monkeypatch):
    """The generator, whose conversion costs no time."""
    G, data = affine
    monkeypatch.setattr(module, "to_onnx", lambda *_, **__: data)
    return G


def test_metrics_measure_the_exported_file(tmp_path, converted):
    seen = []

    def metrics(path):
        seen.append(CpuGenerator(path)(latents([1], 6)))
        return (Metric(name="a|b", value=0.5, protocol={"n": 1000}),)

    bundle = publish(converted, image_set(4), tmp_path / "bundle", metrics=metrics)
    assert seen[0].shape == (1, 4, 4, 1)
    assert bundle.manifest.metrics[0].value == 0.5
    assert "| a\\|b | 0.5 | n: 1000 |" in (bundle.path / "card.md").read_text()


@pytest.mark.parametrize(
    ("G", "message"),
    [
        (MixesRows(), r"differ by up to \d+/255 between batches of 1 and of 64.*mixes the images"),
        (Unsupported(), "can't be exported to ONNX.*use only operations"),
        (DependsOnData(), "can't be exported to ONNX"),
        (WrongSize(), r"a batch of 64 gave uint8 images \[64, .*must give uint8 \[64, 4, 4, 1\]"),
    ],
)
def test_a_generator_that_can_not_be_served_is_refused(tmp_path, G, message):
    with pytest.raises(ExportError, match=r"(?s)" + message):
        publish(G, image_set(4), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_something_else_is_refused(tmp_path, converted):
    with pytest.raises(ExportError, match=r"differs from torch by up to \d+/255 on 256 seeds"):
        publish(Affine(), image_set(4), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ExportError, match="exists already"):
        publish(Affine(), image_set(4), tmp_path / "bundle")
    assert list((tmp_path / "bundle").iterdir()) == []


def test_a_failing_metric_leaves_nothing(tmp_path, converted):
    def metrics(path):
        raise ArithmeticError("no")

    with pytest.raises(ArithmeticError):
        publish(converted, image_set(4), tmp_path / "bundle", metrics=metrics)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full(tmp_path, monkeypatch, converted):
    def full(path, manifest, files):
        path.mkdir()
        raise OSError(28, "No space left on device", str(path / "model.onnx"))

    monkeypatch.setattr(module, "write_bundle", full)
    with pytest.raises(ExportError, match=r"model\.onnx: No space left on device"):
        publish(converted, image_set(4), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_cleared(tmp_path, converted):
    (tmp_path / ".bundle.partial").mkdir()
    (tmp_path / ".bundle.partial" / "model.onnx").touch()
    publish(converted, image_set(4), tmp_path / "bundle")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]


def test_the_console_stays_clean(tmp_path, capfd):
    publish(Affine(), image_set(4), tmp_path / "bundle")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_half_precision_is_exported_as_float(tmp_path):
    G = Affine().half()
    bundle = publish(G, image_set(4), tmp_path / "bundle")
    assert G.linear.weight.dtype == torch.float16
    model = onnx.load(bundle.model_path)
    kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.dims}
    assert onnx.TensorProto.FLOAT16 not in kinds


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository that holds a copy of export.py."""

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    source = tmp_path / "export.py"
    source.write_text("original\n")
    git("init", "-q")
    git("add", "export.py")
    git("commit", "-qm", "first")
    git("tag", "v1")
    monkeypatch.setattr(module, "__file__", str(source))
    return source, git


def test_source_commit(checkout):
    source, git = checkout
    head = git("rev-parse", "HEAD")
    assert source_commit() == head
    (source.parent / "untracked").touch()
    assert source_commit() == head
    source.write_text("changed\n")
    assert source_commit() == f"{head}-dirty"


def test_another_projects_checkout_is_not_the_source(checkout):
    _, git = checkout
    git("rm", "--cached", "-q", "export.py")
    git("commit", "-qm", "second")
    assert source_commit() is None


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_commit() is None


def test_shapes_are_those_of_the_contract():
    G = UInt8Generator(DCGAN(ngf=2, z_dim=3).generator(ImageShape(resolution=16, channels=3)))
    images = G.eval()(torch.zeros(2, 3))
    assert images.shape == (2, 16, 16, 3)
    assert images.dtype == torch.uint8
