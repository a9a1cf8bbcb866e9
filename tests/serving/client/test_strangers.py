"""What another program, or a caller's mistake, does to a client: an error of its own, in words."""

import gzip
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.client import Client, ClientError
from serving.client.errors import ForeignAnswerError, InvalidRequestError, UnknownModelError
from serving.client.responses import NPY
from serving.client.retries import Retries
from tests.serving.client.peers import MODEL, message, models, npy, peer, says

Use = Callable[[Client], Any]


def png() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def pretended(header: str) -> bytes:
    """An array of which the header is all there is."""
    padded = header.ljust(117) + "\n"
    body = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()
    return message(200, body, content_type=NPY)


HUGE = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1000000, 1000000, 3)}"
ONE = np.zeros((1, 8, 8, 1), np.uint8)
GZIP = {"content_encoding": "gzip"}
IMAGES: Use = lambda client: client.answer([1])  # noqa: E731
GRID: Use = lambda client: client.grid([1])  # noqa: E731
FILE: Use = lambda client: client.encoded(1)  # noqa: E731
WALK: Use = lambda client: client.interpolate([1, 2])  # noqa: E731


@pytest.mark.parametrize(
    ("use", "answer", "words"),
    [
        (IMAGES, message(200, b"no gzip", **GZIP), "Content-Encoding"),
        (IMAGES, message(200, gzip.compress(b"x" * 999, mtime=0)[:-20], **GZIP), "response"),
        (IMAGES, message(200, b"<html>", content_type="text/html"), "'text/html', not"),
        (IMAGES, message(200, b"<html>", content_type=NPY), "can't be read"),
        (IMAGES, message(200, b"", content_type=NPY), "can't be read"),
        (IMAGES, message(200, b"PK\x03\x04", content_type=NPY), "can't be read"),
        (IMAGES, pretended(HUGE), "not uint8"),
        (IMAGES, pretended("{"), "can't be read"),
        (IMAGES, pretended("(" * 100), "can't be read"),
        (IMAGES, npy(ONE.astype(np.float64)), "not uint8"),
        (IMAGES, npy(ONE[0]), "not uint8"),
        (IMAGES, npy(np.zeros((1, 8, 8, 2), np.uint8)), "not uint8"),
        (IMAGES, npy(np.zeros((2, 8, 8, 1), np.uint8)), "has 2 images, the request asked for 1"),
        (IMAGES, npy(ONE, **{"x_model": ""}), "X-Model is ''"),
        (IMAGES, npy(ONE, **{"x_model_version": "two"}), "X-Model-Version 'two'"),
        (IMAGES, npy(ONE, **{"x_model_version": "9" * 5000}), "X-Model-Version '999"),
        (IMAGES, message(200, npy(ONE).partition(b"\r\n\r\n")[2], content_type=NPY), "X-Model"),
        (GRID, message(200, b"<html>", content_type="image/png"), "can't be read as an image"),
        (GRID, message(200, png()[:-999], content_type="image/png"), "can't be read as an image"),
        (GRID, message(200, b"<html>", content_type="text/html"), "not an image"),
        (FILE, message(200, b"<html>", content_type="text/html"), "not an image"),
        (WALK, message(200, b"<html>"), "not an image"),
        (FILE, message(302, b"", location="https://login.example.org"), "status 302"),
        (FILE, message(404, b'{"x":' + b"[" * 100_000), "status 404"),
    ],
)
def test_what_strangers_answer_is_called_that(use: Use, answer: bytes, words: str) -> None:
    with (
        peer(says(models()), again=says(answer)) as other,
        Client(other.url, retries=Retries(attempts=1)) as client,
        pytest.raises(ForeignAnswerError, match=words),
    ):
        use(client)


@pytest.mark.parametrize(
    "answer",
    [
        message(200, b"no gzip", **GZIP),
        message(200, b'{"models": [], "x":' + b"[" * 100_000),
        models({**MODEL, "image": {"height": 0, "width": 8, "channels": 1}}),
        models({**MODEL, "limits": {**MODEL["limits"], "max_seeds": "many"}}),
    ],
)
def test_models_of_a_stranger_are_none(answer: bytes) -> None:
    with peer(again=says(answer)) as other, Client(other.url) as client:
        with pytest.raises(ForeignAnswerError, match="the response"):
            client.answer([1])
        assert len(other.heads) == 1  # asking again changes nothing


def test_parts_of_several_shapes_are_no_answer() -> None:
    few = models({**MODEL, "limits": {**MODEL["limits"], "max_seeds": 1}})
    parts = (npy(ONE), npy(np.zeros((1, 4, 4, 1), np.uint8)))
    with peer(*map(says, (few, *parts))) as other, Client(other.url) as client:
        with pytest.raises(ForeignAnswerError, match="several shapes"):
            client.answer([1, 2])
        sent = [head.split()[1] for head in other.heads]
    assert sent == ["/v1/models", "/v1/generate", "/v1/generate"]


