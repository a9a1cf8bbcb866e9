"""The pages behind a proxy that shows them below a path, with that path taken off or left on."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from models.repository import Repository
from tests.conftest import server_process

KEPT, TAKEN_OFF = "/images", "/team/gan"
_OWN_HEADERS = {"connection", "date", "server", "content-length", "transfer-encoding"}


@pytest.fixture(scope="module")
def proxy(
    make_bundle: Callable[..., object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A server that knows one path, and a proxy in front of it that shows it below two."""
    root = tmp_path_factory.mktemp("prefixed")
    Repository(root).publish("digits", make_bundle(num_classes=10))  # type: ignore[arg-type]
    log = tmp_path_factory.mktemp("log")
    with server_process(root, log, "--root-path", KEPT) as server, httpx.Client() as client:

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.removeprefix(TAKEN_OFF)
                known = self.path.startswith(KEPT) or path != self.path
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                reply = client.request(
                    self.command,
                    server.url + path if known else server.url + "/not/below/a/prefix",
                    content=body,
                    headers={k: v for k, v in self.headers.items() if k.lower() != "connection"},
                )
                self.send_response(reply.status_code)
                for name, value in reply.headers.multi_items():
                    if name not in _OWN_HEADERS:
                        self.send_header(name, value)
                self.send_header("content-length", str(len(reply.content)))
                self.end_headers()
                self.wfile.write(reply.content)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
            thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{listener.server_address[1]}"
            finally:
                listener.shutdown()
                thread.join()


@pytest.mark.parametrize("prefix", [KEPT, TAKEN_OFF])
def test_playground_and_documentation_work_below_a_path(
    page: Page, proxy: str, prefix: str, shots: Callable[[Page, str], None]
) -> None:
    url = proxy + prefix
    page.goto(url if prefix == KEPT else url + "/")  # without its slash it is put right
    page.wait_for_function(
        """() => {
            const shown = [...document.querySelectorAll("#images img")];
            return shown.length && shown.every(i => i.complete && i.naturalWidth);
        }"""
    )
    assert page.url.startswith(url + "/#model=digits") or page.url == url + "/"
    first = page.locator("#images img").first.evaluate("image => image.src")
    assert first.startswith(f"{url}/v1/models/digits/images/0.png")
    page.locator("#images button").first.click()
    page.get_by_role("button", name="Copy URL").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith(f"{url}/v1/models/")
    with page.expect_download() as download:
        page.get_by_role("button", name="Wall as PNG").click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")
    shots(page, f"prefix{prefix.replace('/', '-')}")
    page.get_by_role("link", name="API").click()
    operation = page.locator("#operations-Images-generate")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Execute").click()
    expect(
        operation.locator(".live-responses-table tr.response .response-col_status")
    ).to_contain_text("200")
    expect(operation.locator(".request-url pre")).to_have_text(f"{url}/v1/generate")
    page.get_by_role("link", name="Playground").click()
    expect(page.locator("#images img").first).to_be_visible()
    assert page.url.startswith(url + "/")
