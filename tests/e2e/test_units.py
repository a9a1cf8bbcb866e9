"""Units from torch to HTTP: masks as an input of a graph, switched off without torch."""

import dataclasses
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from models.bundle import Bundle
from models.bundle.bundle import write_bundle
from models.bundle.units import GRAPH, UNITS, read_units
from models.bundle.verification import verify
from models.errors import BundleError
from models.latents import latents
from models.networks import FAMILIES, ImageShape
from models.repository import Repository
from serving.client import Client
from tests.conftest import ServerProcess, server_process
from training.data import ImageSet
from training.export.exporter import export
from training.export.onnx_graphs import byte_generator
from training.interpretation.__main__ import main
from training.interpretation.trained import trained_generator
from training.interpretation.unit_layers import masked, unit_layers

pytestmark = pytest.mark.e2e

NETWORKS: dict[str, dict[str, Any]] = {
    "dcgan": {"z_dim": 6, "ngf": 4, "ndf": 4, "embed_dim": 2},
    "style": {
        **{"z_dim": 6, "w_dim": 8, "mapping_layers": 2},
        **{"channel_base": 64, "channel_max": 8, "revision": 2},
    },
}
SEEDS, LABELS = [0, 7, 2**64 - 1], [1, 0, 1]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, make_bundle: Any) -> Repository:
    """Both networks, untrained and conditional, with units; plain without."""
    found = Repository(tmp_path_factory.mktemp("models"))
    found.publish("plain", make_bundle())
    images = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    data = ImageSet("tiny", images, torch.arange(4) % 2, ("a", "b"), "0" * 64, ())
    for name, options in NETWORKS.items():
        torch.manual_seed(0)
        shape = ImageShape(resolution=16, channels=3, num_classes=2)
        G = FAMILIES[name](**options).generator(shape)
        if name == "dcgan":  # louder, so that a unit has a say
            with torch.no_grad():
                for parameter in G.parameters():
                    parameter.mul_(2)
        bundle = export(
            G_ema=G,
            z_dim=6,
            image_set=data,
            recipe="test",
            options={"network": {"family": name, **options}},
            metrics=None,
            name=name,
            destination=tmp_path_factory.mktemp("export") / "bundle",
        )
        found.publish(name, bundle)
        words = ["units", name, "--repository", str(found.root), "--num-images", "16"]
        assert main([*words, "--set-size", "2", "--publish"]) == 0
    return found


@pytest.fixture(scope="module")
def serving(
    repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with server_process(repository.root, tmp_path_factory.mktemp("server")) as running:
        yield running


def expected(bundle: Bundle, off: list[int], psi: float = 1.0) -> npt.NDArray[np.uint8]:
    """What torch makes with some units off."""
    G = trained_generator(bundle)
    z, label = torch.from_numpy(latents(SEEDS, 6)), torch.tensor(LABELS)
    inner = byte_generator(G, z_dim=6, num_classes=2)
    if not bundle.manifest.has_mapping:
        z = z * psi
    info = read_units(bundle)
    assert info is not None
    mask = torch.from_numpy(info.mask(off)).expand(3, -1)
    with torch.no_grad():
        layers = unit_layers(G, z, label)
        with masked(dict(G.named_modules()), layers, mask):
            images: npt.NDArray[np.uint8] = inner(z, label, torch.full((3,), psi)).numpy()
    return images


def asked(serving: ServerProcess, name: str, **more: Any) -> npt.NDArray[np.uint8]:
    body = {"model": name, "seeds": SEEDS, "labels": LABELS, "format": "npy"}
    response = serving.generate(**{**body, **more})
    assert response.status_code == 200, response.text
    found: npt.NDArray[np.uint8] = np.load(io.BytesIO(response.content))
    return found


def difference(found: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> int:
    return int(np.abs(found.astype(int) - wanted).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_units_are_switched_off(serving: ServerProcess, repository: Repository, name: str) -> None:
    bundle = repository.bundle(name)
    assert bundle.manifest.version == 2
    assert verify(bundle) <= 2
    assert "units" in serving.get(f"/v1/models/{name}").json()["parts"]
    off = [0, 1, 5, 6]
    found = asked(serving, name, units_off=off, truncation=0.75)
    assert difference(found, expected(bundle, off, 0.75)) <= 1
    assert difference(found, asked(serving, name, truncation=0.75)) > 2
    with Client(serving.url, model=name) as client:
        options: dict[str, Any] = {"labels": LABELS, "truncation": 0.75}
        assert difference(client.generate_array(SEEDS, units_off=off, **options), found) == 0


def test_the_same_bytes_at_any_load(serving: ServerProcess) -> None:
    def ask(number: int) -> bytes:
        body: dict[str, Any] = {"model": "dcgan", "seeds": [number % 3], "labels": 1}
        off = [] if number % 2 else [number % 7]
        return bytes(serving.generate(**body, units_off=off, format="png").content)

    alone = [ask(number) for number in range(14)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, list(range(14)) * 4)) == alone * 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": "dcgan", "units_off": [9999]}, "units_off[0] is 9999, allowed are 0 .. "),
        ({"model": "dcgan", "units_off": [0, -1]}, "units_off[1] is -1, allowed"),
        ({"model": "dcgan", "units_off": ["a"]}, "units_off"),
        (
            {"model": "plain", "labels": None, "units_off": [0]},
            "model 'plain' (version 1) has none",
        ),
        (
            {"model": "style", "units_off": [0], "styles": {"from": 1, "layers": [0]}},
            "units_off is given with styles",
        ),
    ],
)
def test_refusals_in_words(serving: ServerProcess, more: dict[str, Any], words: str) -> None:
    body = {"seeds": [1], "labels": 0, **more}
    response = serving.generate(**{k: v for k, v in body.items() if v is not None})
    assert response.status_code == 400, response.text
    assert words in response.json()["detail"]


def test_a_graph_that_is_not_the_model_s_is_refused(repository: Repository, tmp_path: Path) -> None:
    bundle = repository.bundle("dcgan")
    info = read_units(bundle)
    assert info is not None

    def changed(folder: str, **files: bytes) -> Bundle:
        kept = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
        names = {"graph": GRAPH, "units": UNITS}
        content = {**kept, **{names[name]: data for name, data in files.items()}}
        return write_bundle(tmp_path / folder, bundle.manifest, content)

    wrong = dataclasses.replace(info, images=255 - info.images).to_bytes()
    with pytest.raises(BundleError, match=r"the graph is not that of model\.onnx"):
        verify(changed("a", units=wrong))
    cut = dataclasses.replace(info, masks=info.masks[:, :1]).to_bytes()
    with pytest.raises(BundleError, match="don't fit the model"):
        read_units(changed("b", units=cut))
    with pytest.raises(BundleError, match="export the model again"):
        read_units(changed("c", units=b"nothing"))
    whole = bundle.model_path.read_bytes()
    with pytest.raises(BundleError, match="takes z, label; export"):
        verify(changed("d", graph=whole))
