"""openapi.json against a real server: its examples work, real answers are as it says."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from models.bundle import Bundle
from models.candidate import Candidate
from models.repository import Repository
from serving.openapi import described
from serving.settings import parse
from tests.conftest import ServerProcess, server_process
from tests.support import wait_for

MAX_BODY_BYTES = 20_000
# Of every answer of HTTP, or of every page; they say nothing of this server.
GENERIC = {"content-type", "content-length", "date", "server", "connection", "allow"}
GENERIC |= {"content-security-policy", "x-content-type-options", "referrer-policy"}
GENERIC |= {"content-encoding", "vary"}


class Documented:
    """A server with all that its description speaks of, and that description."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.spec: dict[str, Any] = server.get("/openapi.json").json()
        self.operations = [
            (path, method, operation)
            for path, operations in self.spec["paths"].items()
            for method, operation in operations.items()
        ]

    def resolved(self, entry: Any) -> Any:
        """What a reference leads to."""
        if "$ref" not in entry:
            return entry
        found: Any = self.spec
        for name in entry["$ref"].split("/")[1:]:
            found = found[name]
        return found

    def example(self, path: str, method: str) -> dict[str, Any]:
        """The request that the examples make, as httpx takes it."""
        operation = self.spec["paths"][path][method]
        given: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
        for entry in map(self.resolved, operation["parameters"]):
            if "example" in entry:
                given[entry["in"]][entry["name"]] = entry["example"]
        request = {
            "method": method.upper(),
            "url": self.server.url + path.format(**given["path"]),
            "params": given["query"],
        }
        json = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in json.get("examples", {}).values():
            request["json"] = example["value"]
        return request

    def ask(self, path: str, method: str = "get", **changes: Any) -> httpx.Response:
        """The example's request with some changes; its answer must be as documented."""
        reply = httpx.request(**self.example(path, method) | changes, timeout=30)
        self.check(path, method, reply)
        return reply

    def check(self, path: str, method: str, reply: httpx.Response) -> None:
        """Holds an answer against the description: status, headers, type, fields."""
        responses = self.spec["paths"][path][method]["responses"]
        where = f"{method} {path}: {reply.status_code} {reply.text[:300]}"
        assert str(reply.status_code) in responses, where
        entry = responses[str(reply.status_code)]
        headers = {
            name.lower() for name, ref in entry["headers"].items() if self.resolved(ref)["required"]
        }
        known = {name.lower() for name in entry["headers"]}
        assert headers <= set(reply.headers), where
        assert set(reply.headers) - GENERIC <= known, where
        content = entry.get("content", {})
        if not reply.content:
            assert method == "head" or not content, where
            return
        media_type = reply.headers["content-type"].partition(";")[0]
        assert media_type in content, where
        if media_type.endswith("json"):
            schema = {**content[media_type]["schema"], "components": self.spec["components"]}
            Draft202012Validator(schema).validate(reply.json())


@pytest.fixture(scope="module")
def documented(
    make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Documented]:
    """digits: CURRENT 1 and candidate 2; spare: unloaded."""
    folder = tmp_path_factory.mktemp("documented")
    repository = Repository(folder / "repository")
    for version in (1, 2):
        repository.publish("digits", make_bundle(num_classes=10, weights_seed=version))
    repository.publish("spare", make_bundle())
    repository.promote("digits", 1, pin=True)
    repository.set_candidate("digits", Candidate(2, 20))
    flags = ["--model-control", "clients", "--max-body-bytes", str(MAX_BODY_BYTES)]
    with server_process(repository.root, folder, *flags) as server:
        assert server.post("/v2/repository/models/spare/unload").status_code == 200
        wait_for(lambda: server.get("/v1/models/digits").json()["candidate"] is not None)
        yield Documented(server)


def test_every_example_works_and_is_answered_as_described(documented: Documented) -> None:
    assert len(documented.operations) > 40
    for path, method, operation in documented.operations:
        reply = documented.ask(path, method)
        supported = operation["tags"] != ["Not supported"]
        assert reply.status_code == (200 if supported else 501), (path, reply.text)


