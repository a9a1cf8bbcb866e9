"""Styles and units wherever images can be asked for: URLs, walks, v2; and what lists them."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle
from models.image_metadata import read_metadata
from models.repository import Repository
from tests.conftest import ServerProcess, server_process


@pytest.fixture(scope="module")
def server(
    make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    repository = Repository(tmp_path_factory.mktemp("models"))
    repository.publish("units", make_bundle(num_classes=3, units=True))
    repository.publish("styles", make_bundle(weights_seed=2, styles=True))
    with server_process(repository.root, tmp_path_factory.mktemp("log")) as running:
        yield running


def image(server: ServerProcess, model: str, query: str, status: int = 200) -> Any:
    response = server.get(f"/v1/models/{model}/images/7.png?{query}")
    assert response.status_code == status, response.text
    return response


def test_a_url_switches_units_off(server: ServerProcess) -> None:
    body = {"model": "units", "seeds": [7], "labels": 1}
    wanted = server.generate(**body, units_off=[3, 1]).content
    found = image(server, "units", "label=1&units_off=1,3")
    assert found.content == wanted
    whole = image(server, "units", "label=1")
    assert whole.content != wanted
    assert whole.headers["etag"] != found.headers["etag"]
    assert read_metadata(wanted)["units_off"] == "1,3"


def test_a_url_mixes_styles(server: ServerProcess) -> None:
    body: dict[str, Any] = {"model": "styles", "seeds": [7]}
    styles = {"from": "2", "layers": [3, 0], "truncation": [1, 0.5, 0.5, 1]}
    wanted = server.generate(**body, styles=styles).content
    query = "styles.from=2&styles.layers=0,3&styles.truncation=1,0.5,0.5,1"
    assert image(server, "styles", query).content == wanted
    told = '{"from":2,"layers":[0,3],"truncation":[1.0,0.5,0.5,1.0]}'
    assert read_metadata(wanted)["styles"] == told  # the same words, however it is written


def test_the_same_pixels_of_other_words_are_other_files(server: ServerProcess) -> None:
    """A truncation of 1 in each style is none; one file says so, the other doesn't."""
    plain = image(server, "styles", "styles.from=2&styles.layers=0")
    told = image(server, "styles", "styles.from=2&styles.layers=0&styles.truncation=1,1,1,1")
    assert "truncation" not in read_metadata(plain.content)["styles"]
    assert "truncation" in read_metadata(told.content)["styles"]
    assert plain.headers["etag"] != told.headers["etag"]


@pytest.mark.parametrize(
    ("model", "query", "words"),
    [
        ("units", "label=1&units_off=a", "units_off is 'a', must be numbers of units with commas"),
        ("units", "label=1&units_off=1,4", "units_off[1] is 4, allowed are 0 .. 3"),
        ("units", "label=1&styles.from=1&styles.layers=0", "styles: model 'units'"),
        ("styles", "units_off=1", "units_off: model 'styles' (version 1) has none"),
        ("styles", "styles.from=2", "styles.from is given without styles.layers"),
        ("styles", "styles.from=x&styles.layers=0", "styles.from is 'x', allowed are 0 .. "),
        ("styles", "styles.layers=0-2&styles.from=1", "styles.layers is '0-2', must be numbers"),
        ("styles", "styles.truncation=1,a", "styles.truncation is '1,a', must be numbers"),
        ("styles", "styles.truncation=nan,1,1,1", "styles.truncation[0] is nan, allowed"),
    ],
)
def test_refusals_in_words(server: ServerProcess, model: str, query: str, words: str) -> None:
    assert words in image(server, model, query, status=400).json()["detail"]


def strip(server: ServerProcess, **body: Any) -> bytes:
    response = server.post("/v1/interpolate", json={"frames": 3, "format": "strip", **body})
    assert response.status_code == 200, response.text
    return bytes(response.content)


def test_every_frame_of_a_walk_has_them(server: ServerProcess) -> None:
    walk: dict[str, Any] = {"model": "units", "seeds": [1, 2], "label": 0}
    off = strip(server, **walk, units_off=[0])
    assert off != strip(server, **walk)
    body = {"model": "units", "seeds": [1], "labels": 0, "units_off": [0], "format": "npy"}
    first = np.load(io.BytesIO(server.generate(**body).content))[0]
    assert (np.asarray(Image.open(io.BytesIO(off)))[:, :8] == first[..., 0]).all()
    walk = {"model": "styles", "seeds": [1, 2]}
    assert strip(server, **walk, styles={"from": 9, "layers": [1]}) != strip(server, **walk)


def v2(server: ServerProcess, model: str, **parameters: Any) -> Any:
    inputs = [{"name": "SEED", "datatype": "UINT64", "shape": [1], "data": [7]}]
    if model == "units":
        inputs.append({"name": "LABEL", "datatype": "INT64", "shape": [1], "data": [1]})
    body = {"inputs": inputs, "parameters": parameters}
    return server.post(f"/v2/models/{model}/infer", json=body)


def test_v2_takes_them_as_parameters(server: ServerProcess) -> None:
    def pixels(model: str, **fields: Any) -> Any:
        body = {"model": model, "seeds": [7], "format": "npy", **fields}
        return np.load(io.BytesIO(server.generate(**body).content)).ravel().tolist()

    off = v2(server, "units", units_off="1,3").json()["outputs"][0]["data"]
    assert off == pixels("units", labels=1, units_off=[1, 3])
    parameters = {"styles.from": "2", "styles.layers": "0,3", "styles.truncation": "1,1,0.5,1"}
    mixed = v2(server, "styles", **parameters).json()["outputs"][0]["data"]
    styles = {"from": 2, "layers": [0, 3], "truncation": [1, 1, 0.5, 1]}
    assert mixed == pixels("styles", styles=styles)
    refused = v2(server, "units", units_off=3)
    assert refused.status_code == 400
    assert "parameter units_off is 3, must be a string such as '3,17'" in refused.json()["error"]


def test_units_are_listed_with_their_evidence(server: ServerProcess) -> None:
    found = server.get("/v1/models/units/units").json()
    assert found["num"] == 4
    assert found["layers"][1] == {"maps": "8x8", "first": 1, "num": 3}
    assert found["concepts"][0]["closest"][0] == {"unit": 0, "agreement": 0.5}
    assert len(found["concepts"][0]["closest"]) == 2  # those that don't agree are left out
    assert found["effects"][0]["units"] == [0, 1]
    assert found["artifacts"] == [{"unit": 3, "gain": 2.5, "low": 1.5, "high": 3.5}]
    assert server.get("/v1/models/styles").json()["num_styles"] == 4
    assert server.get("/v1/models/units").json()["num_styles"] is None
    none = server.get("/v1/models/styles/units")
    assert none.status_code == 400
    assert "has none" in none.json()["detail"]
