"""The whole road with real processes: train, publish, serve, ask over HTTP, stop."""

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.repository import Repository
from training.run import main as train

pytestmark = pytest.mark.e2e

NUM_TILES = 100
COLUMNS = 10


@dataclass(frozen=True)
class Trained:
    repository: Path
    run: Path
    output: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training of a few seconds on the real digits."""
    folder = tmp_path_factory.mktemp("road")
    arguments = ["--total-kimg", "2", "--tick-kimg", "1", "--network.ngf", "8"]
    arguments += ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    command = [sys.executable, "-m", "training.run", "digits", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (folder / "runs").iterdir()
    return Trained(folder / "models", run, done.stdout)


@contextmanager
def client(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as opened:
        yield opened


def test_a_trained_generator_reaches_http_pixel_by_pixel(
    trained: Trained, start_server: Callable[..., Any]
) -> None:
    bundle = Repository(trained.repository).bundle("digits")
    manifest = bundle.manifest
    assert manifest.parity.max_abs_diff <= 1
    assert {metric.name for metric in manifest.metrics} >= {"label_agreement"}
    assert manifest.options["network"]["ngf"] == 8
    with Image.open(trained.run / "samples" / "samples.png") as image:
        grid = np.asarray(image)

    server = start_server(trained.repository, "--cache-bytes", "0")  # every image is made

    def ask(seed: int) -> bytes:
        body = {"seeds": [seed], "labels": [seed % 10]}
        reply = http.post("/v1/generate", json=body)
        assert reply.status_code == 200, reply.text
        return reply.content

    with client(server) as http:
        alone = [ask(seed) for seed in range(NUM_TILES)]
        for seed, data in enumerate(alone):
            row, column = divmod(seed, COLUMNS)
            tile = grid[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            assert (np.asarray(Image.open(io.BytesIO(data))) == tile).all(), seed
        with ThreadPoolExecutor(16) as pool:
            under_load = list(pool.map(ask, list(range(NUM_TILES)) * 3))
        assert under_load == alone * 3
        by_url = http.get("/v1/models/digits/images/7.png?label=7")
        assert by_url.content == alone[7]
        metrics = http.get("/metrics").text
        assert f'digest="{bundle.digest}"' in metrics
        assert 'saddlepoint_rows_generated_total{model="digits",version="1"} 401.0' in metrics
    assert server.stop() == 0


def test_the_line_that_the_server_prints_works(
    trained: Trained, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(trained.repository)
    (line,) = (line for line in server.log.read_text().splitlines() if "curl" in line)
    subprocess.run(line, shell=True, check=True, cwd=tmp_path)
    with Image.open(tmp_path / "image.png") as image:
        assert image.size == (32, 32)


def test_retraining_is_served_without_a_restart(
    trained: Trained,
    start_server: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Copies: the other tests of this module, in any order, find the training as it ended.
    repository = shutil.copytree(trained.repository, tmp_path / "models", symlinks=True)
    run = shutil.copytree(trained.run, tmp_path / trained.run.name, symlinks=True)
    server = start_server(repository, "--reload-interval-s", "0.1")
    first = server.generate(seeds=[1], labels=[1])
    # In this process: another training's process is tested above, and the server is one of its own.
    words = [
        "--resume",
        str(run),
        "--total-kimg",
        "3",
        "--directions",
        "0",
        "--repository",
        str(repository),
    ]
    assert train(words) == 0
    assert "version 2" in capsys.readouterr().out
    server.wait_until("/v1/models/digits?version=2", 200)
    for _ in range(200):
        second = server.generate(seeds=[1], labels=[1])
        if second.headers["x-model-version"] == "2":
            break
    assert second.headers["x-model-version"] == "2"
    assert second.content != first.content
    old = server.generate(seeds=[1], labels=[1], version=1)
    assert old.content == first.content
