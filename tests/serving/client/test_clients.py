"""The client against a real server, and against a real one that plays an overloaded proxy."""

import asyncio
import datetime
import http.server
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from serving import errors as server_errors
from serving.client import AsyncClient, Client, ClientError
from serving.client.errors import (
    ForeignAnswerError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
    UnknownModelError,
    UnreachableError,
    error_of,
)
from serving.client.retries import RETRIED, Retries, retry_after
from serving.http.messages import Response


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[Client]:
    with Client(server.url, model="grey") as opened:
        yield opened


def test_images_are_the_servers(server: Any, client: Client) -> None:
    body = server.generate(model="grey", seeds=[1, 2, 3], format="npy").content
    wanted = np.load(io.BytesIO(body))
    answer = client.answer([1, 2, 3])
    assert (answer.images == wanted).all()
    assert (answer.model, answer.version, len(answer.digest)) == ("grey", 2, 64)
    pictures = client.generate([1, 2, 3])
    assert [picture.mode for picture in pictures] == ["L"] * 3
    assert (np.asarray(pictures[2]) == wanted[2, :, :, 0]).all()
    assert (client.generate_array(2) == wanted[1:2]).all()
    assert (client.generate_array(np.array([3], np.uint64)) == wanted[2:]).all()
    assert client.encoded(1) == server.generate(model="grey", seeds=[1]).content
    assert client.answer([1], version=1).version == 1
    colour = client.generate([1, 2], model="colour", labels=[0, 2], truncation=0.5)
    assert colour[0].size == (16, 16)
    assert client.grid([1, 2, 3, 4]).size == (16, 16)
    walk = Image.open(io.BytesIO(client.interpolate([1, 2], frames=5, format="gif")))
    assert len(list(ImageSequence.Iterator(walk))) == 5
    assert client.ready()
    assert {model.name for model in client.models()} == {"grey", "colour"}
    assert client.model("grey", version=1).version == 1


def test_more_rows_than_the_server_takes_come_in_parts(client: Client) -> None:
    whole = client.generate_array(range(700))  # three parts of at most 300
    assert whole.shape == (700, 8, 8, 1)
    assert (whole[[0, 299, 300, 699]] == client.generate_array([0, 299, 300, 699])).all()
    labels = [0, 1, 2] * 120
    colours = client.generate_array(range(360), labels=labels, model="colour")
    assert (colours[359] == client.generate_array(359, labels=2, model="colour")[0]).all()
    z = np.ones((301, 6), np.float32)
    assert client.generate_array(latents=z).shape == (301, 8, 8, 1)


def test_the_other_client_gives_the_same(server: Any, client: Client) -> None:
    async def work() -> tuple[np.ndarray, bytes, list[Any]]:
        async with AsyncClient(server.url, model="grey") as other:
            assert await other.ready()
            arrays = await asyncio.gather(
                *(other.generate_array(range(n, n + 3)) for n in range(9))
            )
            return arrays[4], await other.encoded(1, format="webp"), await other.models()

    array, file, models = asyncio.run(work())
    assert (array == client.generate_array([4, 5, 6])).all()
    assert file == client.encoded(1, format="webp")
    assert models == client.models()


@pytest.mark.parametrize(
    ("work", "kind", "words"),
    [
        (lambda c: c.generate([-1]), InvalidRequestError, "seeds[0] is -1"),
        (lambda c: c.generate([1], model="nix"), UnknownModelError, "model is 'nix'"),
        (lambda c: c.generate([]), InvalidRequestError, "seeds has 0 entries"),
        (lambda c: c.generate(), ClientError, "neither of seeds and latents"),
        (lambda c: c.interpolate([1]), InvalidRequestError, "seeds has 1 waypoints"),
    ],
)
def test_a_problem_is_an_exception_of_its_kind(
    client: Client, work: Callable[[Client], Any], kind: type[ClientError], words: str
) -> None:
    with pytest.raises(kind) as refused:
        work(client)
    assert words in refused.value.detail


def kinds_of(kind: type[server_errors.Problem]) -> Iterator[type[server_errors.Problem]]:
    yield kind
    for below in kind.__subclasses__():
        yield from kinds_of(below)


@pytest.mark.parametrize("kind", list(kinds_of(server_errors.Problem)))
def test_every_problem_of_the_server_has_an_exception(kind: type[server_errors.Problem]) -> None:
    reply = Response.problem(kind("why"))
    error = error_of(reply.status, reply.body, 3.0)
    assert type(error) is ClientError.known[kind.slug]
    assert error.type == server_errors.PROBLEM_URI + kind.slug
    assert (error.status, error.title, error.detail) == (kind.status, kind.title, "why")
    assert error.retry_after_s == 3.0


