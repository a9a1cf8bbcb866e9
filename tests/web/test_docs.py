"""/docs in a browser: Swagger UI, offline and under the policy, tries the operations out."""

import base64
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from models.repository import Repository
from tests.conftest import ServerProcess, server_process
from tests.real_images import FULL
from tests.serving.api.documented import Documented
from tests.serving.conftest import make_key

Shots = Callable[[Page, str], None]
# Collects what the Content-Security-Policy refuses.
WATCH = """
    window.refused = [];
    document.addEventListener("securitypolicyviolation",
      ({ violatedDirective, blockedURI }) => refused.push([violatedDirective, blockedURI]));
"""


@pytest.fixture(scope="module")
def controlled(
    make_bundle: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """No model is called as in the examples, or takes labels as theirs does."""
    root = tmp_path_factory.mktemp("controlled")
    Repository(root).publish("faces", make_bundle(size=16, channels=3, encoder=FULL))
    Repository(root).publish("grey", make_bundle())
    flags = ("--model-control", "clients")
    with server_process(root, tmp_path_factory.mktemp("log"), *flags) as running:
        yield running


def shown(page: Page, server: ServerProcess, fragment: str = "") -> None:
    """Opens a server's /docs, and waits until its operations are there."""
    page.add_init_script(WATCH)
    page.goto(f"{server.url}/docs{fragment}")
    expect(page.locator("#operations-Images-generate")).to_be_visible(timeout=60_000)


def operation(page: Page, name: str) -> Locator:
    """The box of an operation, by its id."""
    return page.locator(f".opblock[id$='-{name}']")


def tried(page: Page, name: str) -> Locator:
    """Opens an operation, executes its example, and returns the row of the real response."""
    box = operation(page, name)
    box.locator(".opblock-summary-control").click()
    box.get_by_role("button", name="Execute").click()
    row = box.locator(".live-responses-table tr.response")
    expect(row).to_be_visible(timeout=60_000)
    return row


def status(row: Locator) -> int:
    text = row.locator(".response-col_status").inner_text()
    return int(text.split()[0])


def pixels(image: Locator) -> np.ndarray:
    """What an image of the page shows."""
    data = image.evaluate(
        """async (image) => {
             const canvas = document.createElement("canvas");
             await image.decode();
             canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
             canvas.getContext("2d").drawImage(image, 0, 0);
             return canvas.toDataURL();
           }"""
    )
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGB")
    )


def test_an_image_is_made_and_shown(page: Page, controlled: ServerProcess, shots: Shots) -> None:
    shown(page, controlled)
    row = tried(page, "generate")
    assert status(row) == 200
    grid = controlled.generate(model="faces", seeds=[1, 2, 3, 4], layout="grid").content
    assert (pixels(row.locator("img")) == np.asarray(Image.open(io.BytesIO(grid)))).all()
    expect(row).to_contain_text("x-model: faces")
    curl = operation(page, "generate").locator(".curl")
    expect(curl).to_contain_text(f"'{controlled.url}/v1/generate'")
    assert "labels" not in curl.inner_text()  # the model takes none
    shots(page, "docs-image")
    assert page.evaluate("refused") == []


def test_json_is_shown(page: Page, controlled: ServerProcess) -> None:
    shown(page, controlled)
    row = tried(page, "v2_version")
    assert status(row) == 200
    expect(row).to_contain_text('"platform": "onnx_onnxv1"')
    assert page.evaluate("refused") == []


def test_every_example_works_for_the_models_that_are_served(
    page: Page, controlled: ServerProcess
) -> None:
    """The page has put them in the place of `digits`; its buttons send just these requests."""
    shown(page, controlled)
    documented = Documented(controlled, page.evaluate("ui.specSelectors.specJson().toJS()"))
    for path, method, entry in documented.operations:
        if "200" in entry["responses"]:
            response = documented.ask(path, method)
            has_none = path.endswith(
                ("/directions", "/units", "/edit")
            )  # `faces` was exported without
            assert response.status_code == (400 if has_none else 200), (path, response.text)
    url = documented.example("/v1/models/{model}/images/{file}", "get")["url"]
    assert url.endswith("/v1/models/faces/images/42.png")
    assert "labels" not in documented.example("/v1/generate", "post")["json"]


def test_a_key_can_be_entered(
    page: Page,
    make_bundle: Callable[..., Any],
    start_server: Callable[..., ServerProcess],
    tmp_path: Path,
    shots: Shots,
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("digits", make_bundle(num_classes=10))
    key = make_key(tmp_path / "keys", "someone")
    server = start_server(repository.root, "--api-keys", str(tmp_path / "keys"))
    shown(page, server)
    assert status(tried(page, "models")) == 401
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux")
    dialog.locator("input").fill(key)
    shots(page, "docs-keys")
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.locator("button.btn-done").click()
    assert status(tried(page, "generate")) == 200
    expect(operation(page, "livez").locator(".authorization__btn")).to_have_count(0)
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
    assert page.evaluate("refused") == []


def test_it_shows_every_route(page: Page, site: ServerProcess, shots: Shots) -> None:
    shown(page, site)
    paths = site.get("/openapi.json").json()["paths"]
    expect(page.locator(".opblock")).to_have_count(sum(map(len, paths.values())))
    shots(page, "docs")
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_class(re.compile("dark-mode"))
    shots(page, "docs-dark")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 390, "height": 844})
    shots(page, "docs-phone")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_route_has_an_address(page: Page, site: ServerProcess) -> None:
    shown(page, site, "#/Model%20repository/v2_index")
    box = operation(page, "v2_index")
    expect(box).to_have_class(re.compile("is-open"))
    expect(box).to_be_in_viewport()


def test_the_links_lead_on(page: Page, site: ServerProcess) -> None:
    shown(page, site)
    with page.expect_navigation():
        page.get_by_role("link", name="openapi.json", exact=True).click()
    assert page.evaluate("JSON.parse(document.body.innerText).openapi") == "3.1.0"


def test_the_policy_is_as_strict_as_the_playgrounds(site: ServerProcess) -> None:
    policies = {site.get(path).headers["content-security-policy"] for path in ("/", "/docs")}
    (policy,) = policies
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_files_are_those_of_the_package(site: ServerProcess) -> None:
    script = site.get("/web/swagger-ui-bundle.js")
    assert len(script.content) > 1_000_000
    again = site.get("/web/swagger-ui-bundle.js", headers={"if-none-match": script.headers["etag"]})
    assert again.status_code == 304
