"""`python -m training.lab`: a live game in the browser.

Exit codes: 0 done; 2 wrong usage.
"""

import argparse
import contextlib
import logging
import socket
import sys
import webbrowser
from collections.abc import Sequence

import uvicorn

from training.errors import ConfigError, TrainingError
from training.lab.server import LOOPBACK, MAX_MESSAGE_BYTES, build

PROG = "python -m training.lab"
_MOST_GAMES = 64
_LAST_PORT = 65_535


def main(argv: Sequence[str], *, prog: str = PROG) -> int:
    """Runs a command line and returns the exit code; prog: how it was called."""
    parser = argparse.ArgumentParser(prog=prog, description="A live game in the browser.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on: %(default)s")
    parser.add_argument("--port", type=int, default=8090, help="0 for any: %(default)s")
    parser.add_argument("--games", type=int, default=8, help="most games at a time: %(default)s")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or address under which the page may be opened beside the loopback's",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            _run(options)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(options: argparse.Namespace) -> None:
    if not 1 <= options.games <= _MOST_GAMES:
        raise ConfigError(
            f"games is {options.games}, allowed: 1 .. {_MOST_GAMES}; set another --games"
        )
    if not 0 <= options.port <= _LAST_PORT:
        raise ConfigError(
            f"port is {options.port}, allowed: 0 .. {_LAST_PORT}; choose another --port"
        )
    listening = _listen(options.host, options.port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{listening.getsockname()[1]}/"
    app = build(games=options.games, names=(*LOOPBACK, host, *options.allow_host))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_ping_interval=30,
            ws_ping_timeout=120,  # a busy machine's browser answers late, and isn't gone
            ws_per_message_deflate=False,  # frames are floats, which don't shrink
            log_level="warning",
            timeout_graceful_shutdown=2,
        )
    )
    print(f"The lab is at {address} (Ctrl-C ends it)", flush=True)
    if options.open:
        webbrowser.open(address)
    server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that the address is known before the server starts."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        raise ConfigError(
            f"host and port are {host}:{port}, allowed: an address of this machine and a free "
            f"port, but {error}; choose another --port"
        ) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
