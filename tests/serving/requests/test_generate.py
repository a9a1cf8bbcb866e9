"""POST /v1/generate against a real server: formats, determinism, and every client's mistake."""

import base64
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.bundle.generator import CpuGenerator
from models.latents import MAX_SEED, latents
from models.repository import Repository
from tests.support import HTTP

GREY, COLOUR = {"model": "grey"}, {"model": "colour"}


def pixels(data: bytes) -> np.ndarray:
    image = np.asarray(Image.open(io.BytesIO(data)))
    return image[:, :, None] if image.ndim == 2 else image


@pytest.fixture
def reference(tiny_repository: Path) -> Callable[..., np.ndarray]:
    """What the bundle itself gives for seeds."""

    def generate(
        name: str,
        seeds: list[int],
        labels: list[int] | None = None,
        psi: float = 1.0,
        version: int | None = None,
    ) -> np.ndarray:
        bundle = Repository(tiny_repository).bundle(name, version)
        z = latents(seeds, bundle.manifest.z_dim) * np.float32(psi)
        label = None if labels is None else np.array(labels, np.int64)
        return CpuGenerator(bundle.model_path)(z, label)

    return generate


def test_one_seed_gives_the_png_of_its_row(server: Any, reference: Any) -> None:
    response = server.generate(**GREY, seeds=[42])
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-model"] == "grey"
    assert response.headers["x-model-version"] == "2"
    assert len(response.headers["x-model-digest"]) == 64
    assert {
        part.split(";")[0].strip() for part in response.headers["server-timing"].split(",")
    } == {
        "queue",
        "infer",
        "encode",
    }
    assert (pixels(response.content) == reference("grey", [42])[0]).all()


def test_conditional_model_draws_the_label_that_was_asked_for(server: Any, reference: Any) -> None:
    response = server.generate(**COLOUR, seeds=[7], labels=[2])
    assert (pixels(response.content) == reference("colour", [7], [2])[0]).all()
    for_all = server.generate(**COLOUR, seeds=[1, 2], labels=1, format="npy")
    assert (np.load(io.BytesIO(for_all.content)) == reference("colour", [1, 2], [1, 1])).all()


def test_several_seeds_answer_as_json_in_order(server: Any, reference: Any) -> None:
    seeds = [3, MAX_SEED, 0, 3]
    answer = server.generate(**GREY, seeds=seeds).json()
    assert answer["model"] == "grey"
    assert answer["version"] == 2
    assert [image["seed"] for image in answer["images"]] == seeds
    made = [pixels(base64.b64decode(image["data"])) for image in answer["images"]]
    assert (np.stack(made) == reference("grey", seeds)).all()


@pytest.mark.parametrize("fmt", ["png", "webp", "jpeg"])
def test_every_format_opens_at_the_right_size(server: Any, fmt: str, reference: Any) -> None:
    response = server.generate(**COLOUR, seeds=[5], labels=[0], format=fmt)
    assert response.headers["content-type"] == f"image/{fmt}"
    image = pixels(response.content)
    assert image.shape == (16, 16, 3)
    if fmt != "jpeg":
        assert (image == reference("colour", [5], [0])[0]).all()


def test_grid_holds_the_rows_as_tiles(server: Any, reference: Any) -> None:
    grid = pixels(server.generate(**GREY, seeds=[0, 1, 2, 3], layout="grid").content)
    assert grid.shape == (16, 16, 1)
    rows = reference("grey", [0, 1, 2, 3])
    assert (grid[8:, :8] == rows[2]).all()


def test_latents_are_taken_as_they_are(server: Any, reference: Any) -> None:
    z = latents([11, 12], 6)
    response = server.generate(**GREY, latents=z.tolist(), format="npy")
    assert (np.load(io.BytesIO(response.content)) == reference("grey", [11, 12])).all()


def test_truncation_scales_the_latent(server: Any, reference: Any) -> None:
    response = server.generate(**GREY, seeds=[4], truncation=0.5)
    assert (pixels(response.content) == reference("grey", [4], psi=0.5)[0]).all()


def test_an_older_version_can_be_asked_for(server: Any, reference: Any) -> None:
    response = server.generate(**GREY, seeds=[9], version=1)
    assert response.headers["x-model-version"] == "1"
    assert (pixels(response.content) == reference("grey", [9], version=1)[0]).all()
    assert not (reference("grey", [9], version=1) == reference("grey", [9])).all()


def test_a_request_larger_than_a_batch_is_split_and_joined(server: Any, reference: Any) -> None:
    seeds = list(range(300))
    response = server.generate(**GREY, seeds=seeds, format="npy")
    assert (np.load(io.BytesIO(response.content)) == reference("grey", seeds)).all()


