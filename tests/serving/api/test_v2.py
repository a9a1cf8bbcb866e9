"""The v2 protocol against a real server: raw requests here, the stock client in `v2_client.py`."""

import gzip
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.repository import Repository
from tests.conftest import ServerProcess, server_process
from tests.support import HTTP, metric, wait_for

SEEDS = {"name": "SEED", "datatype": "UINT64", "shape": [2], "data": [5, 2**64 - 1]}


def infer(server: Any, *inputs: dict[str, Any], model: str = "grey", **more: Any) -> Any:
    return server.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs), **more})


@pytest.fixture(scope="module")
def controlled(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """Two HTTP processes, two workers, and clients that may load and unload."""
    folder = tmp_path_factory.mktemp("controlled")
    flags = ("--model-control", "clients", "--api-processes", "2", "--workers-per-device", "2")
    with server_process(tiny_repository, folder, *flags) as running:
        yield running


def test_the_stock_client_speaks_with_it(controlled: Any) -> None:
    """In a process of its own: it brings gevent."""
    host = controlled.url.removeprefix("http://")
    command = [sys.executable, "-m", "tests.serving.api.v2_client", host]
    root = Path(__file__).parents[3]
    ran = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "all of it was as it should be" in ran.stdout


def test_an_inference_gives_the_images_of_v1(server: Any) -> None:
    response = infer(server, SEEDS, id="mine")
    answer = response.json()
    assert answer["id"] == "mine"
    assert (answer["model_name"], answer["model_version"]) == ("grey", "2")
    (output,) = answer["outputs"]
    assert output["datatype"] == "UINT8"
    images = np.array(output["data"], np.uint8).reshape(output["shape"])
    listed = server.generate(model="grey", seeds=[5, 2**64 - 1], format="npy").content
    assert images.tobytes() == listed[-images.nbytes :]
    assert response.headers["x-model-version"] == "2"
    by_version = server.post("/v2/models/grey/versions/1/infer", json={"inputs": [SEEDS]})
    assert by_version.json()["model_version"] == "1"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bodies_are_compressed_both_ways(server: Any, coding: str) -> None:
    body = json.dumps({"inputs": [SEEDS]}).encode()
    packed = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    headers = {"content-encoding": coding, "accept-encoding": coding}
    response = server.post("/v2/models/grey/infer", content=packed, headers=headers)
    assert response.headers["content-encoding"] == coding
    assert response.json()["outputs"] == infer(server, SEEDS).json()["outputs"]
    v1 = json.dumps({"model": "grey", "seeds": [1]}).encode()
    packed = gzip.compress(v1) if coding == "gzip" else zlib.compress(v1)
    asked = server.post("/v1/generate", content=packed, headers={"content-encoding": coding})
    assert asked.content == server.generate(model="grey", seeds=[1]).content


def test_what_inflates_without_end_is_cut_off(server: Any) -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
    assert len(bomb) < 200_000
    for path, told in (("/v2/models/grey/infer", "error"), ("/v1/generate", "detail")):
        response = server.post(path, content=bomb, headers={"content-encoding": "gzip"})
        assert response.status_code == 413
        assert "allowed are 200000" in response.json()[told]


@pytest.mark.parametrize(
    ("coding", "content", "status", "words"),
    [
        ("gzip", b"no gzip", 400, "can't be inflated"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-3], 400, "cut off"),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"x", 400, "followed by more"),
        ("br", b"x", 415, "Content-Encoding is 'br', allowed are gzip, deflate"),
    ],
)
def test_damaged_compression_is_explained(
    server: Any, coding: str, content: bytes, status: int, words: str
) -> None:
    response = server.post("/v1/generate", content=content, headers={"content-encoding": coding})
    assert response.status_code == status
    assert words in response.json()["detail"]


Z = {"name": "z", "datatype": "FP32", "shape": [1, 6], "data": [0.5] * 6}
LABEL = {"name": "LABEL", "datatype": "INT64", "shape": [1], "data": [0]}


def png(**parameters: Any) -> dict[str, Any]:
    return {"name": "png", "parameters": parameters}


