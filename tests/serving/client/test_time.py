"""How long a client waits, whatever the other side does; and its thread."""

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from serving.client import AsyncClient, Client
from serving.client.errors import DeadlineError, UnreachableError
from tests.serving.client.peers import (
    Turn,
    late,
    message,
    models,
    npy,
    peer,
    says,
    says_nothing,
    trickles,
)
from tests.support import wait_for, workers_of

Call = Callable[..., Any]


def waits(url: str, name: str, *args: Any, timeout_s: float = 30, **options: Any) -> Any:
    with Client(url, timeout_s=timeout_s) as client:
        return getattr(client, name)(*args, **options)


def awaits(url: str, name: str, *args: Any, timeout_s: float = 30, **options: Any) -> Any:
    async def work() -> Any:
        async with AsyncClient(url, timeout_s=timeout_s) as client:
            return await getattr(client, name)(*args, **options)

    return asyncio.run(work())


both = pytest.mark.parametrize("call", [waits, awaits])
READY = models()
FULL = message(503, b"", retry_after="1")


@both
@pytest.mark.parametrize(
    "turns",
    [
        [says(FULL), late(READY, 1.0)],  # a pause of a second, then an answer after another
        [trickles(READY, READY.index(b"{"), 0.05)],  # whole after 20 seconds
        [trickles(READY, 0, 0.05)],
        [says_nothing],
    ],
    ids=["attempts", "body", "head", "nothing"],
)
def test_all_of_it_ends_in_time(call: Call, turns: list[Turn]) -> None:
    with (
        peer(*turns) as other,
        pytest.raises(UnreachableError, match="no complete response within"),
    ):
        call(other.url, "models", timeout_s=1.5)


@both
def test_what_is_asked_first_takes_from_the_same_time(call: Call) -> None:
    images = np.zeros((1, 8, 8, 1), np.uint8)
    turns = (late(READY, 0.7), late(npy(images), 0.7))
    with (
        peer(*turns) as other,
        pytest.raises(UnreachableError, match="no complete response within"),
    ):
        call(other.url, "answer", [1], timeout_s=1.0)


@both
def test_asking_whether_it_is_ready_ends_in_time(call: Call) -> None:
    with peer(says_nothing) as other, pytest.raises(UnreachableError, match=r"within 0\.2 s"):
        call(other.url, "ready", timeout_s=0.2)


@both
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("encoded", 1), ("grid", [1]), ("interpolate", [1, 2]), ("generate_array", [1])],
)
def test_the_server_is_told_how_long_one_waits(
    call: Call, server: Any, name: str, arguments: Any
) -> None:
    refusal = message(404, b"")
    for timeout_s, least_ms, most_ms in ((4.0, 2000, 4000), (1000.0, 10_000, 10_000)):
        with peer(says(READY), says(refusal)) as other:
            with pytest.raises(Exception, match="status 404"):
                call(other.url, name, arguments, timeout_s=timeout_s)
            assert other.heads[-1].startswith("post ")
            assert least_ms <= int(other.header("x-request-timeout-ms") or "0") <= most_ms
    call(server.url, name, arguments, timeout_s=1000, model="grey")  # and it takes it


def test_the_limits_are_asked_for_once(server: Any) -> None:
    image = message(200, b"", content_type="image/png")
    with peer(says(READY), says(image), says(image)) as other, Client(other.url) as client:
        assert [client.encoded(n) for n in (1, 2)] == [b"", b""]
        assert [head.split()[0] for head in other.heads] == ["get", "post", "post"]


def test_limits_that_have_changed_are_asked_for_anew() -> None:
    image = message(200, b"", content_type="image/png")
    turns = (READY, message(400, b""), READY, image)
    with peer(*map(says, turns)) as other, Client(other.url) as client:
        with pytest.raises(Exception, match="status 400"):
            client.encoded(1)
        assert client.encoded(1) == b""


def test_the_servers_own_words_come_in_time(start_server: Any, tiny_repository: Any) -> None:
    server = start_server(tiny_repository)
    for worker in workers_of(server):
        os.kill(worker, signal.SIGSTOP)
    with (
        Client(server.url, model="grey", timeout_s=5) as client,
        pytest.raises(DeadlineError, match=r"within 4\d\d\d ms"),
    ):
        client.answer(1)


def test_threads_share_a_client(server: Any) -> None:
    with Client(server.url, model="grey") as client, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(client.generate_array, range(12)))
        for seed, images in enumerate(found):
            assert (images == client.generate_array(seed)).all()


def test_a_client_works_where_a_loop_runs(server: Any) -> None:
    async def notebook() -> bool:
        with Client(server.url) as client:
            return client.ready()

    assert asyncio.run(notebook())


def client_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "saddlepoint-client"]


def test_a_client_that_nobody_closes_leaves_no_thread(server: Any) -> None:
    client = Client(server.url)
    assert client_threads() == []
    assert client.ready()
    assert len(client_threads()) == 1
    del client
    gc.collect()
    wait_for(lambda: client_threads() == [])


def test_a_closed_client_says_so() -> None:
    client = Client("http://127.0.0.1:1")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="is closed"):
        client.ready()


def test_a_fork_is_told_instead_of_waiting_for_ever(server: Any) -> None:
    with Client(server.url) as client:
        assert client.ready()
        child = os.fork()
        if child == 0:
            try:
                client.ready()
            except RuntimeError as error:
                os._exit(7 if "forked" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert client.ready()
