"""The other routes of a real server: image URLs, models, probes, metrics, documentation."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.repository import Repository
from serving.settings import OWN_SEGMENTS
from tests.support import HTTP


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_an_image_has_a_url(server: Any, suffix: str, kind: str) -> None:
    response = server.get(f"/v1/models/colour/images/5.{suffix}?label=2&truncation=0.7")
    assert response.status_code == 200
    assert Image.open(io.BytesIO(response.content)).format == kind


def test_the_url_gives_the_bytes_of_the_post(server: Any) -> None:
    by_url = server.get("/v1/models/grey/images/18446744073709551615.png?version=1")
    posted = server.generate(model="grey", seeds=[2**64 - 1], version=1)
    assert by_url.content == posted.content


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/models/nix/images/1.png", 404, "nix"),
        ("/v1/models/..%2F..%2Fetc/images/1.png", 404, "there are"),
        ("/v1/models/grey/images/1.gif", 404, "SEED.png"),
        ("/v1/models/grey/images/1", 404, "SEED.png"),
        ("/v1/models/grey/images/x.png", 400, "seed is 'x'"),
        ("/v1/models/grey/images/-1.png", 400, "seed is -1, allowed are 0 .."),
        (f"/v1/models/grey/images/{10**50}.png", 400, "seed"),
        ("/v1/models/grey/images/1.png?label=0", 400, "label is given, but model 'grey' takes"),
        ("/v1/models/grey/images/1.png?truncation=x", 400, "truncation is 'x'"),
        ("/v1/models/grey/images/1.png?truncation=nan", 400, "truncation"),
        ("/v1/models/grey/images/1.png?size=3", 400, "'size'"),
        ("/v1/models/grey/images/1.png?version=1&version=2", 400, "twice"),
        ("/v1/models/grey/images/1.png?version=0", 400, "version"),
        ("/v1/models/colour/images/1.png", 400, "label is missing"),
        ("/v1/models/colour/images/1.png?label=9", 400, "label is 9"),
    ],
)
def test_a_wrong_url_is_explained(server: Any, path: str, status: int, words: str) -> None:
    response = server.get(path)
    assert response.status_code == status, response.text
    assert words in response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (
            "/v1/generate",
            '{"format": "bmp"}',
            "format is 'bmp', allowed are png",
        ),
        ("/v1/generate", '{"truncation": 3}', "truncation is 3, allowed are 0 .. 2"),
        ("/v1/generate", '{"version": 0}', "version is 0, allowed are 1 .. 2147483647"),
        ("/v1/generate", '{"seed": 4}', "'seed' is not known, there are model, version, seeds"),
        ("/v1/generate", '{"seed": 4}', "did you mean seeds?"),
        (
            "/v1/generate",
            '{"seeds": [1, "x"]}',
            "seeds[1] is 'x', allowed are 0 .. 18446744073709551615",
        ),
        ("/v1/interpolate", '{"frames": 1}', "frames is 1, allowed are 2 and more"),
        ("/v1/interpolate", '{"fps": 60}', "fps is 60, allowed are 1 .. 50"),
        ("/v1/generate", '{"layout": "row"}', "'row', allowed are list, grid"),
        ("/v1/interpolate", '{"format": "mp4"}', "'mp4', allowed are webp, gif, strip"),
        ("/v1/generate", "x", 'send for example {"seeds": [1, 2]}'),
        ("/v1/interpolate", "x", 'send for example {"seeds": [1, 2], "frames": 30}'),
        ("/v1/generate", '{"latents": [[NaN]]}', "JSON knows neither NaN nor Infinity, send"),
        ("/v1/generate", '{"latents": [[-Infinity]]}', "JSON knows neither NaN nor Infinity"),
        ("/v2/models/grey/infer", "x", 'send for example {"inputs": [{"name": "SEED", "datatype"'),
        ("/v2/repository/index", "x", "send for example {}"),
    ],
)
def test_a_wrong_body_is_explained(server: Any, path: str, body: str, words: str) -> None:
    response = server.post(path, content=body)
    assert response.status_code == 400, response.text
    answer = response.json()
    assert words in (answer["error"] if path.startswith("/v2") else answer["detail"])
    if words.startswith("send for example"):
        example = words.removeprefix("send for example ")
        assert "x" in body  # what it says works
        if path.startswith("/v1"):
            good = json.loads(example) | {"model": "grey"}
            assert server.post(path, json=good).status_code == 200


@pytest.mark.parametrize(
    ("path", "named", "not_named"),
    [
        ("/nix", ["/docs", "/v1/...", "/v2/...", "/predict"], "/v1/models"),
        ("/v1/nix", ["/v1/generate", "/v1/models/{model}"], "/v2"),
        ("/v1/", ["/v1/generate"], "/v2"),
    ],
)
def test_a_path_that_is_not_there_names_its_neighbours(
    server: Any, path: str, named: list[str], not_named: str
) -> None:
    response = server.get(path)
    assert response.status_code == 404
    known = response.json()["detail"].partition("there are: ")[2].split(", ")
    assert set(named) <= set(known)
    assert not any(route.startswith(not_named) and route != "/v2/..." for route in known)


def test_models_are_listed_with_their_limits(server: Any, tiny_repository: Path) -> None:
    models = {model["name"]: model for model in server.get("/v1/models").json()["models"]}
    assert set(models) == {"grey", "colour"}
    assert models["grey"]["versions"] == [1, 2]
    assert models["colour"]["labels"] == ["class 0", "class 1", "class 2"]
    assert models["colour"]["image"] == {"height": 16, "width": 16, "channels": 3}
    assert models["grey"]["limits"]["max_seeds"] == 300
    bundle = Repository(tiny_repository).bundle("grey")
    assert models["grey"]["digest"] == bundle.digest
    assert server.get("/v1/models/grey").json() == models["grey"]
    assert server.get("/v1/models/grey?version=1").json()["version"] == 1
    assert server.get("/v1/models/nix").status_code == 404


def test_probes_answer(server: Any) -> None:
    assert server.get("/livez").text == "ok\n"
    assert server.get("/readyz").text == "ok\n"
    assert server.get("/health").status_code == 200  # LitServe's name for it


def test_head_is_get_without_a_body(server: Any) -> None:
    path = server.url + "/v1/models/grey"
    head, get = HTTP.head(path), HTTP.get(path)
    assert head.content == b""
    assert head.headers["content-length"] == str(len(get.content))


def metric(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    total = 0.0
    for found, rest, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.M):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if found == name and labels.items() <= pairs.items():
            total += float(value)
    return total


def test_metrics_count_what_was_done(server: Any, tiny_repository: Path) -> None:
    before = server.get("/metrics").text
    server.generate(model="grey", seeds=[1, 2, 3])
    server.generate(model="grey", seeds=["x"])
    after = server.get("/metrics").text

    def grown(name: str, **labels: str) -> float:
        return metric(after, name, **labels) - metric(before, name, **labels)

    route = "/v1/generate"
    assert grown("saddlepoint_http_requests_total", route=route, status="200") == 1
    assert grown("saddlepoint_http_requests_total", route=route, status="400") == 1
    assert grown("saddlepoint_http_request_duration_seconds_count", route=route) == 2
    assert grown("saddlepoint_rows_generated_total", model="grey", version="2") == 3
    assert grown("saddlepoint_batch_rows_sum") == 3
    assert metric(after, "saddlepoint_rows_waiting") == 0
    digest = Repository(tiny_repository).bundle("grey").digest
    assert metric(after, "saddlepoint_model_info", model="grey", version="2", digest=digest) == 1


def test_no_prefix_of_a_proxy_is_a_path_of_the_server(server: Any) -> None:
    told = server.get("/nothing/of/this").json()["detail"].partition("there are: ")[2]
    segments = {path.strip("/").partition("/")[0] for path in told.split(", ")} - {""}
    assert len(segments) > 5
    assert segments <= OWN_SEGMENTS
