"""A style model in two graphs, from torch to HTTP: mixing, psi by style, directions of w."""

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
from models.bundle.directions import read_directions
from models.bundle.runtime import open_session
from models.bundle.styles import (
    MAPPING,
    STYLES,
    SYNTHESIS,
    StyleInfo,
    StyleRows,
    read_styles,
    styled,
)
from models.bundle.verification import verify
from models.errors import BundleError
from models.image_metadata import read_metadata
from models.latents import latents
from models.networks import ImageShape, Style
from models.repository import Repository
from serving.client import Client
from serving.client.__main__ import main as client_main
from tests.conftest import ServerProcess, server_process
from training.data import ImageSet
from training.export.exporter import export
from training.export.onnx_graphs import mean_w, to_bytes
from training.interpretation.part import DirectionsPart

pytestmark = pytest.mark.e2e

SEEDS, LABELS = [0, 7, 2**64 - 1], [1, 0, 1]


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    options = Style(z_dim=6, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8)
    G = options.generator(ImageShape(resolution=8, channels=3, num_classes=2))
    return G.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def bundle(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A conditional style bundle, untrained, with directions."""
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    data = ImageSet("tiny", images, torch.arange(4) % 2, ("a", "b"), "0" * 64, ())
    return export(
        G_ema=network,
        z_dim=6,
        image_set=data,
        recipe="test",
        options={},
        metrics=None,
        name="styled",
        destination=tmp_path_factory.mktemp("styled") / "bundle",
        parts=[DirectionsPart(num=2, image_set=data, say=lambda line: None)],
    )


@pytest.fixture(scope="module")
def info(bundle: Bundle) -> StyleInfo:
    found = read_styles(bundle)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def serving(
    bundle: Bundle, make_bundle: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    repository = Repository(tmp_path_factory.mktemp("models"))
    repository.publish("styled", bundle)
    repository.publish("plain", make_bundle())
    with server_process(repository.root, tmp_path_factory.mktemp("server")) as running:
        yield running


def expected(
    network: Any, ws_of: Any, psi: npt.NDArray[np.float32], shift: Any = 0
) -> npt.NDArray[np.uint8]:
    """What torch makes of w [N, num_styles, w_dim]; ws_of: (w of a seed's rows) to them."""
    label = torch.tensor(LABELS)
    mean = mean_w(network.mapping, z_dim=6, num_classes=2)[label][:, None]

    def w_of(seeds: list[int]) -> torch.Tensor:
        w: torch.Tensor = network.mapping(torch.from_numpy(latents(seeds, 6)), label)
        return w[:, None].repeat(1, network.synthesis.num_styles, 1)

    ws = mean + torch.from_numpy(psi)[None, :, None] * (ws_of(w_of) - mean) + shift
    images: npt.NDArray[np.uint8] = to_bytes(network.synthesis(ws)).numpy()
    return images


def difference(found: npt.NDArray[np.uint8], wanted: npt.NDArray[np.uint8]) -> int:
    assert found.shape == wanted.shape
    return int(np.abs(found.astype(int) - wanted).max())


def asked(serving: ServerProcess, **more: Any) -> npt.NDArray[np.uint8]:
    body = {"model": "styled", "seeds": SEEDS, "labels": LABELS, "format": "npy"}
    response = serving.generate(**{**body, **more})
    assert response.status_code == 200, response.text
    found: npt.NDArray[np.uint8] = np.load(io.BytesIO(response.content))
    return found


@pytest.mark.parametrize("num", [1, 3, 17])
def test_the_two_graphs_are_the_whole_one(bundle: Bundle, info: StyleInfo, num: int) -> None:
    from models.bundle.generator import CpuGenerator

    z, label = latents(list(range(num)), 6), np.arange(num) % 2
    psi = np.linspace(0, 1.5, num).astype(np.float32)
    whole = CpuGenerator(bundle.model_path)(z, label, psi)
    sessions = open_session(bundle.path / MAPPING), open_session(bundle.path / SYNTHESIS)
    rows = StyleRows(psi=np.repeat(psi[:, None], info.num_styles, 1))
    assert difference(styled(*sessions, z, label, rows), whole) <= 1
    assert verify(bundle) <= 2


def test_styles_of_another_seed(serving: ServerProcess, network: Any, info: StyleInfo) -> None:
    layers = [1, info.num_styles - 1]
    found = asked(serving, truncation=0.75, styles={"from": "42", "layers": layers})

    def mixed(w_of: Any) -> torch.Tensor:
        ws: torch.Tensor = w_of(SEEDS)
        ws[:, layers] = w_of([42] * 3)[:, layers]
        return ws

    psi = np.full(info.num_styles, 0.75, np.float32)
    assert difference(found, expected(network, mixed, psi)) <= 1
    with Client(serving.url, model="styled") as client:
        options: dict[str, Any] = {"labels": LABELS, "truncation": 0.75}
        same = client.generate_array(SEEDS, styles={"from": 42, "layers": layers}, **options)
    assert difference(same, found) == 0
    assert difference(found, asked(serving, truncation=0.75)) > 5
    every = list(range(info.num_styles))
    own = asked(serving, seeds=[42] * 3, styles={"from": 1, "layers": []})
    assert difference(asked(serving, styles={"from": 42, "layers": every}), own) == 0


def test_a_psi_for_each_style(serving: ServerProcess, network: Any, info: StyleInfo) -> None:
    psi = np.linspace(1.5, 0, info.num_styles).astype(np.float32)
    found = asked(serving, styles={"truncation": psi.tolist()})
    assert difference(found, expected(network, lambda w_of: w_of(SEEDS), psi)) <= 1
    same = asked(serving, styles={"truncation": [0.5] * info.num_styles})
    assert difference(same, asked(serving, truncation=0.5)) <= 1


def test_directions_of_w_in_all_styles_and_in_some(
    serving: ServerProcess, network: Any, bundle: Bundle, info: StyleInfo
) -> None:
    directions = read_directions(bundle)
    assert directions is not None
    step = directions.sets["sefa"].steps[0]
    ones = np.ones(info.num_styles, np.float32)
    found = asked(serving, directions={"sefa:0": 1.5})
    shift = torch.from_numpy(1.5 * step)
    assert difference(found, expected(network, lambda w_of: w_of(SEEDS), ones, shift)) <= 1
    some = torch.zeros(info.num_styles, 8)
    some[1:3] = shift
    found = asked(serving, directions={"sefa:0@1-2": 1.5, "0": 0})
    assert difference(found, expected(network, lambda w_of: w_of(SEEDS), ones, some)) <= 1
    both = asked(serving, directions={"sefa:0@1": 1, "0": 2})
    assert difference(both, asked(serving, directions={"sefa:0@1": 1})) > 1


def test_the_same_bytes_at_any_load(serving: ServerProcess, info: StyleInfo) -> None:
    def ask(number: int) -> bytes:
        body: dict[str, Any] = {"model": "styled", "seeds": [number % 5], "labels": 1}
        kinds: list[dict[str, Any]] = [
            {},
            {"styles": {"from": 9, "layers": [number % 2]}},
            {"styles": {"truncation": [0.5] * info.num_styles}},
            {"directions": {"pca:1": 1}},
        ]
        return bytes(serving.generate(**body, **kinds[number % 4], format="png").content)

    alone = [ask(number) for number in range(20)]
    assert len(set(alone)) > 12
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, list(range(20)) * 4)) == alone * 4