IMAGE = "/v1/models/{model}/images/{file}"
INFER = "/v2/models/{model}/infer"
SEEDS = [{"name": "SEED", "datatype": "UINT64", "shape": [1], "data": [1]}]
LABELLED = [*SEEDS, {"name": "LABEL", "datatype": "INT64", "shape": [1], "data": [1]}]
BINARY = {"inputs": LABELLED, "id": "x", "parameters": {"binary_data_output": True}}


@pytest.mark.parametrize(
    ("path", "method", "changes", "status"),
    [
        ("/v1/generate", "post", {"json": {"model": "digits", "seeds": [1, 2], "labels": 3}}, 200),
        ("/v1/generate", "post", {"json": {"model": "nix", "seeds": [1]}}, 404),
        ("/v1/generate", "post", {"headers": {"accept": "text/html"}}, 406),
        ("/v1/generate", "post", {"headers": {"x-priority": "x"}}, 400),
        ("/v1/interpolate", "post", {"headers": {"accept": "image/png"}}, 200),
        (IMAGE, "get", {"headers": {"if-none-match": "*"}}, 304),
        (IMAGE, "get", {"params": {}}, 400),
        (IMAGE, "head", {"params": {"label": 9}}, 200),
        (IMAGE, "head", {"params": {}}, 400),
        ("/v1/models", "get", {"params": {"x": 1}}, 400),
        ("/v1/models/{model}", "get", {"params": {"version": 99}}, 404),
        (INFER, "post", {"json": BINARY}, 200),
        (INFER, "post", {"json": {**BINARY, "parameters": {}}}, 200),
        (INFER, "post", {"json": {"inputs": SEEDS}}, 400),
        ("/v2/repository/index", "post", {"json": {}}, 200),
        ("/docs", "get", {"headers": {"if-none-match": "*"}}, 304),
    ],
)
def test_other_answers_are_as_described_too(
    documented: Documented, path: str, method: str, changes: dict[str, Any], status: int
) -> None:
    reply = documented.ask(path, method, **changes)
    assert reply.status_code == status, reply.text


def test_the_answers_held_against_it_were_not_empty(documented: Documented) -> None:
    described = documented.ask("/v1/models/{model}", params={}).json()
    assert described["candidate"]["share_percent"] == 20
    index = documented.ask("/v2/repository/index", "post", json={}).json()
    assert {entry["state"] for entry in index} == {"READY", "UNAVAILABLE"}
    assert documented.ask("/v2/models/stats").json()["model_stats"]


def test_what_can_be_wrong_with_a_body_is_described_wherever_there_is_one(
    documented: Documented,
) -> None:
    posts = [(p, m) for p, m, operation in documented.operations if "requestBody" in operation]
    assert len(posts) == 8
    for path, method in posts:
        for status, changes in {
            400: {"content": b"x"},
            413: {"content": b" " * (MAX_BODY_BYTES + 1)},
            415: {"content": b"{}", "headers": {"content-encoding": "br"}},
        }.items():
            reply = documented.ask(path, method, json=None, **changes)
            assert reply.status_code == status, (path, reply.text)
        assert {"408", "414", "431"} <= set(documented.spec["paths"][path][method]["responses"])


@pytest.mark.parametrize("path", ["/livez", "/v2/health/live", "/v1/models"])
def test_a_head_that_is_too_long_is_described(documented: Documented, path: str) -> None:
    assert documented.ask(path, params={"x": "1" * 40_000}).status_code == 414
    assert documented.ask(path, headers={"x-y": "1" * 40_000}).status_code == 431


