"""openapi.json against a real server: its examples work, real answers are as it says."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle
from models.repository import Repository
from models.repository.candidate import Candidate
from serving.api.described.routes import V1Models
from serving.api.jobs import JobRoutes
from serving.api.openapi import document, with_openapi
from serving.api.operations import MODEL, Operation
from serving.api.pages import Pages
from serving.api.probes import Probes
from serving.api.real_image.routes import RealImageRoutes
from serving.api.router import Route
from serving.api.v1 import V1
from serving.api.v2.routes import V2
from serving.command_line import parse
from serving.errors import UnavailableProblem
from serving.http.messages import Request, Response
from tests.conftest import server_process
from tests.real_images import FULL
from tests.serving.api.documented import Documented
from tests.support import make_service, wait_for

MAX_BODY_BYTES = 20_000


@pytest.fixture(scope="module")
def documented(
    make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Documented]:
    """digits: CURRENT 1 and candidate 2; spare: unloaded."""
    folder = tmp_path_factory.mktemp("documented")
    repository = Repository(folder / "repository")
    for version in (1, 2):
        repository.publish(
            "digits",
            make_bundle(
                num_classes=10,
                weights_seed=version,
                directions=True,
                units=True,
                encoder=FULL,
            ),
        )
    repository.publish("spare", make_bundle())
    repository.promote("digits", 1, pin=True)
    repository.set_candidate("digits", Candidate(2, 20))
    jobs = folder / "jobs"
    flags = ["--model-control", "clients", "--max-body-bytes", str(MAX_BODY_BYTES)]
    flags += ["--jobs-folder", str(jobs)]
    with server_process(repository.root, folder, *flags) as server:
        assert server.post("/v2/repository/models/spare/unload").status_code == 200
        wait_for(lambda: server.get("/v1/models/digits").json()["candidate"] is not None)
        found = Documented(server)
        make_example_job(found, jobs)
        yield found


def make_example_job(documented: Documented, folder: Path) -> None:
    """A job that is done, under the id of the examples."""
    server = documented.server
    job = server.post("/v1/jobs", json={"model": "digits", "seeds": [1], "labels": 1}).json()["id"]
    wait_for(lambda: server.get(f"/v1/jobs/{job}").json()["status"] == "done")
    path = "/v1/jobs/{id}"
    wanted = documented.example(path, "get")["url"].rpartition("/")[2]
    (folder / job).rename(folder / wanted)


def test_every_example_works_and_is_answered_as_described(documented: Documented) -> None:
    assert len(documented.operations) > 40
    for path, method, operation in documented.operations:
        response = documented.ask(path, method)
        supported = operation["tags"] != ["Not supported"]
        taken = 202 if operation["operationId"] == "job_post" else 200
        assert response.status_code == (taken if supported else 501), (path, response.text)


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
    response = documented.ask(path, method, **changes)
    assert response.status_code == status, response.text


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
    assert len(posts) == 14
    for path, method in posts:
        for status, changes in {
            400: {"content": b"x"},
            413: {"content": b" " * (MAX_BODY_BYTES + 1)},
            415: {"content": b"{}", "headers": {"content-encoding": "br"}},
        }.items():
            response = documented.ask(path, method, json=None, **changes)
            assert response.status_code == status, (path, response.text)
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


def routes_of(folder: Path, *flags: str) -> list[Route]:
    """The routes of a server with these flags."""
    settings = parse(list(flags), {})
    service = make_service(settings, folder)
    jobs = JobRoutes(service, None)
    real = RealImageRoutes(service)
    described = V1Models(service)
    rooms = (V1(service), described, real, V2(service), jobs, Probes(service), Pages())
    return with_openapi([route for room in rooms for route in room.routes()], settings)


def test_every_route_is_described(documented: Documented, tmp_path: Path) -> None:
    routes = routes_of(tmp_path)
    assert all(route.operation or route.path.startswith("/web/") for route in routes)
    wanted = [(r.path, r.method.lower()) for r in routes if not r.path.startswith("/web/")]
    found = {(path, method) for path, method, _ in documented.operations}
    assert found == set(wanted)
    assert len(wanted) == len(found)
    names = [operation["operationId"] for _, _, operation in documented.operations]
    assert len(set(names)) == len(names)
    tags = {entry["name"] for entry in documented.spec["tags"]}
    assert all(set(operation["tags"]) <= tags for _, _, operation in documented.operations)


def test_a_route_that_is_added_is_described_by_what_it_carries() -> None:
    """In one place: where it is declared."""

    class Pose(msgspec.Struct):
        """How the head is turned."""

        yaw: float

    async def pose(request: Request) -> Response:
        return Response(b"")

    operation = Operation(
        id="pose",
        summary="Turns a head.",
        tag="Heads",
        parameters=(MODEL,),
        body={"application/json": Pose},
        response="The image.",
        content={"image/png": bytes},
        has_etag=True,
        problems=(UnavailableProblem,),
    )
    route = Route("POST", "/v1/models/{model}/pose", pose, operation)
    spec = document([route], parse([], {}))
    (entry,) = spec["paths"]["/v1/models/{model}/pose"].values()
    statuses = {int(status) for status in entry["responses"]}
    assert statuses == {200, 304, 400, 408, 413, 414, 415, 431, 503}
    assert entry["responses"]["200"]["content"] == {
        "image/png": {"schema": {"type": "string", "format": "binary"}}
    }
    refs = {parameter.get("$ref", "").rpartition("/")[2] for parameter in entry["parameters"]}
    assert refs == {"", "If-None-Match", "X-Request-Id", "traceparent"}
    assert set(spec["components"]["schemas"]) == {"Pose", "ProblemDocument", "V2Error"}
    assert spec["tags"] == [{"name": "Heads"}]


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
    response = documented.ask("/livez", headers={"x-request-id": "mine"})
    assert response.headers["x-request-id"] == "mine"


def test_it_says_what_this_server_allows(tmp_path: Path) -> None:
    def described(*flags: str) -> dict[str, Any]:
        return document(routes_of(tmp_path, *flags), parse(list(flags), {}))

    usual = described()
    timeout = usual["components"]["parameters"]["X-Request-Timeout-Ms"]["schema"]
    assert timeout["maximum"] == 30_000
    load = "/v2/repository/models/{model}/load"
    assert "200" not in usual["paths"][load]["post"]["responses"]
    assert "--model-control off" in usual["paths"][load]["post"]["description"]
    other = described("--model-control", "clients", "--request-timeout-ms", "7")
    assert other["components"]["parameters"]["X-Request-Timeout-Ms"]["schema"]["maximum"] == 7
    assert "200" in other["paths"][load]["post"]["responses"]
    assert "/metrics" in usual["paths"]
    assert "/metrics" not in described("--metrics-port", "9999")["paths"]


def test_where_a_key_is_missing_the_answer_is_as_described(guarded: Any) -> None:
    closed = Documented(guarded.server)
    for path, method in (("/v1/models", "get"), ("/v2", "get"), (IMAGE, "head")):
        assert closed.ask(path, method).status_code == 401
    assert "content" not in closed.spec["paths"][IMAGE]["head"]["responses"]["401"]
    assert "security" not in closed.spec["paths"]["/docs"]["get"]