def test_lists_urls_and_walks_know_them(serving: ServerProcess) -> None:
    keys = [d["key"] for d in serving.get("/v1/models/styled/directions").json()["directions"]]
    assert {"0", "class:0", "sefa:0", "pca:0"} <= set(keys)
    assert serving.get("/v1/models/styled").json()["parts"] == ["directions", "styles"]
    assert serving.get("/v1/models/plain").json()["parts"] == []
    url = "/v1/models/styled/images/7.png?label=0"
    one, other = serving.get(f"{url}&d.sefa:0=1"), serving.get(f"{url}&d.sefa:0@0-1=1")
    assert one.status_code == other.status_code == 200
    assert one.headers["etag"] != other.headers["etag"]
    body = {"model": "styled", "seeds": [1, 2], "label": 0, "frames": 3}
    walk = serving.post("/v1/interpolate", json={**body, "directions": {"pca:0": 1}})
    assert walk.status_code == 200


def test_a_file_says_its_styles_and_is_made_again(serving: ServerProcess, tmp_path: Path) -> None:
    path, new = tmp_path / "image.png", tmp_path / "new.png"
    body = {"model": "styled", "seeds": [7], "labels": 1, "format": "png"}
    changes = {"styles": {"from": "42", "layers": [1]}, "directions": {"sefa:0@1-2": 0.5}}
    path.write_bytes(serving.generate(**body, **changes).content)
    assert read_metadata(path.read_bytes())["styles"] == '{"from":42,"layers":[1]}'
    assert client_main(["--url", serving.url, "show", str(path), "--again", str(new)]) == 0
    assert new.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"styles": {"from": 1}}, "styles.from is given without styles.layers"),
        ({"styles": {"layers": [1]}}, "styles.layers is given without styles.from"),
        ({"styles": {"from": 1, "layers": [99]}}, "styles.layers[0] is 99, allowed are 0 .. 3"),
        ({"styles": {"from": -1, "layers": [1]}}, "styles.from is -1, allowed"),
        ({"styles": {"from": "x", "layers": [1]}}, "styles.from is 'x', allowed"),
        ({"styles": {"truncation": [1]}}, "styles.truncation has 1 numbers, this model has 4"),
        ({"styles": {"truncation": [1, 1, 3, 1]}}, "styles.truncation[2] is 3, allowed are 0 .. 2"),
        ({"styles": {"layer": 1}}, "layer"),
        ({"directions": {"sefa:0@2-9": 1}}, "names 'sefa:0@2-9', styles are 0 .. 3"),
        ({"directions": {"class:0@1": 1}}, "names 'class:0@1', allowed"),
        ({"model": "plain", "labels": None, "styles": {}}, "model 'plain' (version 1) has none"),
    ],
)
def test_refusals_in_words(serving: ServerProcess, more: dict[str, Any], words: str) -> None:
    body = {"model": "styled", "seeds": [1], "labels": 0, **more}
    response = serving.generate(**{k: v for k, v in body.items() if v is not None})
    assert response.status_code == 400, response.text
    assert words in response.json()["detail"]


def changed(bundle: Bundle, folder: Path, **files: bytes) -> Bundle:
    kept = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    names = {"styles": STYLES, "synthesis": SYNTHESIS}
    content = {**kept, **{names[name]: data for name, data in files.items()}}
    return write_bundle(folder / "changed", bundle.manifest, content)


def test_graphs_that_are_not_the_model_s_are_refused(
    bundle: Bundle, info: StyleInfo, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(info, images=255 - info.images)
    with pytest.raises(BundleError, match=r"the two graphs are not those of model\.onnx"):
        verify(changed(bundle, tmp_path / "a", styles=wrong.to_bytes()))
    cut = dataclasses.replace(info, take=info.take[:, :1]).to_bytes()
    with pytest.raises(BundleError, match="don't fit the model"):
        read_styles(changed(bundle, tmp_path / "b", styles=cut))
    with pytest.raises(BundleError, match="export the model again"):
        read_styles(changed(bundle, tmp_path / "c", styles=b"nothing"))
    mapping = (bundle.path / MAPPING).read_bytes()
    with pytest.raises(BundleError, match="can't make the golden images"):
        verify(changed(bundle, tmp_path / "d", synthesis=mapping))