def test_no_answer_of_json_is_without_fields(documented: Documented) -> None:
    """But openapi.json, whose fields are OpenAPI's."""
    for path, method, operation in documented.operations:
        if path == "/openapi.json":
            continue
        for entry in operation["responses"].values():
            for media_type, content in entry.get("content", {}).items():
                if media_type.endswith("json"):
                    schema = documented.resolved(content["schema"])
                    schema = documented.resolved(schema.get("items", schema))
                    assert schema["properties"], (method, path)
                    assert schema["required"], (method, path)


def test_every_route_is_described(documented: Documented, tmp_path: Path) -> None:
    from serving.oip import OIP
    from serving.probes import Probes
    from serving.service import Service
    from serving.site import Site
    from serving.v1 import V1

    service = Service(parse([], {}), run_folder=tmp_path, num_workers=1, on_ready=lambda _: None)
    rooms = (V1(service), OIP(service), Probes(service), Site())
    routes = {
        (route.path, method.lower())
        for room in rooms
        for route in room.routes()
        for method in route.handlers
        if not route.path.startswith("/web/")
    }
    found = {(path, method) for path, method, _ in documented.operations}
    assert found == routes | {(IMAGE, "head")}
    names = [operation["operationId"] for _, _, operation in documented.operations]
    assert len(set(names)) == len(names)
    tags = {entry["name"] for entry in documented.spec["tags"]}
    assert all(set(operation["tags"]) <= tags for _, _, operation in documented.operations)


def test_the_examples_make_what_they_say(documented: Documented) -> None:
    grid = Image.open(io.BytesIO(documented.ask("/v1/generate", "post").content))
    assert np.asarray(grid).shape == (16, 16)
    walk = documented.ask("/v1/interpolate", "post")
    assert walk.headers["content-type"] == "image/webp"
    assert documented.ask(INFER, "post").json()["outputs"][0]["shape"] == [2, 8, 8, 1]


def headers_of(spec: dict[str, Any], path: str, method: str) -> set[str]:
    parameters = spec["paths"][path][method]["parameters"]
    return {entry["$ref"].rpartition("/")[2] for entry in parameters if "$ref" in entry}


def test_headers_that_are_heeded_are_described(documented: Documented) -> None:
    terms = {"X-Request-Timeout-Ms", "X-Priority"}
    everywhere = {"X-Request-Id", "traceparent"}
    for path, method, wanted in (
        ("/v1/generate", "post", terms),
        ("/v1/interpolate", "post", terms),
        (IMAGE, "get", terms | {"If-None-Match"}),
        (INFER, "post", terms | {"Inference-Header-Content-Length"}),
        ("/docs", "get", {"If-None-Match"}),
        ("/livez", "get", set()),
    ):
        assert headers_of(documented.spec, path, method) == wanted | everywhere
    refused = documented.spec["paths"]["/v1/generate"]["post"]["responses"]["429"]
    assert "Retry-After" in refused["headers"]
    reply = documented.ask("/livez", headers={"x-request-id": "mine"})
    assert reply.headers["x-request-id"] == "mine"


def test_it_says_what_this_server_allows() -> None:
    usual = described(parse([], {}))
    timeout = usual["components"]["parameters"]["X-Request-Timeout-Ms"]["schema"]
    assert timeout["maximum"] == 30_000
    load = "/v2/repository/models/{model}/load"
    assert "200" not in usual["paths"][load]["post"]["responses"]
    assert "--model-control off" in usual["paths"][load]["post"]["description"]
    other = described(parse(["--model-control", "clients", "--request-timeout-ms", "7"], {}))
    assert other["components"]["parameters"]["X-Request-Timeout-Ms"]["schema"]["maximum"] == 7
    assert "200" in other["paths"][load]["post"]["responses"]


def test_where_a_key_is_missing_the_answer_is_as_described(guarded: Any) -> None:
    closed = Documented(guarded.server)
    for path, method in (("/v1/models", "get"), ("/v2", "get"), (IMAGE, "head")):
        assert closed.ask(path, method).status_code == 401
    assert "content" not in closed.spec["paths"][IMAGE]["head"]["responses"]["401"]
    assert "security" not in closed.spec["paths"]["/docs"]["get"]
