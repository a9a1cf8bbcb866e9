"""The repository is replaced: the same names and numbers, other content."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from models.bundle import Bundle
from models.bundle.generator import CpuGenerator
from models.latents import latents
from models.repository import Repository
from tests.support import wait_for

SOON_S = 10
INTERVAL = ("--reload-interval-s", "0.2")
OTHERS: dict[str, dict[str, Any]] = {
    "other weights": {},
    "a wider latent": {"z_dim": 12},
    "a narrower latent": {"z_dim": 3},
    "other labels": {"num_classes": 3},
    "another size": {"size": 16},
    "colour": {"channels": 3},
}


def replace(root: Path, bundle: Bundle, *, whole: bool = True) -> Bundle:
    """rm -rf, and published anew as version 1."""
    shutil.rmtree(root if whole else root / "tiny")
    return Repository(root).publish("tiny", bundle)


def pixels(server: Any, **request: Any) -> tuple[str, Any]:
    """The digest that an answer names, and its images."""
    response = server.generate(model="tiny", format="npy", **request)
    assert response.status_code == 200, response.text
    import io

    return response.headers["x-model-digest"], np.load(io.BytesIO(response.content))


def made_by(bundle: Bundle, seeds: list[int], label: int | None) -> Any:
    z = latents(np.array(seeds, np.uint64), bundle.manifest.z_dim)
    labels = None if label is None else np.full(len(seeds), label)
    return CpuGenerator(bundle.model_path)(z, labels)


@pytest.mark.parametrize("whole", [True, False], ids=["repository", "model"])
@pytest.mark.parametrize("other", OTHERS)
def test_what_replaces_it_is_served_soon(
    make_bundle: Callable[..., Bundle],
    tmp_path: Path,
    start_server: Callable[..., Any],
    other: str,
    whole: bool,
) -> None:
    root = tmp_path / "models"
    old = Repository(root).publish("tiny", make_bundle(weights_seed=1))
    server = start_server(root, *INTERVAL)
    assert pixels(server, seeds=[1, 2])[0] == old.digest
    image = "/v1/models/tiny/images/1.png"
    old_tag = server.get(image).headers["etag"]
    old_png = server.get(image).content

    label = 1 if "num_classes" in OTHERS[other] else None
    new = replace(root, make_bundle(weights_seed=2, **OTHERS[other]), whole=whole)
    assert new.digest != old.digest
    wait_for(lambda: digest_of(server) == new.digest, SOON_S)

    asked = {} if label is None else {"labels": label}
    for named in ({}, {"version": 1}):
        digest, images = pixels(server, seeds=[1, 2], **asked, **named)
        assert digest == new.digest
        assert np.array_equal(images, made_by(new, [1, 2], label))
    path = image if label is None else f"{image}?label={label}"
    got = server.get(path, headers={"if-none-match": old_tag})
    assert got.status_code == 200
    assert got.headers["etag"] != old_tag
    assert got.content != old_png


def digest_of(server: Any) -> str | None:
    """The digest that is served, if any is."""
    response = server.get("/v1/models/tiny")
    return response.json()["digest"] if response.status_code == 200 else None


def test_a_version_by_its_number_too(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    """The version that isn't current is replaced: by a folder, not by a publication."""
    root = tmp_path / "models"
    repository = Repository(root)
    for seed in (1, 2):
        repository.publish("tiny", make_bundle(weights_seed=seed))
    server = start_server(root, *INTERVAL)
    old = repository.bundle("tiny", 1)
    assert pixels(server, seeds=[1], version=1)[0] == old.digest

    elsewhere = Repository(tmp_path / "elsewhere")
    new = elsewhere.publish("tiny", make_bundle(weights_seed=7, z_dim=9))
    shutil.rmtree(root / "tiny" / "1")
    shutil.copytree(new.path, root / "tiny" / "1")
    wait_for(lambda: pixels(server, seeds=[1], version=1)[0] == new.digest, SOON_S)
    _, images = pixels(server, seeds=[1], version=1)
    assert np.array_equal(images, made_by(new, [1], None))


def test_bytes_and_digest_belong_together_under_load(
    make_bundle: Callable[..., Bundle], tmp_path: Path, start_server: Callable[..., Any]
) -> None:
    root = tmp_path / "models"
    bundles = [make_bundle(weights_seed=seed, z_dim=6 + seed % 2) for seed in range(4)]
    first = Repository(root).publish("tiny", bundles[0])
    server = start_server(root, "--reload-interval-s", "0.05", "--api-processes", "2")
    known = {first.digest: made_by(bundles[0], list(range(8)), None)}
    wrong: list[str] = []
    going = True

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while going:
                body = {"model": "tiny", "seeds": list(range(8)), "format": "npy"}
                response = client.post("/v1/generate", content=json.dumps(body))
                if response.status_code == 200:
                    import io

                    digest = response.headers["x-model-digest"]
                    if not np.array_equal(np.load(io.BytesIO(response.content)), known[digest]):
                        wrong.append(f"other bytes under {digest}")
                elif response.status_code not in (404, 503):
                    wrong.append(f"{response.status_code} {response.text}")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for bundle in bundles[1:] + bundles[:1]:
            # Its digest is known before the server can be.
            other = Repository(tmp_path / f"copy-{len(known)}-{bundle.digest[:8]}")
            digest = other.publish("tiny", bundle).digest
            known[digest] = made_by(bundle, list(range(8)), None)
            replace(root, bundle)
            wait_for(lambda d=digest: digest_of(server) == d, SOON_S)  # type: ignore[misc]
    finally:
        going = False
        for thread in threads:
            thread.join()
    assert not wrong
