"""Where a server listens: any address of this machine, any port, a Unix socket, below a path."""

import errno
import os
import re
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.errors import SettingsError
from serving.process.listening import Listeners, bind, url_of
from serving.settings import Settings
from tests.conftest import ServerProcess
from tests.support import HTTP, wait_for

BODY = {"model": "grey", "seeds": [7]}


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_name_is_all_of_its_addresses_on_one_port() -> None:
    listeners = Listeners(Settings(host="localhost", port=0))
    found = {listener.getsockname()[:2] for listener in listeners.sockets}
    listeners.close()
    port = listeners.settings.port
    assert port
    assert ("127.0.0.1", port) in found
    assert found <= {("127.0.0.1", port), ("::1", port)}
    assert url_of(listeners.settings) == f"http://localhost:{port}"


@pytest.mark.parametrize(
    ("host", "reached"),
    [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")],
)
def test_any_address_of_this_machine_will_do(host: str, reached: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 here")
    listeners = Listeners(Settings(host=host, port=0))
    listeners.sockets[0].listen()
    url = url_of(listeners.settings)
    assert url == f"http://{reached}:{listeners.settings.port}"
    with socket.create_connection((reached.strip("[]"), listeners.settings.port)) as client:
        assert client.getpeername()[1] == listeners.settings.port
    if host == "::":  # IPv4 too
        socket.create_connection(("127.0.0.1", listeners.settings.port)).close()
    listeners.close()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("192.0.2.7", "must be an address of this machine"),
        ("nowhere.invalid", "name an address of this machine"),
        ("a" * 70 + ".invalid", "--host is"),
    ],
)
def test_what_is_no_address_of_this_machine_is_refused(host: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Listeners(Settings(host=host, port=0))


def test_a_port_that_is_taken_is_named() -> None:
    (taken,) = bind("127.0.0.1", 0, "port")
    with taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"--metrics-port is {port}: Address already"):
            bind("127.0.0.1", port, "metrics_port")


def test_a_port_below_1024_that_is_not_allowed_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel's refusal is put in place: many machines allow it."""

    def refuse(self: socket.socket, address: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(SettingsError, match=r"--port is 823: Permission denied.*CAP_NET_BIND"):
        bind("127.0.0.1", 823, "port")


def test_a_path_is_taken_from_the_dead_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    settings = Settings(unix_socket=path)
    living = Listeners(settings)  # it listens at once: two that start together can tell
    with pytest.raises(SettingsError, match="another process listens there"):
        Listeners(settings)
    living.close()
    successor = Listeners(settings)
    living.remove()  # it is another's by now
    assert stat.S_ISSOCK(path.stat().st_mode)
    successor.close()
    successor.remove()
    assert list(tmp_path.iterdir()) == []
    path.write_text("a file")
    with pytest.raises(SettingsError, match="is no socket"):
        Listeners(settings)
    assert path.read_text() == "a file"
    path.unlink()
    hidden = tmp_path / ".socket"  # nobody's but its owner's
    hidden.write_text("another file")
    listeners = Listeners(settings)
    assert hidden.read_text() == "another file"
    assert sorted(each.name for each in tmp_path.iterdir()) == [".socket", "socket"]
    listeners.close()
    listeners.remove()
    with pytest.raises(SettingsError, match="a folder that this user may write to"):
        Listeners(Settings(unix_socket=tmp_path / "none" / "socket"))
    with pytest.raises(SettingsError, match="choose a shorter path"):
        Listeners(Settings(unix_socket=tmp_path / ("x" * 108)))


def test_a_server_below_a_path_on_a_port_that_it_chose(
    tiny_repository: Path, start_server: Callable[..., ServerProcess]
) -> None:
    server = start_server(
        tiny_repository,
        *("--host", "localhost", "--port", "0", "--root-path", "/images"),
        ready=False,
        environ={"SADDLEPOINT_PORT": "tcp://10.0.0.1:80", "SADDLEPOINT_SERVICE_HOST": "10.0.0.1"},
    )
    log = server.log
    wait_for(lambda: server.process.poll() is not None or "\n  curl" in log.read_text())
    found = re.search(r"^Serving .*: (http://localhost:(\d+))$", log.read_text(), re.MULTILINE)
    assert found, log.read_text()
    assert "SADDLEPOINT_PORT, SADDLEPOINT_SERVICE_HOST: no settings" in log.read_text()
    known = {str(entry[4][0]) for entry in socket.getaddrinfo("localhost", 0)}
    for host in {"127.0.0.1", *(("[::1]",) if "::1" in known else ())}:
        url = f"http://{host}:{found[2]}"
        plain = HTTP.post(f"{url}/v1/generate", json=BODY)
        assert plain.status_code == 200, plain.text
        prefixed = HTTP.post(f"{url}/images/v1/generate", json=BODY)
        assert prefixed.content == plain.content
    image = f"{url}/images/v1/models/grey/images/7.png"
    assert HTTP.get(image).content == plain.content
    assert HTTP.get(f"{url}/images/livez").status_code == 200
    page = HTTP.get(f"{url}/images", follow_redirects=True)
    assert str(page.url) == f"{url}/images/"
    assert "<title>Saddlepoint</title>" in page.text
    assert HTTP.get(f"{url}/imagesv1/models").status_code == 404
    assert HTTP.get(f"{url}/images/openapi.json").json()["servers"] == [{"url": "/images"}]


def test_a_server_on_a_unix_socket(
    tiny_repository: Path, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    flags = ("--unix-socket", str(path), "--port", "8000", "--api-processes", "2")
    flags += ("--drain-delay-s", "0")

    def start() -> Any:
        server = start_server(tiny_repository, *flags, ready=False)
        wait_for(lambda: server.process.poll() is not None or "curl" in server.log.read_text())
        wait_for(lambda: f"--unix-socket {path}" in server.log.read_text())
        return server

    first = start()
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        wanted = client.post("/v1/generate", json=BODY)
        assert wanted.status_code == 200, wanted.text
    assert "another process listens there" in refusal(tiny_repository, start_server, flags)
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()
    second = start()
    head = b"GET /v1/models/grey/images/7.png HTTP/1.1\r\nhost: x\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as waiting:  # it asks when nobody listens any more
        waiting.connect(str(path))
        second.process.terminate()
        wait_for(lambda: not connects(path))
        waiting.sendall(head)
        answer = b"".join(iter(lambda: waiting.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(wanted.content)
    assert second.process.wait(30) == 0
    assert not path.exists()


def refusal(
    repository: Path, start_server: Callable[..., ServerProcess], flags: tuple[str, ...]
) -> str:
    server = start_server(repository, *flags, ready=False)
    assert server.process.wait(60) == 2
    return server.log.read_text()


def connects(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    except OSError:
        return False
    return True