@pytest.mark.parametrize("format", ["C", "F"])
def test_pixels_lie_in_either_order(format: Any) -> None:
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    turns = (models(), npy(np.array(images, order=format)))
    with peer(*map(says, turns)) as other, Client(other.url) as client:
        found = client.generate_array([1, 2])
    assert (found == images).all()
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda c: c.generate([1], truncation=float("nan")), "truncation is nan, which JSON can't"),
        (lambda c: c.grid([1], truncation=float("inf")), "truncation is inf"),
        (lambda c: c.encoded(1, truncation=np.float32("nan")), "truncation is .*nan"),
        (lambda c: c.interpolate([1, 2], fps=float("nan")), "fps is nan"),
        (lambda c: c.generate(latents=[[float("nan")] * 6]), "latents is .*nan, "),
        (lambda c: c.generate([1], labels=object()), "labels is <object.*must be a whole number"),
        (lambda c: c.generate(1.5), r"seeds is 1\.5, must be a whole number"),
        (lambda c: c.generate([object()]), "seeds is .*not a type of JSON"),
        (lambda c: c.generate([10**5000]), "seeds is a list, which JSON can't hold"),
        (lambda c: c.generate([1], latents=[[0.0] * 6]), "both of seeds and latents"),
        (lambda c: c.generate(range(600), labels=[0] * 700), "labels has 700 entries for 600"),
    ],
)
def test_what_cannot_be_asked_is_refused_here(server: Any, use: Use, words: str) -> None:
    with (
        Client(server.url, model="grey") as client,
        pytest.raises(InvalidRequestError, match=words) as refused,
    ):
        use(client)
    assert refused.value.status is None


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("http://[::1", {}, r"the URL is 'http://\[::1', must be like"),
        ("http://127.0.0.1:99999", {}, r"1 \.\. 65535"),
        ("127.0.0.1:8000", {}, "must be like http://"),
        ("ftp://127.0.0.1", {}, "must be like http://"),
        ("http://", {}, "must be like http://"),
        ("http://a b", {}, "must be like http://"),
        ("http://a..b", {}, "must be like http://"),
        ("http://" + "a" * 70, {}, "must be like http://"),
        ("http://[fe80::1%eth0]x", {}, "must be like http://"),
        ("http://x\n", {}, "must be like http://"),
        ("http://x/?model=1", {}, r"without \? and #"),
        ("http://x", {"timeout_s": -1}, "timeout_s is -1, must be"),
        ("http://x", {"timeout_s": float("nan")}, "timeout_s is nan"),
        ("http://x", {"timeout_s": float("inf")}, "timeout_s is inf"),
        ("http://x", {"api_key": "schlüssel"}, "visible ASCII"),
        ("http://x", {"api_key": "a\r\nx: y"}, "visible ASCII"),
        ("http://x", {"api_key": ""}, "visible ASCII"),
    ],
)
def test_a_client_that_cannot_work_is_not_made(
    url: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words) as refused:
        Client(url, **options)
    assert str(options.get("api_key") or "no key") not in str(refused.value)


@pytest.mark.parametrize("url", ["http://[::1]:1", "https://x.example", "http://ü.example/a/b"])
def test_other_addresses_are_fine(url: str) -> None:
    Client(url).close()


def test_numbers_of_numpy_are_numbers(server: Any) -> None:
    with Client(server.url, model="colour") as client:
        wanted = client.generate_array([1, 2], labels=[0, 2])
        assert (
            client.generate_array(list(np.array([1, 2])), labels=np.array([0, 2])) == wanted
        ).all()
        assert (client.generate_array(np.uint64(2), labels=np.int64(2)) == wanted[1:]).all()
        tiles = np.asarray(client.grid(np.arange(1, 3), labels=np.array([0, 2]), truncation=1))
        assert (tiles[:, :16] == wanted[0]).all()
        assert client.encoded(np.int64(1), labels=np.int64(0), truncation=np.float64(1))


def test_a_models_name_is_one_part_of_the_path(server: Any) -> None:
    with Client(server.url) as client:
        for name in ("grey/versions?x", "../grey", "gr\x00ey", "ü"):
            with pytest.raises(ClientError):
                client.model(name)
        with pytest.raises(UnknownModelError):
            client.model("grey?version=1")


def test_the_server_may_lie_below_a_path() -> None:
    image = message(200, b"", content_type="image/png")
    with peer(says(models()), says(image)) as other, Client(other.url + "/below/") as client:
        assert client.encoded(1) == b""
        paths = [head.split()[1] for head in other.heads]
    assert paths == ["/below/v1/models", "/below/v1/generate"]
