"""Directions over HTTP: every route, exactly what the bundle itself gives, every refusal."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.bundle import Bundle
from models.bundle.directions import DIRECTIONS, as_text, parse_amounts, read_directions
from models.bundle.generator import CpuGenerator
from models.image_metadata import read_amounts, read_metadata, written_amounts
from models.latents import latents, walk
from models.offline import generate as offline
from models.repository import Repository
from serving.client import Client
from serving.client.__main__ import main as client_main
from tests.conftest import ServerProcess, server_process


@pytest.fixture(scope="module")
def repository(
    make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Repository:
    """grey, colour (of 3 classes) with directions; plain without."""
    found = Repository(tmp_path_factory.mktemp("models"))
    found.publish("grey", make_bundle(directions=True, weights_seed=1))
    colour = make_bundle(channels=3, num_classes=3, directions=True, weights_seed=2)
    found.publish("colour", colour)
    found.publish("plain", make_bundle(weights_seed=3))
    return found


@pytest.fixture(scope="module")
def moving(
    repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with server_process(repository.root, folder, "--max-seeds", "300") as running:
        yield running


def expected(
    repository: Repository,
    name: str,
    asked: dict[str, float],
    z: npt.NDArray[np.float32],
    labels: list[int] | None = None,
    psi: float = 1.0,
) -> npt.NDArray[np.uint8]:
    """What the bundle itself gives: the step is added to what psi has scaled."""
    bundle = repository.bundle(name)
    directions = read_directions(bundle)
    assert directions is not None
    shift = directions.shift(directions.resolve(asked), len(z), labels)
    moved = z * np.float32(psi) + (0 if shift is None else shift)
    label = None if labels is None else np.array(labels, np.int64)
    return CpuGenerator(bundle.model_path)(moved, label)


def array(response: Any) -> npt.NDArray[np.uint8]:
    assert response.status_code == 200, response.text
    found: npt.NDArray[np.uint8] = np.load(io.BytesIO(response.content))
    return found


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    found = np.asarray(Image.open(io.BytesIO(data)))
    return found[:, :, None] if found.ndim == 2 else found


def test_seeds_labels_psi_and_directions_go_together(
    moving: ServerProcess, repository: Repository
) -> None:
    asked, labels = {"slant": 1.5, "2": -1.0, "class:1": 0.5}, [2, 0, 1]
    body = {"model": "colour", "labels": labels, "truncation": 0.5, "format": "npy"}
    found = array(moving.generate(**body, seeds=[3, 4, 5], directions=asked))
    z = latents([3, 4, 5], 6)
    assert np.array_equal(found, expected(repository, "colour", asked, z, labels, 0.5))
    still = array(moving.generate(**body, seeds=[3, 4, 5]))
    assert not np.array_equal(found, still)
    assert np.array_equal(array(moving.generate(**body, seeds=[3, 4, 5], directions={})), still)
    given = array(moving.generate(**body, latents=z.tolist(), directions=asked))
    assert np.array_equal(given, found)


def test_the_same_bytes_at_any_load(moving: ServerProcess) -> None:
    def ask(units: float) -> bytes:
        body = {"model": "grey", "seeds": [7], "format": "png", "directions": {"0": units}}
        return bytes(moving.generate(**body).content)

    alone = [ask(units / 8) for units in range(-8, 9)]
    assert len(set(alone)) == 17
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, [units / 8 for units in range(-8, 9)] * 6))
    assert together == alone * 6
    many = array(
        moving.generate(model="grey", seeds=list(range(300)), directions={"1": 2}, format="npy")
    )
    one = array(moving.generate(model="grey", seeds=[299], directions={"1": 2}, format="npy"))
    assert np.array_equal(many[299], one[0])


def test_an_image_as_a_url(moving: ServerProcess) -> None:
    url = "/v1/models/colour/images/42.png?label=1"
    still, moved = moving.get(url), moving.get(f"{url}&d0=1.5&d.class:1=-2&d.ink%20above=1")
    body = {"model": "colour", "seeds": [42], "labels": 1, "format": "png"}
    asked = {"slant": 1.5, "class:1": -2, "2": 1}
    assert moved.content == moving.generate(**body, directions=asked).content
    assert moved.headers["etag"] != still.headers["etag"]
    same = moving.get(f"{url}&d.slant=1.5&d.class:1=-2.0&d2=1")
    assert same.headers["etag"] == moved.headers["etag"]
    assert moving.get(f"{url}&d0=0").headers["etag"] == still.headers["etag"]
    header = {"if-none-match": moved.headers["etag"]}
    assert moving.get(f"{url}&d0=1.5&d.class:1=-2&d2=1", headers=header).status_code == 304


def test_a_walk_is_moved_as_a_whole(moving: ServerProcess, repository: Repository) -> None:
    body = {"model": "colour", "seeds": [1, 2], "label": 2, "frames": 5, "format": "strip"}
    response = moving.post("/v1/interpolate", json={**body, "directions": {"class:0": 2}})
    assert response.status_code == 200, response.text
    z = walk(latents([1, 2], 6), 5)
    frames = expected(repository, "colour", {"class:0": 2}, z, [2] * 5)
    assert np.array_equal(pixels(response.content), np.concatenate(list(frames), axis=1))


def infer(moving: ServerProcess, directions: Any) -> Any:
    inputs = [{"name": "SEED", "datatype": "UINT64", "shape": [2], "data": [5, 6]}]
    body = {"inputs": inputs, "parameters": {"directions": directions}}
    return moving.post("/v2/models/grey/infer", json=body)


def test_a_parameter_of_the_inference_protocol(
    moving: ServerProcess, repository: Repository
) -> None:
    response = infer(moving, "slant:1.5,1:-0.25")
    assert response.status_code == 200, response.text
    found = np.array(response.json()["outputs"][0]["data"], np.uint8).reshape(2, 8, 8, 1)
    asked = {"slant": 1.5, "1": -0.25}
    assert np.array_equal(found, expected(repository, "grey", asked, latents([5, 6], 6)))
    for wrong, words in (
        (3, "must be a string"),
        ("x", "no direction and its units"),
        ("9:1", "'9'"),
    ):
        refused = infer(moving, wrong)
        assert refused.status_code == 400
        assert words in refused.json()["error"]


def test_the_list_of_a_model(moving: ServerProcess) -> None:
    found = moving.get("/v1/models/colour/directions").json()
    first = found["directions"][0]
    assert (first["key"], first["name"], first["label"]) == ("0", "slant", None)
    assert first["evidence"][0] == {"concept": "area", "correlation": 0.7}
    assert first["share"] == pytest.approx(1 / 3, abs=1e-3)
    of_class = [(each["key"], each["label"]) for each in found["directions"][3:]]
    assert of_class == [(f"class:{k}", label) for label in range(3) for k in range(2)]
    body = {"model": "colour", "seeds": [1], "labels": 0}
    for each in found["directions"]:
        assert moving.generate(**body, directions={each["key"]: 1}).status_code == 200
    refused = moving.get("/v1/models/plain/directions")
    assert refused.status_code == 400
    assert "has none" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "plain", "directions": {"0": 1}}, "model 'plain' (version 1) has none"),
        ({"model": "grey", "directions": {"3": 1}}, "allowed are 0 .. 2, slant, ink above"),
        ({"model": "grey", "directions": {"class:0": 1}}, "names 'class:0', allowed"),
        ({"model": "grey", "directions": {"0": 11}}, "directions['0'] is 11, allowed are -10"),
        ({"model": "grey", "directions": {"0": 1, "slant": 1}}, "names 0 twice"),
        ({"model": "grey", "directions": {"0": "1"}}, "directions"),
        ({"model": "grey", "directions": [1.5]}, "directions"),
        ({"model": "grey", "directions": {str(i): 0 for i in range(17)}}, "has 17 entries"),
    ],
)
def test_refusals_in_words(moving: ServerProcess, body: dict[str, Any], words: str) -> None:
    for response in (
        moving.generate(**body, seeds=[1]),
        moving.post("/v1/interpolate", json={**body, "seeds": [1, 2], "frames": 2}),
    ):
        assert response.status_code == 400, response.text
        assert words in response.json()["detail"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("d0=x", "d0 is 'x', must be a number"),
        ("d9=1", "names '9', allowed"),
        ("d0=nan", "is nan, allowed"),
        ("d0=1&d0=2", "given twice"),
        ("d0=1&d.slant=2", "names 0 twice"),
        ("d.0=1", "query parameter 'd.0'"),
        ("dx=1", "query parameter 'dx'"),
    ],
)
def test_a_url_is_refused_in_words(moving: ServerProcess, query: str, words: str) -> None:
    response = moving.get(f"/v1/models/grey/images/1.png?{query}")
    assert response.status_code == 400, response.text
    assert words in response.json()["detail"]


def test_a_file_that_was_altered_answers_503(
    make_bundle: Callable[..., Bundle], tmp_path: Any, start_server: Any
) -> None:
    repository = Repository(tmp_path / "models")
    published = repository.publish("grey", make_bundle(directions=True))
    server = start_server(repository.root)
    path = published.path / DIRECTIONS
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    response = server.generate(seeds=[1], directions={"0": 1})
    assert response.status_code == 503
    assert "can't be read" in response.json()["detail"]
    assert str(tmp_path) not in response.text
    assert server.generate(seeds=[1]).status_code == 200
    path.write_bytes(whole)
    assert server.generate(seeds=[1], directions={"0": 1}).status_code == 200


def test_clients_and_files_give_the_same(
    moving: ServerProcess, repository: Repository, tmp_path: Any
) -> None:
    asked = {"slant": 1.5, "class:1": -0.5}
    images = expected(repository, "colour", asked, latents([1, 2], 6), [2, 2], 0.5)
    with Client(moving.url) as client:
        options: dict[str, Any] = {"labels": 2, "model": "colour", "truncation": 0.5}
        assert np.array_equal(client.generate_array([1, 2], directions=asked, **options), images)
    words = ["--seeds", "1,2", "--labels", "2", "--truncation", "0.5"]
    words += ["--directions", "slant:1.5,class:1:-0.5"]
    online, local = tmp_path / "online.npy", tmp_path / "local.npy"
    command = ["--url", moving.url, "generate", "--model", "colour", *words, "--npy", str(online)]
    assert client_main(command) == 0
    command = ["colour", "--repository", str(repository.root), *words, "--npy", str(local)]
    assert offline.main(command) == 0
    assert np.array_equal(np.load(online), images)
    assert online.read_bytes() == local.read_bytes()


def test_a_file_says_its_directions_and_is_made_again(
    moving: ServerProcess, repository: Repository, tmp_path: Any
) -> None:
    asked = {"slant": 0.1, "class:1": -2}
    body: dict[str, Any] = {"model": "colour", "labels": 2, "directions": asked, "format": "png"}
    path, new = tmp_path / "image.png", tmp_path / "new.png"
    for more in ({"seeds": [7]}, {"seeds": [1, 2, 3], "layout": "grid"}):
        path.write_bytes(moving.generate(**body, **more).content)
        assert read_metadata(path.read_bytes())["directions"] == "class:1:-2,0:0.1"
        command = ["--url", moving.url, "show", str(path), "--again", str(new), "--force"]
        assert client_main(command) == 0
        assert new.read_bytes() == path.read_bytes()
    words = ["--seeds", "7", "--labels", "2", "--directions", "slant:0.1,class:1:-2"]
    place = ["--repository", str(repository.root), "--out", str(tmp_path / "out")]
    assert offline.main(["colour", *place, *words]) == 0
    made = (tmp_path / "out" / "7.png").read_bytes()
    assert read_metadata(made)["directions"] == "class:1:-2,0:0.1"
    online = ["--url", moving.url, "generate", "--model", "colour", "--out", str(tmp_path / "on")]
    assert client_main([*online, *words]) == 0
    assert read_metadata((tmp_path / "on" / "7.png").read_bytes())["directions"] == (
        "slant:0.1,class:1:-2.0"
    )
    names = {"like \N{CJK UNIFIED IDEOGRAPH-732B}": 1.0, "50% more": -0.25}
    assert written_amounts(names).isascii()
    assert read_amounts(written_amounts(names)) == names


def test_offline_refusals(
    repository: Repository, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--seeds", "1", "--npy", str(tmp_path / "a.npy"), "--repository", str(repository.root)]
    assert offline.main(["plain", *out, "--directions", "0:1"]) == 2
    assert "--directions is given, but plain has none" in capsys.readouterr().err
    assert offline.main(["grey", *out, "--directions", "7:1"]) == 2
    assert "--directions names '7', allowed are 0 .. 2" in capsys.readouterr().err


def test_an_image_s_directions_as_text_are_exact() -> None:
    directions = {"0": 0.1, "class:3": -1 / 3, "2": 2.0}
    assert parse_amounts("0:0.1,class:3:-0.3333333333333333,2:2") == directions
    from models.bundle.directions import Applied

    applied = [Applied("z", 0, 0.1), Applied("class", 3, -1 / 3), Applied("z", 2, 2.0)]
    assert as_text(applied) == "0:0.1,class:3:-0.3333333333333333,2:2"
