"""Who the lab answers: its own page under its own name, and nobody else."""

import asyncio
import multiprocessing
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.training.lab.conftest import start
from training.lab import server
from training.lab.__main__ import main
from training.lab.games import Games, LiveGame
from training.lab.server import LOOPBACK, build

OWN = {"host": "127.0.0.1:8090", "origin": "http://127.0.0.1:8090"}


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr("training.lab.games.Games.warm_up", lambda self: None)
    app = build(games=1, names=LOOPBACK)
    with TestClient(app, base_url="http://127.0.0.1:8090") as opened:
        yield opened


def test_the_page_may_load_its_own_files_alone(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for path in (Path(str(server.WEB))).iterdir():
        if path.name != "index.html":
            assert client.get(f"/{path.name}").content == path.read_bytes()
    assert len(client.get("/lab.json").json()["lessons"]) == 10
    assert client.get("/fate", params={"rounds": "8"}).json()["verdict"]
    refused = client.get("/fate", params={"rounds": "x"})
    assert (refused.status_code, refused.json()["text"][:13]) == (400, "rounds is 'x'")


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example:8090"}, {"origin": "http://evil.example"}, {"origin": "null"}],
)
def test_other_hosts_and_origins_get_nothing(client, headers):
    refused = client.get("/", headers=headers)
    assert refused.status_code == 403
    assert "allowed: 127.0.0.1" in refused.text
    own = {**OWN, **headers}
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/game", headers=own):
        pass


def test_a_socket_that_no_page_opened_gets_nothing(client):
    no_origin = {"host": OWN["host"]}
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/game", headers=no_origin),
    ):
        pass


@pytest.mark.parametrize("first", ["{}", "[]", "x", '{"query": 3}'])
def test_a_first_message_that_is_none_is_refused(client, first):
    with client.websocket_connect("/game", headers=OWN) as socket:
        socket.send_text(first)
        with pytest.raises(WebSocketDisconnect) as gone:
            socket.receive_json()
    assert gone.value.code == server.REFUSED


@pytest.mark.parametrize("is_new", [True, False])
def test_a_page_that_left_while_its_game_began_leaves_none_behind(is_new):
    class Gone:
        async def send_json(self, message):
            raise WebSocketDisconnect(1006)

    async def connect():
        lab = server.Lab(Games(1), {})
        ours, theirs = multiprocessing.Pipe()
        game = LiveGame(key="key", pipe=ours, processes=())
        lab.games._games["key"] = game
        await lab._connect(Gone(), game, is_new=is_new)
        found = len(lab.games), theirs.poll() and theirs.recv()
        lab.games.end_all()
        ours.close(), theirs.close()
        return found

    # A game whose key the page had is paused, and waits for it.
    assert asyncio.run(connect()) == ((0, False) if is_new else (1, {"do": "pause"}))


def test_games_end_with_the_lab_though_it_could_not_warm_up(monkeypatch):
    ended = []

    def end_all(games):
        ended.append(games)

    def fail(lab):
        raise OSError("no process can be started")

    monkeypatch.setattr(server.Lab, "warm_up", fail)
    monkeypatch.setattr(Games, "end_all", end_all)
    app = build(games=1, names=LOOPBACK)

    async def live():
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(OSError, match="no process"):
        asyncio.run(live())
    assert len(ended) == 1


def test_a_port_that_is_taken_is_named(capsys):
    assert main(["--port", "99999"]) == 2
    assert "choose another --port" in capsys.readouterr().err
    assert main(["--games", "0"]) == 2
    assert "games is 0, allowed: 1 .. 64" in capsys.readouterr().err


def test_the_address_that_is_printed_may_be_opened() -> None:
    with start("--host", "127.0.0.2") as lab:
        assert httpx.get(lab.url, timeout=60).status_code == 200
