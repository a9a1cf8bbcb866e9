"""What nobody sends by mistake: endless heads, nests, numbers. Refused in words, and cheaply."""

import base64
import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from serving.api.v2.tensors import Limits, read
from serving.connection.request_head import MAX_HEAD_BYTES

BODY = b'{"model": "grey", "seeds": [5]}'
INFER = "/v2/models/grey/infer"
HUGE = "9" * 4200


def request(server: Any, data: bytes) -> bytes:
    """All that is answered to some bytes, until the server ends the connection."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    answered = b""
    with closing(socket.create_connection(address, timeout=20)) as connection:
        # What it goes on to send may not be read any more.
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                answered += chunk
    return answered


def generate(*lines: bytes) -> bytes:
    head = [b"POST /v1/generate HTTP/1.1", b"Host: x", b"Connection: close", *lines]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(BODY), b"", BODY])


long_heads = {
    "one header": generate(b"X-Long: " + b"a" * MAX_HEAD_BYTES),
    "many headers": generate(*(b"X-%d: a" % number for number in range(MAX_HEAD_BYTES // 5))),
    "a header without an end": b"GET /livez HTTP/1.1\r\nX-Long: " + b"a" * (4 << 20),
    "a name without an end": b"GET /livez HTTP/1.1\r\n" + b"a" * (4 << 20),
}


@pytest.mark.parametrize("name", long_heads)
def test_a_head_has_a_bound(server: Any, name: str) -> None:
    answered = request(server, long_heads[name])
    assert answered.startswith(b"HTTP/1.1 431 "), answered[:200]
    assert b"urn:saddlepoint:problem:head-too-long" in answered
    assert b"connection: close" in answered
    assert answered.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("num_bytes", [MAX_HEAD_BYTES + 1, 100_000, 4 << 20])
def test_a_path_has_a_bound(server: Any, num_bytes: int) -> None:
    data = b"GET /" + b"a" * num_bytes + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    answered = request(server, data)
    assert answered.startswith(b"HTTP/1.1 414 "), answered[:200]
    assert b"path-too-long" in answered


def test_a_long_head_within_the_bound_is_read(server: Any) -> None:
    header = b"X-Long: " + b"a" * (MAX_HEAD_BYTES - 200)
    assert request(server, generate(header)).startswith(b"HTTP/1.1 200 ")


def test_a_large_body_before_a_head_is_not_counted_as_head(server: Any) -> None:
    """Both come in one piece, the second head is cut in two."""
    first = generate().replace(b"Connection: close\r\n", b"X-Path: ordinary\r\nTE: trailers\r\n")
    padded = first.replace(b"%d" % len(BODY), b"%d" % (len(BODY) + 60_000), 1) + b" " * 60_000
    second = generate(b"X-Long: " + b"a" * 9000)
    assert request(server, padded + second).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize(
    "tensor",
    [
        {"shape": [1] * 70, "parameters": {"binary_data_size": 8}},
        {"shape": [0, 2**70], "parameters": {"binary_data_size": 0}},
        {"shape": [0, 2**62, 2**62], "data": []},
        {"shape": [10**4000, 10**4000], "parameters": {"binary_data_size": 8}},
        {"shape": [10**4000], "data": [1]},
        {"shape": [1], "data": [10**4000]},
        {"shape": [1], "data": [1], "parameters": {"binary_data_size": 10**4000}},
        {"shape": [1], "data": ["x" * 100_000]},
        {"shape": [1], "data": [1], "name": "x" * 100_000},
        {"shape": [1], "data": [1], "datatype": "x" * 100_000},
        {"shape": [1], "data": [[], [], [1, [2, [3]]]]},
    ],
)
def test_a_tensor_out_of_all_bounds_is_explained_in_a_line(
    server: Any, tensor: dict[str, Any]
) -> None:
    head = json.dumps({"inputs": [{"name": "SEED", "datatype": "UINT64", **tensor}]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    size = tensor.get("parameters", {}).get("binary_data_size", 0)
    response = server.post(INFER, content=head + bytes(min(size, 8)), headers=headers)
    assert response.status_code == 400, response.text
    assert len(response.json()["error"]) < 400


def test_a_nest_is_looked_at_once() -> None:
    """Width times depth would be minutes; the whole is a few million steps."""
    nest = "[" * 200 + "1" + "]" * 200
    text = f'{{"inputs":[{{"name":"z","datatype":"FP32","shape":[9],"data":[{nest}{",0" * 8}]}}]}}'
    _, tensors = read(text.encode(), None, Limits({"z": 9}, 9))
    assert tensors["z"].tolist() == [1.0] + [0.0] * 8


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/grey/images/--5.png", None),
        ("/v1/models/grey/images/1.png?version=--1", None),
        ("/v1/models/grey/images/1.png?label=--1", None),
        ("/v1/models/grey?version=--1", None),
        ("/v1/models/grey/images/-.png", None),
        ("/v1/generate", f'{{"model":"grey","seeds":[1],"version":{HUGE}}}'),
        ("/v1/generate", f'{{"model":"grey","seeds":[{HUGE}]}}'),
        ("/v1/generate", f'{{"model":"grey","seeds":[1],"labels":{HUGE}}}'),
        ("/v1/generate", f'{{"model":"grey","seeds":[1],"truncation":{HUGE}}}'),
        ("/v1/generate", '{"seeds":[1],"' + "x" * 100_000 + '":1}'),
        ("/v1/interpolate", f'{{"model":"grey","seeds":[1,2],"frames":{HUGE}}}'),
        ("/v2/repository/index", '{"ready":"yes"}'),
        ("/v2/repository/index", '{"bogus":1}'),
        ("/v2/repository/models/grey/load", '{"parameters":"x"}'),
    ],
)
def test_a_number_that_is_none_is_explained_in_a_line(
    server: Any, path: str, body: str | None
) -> None:
    response = server.get(path) if body is None else server.post(path, content=body)
    assert response.status_code == 400, response.text
    answer = response.json()
    assert len(answer["error"] if path.startswith("/v2") else answer["detail"]) < 400


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/interpolate"])
def test_a_name_that_is_not_served_is_not_echoed_whole(server: Any, path: str) -> None:
    response = server.post(path, json={"model": "x" * 100_000, "seeds": [1, 2]})
    assert response.status_code == 404
    assert len(response.json()["detail"]) < 300


def test_a_version_that_no_model_has_is_told_as_it_was_asked(server: Any) -> None:
    response = server.get("/v2/models/grey/versions/0000000000002")
    assert response.status_code == 404
    assert "'0000000000002'" in response.json()["error"]


def test_zeros_before_a_length_are_none(server: Any) -> None:
    data = generate().replace(b"Content-Length: ", b"TE: x\r\nContent-Length: " + b"0" * 5000)
    assert request(server, data).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("key", [base64.b64encode(bytes(16)), b"no key"])
def test_a_websocket_is_answered_as_the_request_that_it_is(server: Any, key: bytes) -> None:
    lines = [
        b"GET /livez HTTP/1.1",
        b"Host: x",
        b"Connection: Upgrade, close",
        b"Upgrade: websocket",
    ]
    lines += [b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + key, b"", b""]
    answered = request(server, b"\r\n".join(lines))
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert b"x-request-id" in answered


def test_several_lines_of_a_list_are_one_list(server: Any) -> None:
    asked = [("Accept", "image/gif"), ("Accept", "image/webp")]
    response = server.post("/v1/generate", content=BODY, headers=asked)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/webp")
    url = "/v1/models/grey/images/1.png"
    tag = server.get(url).headers["etag"]
    response = server.get(url, headers=[("If-None-Match", '"other"'), ("If-None-Match", tag)])
    assert response.status_code == 304


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, make_bundle: Any) -> Any:
    """A server whose images are quick to make and slow to encode."""
    from models.repository import Repository
    from tests.conftest import server_process

    root: Path = tmp_path_factory.mktemp("large")
    Repository(root).publish("large", make_bundle(size=64, channels=3))
    folder = tmp_path_factory.mktemp("large-server")
    with server_process(root, folder, "--cache-bytes", "0") as running:
        yield running


@pytest.mark.parametrize("path", ["fast", "ordinary"])
def test_the_deadline_covers_the_encoding(large: Any, path: str) -> None:
    """1,024 images as lossless WebP take seconds, and are made in a fraction of that."""
    headers = {"X-Request-Timeout-Ms": "400"} | ({"TE": "trailers"} if path == "ordinary" else {})
    body = {"seeds": list(range(1024)), "format": "webp", "layout": "grid"}
    began = time.monotonic()
    whole = large.post("/v1/generate", json=body)
    whole_s = time.monotonic() - began
    assert whole.status_code == 200
    timing = dict(part.split(";dur=") for part in whole.headers["server-timing"].split(", "))
    if float(timing["encode"]) < 800:
        pytest.skip(f"this machine encodes it in {timing['encode']} ms")
    began = time.monotonic()
    response = large.post("/v1/generate", json=body, headers=headers)
    took_s = time.monotonic() - began
    assert response.status_code == 504, f"{took_s:.1f} s of {whole_s:.1f} s"
    assert "400 ms" in response.json()["detail"]
    assert large.post("/v1/generate", json={"seeds": [1]}).status_code == 200


def test_animations_do_not_hold_up_pictures(large: Any) -> None:
    """More walks than there are threads for encoding; a picture is encoded by others."""
    walk = {"seeds": [1, 2, 3], "frames": 80, "format": "gif"}
    picture = {"seeds": [1, 2, 3, 4], "format": "png", "layout": "grid"}
    with ThreadPoolExecutor(8) as pool:
        ended: list[str] = []

        def ask(name: str, path: str, body: dict[str, Any]) -> None:
            assert large.post(path, json=body).status_code == 200
            ended.append(name)

        walks = [pool.submit(ask, "walk", "/v1/interpolate", walk) for _ in range(6)]
        while not large.get("/metrics").text.count("saddlepoint_rows_in_flight"):
            pass
        pool.submit(ask, "picture", "/v1/generate", picture).result()
        assert ended.count("walk") < 6
        for asked in walks:
            asked.result()


def test_a_grid_that_its_format_has_no_room_for_is_refused(
    tiny_repository: Path, start_server: Any
) -> None:
    flags = ("--max-image-pixels", str(1 << 30), "--max-frames", "1100")
    server = start_server(
        tiny_repository, *flags, "--max-seeds", "1100000", "--max-waiting-rows", "1100000"
    )
    grid = {"model": "colour", "labels": 0, "layout": "grid", "seeds": [1] * 1_048_577}
    refused = server.post("/v1/generate", json=grid | {"format": "webp"})
    assert refused.status_code == 400, refused.text
    assert "16400x16384" in refused.json()["detail"]
    assert "at most 16383" in refused.json()["detail"]


def test_an_array_has_no_layout(server: Any) -> None:
    body = {"model": "grey", "seeds": [1, 2], "format": "npy", "layout": "grid"}
    response = server.post("/v1/generate", json=body)
    assert response.status_code == 400
    assert "layout" in response.json()["detail"]
