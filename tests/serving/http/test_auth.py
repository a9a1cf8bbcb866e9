"""Keys on a real server of two HTTP processes: who comes in, how fast; what changes meanwhile."""

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.repository import Repository
from serving.api.pages import PATHS
from serving.dispatch.catalogue import Served
from serving.encoding.bodies import Array
from serving.errors import RateLimitedProblem, SettingsError, UnavailableProblem
from serving.http.auth import OPEN
from serving.keys.key_file import read_keys
from serving.requests.deadlines import Scheduling
from serving.requests.generate import Order
from serving.run import keys_at_start
from serving.settings import Settings
from tests.serving.conftest import make_key
from tests.support import HTTP, http_processes_of, make_service, wait_for

ORDER = {"model": "grey", "seeds": [1]}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/generate"),
        ("POST", "/predict"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/grey"),
        ("GET", "/v1/models/grey/images/1.png"),
        ("HEAD", "/v1/models/grey/images/1.png"),
        ("GET", "/metrics"),
        ("GET", "/no/such/path"),
        ("GET", "//livez"),
        ("GET", "/livez/"),
        ("GET", "/livez/../v1/models"),
        ("OPTIONS", "/livez/"),
        ("PROPFIND", "/v1/models"),
    ],
)
def test_without_a_key_everything_is_closed(guarded: Any, method: str, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer sp_wrong"}, {"authorization": "Basic eDp5"}):
        response = HTTP.request(method, guarded.server.url + path, headers=headers)
        if method == "OPTIONS":
            assert response.status_code == 404  # a browser asks first, and can't bring a key
            return
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith('Bearer realm="saddlepoint"')
        assert ("invalid_token" in response.headers["www-authenticate"]) == bool(headers)
        if method != "HEAD":
            assert response.json()["type"] == "urn:saddlepoint:problem:unauthorized"
            assert "wrong" not in response.text  # a key with a typing mistake is no text for a log


def test_what_is_open_is_listed_and_answers(guarded: Any) -> None:
    assert {
        "/livez",
        "/readyz",
        "/health",
        "/v2/health/live",
        "/v2/health/ready",
        "/openapi.json",
    } == OPEN
    for path in OPEN | PATHS:
        assert guarded.server.get(path).status_code == 200


def test_the_documentation_says_where_a_key_is_needed(guarded: Any) -> None:
    spec = guarded.server.get("/openapi.json").json()
    assert spec["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            closed = path not in OPEN | PATHS
            assert ("security" in operation) == closed == ("401" in operation["responses"])


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_a_key_opens_both_roads(guarded: Any, chunked: bool, scheme: str) -> None:
    response = guarded.post(ORDER, chunked=chunked, authorization=f"{scheme} {guarded.key}")
    assert response.status_code == 200


def test_who_has_no_key_is_refused_before_the_body(guarded: Any) -> None:
    port = int(guarded.server.url.rpartition(":")[2])
    head = b"POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head)
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_a_rate_holds_over_all_processes_and_both_roads(guarded: Any) -> None:
    key = make_key(guarded.keys_path, "bob", "--rows-per-s", "0.001", "--burst", "7")
    wait_for(lambda: guarded.post({"model": "nix", "seeds": [1]}, key=key).status_code == 404)
    processes = http_processes_of(guarded.server)
    for pid in processes:  # it is valid in both
        with guarded.only(pid):
            wait_for(
                lambda: guarded.post({"model": "nix", "seeds": [1]}, key=key).status_code == 404
            )
    two = {"model": "grey", "seeds": [1, 2]}
    never = guarded.post({"model": "grey", "seeds": [1] * 8}, key=key)
    assert never.status_code == 400
    assert "8 images are asked for, key 'bob' may ask for 7 at once" in never.json()["detail"]
    statuses = []
    for number in range(4):
        with guarded.only(processes[number % 2]):
            response = guarded.post(two, key=key, chunked=number in (1, 3))
            statuses.append(response.status_code)
    assert statuses == [200, 200, 200, 429]  # 7 of them: mistakes were free
    assert response.json()["type"] == "urn:saddlepoint:problem:rate-limited"
    assert 900 <= int(response.headers["retry-after"]) <= 1000
    assert guarded.post(ORDER, key=key).status_code == 200  # the seventh
    short = guarded.post(ORDER, key=key)
    assert (short.status_code, short.json()["type"][-12:]) == (429, "rate-limited")
    image = HTTP.get(
        guarded.server.url + "/v1/models/grey/images/1.png",
        headers={"authorization": f"Bearer {key}"},
    )
    assert image.status_code == 429
    assert guarded.post(ORDER).status_code == 200  # others don't notice


def test_keys_come_and_go_while_it_runs(guarded: Any) -> None:
    path = guarded.keys_path
    before = path.read_text()
    key = make_key(path, "carol")
    processes = http_processes_of(guarded.server)

    def statuses() -> set[int]:
        found = set()
        for pid in processes:
            with guarded.only(pid):
                found.add(guarded.post(ORDER, key=key).status_code)
        return found

    def complaints() -> list[str]:
        messages = [entry["message"] for entry in guarded.log()]
        return [message for message in messages if "can't be read" in message]

    wait_for(lambda: statuses() == {200})
    num = len(complaints())
    path.write_text("alice is welcome\n")
    wait_for(lambda: len(complaints()) == num + 2)
    assert "line 1: must be NAME" in complaints()[-1]
    assert statuses() == {200}
    path.unlink()
    wait_for(lambda: len(complaints()) == num + 4)
    assert "No such file" in complaints()[-1]
    assert "hold for" in complaints()[-1]
    assert statuses() == {200}
    path.write_text(before)
    wait_for(lambda: statuses() == {401})
    assert guarded.post(ORDER).status_code == 200


def test_a_key_may_do_what_it_was_made_for(
    tiny_repository: Path, tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    path = tmp_path / "keys"
    keys = {
        scope: make_key(path, scope, "--scopes", scope)
        for scope in ("generate", "admin", "metrics")
    }
    flags = ("--api-keys", str(path), "--model-control", "clients")
    server = start_server(tiny_repository, *flags)

    def allowed(method: str, route: str, **more: Any) -> set[str]:
        """The scopes that let it through; the others are refused, and told why."""
        found = set()
        for scope, key in keys.items():
            headers = {"authorization": f"Bearer {key}"}
            response = HTTP.request(method, server.url + route, headers=headers, timeout=30, **more)
            if response.status_code < 300:
                found.add(scope)
                continue
            assert response.status_code == 403, response.text
            assert f"key '{scope}' has the scopes {scope}, this needs " in response.text
            assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
        return found

    assert allowed("POST", "/v1/generate", json=ORDER) == {"generate"}
    assert allowed("POST", "/v1/generate", content=iter([b'{"model":"grey","seeds":[1]}'])) == {
        "generate"
    }
    assert allowed("GET", "/v1/models/grey/images/1.png") == {"generate"}
    infer = {"inputs": [{"name": "SEED", "shape": [1], "datatype": "UINT64", "data": [1]}]}
    assert allowed("POST", "/v2/models/grey/infer", json=infer) == {"generate"}
    assert allowed("GET", "/v1/models") == {"generate", "admin"}
    assert allowed("POST", "/v2/repository/index") == {"generate", "admin"}
    assert allowed("POST", "/v2/repository/models/colour/unload") == {"admin"}
    assert allowed("POST", "/v2/repository/models/colour/load") == {"admin"}
    assert allowed("GET", "/metrics") == {"metrics"}
    documented = server.get("/openapi.json").json()["paths"]["/metrics"]["get"]["responses"]
    assert "This API key may not do that" in documented["403"]["description"]
    old = path.read_text().splitlines()[2].replace(" scopes=metrics", "")
    path.write_text(old)  # as earlier releases wrote it
    wait_for(lambda: allowed_old(server, keys["metrics"]) == [200, 200, 200])
    ending = datetime.now(UTC) + timedelta(seconds=2)
    path.write_text(f"{old} expires={ending.strftime('%Y-%m-%dT%H:%M:%SZ')}")
    wait_for(lambda: allowed_old(server, keys["metrics"]) == [401, 401, 401])
    told = server.get("/v1/models", headers={"authorization": f"Bearer {keys['metrics']}"})
    assert "key 'metrics' has expired at " in told.json()["detail"]


def allowed_old(server: Any, key: str) -> list[int]:
    headers = {"authorization": f"Bearer {key}"}
    return [
        server.post("/v1/generate", json=ORDER, headers=headers).status_code,
        server.get("/metrics", headers=headers).status_code,
        server.post("/v2/repository/models/grey/load", headers=headers).status_code,
    ]


def test_what_the_queue_refuses_is_not_charged(tiny_repository: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "keys", "alice", "--rows-per-s", "0.001", "--burst", "10")
    settings = Settings(repository=tiny_repository, api_keys=tmp_path / "keys")
    (key,) = read_keys(tmp_path / "keys").values()
    served = Served(Repository(tiny_repository).bundle("grey"))
    order = Order(served, list(range(10)), None, None, 1.0, Array())

    async def submit() -> None:
        service = make_service(settings, tmp_path)
        context = service.recorder.begin("/v1/generate", "POST", lambda name: None)
        context.key = key
        for _ in range(3):  # no worker is there
            with pytest.raises(UnavailableProblem):
                service.submit(order, Scheduling(1000, bulk=False), context)
        assert context.num_rows == 0
        service.access.charge(key, 10)
        with pytest.raises(RateLimitedProblem):
            service.access.charge(key, 1)

    asyncio.run(submit())


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        (0o644, "alice", "line 1: must be NAME"),
        (0o666, "", "chmod go-w"),
        (None, "", "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_at_the_start(
    tmp_path: Path, mode: int | None, text: str, words: str
) -> None:
    path = tmp_path / "keys"
    if mode is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(SettingsError, match=words):
        keys_at_start(Settings(api_keys=path))


def test_the_server_ends_with_2_where_its_keys_cannot_be_used(
    tiny_repository: Path, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(tiny_repository, "--api-keys", str(tmp_path / "none"), ready=False)
    assert server.process.wait(30) == 2
    wait_for(lambda: "serving.keys add" in server.log.read_text())


def test_what_everyone_may_read_and_what_holds_no_key_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text("# nobody yet\n")
    path.chmod(0o644)
    keys_at_start(Settings(api_keys=path))
    assert "holds none" in caplog.text
    assert "everyone may read" in caplog.text


def test_litserves_own_key_is_no_second_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_SERVER_API_KEY", "secret")
    with pytest.raises(SettingsError, match="use --api-keys") as refused:
        keys_at_start(Settings())
    assert "secret" not in str(refused.value)


def test_caches_may_not_share_what_needs_a_key(guarded: Any) -> None:
    response = HTTP.get(
        guarded.server.url + "/v1/models/grey/images/1.png?version=1",
        headers={"authorization": f"Bearer {guarded.key}"},
    )
    assert response.status_code == 200
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
