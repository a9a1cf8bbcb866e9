"""Web pages that their visitor's browser lets ask this server: they change nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServerProcess, server_process
from tests.faults.raw import raw
from tests.serving.conftest import make_key
from tests.support import HTTP, metric, wait_for

UNLOAD, LOAD = "/v2/repository/models/grey/unload", "/v2/repository/models/grey/load"
PAGE = "https://tools.example.org"
NAMED = "gan.example.org"


@pytest.fixture(scope="module")
def controlled(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    flags = ("--model-control", "clients", "--cors-origins", PAGE, "--allowed-hosts", NAMED)
    with server_process(tiny_repository, tmp_path_factory.mktemp("pages"), *flags) as server:
        yield server


def ask(server: ServerProcess, path: str, headers: dict[str, str], body: str = "{}") -> Any:
    """A POST with these headers; `Host` is the server's own where none is given."""
    fields = {"content-type": "application/json"} | headers
    given = {name: value for name, value in fields.items() if value}
    request = HTTP.build_request("POST", server.url + path, content=body, headers=given)
    if not fields["content-type"]:
        request.headers.pop("content-type", None)
    return HTTP.send(request)


foreign: dict[str, dict[str, str]] = {
    "a plain form": {"origin": "https://evil.example", "content-type": "text/plain"},
    "JSON": {"origin": "https://evil.example"},
    "a form": {
        "origin": "https://evil.example",
        "content-type": "application/x-www-form-urlencoded",
    },
    "a page without origin": {"origin": "null"},
    "another port of this machine": {"origin": "http://127.0.0.1:1"},
    "another scheme": {"origin": "ftp://{host}"},
    "this server as a prefix": {"origin": "http://{host}.evil.example"},
    "this server as a user": {"origin": "http://{host}@evil.example"},
    "two origins": {"origin": "http://{host}, https://evil.example"},
    "a name that was bound anew": {"origin": "http://evil.example", "host": "evil.example"},
    "... with a port": {"origin": "http://evil.example:8000", "host": "evil.example:8000"},
    "... that looks like an address": {
        "origin": "http://127.0.0.1.evil.example",
        "host": "127.0.0.1.evil.example",
    },
    "... that looks like localhost": {
        "origin": "http://localhost.evil.example",
        "host": "localhost.evil.example",
    },
    "... of a named page": {"origin": PAGE, "host": "evil.example"},
    "cross-site, with an origin": {"origin": "http://{host}", "sec-fetch-site": "cross-site"},
    "cross-site, without one": {"sec-fetch-site": "cross-site"},
    "plain text, without an origin": {"content-type": "text/plain"},
    "a form with files, without an origin": {"content-type": "multipart/form-data; boundary=x"},
    "a form that says it is same-site": {
        "sec-fetch-site": "same-origin",
        "content-type": "application/x-www-form-urlencoded",
    },
}


@pytest.mark.parametrize("path", [UNLOAD, LOAD])
@pytest.mark.parametrize("name", foreign)
def test_a_foreign_page_changes_nothing(controlled: ServerProcess, name: str, path: str) -> None:
    own = controlled.url.removeprefix("http://")
    headers = {key: value.format(host=own) for key, value in foreign[name].items()}
    response = ask(controlled, path, headers)
    assert response.status_code == 403, response.text
    error = response.json()["error"]
    assert list(response.json()) == ["error"]
    assert any(flag in error for flag in ("--cors-origins", "--allowed-hosts", "application/json"))
    assert "access-control-allow-origin" not in response.headers or headers["origin"] == PAGE
    assert controlled.generate(model="grey", seeds=[1]).status_code == 200