def test_there_is_no_exception_for_what_is_no_problem() -> None:
    assert set(ClientError.known) == {kind.slug for kind in kinds_of(server_errors.Problem)}


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answers what the test has put into `script`, then passes nothing on."""

    script: ClassVar[list[tuple[int, dict[str, str], bytes]]] = []
    seen: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        if not self.script:
            self.close_connection = True
            return
        status, headers, body = self.script.pop(0)
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Not here."""


@pytest.fixture
def proxy() -> Iterator[str]:
    Proxy.script, Proxy.seen = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def problem(kind: type[server_errors.Problem], **headers: str) -> tuple[int, dict[str, str], bytes]:
    reply = Response.problem(kind("for the test"))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return reply.status, {"content-type": reply.media_type, **named}, reply.body


PATIENT = Retries(attempts=4, first_s=0.01)
FULL = problem(server_errors.OverloadedProblem, retry_after="0")
READY = (200, {}, b'{"models": []}')


def test_what_passes_is_tried_again(proxy: str) -> None:
    gone = problem(server_errors.UnavailableProblem)
    Proxy.script += [FULL, gone, (502, {}, b"<html>"), READY]
    with Client(proxy, retries=PATIENT, api_key="k") as client:
        assert client.models() == []
    assert len(Proxy.seen) == 4
    assert {seen["authorization"] for seen in Proxy.seen} == {"Bearer k"}


def test_patience_has_an_end(proxy: str) -> None:
    Proxy.script += [FULL] * 9
    with Client(proxy, retries=PATIENT) as client, pytest.raises(OverloadedError):
        client.models()
    assert len(Proxy.seen) == 4


def test_a_pause_beyond_the_deadline_is_not_waited_for(proxy: str) -> None:
    Proxy.script += [problem(server_errors.UnavailableProblem, retry_after="3600")]
    with Client(proxy, timeout_s=5) as client, pytest.raises(UnavailableError) as refused:
        client.models()
    assert refused.value.retry_after_s == 3600
    assert len(Proxy.seen) == 1


def test_a_cut_connection_is_tried_again_and_told(proxy: str) -> None:
    with (
        Client(proxy, retries=Retries(attempts=2, first_s=0.01)) as client,
        pytest.raises(UnreachableError, match="no response from the server after 2 attempts"),
    ):
        client.models()
    assert len(Proxy.seen) == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, {}, b"<html>nginx"), "not a problem document.*nginx"),
        ((200, {}, b"<html>"), "can't be read"),
        ((200, {}, b'{"models": [{}]}'), "can't be read"),
    ],
)
def test_an_answer_of_something_else_is_called_that(
    proxy: str, answer: tuple[int, dict[str, str], bytes], words: str
) -> None:
    Proxy.script += [answer]
    with Client(proxy) as client, pytest.raises(ForeignAnswerError, match=words):
        client.models()


retries = st.builds(
    Retries,
    attempts=st.integers(1, 50),
    first_s=st.floats(0.001, 10),
    most_s=st.floats(0.001, 100),
)


@given(
    retries,
    st.integers(1, 60),
    st.none() | st.integers(300, 599),
    st.none() | st.floats(0, 1e6),
    st.floats(0, 100),
    st.floats(0, 1, exclude_max=True),
)
def test_a_pause_is_short_enough_and_honours_the_server(
    policy: Retries,
    attempt: int,
    status: int | None,
    wait_s: float | None,
    left_s: float,
    draw: float,
) -> None:
    pause = policy.pause(attempt, status, wait_s, left_s=left_s, draw=draw)
    if pause is None:
        given_up = attempt >= policy.attempts or (status is not None and status not in RETRIED)
        longest = policy.most_s if wait_s is None else wait_s
        assert given_up or longest >= left_s
        return
    assert attempt < policy.attempts
    assert status is None or status in RETRIED
    assert 0 <= pause < left_s
    assert pause == wait_s if wait_s is not None else pause <= policy.most_s


NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0.0),
        ("soon", None),
        ("Thu, 01 Jan 2026 00:00:00 +99999999999999999", None),
        ("-3", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_it_brings_nothing_of_the_server() -> None:
    script = (
        "import sys, serving.client; "
        "print([m for m in ('litserve', 'onnxruntime', 'prometheus_client', 'torch', 'uvicorn') "
        "if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
