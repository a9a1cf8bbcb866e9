"""`python -m serving.client load` where not all is well: it ends, and says why."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from serving import errors as server_errors
from serving.client.__main__ import main
from serving.encoding.png import encode_png
from serving.http.messages import Response
from tests.serving.client.peers import Turn, message, npy, peer, says, trickles

Load = Callable[..., tuple[int, dict[str, Any], str]]
PNG = encode_png(np.zeros((8, 8, 1), np.uint8))


@pytest.fixture
def load(capsys: pytest.CaptureFixture[str]) -> Load:
    """Loads a server: exit code, figures, what else is said."""

    def go(url: str, *arguments: str, timeout_s: float = 30) -> tuple[int, dict[str, Any], str]:
        whole = ["--url", url, "--timeout-s", str(timeout_s), "load", "--json", *arguments]
        code = main(whole)
        shown = capsys.readouterr()
        return code, json.loads(shown.out or "{}"), shown.err

    return go


@contextlib.contextmanager
def listener(backlog: int) -> Iterator[tuple[socket.socket, str]]:
    """A port where connections are made, and nobody takes them."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listening:
        yield listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_silence_is_a_failure_by_name(load: Load) -> None:
    with listener(backlog=16) as (_, url):
        code, figures, _ = load(url, "--duration", "0.1", "--connections", "3", timeout_s=0.2)
    assert code == 1
    assert figures["failures"] == {"timeout": 3}
    assert figures["first_failure"] == "timeout: no response within 0.2 s"


def test_an_answer_that_trickles_is_one_too(load: Load) -> None:
    image = message(200, PNG, content_type="image/png")
    slow: Turn = trickles(image, 0, 0.05)
    with peer(again=slow) as other:
        code, figures, _ = load(other.url, "--duration", "0.1", "--connections", "1", timeout_s=0.3)
    assert (code, figures["failures"]) == (1, {"timeout": 1})


def test_after_a_timeout_it_asks_on_another_connection(load: Load) -> None:
    image = message(200, PNG, content_type="image/png")
    with peer(trickles(image, 0, 60), again=says(image)) as other:
        code, figures, _ = load(other.url, "--duration", "0.5", "--connections", "1", timeout_s=0.3)
    assert (code, figures["failures"]) == (1, {"timeout": 1})
    assert figures["requests"] > 0


def test_a_server_that_takes_no_connection_is_told(load: Load) -> None:
    with contextlib.ExitStack() as stack:
        listening, url = stack.enter_context(listener(backlog=0))
        for _ in range(8):  # what fits into the queue, and more
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listening.getsockname())
        code, figures, said = load(url, timeout_s=0.2)
    assert (code, figures) == (4, {})
    assert "no connection within 0.2 s" in said


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        (["--model", "nix"], "404", "model is 'nix'"),
        (["--model", "colour", "--label", "99"], "400", "labels is 99"),
        (["--model", "grey", "--label", str(10**30)], "400", "labels"),
    ],
)
def test_what_would_be_refused_for_ever_ends_it_at_once(
    load: Load, server: Any, fields: list[str], status: str, words: str
) -> None:
    code, figures, said = load(server.url, "--duration", "30", "--connections", "4", *fields)
    assert code == 1
    assert list(figures["failures"]) == [status]
    assert figures["failures"][status] <= 4
    assert figures["requests"] == 0
    assert words in figures["first_failure"]
    assert f"error: stopped early, every further request would fail too: {status}: " in said
    assert words in said


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        (server_errors.UnauthorizedProblem, True),
        (server_errors.TooLargeProblem, True),
        (server_errors.RateLimitedProblem, False),
        (server_errors.OverloadedProblem, False),
        (server_errors.UnavailableProblem, False),
    ],
)
def test_what_passes_does_not_end_it(
    load: Load, kind: type[server_errors.Problem], stops: bool
) -> None:
    reply = Response.problem(kind("for the test"))
    answer = message(reply.status, reply.body, content_type=reply.media_type)
    with peer(again=says(answer)) as other:
        code, figures, said = load(other.url, "--duration", "0.5", "--connections", "1")
    assert code == 1
    assert figures["first_failure"] == f"{reply.status}: for the test"
    assert (figures["failures"][str(reply.status)] == 1) == stops
    assert ("stopped early" in said) == stops


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (message(200, b"<html>", content_type="text/html"), "'text/html', not an image"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "Content-Length is ''"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "Content-Length is '-5'"),
        (b"HTTP/1.1 so\r\nContent-Length: 0\r\n\r\n", "can't be read"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "it is not HTTP/1"),
        (b"HTTP/1.1 200 OK\r\nx: " + bytes(100_000) + b"\r\n\r\n", "can't be read"),
    ],
)
def test_another_program_ends_it_too(load: Load, answer: bytes, words: str) -> None:
    with peer(again=says(answer)) as other:
        code, figures, said = load(other.url, "--duration", "30", "--connections", "1")
    assert (code, figures["failures"]) == (1, {"foreign answer": 1})
    assert words in figures["first_failure"]
    assert words in said


@pytest.mark.parametrize(
    ("answer", "num_rows", "words"),
    [
        (message(200, PNG[:-1], content_type="image/png"), 1, "not a complete PNG file"),
        (message(200, b"<html>", content_type="image/png"), 1, "not a complete PNG file"),
        (npy(np.zeros((2, 8, 8, 1), np.uint8)), 3, "has 2 images, the request asked for 3"),
    ],
)
def test_images_that_are_not_what_was_asked_for_end_it_too(
    load: Load, answer: bytes, num_rows: int, words: str
) -> None:
    with peer(again=says(answer)) as other:
        wanted = ("--duration", "30", "--connections", "1", "--seeds-per-request", str(num_rows))
        code, figures, _ = load(other.url, *wanted)
    assert (code, figures["failures"], figures["requests"]) == (1, {"foreign answer": 1}, 0)
    assert words in figures["first_failure"]


def test_a_lost_connection_is_a_failure_by_name(load: Load) -> None:
    with peer() as other:
        code, figures, said = load(other.url, "--duration", "30", "--connections", "1")
    assert (code, figures["failures"]) == (1, {"connection lost": 1})
    assert "stopped early" not in said


def test_requests_go_where_the_url_says(load: Load) -> None:
    image = message(200, PNG, content_type="image/png", connection="close")
    with peer(says(image)) as other:
        load(other.url + "/below/", "--duration", "0.1", "--connections", "1")
        assert other.heads[0].startswith("post /below/v1/generate http/1.1")
        assert other.header("host") == other.url.removeprefix("http://")