def many_threads_client(url: str) -> httpx.Client:
    """A client whose pool keeps every thread's connection.

    One over its bound closes an idle one, and may take one that another thread was just given (a
    read then ends in EBADF).
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.Client(base_url=url, timeout=30, limits=limits)


def test_the_same_seed_gives_the_same_bytes_alone_in_a_batch_and_under_load(server: Any) -> None:
    alone = {seed: server.generate(**GREY, seeds=[seed]).content for seed in range(64)}
    together = server.generate(**GREY, seeds=list(range(64))).json()["images"]
    assert [base64.b64decode(image["data"]) for image in together] == list(alone.values())

    with many_threads_client(server.url) as client, ThreadPoolExecutor(32) as pool:

        def ask(seed: int) -> bool:
            response = client.post("/v1/generate", json={**GREY, "seeds": [seed]})
            return response.content == alone[seed]

        assert all(pool.map(ask, [seed % 64 for seed in range(1500)]))


def test_requests_of_several_connections_share_batches(server: Any) -> None:
    with many_threads_client(server.url) as client, ThreadPoolExecutor(32) as pool:
        asked = list(
            pool.map(
                lambda seed: client.post("/v1/generate", json={**GREY, "seeds": [seed]}), range(800)
            )
        )
    assert all(response.status_code == 200 for response in asked)
    text = server.get("/metrics").text
    values = {
        line.split()[0]: float(line.split()[1])
        for line in text.splitlines()
        if line.startswith("saddlepoint_batch_rows_")
    }
    assert values["saddlepoint_batch_rows_sum"] > values["saddlepoint_batch_rows_count"]


def test_predict_is_the_same_route(server: Any) -> None:
    body = {**GREY, "seeds": [1]}
    assert server.post("/predict", json=body).content == server.generate(**body).content


BAD_REQUESTS = [
    ({"model": "nix", "seeds": [1]}, 404, "unknown-model", ["nix", "grey", "colour"]),
    ({**GREY, "seeds": [1], "version": 9}, 404, "unknown-model", ["version is 9", "1, 2"]),
    ({"seeds": [1]}, 400, "invalid-request", ["model is missing", "colour, grey"]),
    ({**GREY}, 400, "invalid-request", ["neither of seeds and latents"]),
    ({**GREY, "seeds": [1], "latents": [[0] * 6]}, 400, "invalid-request", ["both of seeds"]),
    ({**GREY, "seeds": []}, 400, "invalid-request", ["0 entries", "1 .. 300"]),
    ({**GREY, "seeds": [0] * 301}, 400, "invalid-request", ["301 entries", "1 .. 300"]),
    ({**GREY, "seeds": [3, -1]}, 400, "invalid-request", ["seeds[1] is -1", "2**64 - 1"]),
    ({**GREY, "seeds": [2**64]}, 400, "invalid-request", ["seeds[0]", str(2**64)]),
    (
        {**GREY, "seeds": ["a"]},
        400,
        "invalid-request",
        ["seeds[0]", "a number or as a string of digits"],
    ),
    ({**GREY, "seeds": [1.5]}, 400, "invalid-request", ["seeds[0]", "int"]),
    ({**GREY, "seeds": 7}, 400, "invalid-request", ["seeds", "array"]),
    ({**GREY, "latents": [[0] * 5]}, 400, "invalid-request", ["latents[0] has 5", "6"]),
    ({**GREY, "latents": [[0] * 5 + [1e300]]}, 400, "invalid-request", ["latents[0][5]", "finite"]),
    ({**GREY, "seeds": [1], "labels": [0]}, 400, "invalid-request", ["takes none"]),
    ({**COLOUR, "seeds": [1]}, 400, "invalid-request", ["labels is missing", "0 .. 2"]),
    ({**COLOUR, "seeds": [1], "labels": [3]}, 400, "invalid-request", ["labels[0] is 3", "0 .. 2"]),
    ({**COLOUR, "seeds": [1], "labels": -1}, 400, "invalid-request", ["labels is -1"]),
    ({**COLOUR, "seeds": [1, 2], "labels": [0]}, 400, "invalid-request", ["1 entries for 2"]),
    ({**GREY, "seeds": [1], "truncation": 3}, 400, "invalid-request", ["truncation", "0 .. 2"]),
    ({**GREY, "seeds": [1], "format": "bmp"}, 400, "invalid-request", ["format", "bmp"]),
    ({**GREY, "seeds": [1], "seed": 1}, 400, "invalid-request", ["seed"]),
    ([1, 2], 400, "invalid-request", ["object"]),
    ({**GREY, "latents": [[[[[[1]]]]]]}, 400, "invalid-request", ["latents[0][0]"]),
]


@pytest.mark.parametrize(("body", "status", "slug", "words"), BAD_REQUESTS)
def test_a_clients_mistake_is_named(
    server: Any, body: Any, status: int, slug: str, words: list[str]
) -> None:
    response = server.post("/v1/generate", json=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:saddlepoint:problem:{slug}"
    assert problem["status"] == status
    assert all(word in problem["detail"] for word in words), problem["detail"]
    assert server.generate(**GREY, seeds=[1]).status_code == 200  # the server goes on


@pytest.mark.parametrize(
    "body", [b"", b"{", b"seeds=1", b"\xff\xfe", b'{"seeds": [NaN]}', b'{"seeds": [1]} x']
)
def test_what_is_not_json_is_refused(server: Any, body: bytes) -> None:
    response = server.post("/v1/generate", content=body)
    assert response.status_code == 400
    assert response.json()["type"] == "urn:saddlepoint:problem:not-json"


def test_a_body_that_is_too_large_is_refused(server: Any) -> None:
    response = server.post("/v1/generate", content=b" " * 200_001)
    assert response.status_code == 413
    assert "200001" in response.json()["detail"]
    chunked = server.post("/v1/generate", content=iter([b" " * 150_000] * 2))
    assert chunked.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/v1/generate", "POST"), ("DELETE", "/v1/models", "GET, HEAD")],
)
def test_a_wrong_method_is_told_the_right_one(
    server: Any, method: str, path: str, allow: str
) -> None:
    response = HTTP.request(method, server.url + path)
    assert response.status_code == 405
    assert response.headers["allow"] == allow


def test_an_unknown_path_is_told_the_known_ones(server: Any) -> None:
    response = server.get("/v1/generat")
    assert response.status_code == 404
    assert "/v1/generate" in response.json()["detail"]


def test_the_server_draws_seeds_and_says_which(server: Any) -> None:
    answer = server.generate(**GREY, count=3)
    assert answer.status_code == 200
    images = answer.json()["images"]
    seeds = [image["seed"] for image in images]
    assert seeds == list(range(seeds[0], seeds[0] + 3))
    assert max(seeds) < 2**53  # JavaScript keeps them
    assert answer.headers["x-seeds"] == f"{seeds[0]}-{seeds[-1]}"
    again = server.generate(**GREY, seeds=seeds)
    assert again.json()["images"] == images
    assert "x-seeds" not in again.headers
    grid = server.generate(**GREY, count=3, layout="grid")
    first, last = map(int, grid.headers["x-seeds"].split("-"))
    assert last - first == 2
    assert first != seeds[0]
    named = server.generate(**GREY, seeds=list(range(first, last + 1)), layout="grid")
    assert named.content == grid.content
    one = server.generate(**GREY, count=1)
    first, last = map(int, one.headers["x-seeds"].split("-"))
    assert (first, one.content) == (last, server.generate(**GREY, seeds=[first]).content)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"count": 0}, "count is 0, allowed are"),
        ({"count": 301}, "count is 301, allowed are 1 .. 300; split the request"),
        ({"count": 10**30}, "count is 1000"),
        ({"count": "3"}, "count is '3'"),
        ({"count": 2, "seeds": [1]}, "both of count and seeds are given; give one of them"),
        ({"count": 2, "latents": [[0.0] * 8]}, "both of count and latents are given"),
        ({"seeds": ["-1"]}, "seeds[0] is '-1', allowed are 0 .. 18446744073709551615"),
        ({"seeds": [1, ""]}, "seeds[1] is '', allowed are"),
        ({"seeds": [1, "0x10"]}, "seeds[1] is '0x10', allowed are"),
        ({"seeds": ["٣"]}, "seeds[0] is '٣', allowed are"),
        ({"seeds": [1, "18446744073709551616"]}, "seeds[1] is 18446744073709551616, allowed are"),
        ({"seeds": ["9" * 5000]}, "seeds[0] is '999"),
    ],
)
def test_a_wrong_count_or_string_is_named(server: Any, fields: dict[str, Any], said: str) -> None:
    answer = server.generate(**GREY, **fields)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]


def test_seeds_may_be_strings_and_come_back_as_they_came(server: Any) -> None:
    written = [str(MAX_SEED), 7, "007"]
    images = server.generate(**GREY, seeds=written).json()["images"]
    assert [image["seed"] for image in images] == written
    plain = server.generate(**GREY, seeds=[MAX_SEED, 7, 7]).json()["images"]
    assert [image["data"] for image in images] == [image["data"] for image in plain]
    alone = server.generate(**GREY, seeds=[str(MAX_SEED)])
    assert alone.content == server.generate(**GREY, seeds=[MAX_SEED]).content