own_clients: dict[str, dict[str, str]] = {
    "curl": {"content-type": ""},
    "curl -d": {"content-type": "application/x-www-form-urlencoded"},
    "JSON": {},
    "JSON with a charset": {"content-type": "application/json; charset=utf-8"},
    "by the service's name": {"host": "saddlepoint.models.svc.cluster.local:8000"},
    "the server's own page": {"origin": "http://{host}", "sec-fetch-site": "same-origin"},
    "its page on localhost": {"origin": "http://localhost:{port}", "host": "localhost:{port}"},
    "its page by IPv6": {"origin": "http://[::1]:{port}", "host": "[::1]:{port}"},
    "behind a proxy that ends TLS": {"origin": f"https://{NAMED}", "host": NAMED},
    "... with the port said": {"origin": f"https://{NAMED}", "host": f"{NAMED}:443"},
    "a named page": {"origin": PAGE, "sec-fetch-site": "cross-site"},
    "typed by hand": {"sec-fetch-site": "none"},
}


@pytest.mark.parametrize("name", own_clients)
def test_who_belongs_here_goes_on_working(controlled: ServerProcess, name: str) -> None:
    own = controlled.url.removeprefix("http://")
    port = own.rpartition(":")[2]
    headers = {key: value.format(host=own, port=port) for key, value in own_clients[name].items()}
    for path, status in ((UNLOAD, 404), (LOAD, 200)):
        response = ask(controlled, path, headers)
        assert response.status_code == 200, response.text
        wait_for(
            lambda status=status: (
                controlled.generate(model="grey", seeds=[1]).status_code  # type: ignore[misc]
                in (status, 503 if status == 404 else 200)
            )
        )


def test_tritonclient_goes_on_working(controlled: ServerProcess) -> None:
    from tritonclient.http import InferenceServerClient

    client = InferenceServerClient(controlled.url.removeprefix("http://"))
    client.unload_model("grey")
    client.load_model("grey")
    assert client.is_model_ready("grey")
    client.close()


def test_a_url_in_the_first_line_is_the_host(controlled: ServerProcess) -> None:
    """RFC 9112, 3.2.2: the header doesn't count then, for this check too."""
    lines = [
        f"POST http://evil.example{UNLOAD} HTTP/1.1",
        f"Host: {controlled.url.removeprefix('http://')}",
        "Origin: http://evil.example",
        "Content-Length: 0",
    ]
    with raw(controlled) as connection:
        connection.send("\r\n".join([*lines, "", ""]).encode())
        answer = connection.answer()
    assert (answer.status, "--allowed-hosts" in answer.error()) == (403, True)


def test_what_changes_nothing_may_be_asked_from_anywhere(controlled: ServerProcess) -> None:
    page = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    headers = page | {"host": "evil.example"}
    body = '{"model": "grey", "seeds": [1]}'
    plain = headers | {"content-type": "text/plain"}
    assert ask(controlled, "/v1/generate", plain, body).is_success
    assert ask(controlled, "/v2/repository/index", headers).is_success


def test_any_origin_is_no_origin_where_something_changes(
    tiny_repository: Path, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """`--cors-origins *` lets every page look; what may change something must be named."""
    keys = tmp_path / "keys"
    token = make_key(keys, "alice", "--scopes", "admin")
    server = start_server(
        *(tiny_repository, "--model-control", "clients", "--cors-origins", "*"),
        *("--api-keys", str(keys)),
    )
    headers = {"origin": "https://evil.example", "authorization": f"Bearer {token}"}
    assert ask(server, UNLOAD, headers).status_code == 403
    assert ask(server, UNLOAD, headers | {"authorization": "Bearer no"}).status_code == 401
    del headers["origin"]
    assert ask(server, UNLOAD, headers).status_code == 200


def test_refused_pages_are_counted(controlled: ServerProcess) -> None:
    name = 'saddlepoint_requests_rejected_total{reason="foreign-page"}'
    before = metric(controlled, name)
    ask(controlled, UNLOAD, foreign["JSON"])
    assert metric(controlled, name) == before + 1


@pytest.mark.parametrize("hosts", ["http://x", "X.org", "x:80", "x/y", "*"])
def test_a_host_that_is_none_is_refused_at_start(hosts: str) -> None:
    from serving.command_line import parse
    from serving.errors import SettingsError

    with pytest.raises(SettingsError, match="--allowed-hosts"):
        parse(["--allowed-hosts", hosts], {})