@pytest.mark.parametrize(
    ("inputs", "more", "words"),
    [
        ([], {}, "neither of the inputs SEED and z"),
        ([SEEDS, Z], {}, "both of the inputs SEED and z"),
        ([SEEDS, SEEDS], {}, "given twice"),
        ([{**SEEDS, "name": "SEEDS"}], {}, "input 'SEEDS' is not known; there are SEED, z, TRUN"),
        ([{**SEEDS, "datatype": "INT64", "data": [1, 2]}], {}, "must be UINT64"),
        ([{**SEEDS, "shape": [1, 2]}], {}, "must be [N] or [N, 1]"),
        ([{**SEEDS, "shape": [0], "data": []}], {}, "0 rows are asked for"),
        ([{**Z, "shape": [6]}], {}, "z has shape [6], must be [N, 6]"),
        ([{**Z, "data": [0] * 5 + [1e39]}], {}, "z[0][5] is inf, must be finite"),
        ([SEEDS, LABEL], {}, "LABEL is given, but model 'grey' takes none"),
        ([SEEDS, {**Z, "name": "TRUNCATION", "shape": [1], "data": [3]}], {}, "TRUNCATION is [3"),
        ([SEEDS], {"outputs": [{"name": "pixels"}]}, "output 'pixels' is not known"),
        ([SEEDS], {"outputs": [{"name": "image"}] * 2}, "asked for twice"),
        ([SEEDS], {"outputs": [png()]}, "ask for it with binary_data true"),
        ([SEEDS], {"outputs": [png(binary_data=1)]}, "binary_data is 1"),
        ([SEEDS], {"outputs": [png(classification=3)]}, "no classification"),
        ([SEEDS], {"parameters": {"timeout": 0}}, "timeout is 0 (microseconds)"),
        ([SEEDS], {"parameters": {"priority": -1}}, "priority is -1"),
    ],
)
def test_a_wrong_inference_is_explained(
    server: Any, inputs: list[dict[str, Any]], more: dict[str, Any], words: str
) -> None:
    response = infer(server, *inputs, **more)
    assert response.status_code == 400, response.text
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v2/models/nix/infer", 404, "model is 'nix'"),
        ("GET", "/v2/models/grey/versions/9", 404, "version is 9"),
        ("GET", "/v2/models/grey/versions/x/ready", 404, "versions are whole numbers"),
        ("GET", "/v2/models/..%2Fgrey/config", 404, "there are"),
        ("GET", "/v2/models/grey%2Fstats", 404, "there are"),
        ("GET", "/v2/models/grey%2fversions%2f1", 404, "there are"),
        ("GET", "/v2/models/grey/versions/1%2Fconfig", 404, "there are"),
        ("GET", "/v2/nothing", 404, "there are"),
        ("GET", "/v2/models/grey/infer", 405, "allowed are: POST"),
        ("POST", "/v2/repository/models/grey/unload", 403, "--model-control clients"),
        ("GET", "/v2/systemsharedmemory/status", 501, "is not supported"),
        ("POST", "/v2/cudasharedmemory/region/r/register", 501, "is not supported"),
        ("GET", "/v2/trace/setting", 501, "is not supported"),
        ("POST", "/v2/logging", 501, "is not supported"),
    ],
)
def test_errors_are_worded_as_the_protocol_says(
    server: Any, method: str, path: str, status: int, words: str
) -> None:
    response = HTTP.request(method, server.url + path)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert words in response.json()["error"]


heads = st.sampled_from(
    [
        {"inputs": [{**SEEDS, "data": None, "parameters": {"binary_data_size": 16}}]},
        {"inputs": [SEEDS], "outputs": [png(binary_data=True)]},
        {"inputs": [{**Z, "data": None, "parameters": {"binary_data_size": 24}}]},
        {"inputs": [SEEDS], "parameters": {"binary_data_output": True}},
    ]
)


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    heads,
    st.sampled_from([b"", bytes(16), bytes(24)]) | st.binary(max_size=40),
    st.just(0) | st.integers(-30, 30),  # so that some frames are whole
    st.integers(0, 300),
    st.just(0) | st.integers(0, 8),
)
def test_no_frame_breaks_it(
    server: Any, head: dict[str, Any], tail: bytes, off: int, cut: int, flips: int
) -> None:
    text = bytearray(json.dumps(head).encode())
    for index in range(flips):
        text[(cut + index * 7) % len(text)] ^= 1 << (index % 7)
    length = max(0, len(text) + off)
    headers = {"inference-header-content-length": str(length)}
    body = bytes(text) + tail
    response = server.post("/v2/models/grey/infer", content=body, headers=headers)
    assert response.status_code in (200, 400, 404)
    if response.status_code != 200:
        assert set(response.json()) == {"error"}


def test_the_length_of_the_json_must_be_a_number(server: Any) -> None:
    headers = {"inference-header-content-length": "ten"}
    response = server.post("/v2/models/grey/infer", content=b"{}", headers=headers)
    assert response.status_code == 400
    assert "is 'ten'" in response.json()["error"]


