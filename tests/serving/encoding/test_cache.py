"""Images that are kept: bounds, single flight, URLs with validators, the same bytes as without."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.repository import Repository
from serving.dispatch.single_flight import SingleFlight
from serving.dispatch.tickets import Ticket
from serving.encoding.cache import ImageCache, ImageKey
from serving.errors import (
    ClientGoneError,
    DeadlineProblem,
    OverloadedProblem,
    UnavailableProblem,
)
from serving.http.conditional import etag, matches
from tests.conftest import ServerProcess, server_process
from tests.support import HTTP, metric, wait_for


def key(seed: int) -> ImageKey:
    return ("digest", seed, None, 1.0, "", "png")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000)), max_size=60))
def test_the_bound_holds_and_an_image_never_changes(puts: list[tuple[int, int]]) -> None:
    cache = ImageCache(5000)
    for seed, size in puts:
        had = cache.get(key(seed))
        cache.put(key(seed), bytes(size))
        assert cache.num_bytes <= cache.max_bytes
        kept = cache.get(key(seed))
        assert kept is not None
        assert kept == (bytes(size) if had is None else had)


def test_the_least_recently_used_goes() -> None:
    cache = ImageCache(3000)
    for seed in (1, 2, 3, 4):
        cache.put(key(seed), bytes(300))
    cache.get(key(1))
    cache.put(key(5), bytes(300))
    assert [seed for seed in range(1, 6) if cache.get(key(seed))] == [1, 3, 4, 5]


def test_what_is_too_large_is_not_kept() -> None:
    cache = ImageCache(1000)
    cache.put(key(1), bytes(10))
    cache.put(key(2), bytes(1001))
    assert cache.get(key(1)) is not None
    assert cache.get(key(2)) is None
    off = ImageCache(0)
    off.put(key(1), b"x")
    assert off.get(key(1)) is None


def new_ticket() -> Ticket:
    done = asyncio.get_running_loop().create_future()
    return Ticket(("m", 1), [5], None, None, 1.0, False, done, 1)


@pytest.mark.parametrize("fate", [ClientGoneError(), DeadlineProblem("late"), None])
def test_the_first_ones_own_fate_is_not_the_others(fate: Exception | None) -> None:
    async def scenario() -> None:
        admitted: list[Ticket] = []

        def admit() -> Ticket:
            admitted.append(new_ticket())
            return admitted[-1]

        flights = SingleFlight()
        first, second, third = (flights.join(key(5), admit) for _ in range(3))
        assert len(admitted) == 1
        assert second.num_sent == second.num_rows  # the batcher holds nothing of it
        if fate is None:
            first.done.cancel()
        else:
            first.done.set_exception(fate)
        await asyncio.sleep(0)
        assert len(admitted) == 2  # made for those who still wait
        third.done.set_exception(ClientGoneError())
        admitted[1].done.set_result("image")  # type: ignore[arg-type]
        assert await second.done == "image"
        with pytest.raises(ClientGoneError):
            await third.done
        await asyncio.sleep(0)
        late = flights.join(key(5), admit)  # the image is not in the cache yet
        assert await late.done == "image"
        assert len(admitted) == 2
        for ticket in (first, second, third, late, late):  # twice is once
            flights.leave(key(5), ticket)
        assert len(flights) == 0
        assert flights.join(key(5), admit) is admitted[2]  # the flight is over

    asyncio.run(scenario())


def test_an_image_is_asked_for_anew_where_all_have_left() -> None:
    async def scenario() -> None:
        flights = SingleFlight()
        first, second = (flights.join(key(5), new_ticket) for _ in range(2))
        for ticket in (first, second):
            ticket.done.set_exception(ClientGoneError())
            flights.leave(key(5), ticket)
        other = flights.join(key(5), new_ticket)  # before the loop tells that the first has ended
        assert other not in (first, second)
        await asyncio.sleep(0)
        assert flights.join(key(5), new_ticket) is not other
        other.done.set_result("image")  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert len(flights) == 1
        first.done.exception(), second.done.exception()

    asyncio.run(scenario())


def test_what_befalls_the_image_befalls_all() -> None:
    async def scenario() -> None:
        flights = SingleFlight()
        first, second = (flights.join(key(5), new_ticket) for _ in range(2))
        first.done.set_exception(UnavailableProblem("the worker died"))
        with pytest.raises(UnavailableProblem):
            await second.done
        assert len(flights) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [OverloadedProblem("full"), RuntimeError("odd")])
def test_followers_hear_why_their_image_cannot_be_asked_for_again(error: Exception) -> None:
    async def scenario() -> None:
        admits: list[Ticket | Exception] = [new_ticket(), error]

        def admit() -> Ticket:
            admitted = admits.pop(0)
            if isinstance(admitted, Exception):
                raise admitted
            return admitted

        flights = SingleFlight()
        first, second, third = (flights.join(key(5), admit) for _ in range(3))
        third.done.cancel()  # as uvicorn's shutdown does
        first.done.set_exception(ClientGoneError())
        with pytest.raises(type(error)):
            await asyncio.wait_for(second.done, 5)

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def keeping(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with the cache that it has by default."""
    with server_process(tiny_repository, tmp_path_factory.mktemp("keeping")) as running:
        yield running


