"""The lab's server: the page, its games over a WebSocket each, and nobody else.

It listens on the loopback and answers only where Host and Origin are its own: a name of a stranger
that resolves to this machine (DNS rebinding) gets nothing. The page may load nothing from
elsewhere.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from training.errors import ConfigError, TrainingError
from training.lab.catalogue import catalogue
from training.lab.fate import MIN_ROUNDS, fate
from training.lab.games import Games, LiveGame
from training.lab.lessons import LESSONS
from training.lab.parameters import field_of

WEB = resources.files("training.lab") / "web"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
GONE, FOREIGN = 1001, 1008
REFUSED, ENDED, TAKEN = 4000, 4001, 4002
"""Close codes: parameters that no game can have or too many games; the game's process has ended;
another page has the game now."""
MAX_MESSAGE_BYTES = 64 << 10

log = logging.getLogger(__name__)


class OwnNames:
    """Refuses requests under other names than the server's own, and from other origins."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        """names: hosts as browsers write them, without the port."""
        self.app = app
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is for this server and from its own page."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        own = _name(host) in self.names and origin in (None, f"http://{host}", f"https://{host}")
        if scope["type"] == "websocket" and origin is None:
            own = False  # browsers always send one
        if own:
            await self.app(scope, receive, _with_headers(send))
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": FOREIGN})
            return
        text = (
            f"Host is {host!r} and Origin {origin!r}, allowed: {', '.join(self.names)} and its own "
            "pages; open the address that the lab printed, or name the host with --allow-host\n"
        )
        await PlainTextResponse(text, 403)(scope, receive, _with_headers(send))


def _name(host: str) -> str:
    """A Host header without its port."""
    head, _, port = host.rpartition(":")
    return head if head and port.isdigit() else host


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return sending


def build(*, games: int, names: tuple[str, ...]) -> Starlette:
    """The application. games: at a time. names: hosts that it answers to."""
    lab = Lab(Games(games))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        warming = asyncio.create_task(asyncio.to_thread(lab.warm_up))
        try:
            yield
            await warming
        finally:
            lab.games.end_all()

    files = [
        Route("/" if name == "index.html" else f"/{name}", _file(name))
        for name in sorted(each.name for each in WEB.iterdir() if each.name[0] != ".")
    ]
    return Starlette(
        routes=[
            *files,
            Route("/lab.json", lab.facts),
            Route("/fate", lab.fate),
            WebSocketRoute("/game", lab.play),
        ],
        middleware=[Middleware(OwnNames, names=names)],
        lifespan=lifespan,
    )


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    content = (WEB / name).read_bytes()
    kind = TYPES[name[name.rindex(".") :]]

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


@dataclass(frozen=True)
class Lab:
    """The routes and the games that they are about."""

    games: Games
    _catalogue: dict[str, Any] = field(default_factory=catalogue)

    def warm_up(self) -> None:
        """Imports what the first game and the first fate would wait for: seconds."""
        self.games.warm_up()
        fate({"rounds": str(MIN_ROUNDS)})

    async def facts(self, request: Request) -> Response:
        """What can be chosen, and the lessons."""
        return JSONResponse({**self._catalogue, "lessons": [each.as_json() for each in LESSONS]})

    async def fate(self, request: Request) -> Response:
        """The predicted and the played path of a small game."""
        try:
            found = await asyncio.to_thread(fate, dict(request.query_params))
        except TrainingError as error:
            name = field_of(error) if isinstance(error, ConfigError) else ""
            return JSONResponse({"field": name, "text": str(error)}, 400)
        return JSONResponse(found)

    async def play(self, socket: WebSocket) -> None:
        """A page's connection: first what it wants, then messages and frames until it goes."""
        await socket.accept()
        try:
            wanted = _message(await socket.receive_text())
            game = self.games.find(str(wanted.get("key", "")))
            if is_new := game is None:
                game = await self.games.open({str(k): str(v) for k, v in wanted["query"].items()})
            assert game is not None
        except ConfigError as error:
            await socket.send_json({"is": "refused", "field": field_of(error), "text": str(error)})
            await socket.close(REFUSED, "refused")
            return
        except WebSocketDisconnect:
            return
        except (KeyError, AttributeError, ValueError):
            await socket.close(REFUSED, "the first message is none")
            return
        await self._connect(socket, game, is_new=is_new)

    async def _connect(self, socket: WebSocket, game: LiveGame, *, is_new: bool) -> None:
        page = self.games.join(game)
        try:
            await socket.send_json({"is": "connected", "key": game.key, "isNew": is_new})
        except WebSocketDisconnect:  # nobody knows the key of a game that just began
            self.games.leave(game, page, for_good=is_new)
            return
        sending = asyncio.create_task(self._answers(socket, game, page))
        code = GONE
        try:
            code = await self._messages(socket, game, is_new=is_new)
        finally:
            sending.cancel()
            # A page that was closed or left says so; a connection that broke doesn't.
            self.games.leave(game, page, for_good=code in (GONE, 1000))

    async def _messages(self, socket: WebSocket, game: LiveGame, *, is_new: bool) -> int:
        """Hands on what the page says; returns the code with which it went."""
        try:
            if not is_new:
                game.send({"do": "head"})
            while True:
                game.send(_message(await socket.receive_text()))
        except WebSocketDisconnect as gone:
            return gone.code
        except (OSError, ValueError, KeyError) as error:
            log.warning("game %s: %s %s", game.key[:6], type(error).__name__, error)
            with contextlib.suppress(RuntimeError):
                await socket.close(ENDED, "ended")
            return GONE

    async def _answers(self, socket: WebSocket, game: LiveGame, page: int) -> None:
        """Sends what the game answers to the page that has it, until that has gone."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._send_all(socket, game, page)

    async def _send_all(self, socket: WebSocket, game: LiveGame, page: int) -> None:
        while True:
            answer = await game.answers.get()
            if page != game.page:
                if answer is not None:
                    game.answers.put_nowait(answer)
                await socket.close(TAKEN, "another page has this game now")
                return
            if answer is None:
                self.games.end(game, "its process has ended")
                await socket.close(ENDED, "the game's process has ended")
            elif isinstance(answer, bytes):
                await socket.send_bytes(answer)
            else:
                await socket.send_json(answer)


def _message(text: str) -> dict[str, Any]:
    if len(text) > MAX_MESSAGE_BYTES:
        raise ValueError("too long")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found