def test_png_files_come_as_elements(server: Any) -> None:
    response = infer(server, SEEDS, outputs=[png(binary_data=True), {"name": "image"}])
    length = int(response.headers["inference-header-content-length"])
    first, second = json.loads(response.content[:length])["outputs"]
    assert first["parameters"] == {"binary_data_size": len(response.content) - length}
    assert second["name"] == "image"
    (size,) = struct.unpack_from("<I", response.content, length)
    file = response.content[length + 4 : length + 4 + size]
    assert file == server.generate(model="grey", seeds=[5]).content


def test_statistics_are_what_was_done(server: Any) -> None:
    def stats() -> dict[str, Any]:
        listed = server.get("/v2/models/colour/stats").json()["model_stats"]
        found: dict[str, Any] = listed[0]  # also before it made an image
        return found

    before = stats()
    infer(server, SEEDS, LABEL, model="colour")
    wait_for(lambda: stats()["inference_count"] == before["inference_count"] + 2)
    wait_for(lambda: stats()["inference_stats"]["queue"] != before["inference_stats"]["queue"])
    after = stats()
    assert after["execution_count"] > before["execution_count"]
    assert after["inference_stats"]["compute_infer"]["ns"] > 0
    queue, earlier = after["inference_stats"]["queue"], before["inference_stats"]["queue"]
    assert queue["count"] == earlier["count"] + 1  # one request, however many images
    assert queue["ns"] > earlier["ns"]
    everything = server.get("/v2/models/stats").json()["model_stats"]
    assert {entry["name"] for entry in everything} >= {"colour"}


def test_an_unloaded_model_stays_away_until_it_is_loaded(
    controlled: Any, tiny_repository: Path
) -> None:
    assert controlled.post("/v2/repository/models/grey/unload").status_code == 200
    try:
        # The HTTP process that was asked knows at once, the other one hears of it in a moment.
        wait_for(lambda: {asked(controlled) for _ in range(20)} == {404})
        assert infer(controlled, SEEDS).status_code == 404
        assert controlled.generate(model="colour", seeds=[1], labels=0).status_code == 200
        index = controlled.post("/v2/repository/index").json()
        unavailable = {"name": "grey", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
        assert unavailable in index
        ready = controlled.post("/v2/repository/index", json={"ready": True}).json()
        assert [entry["name"] for entry in ready] == ["colour"]
    finally:
        assert controlled.post("/v2/repository/models/grey/load").status_code == 200
    wait_for(lambda: {asked(controlled) for _ in range(20)} == {200})


def test_the_only_model_can_be_loaded_again(
    make_bundle: Callable[..., Any], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("only", make_bundle())
    server = start_server(repository.root, "--model-control", "clients")
    assert server.post("/v2/repository/models/only/unload").status_code == 200
    assert server.get("/readyz").status_code == 503
    assert server.generate(seeds=[1]).status_code == 503
    assert server.post("/v2/repository/models/only/load").status_code == 200
    assert server.generate(seeds=[1]).status_code == 200


def asked(server: Any) -> int:
    """On a new connection, which either HTTP process may take."""
    status: int = server.generate(model="grey", seeds=[1]).status_code
    return status


def test_loading_says_why_it_fails(
    make_bundle: Callable[..., Any], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("good", make_bundle())
    server = start_server(repository.root, "--model-control", "clients", "--reload-interval-s", "0")
    bad = repository.publish("bad", make_bundle(weights_seed=9))
    bad.model_path.write_bytes(b"damaged")
    response = server.post("/v2/repository/models/bad/load")
    assert response.status_code == 503
    assert "model.onnx" in response.json()["error"]
    (bad,) = [e for e in server.post("/v2/repository/index").json() if e["name"] == "bad"]
    assert bad["state"] == "UNAVAILABLE"
    assert "model.onnx" in bad["reason"]
    assert server.post("/v2/repository/models/nix/load").status_code == 404
    load = "/v2/repository/models/good/load"
    told = server.post(load, json={"parameters": {"config": "{}"}})
    assert told.status_code == 400
    assert "parameters has 'config'" in told.json()["error"]
    assert server.post(load, content=b"nonsense").status_code == 400
    assert server.post(load, json={}).status_code == 200
    deep = b"{" + b'"a":{' * 20_000
    for path in (load, "/v2/repository/index", "/v2/models/good/infer", "/v1/generate"):
        assert server.post(path, content=deep).status_code == 400, path
    assert server.post("/v2/repository/models/..%2Fgood/unload").status_code == 404
    repository.publish("later", make_bundle(weights_seed=4))  # nobody looks by itself
    assert server.generate(model="later", seeds=[1]).status_code == 404
    assert server.post("/v2/repository/models/later/load").status_code == 200
    assert server.generate(model="later", seeds=[1]).status_code == 200
    assert metric(server, "saddlepoint_model_loads_total") >= 3