def grown(server: Any, name: str, work: Callable[[], object]) -> float:
    before = metric(server, name)
    work()
    return metric(server, name) - before


ROWS = "saddlepoint_rows_generated_total"


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/generate?"])
def test_a_kept_image_is_not_made_again(keeping: Any, server: Any, path: str) -> None:
    body = {"model": "grey", "seeds": [71]}
    first = keeping.generate(**body)
    assert grown(keeping, ROWS, lambda: keeping.post(path, json=body)) == 0
    hit = keeping.post(path, json=body)
    assert hit.content == first.content == server.generate(**body).content
    assert hit.headers["server-timing"] == "cache;desc=hit"
    assert hit.headers["x-model-digest"] == first.headers["x-model-digest"]
    hits = "saddlepoint_image_cache_hits_total"
    assert grown(keeping, hits, lambda: keeping.post(path, json=body)) == 1
    assert metric(keeping, "saddlepoint_image_cache_bytes") > 0


def test_a_list_is_answered_from_what_was_kept(keeping: Any, server: Any) -> None:
    singles = [keeping.generate(model="grey", seeds=[seed]).content for seed in (81, 82)]
    body = {"model": "grey", "seeds": [82, 81]}
    listed = keeping.generate(**body)
    assert listed.headers["server-timing"] == "cache;desc=hit"
    assert [base64.b64decode(i["data"]) for i in listed.json()["images"]] == singles[::-1]
    assert listed.json() == server.generate(**body).json()


@pytest.mark.parametrize(
    "other",
    [{"truncation": 0.5}, {"labels": 2}, {"format": "webp"}, {"model": "grey", "labels": None}],
)
def test_whatever_changes_the_bytes_is_another_image(keeping: Any, other: dict[str, Any]) -> None:
    body = {"model": "colour", "seeds": [91], "labels": 1}
    keeping.generate(**body)
    changed = {"seeds": [91], **body, **other}
    assert keeping.generate(**changed).headers["server-timing"].startswith("queue")


def test_many_who_ask_for_one_image_have_it_made_once(keeping: Any) -> None:
    async def ask() -> set[bytes]:
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(base_url=keeping.url, limits=limits, timeout=30) as client:
            body = {"model": "grey", "seeds": [101]}
            asked = [client.post("/v1/generate", json=body) for _ in range(40)]
            return {response.content for response in await asyncio.gather(*asked)}

    def work() -> None:
        assert len(asyncio.run(ask())) == 1

    assert grown(keeping, ROWS, work) == 1


URL = "/v1/models/colour/images/7.png?label=1"


def test_an_image_url_has_a_validator(keeping: Any) -> None:
    response = keeping.get(URL)
    tag = response.headers["etag"]
    assert tag.startswith('"')
    assert response.headers["cache-control"] == "public, no-cache"
    again = keeping.get(URL, headers={"if-none-match": f'"other", W/{tag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == tag
    assert "content-length" not in again.headers
    assert keeping.get(URL, headers={"if-none-match": '"other"'}).status_code == 200
    pinned = keeping.get(URL + "&version=1")
    assert pinned.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert pinned.headers["etag"] == tag  # the same version by number
    assert keeping.get(URL.replace("7.png", "7.webp")).headers["etag"] != tag


def test_a_validator_costs_no_image(keeping: Any) -> None:
    url = URL.replace("7.png", "9999.png")

    def work() -> None:
        head = HTTP.head(keeping.url + url)
        assert head.status_code == 200
        assert head.headers["content-type"] == "image/png"
        held = {"if-none-match": head.headers["etag"]}
        assert keeping.get(url, headers=held).status_code == 304

    assert grown(keeping, ROWS, work) == 0
    made = keeping.get(url)
    assert HTTP.head(keeping.url + url).headers["content-length"] == str(len(made.content))
    assert HTTP.head(keeping.url + "/v1/models/colour/images/1.png").status_code == 400


def test_a_new_version_has_other_validators(
    make_bundle: Callable[..., Any], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("m", make_bundle(weights_seed=1))
    server = start_server(
        repository.root, "--reload-interval-s", "0.1", "--max-image-pixels", "640"
    )
    path = "/v1/models/m/images/1.png"
    old = server.get(path)
    repository.publish("m", make_bundle(weights_seed=2))
    wait_for(lambda: server.get(path).headers["x-model-version"] == "2")
    new = server.get(path, headers={"if-none-match": old.headers["etag"]})
    assert new.status_code == 200
    assert new.content != old.content
    # The same server: more pixels than it was told to make at once.
    assert server.generate(seeds=list(range(10)), layout="grid").status_code == 200
    for route, body in (("generate", {"seeds": [0] * 11}), ("interpolate", {"seeds": [1, 2]})):
        response = server.post(f"/v1/{route}", json={**body})
        assert response.status_code == 400
        assert "images of 8x8 pixels are asked for, allowed are 10" in response.json()["detail"]


@given(st.integers(0, 2**64 - 1), st.floats(0, 2), st.sampled_from(["png", "webp"]))
def test_a_tag_is_one_of_its_kind(seed: int, psi: float, kind: str) -> None:
    tag = etag(("d", seed, None, psi, kind), described=True)
    assert matches(tag, tag)
    assert matches(b"*", tag)
    assert not matches(None, tag)
    assert not matches(etag(("d", seed, 0, psi, kind), described=True), tag)
