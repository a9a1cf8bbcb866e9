"""Every `sh` block of every page runs, in the order in which a reader meets them.

The README and the tutorial start from a fresh clone without any model, and really train. Other
pages are read by someone who has two models, trainings and photographs. docs/api.md is in
tests/web.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.bundle import Bundle
from models.repository import Repository
from tests.conftest import server_process
from tests.pages.blocks import PAGES, blocks, commands
from tests.pages.reader import ELSEWHERE, reader
from tests.pages.reader import commands as command_process

STOPPED = "--gate not-worse"
"""How the training ends that the tutorial's reader stops with Ctrl-C."""
FRESH = {
    "README.md": {"PAGES_TRAIN": "none"},
    "tutorial.md": {"PAGES_TRAIN": "quick", "PAGES_STOP": STOPPED},
}
"""Pages that begin with an empty clone, and how they train."""
NUM_RUNS = 8
OWN = ("photos", "few", "noisy", "holes", "weights.csv", "eyes.npz")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("z") / "s"
    with command_process(path):
        yield path


@pytest.fixture(scope="module")
def prepared(
    address: Path, make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What a reader has who has trained: photos, runs 0 to 7, two models with two versions each."""
    folder = tmp_path_factory.mktemp("prepared") / "clone"
    with reader(folder, address, {"PAGES_TRAIN": "none"}) as trainer:
        write_own_files(folder)
        train = ".venv/bin/saddlepoint train"
        code, output = trainer.run(
            f"{train} digits\n{train} folder --data.path photos --data.conditional"
        )
        assert code == 0, output
    repository = Repository(folder / "model-repository")
    for model, run in (("digits", "00000-digits"), ("photos", "00001-folder")):
        repository.publish(model, Bundle.open(folder / "runs" / run / "bundle"))
    for number in range(2, NUM_RUNS):
        shutil.copytree(folder / "runs/00001-folder", folder / f"runs/{number:05}-folder")
    return folder


def given(page: Path) -> tuple[str, ...]:
    """What is in the folder of a page's reader beside the clone; the tutorial makes all itself."""
    if page.name in FRESH:
        return () if page.name == "tutorial.md" else OWN
    return (*OWN, "runs", "model-repository")


def write_own_files(folder: Path) -> None:
    """Photographs, weights and masks, which are a reader's own and in no clone."""
    rng = np.random.default_rng(0)
    for index in range(80):
        path = folder / OWN[0] / ("cat", "dog")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 255, (4, 4, 3), np.uint8)
        Image.fromarray(noise).resize((64, 64)).save(path)
    for name in ("few", "noisy", "holes"):
        shutil.copytree(folder / OWN[0], folder / name)
    (folder / "weights.csv").write_text("name,weight\ncat/0.png,2\ndog/1.png,3\n")
    seeds = np.arange(8, dtype=np.uint64)
    np.savez(folder / "eyes.npz", seeds=seeds, eyes=rng.random((8, 16, 16)) < 0.3)


@pytest.fixture(scope="module")
def server(
    make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Two models whose directions have the names that the pages use."""
    root = tmp_path_factory.mktemp("models")
    for weights_seed in (1, 2):
        bundle = make_bundle(size=16, num_classes=10, weights_seed=weights_seed, directions=True)
        for name in ("digits", "photos"):
            Repository(root).publish(name, bundle)
    with server_process(root, tmp_path_factory.mktemp("log")) as running:
        yield running


def test_every_block_runs(address: Path, prepared: Path, server: Any, tmp_path: Path) -> None:
    failed, not_run, num = [], Counter[str](), 0
    only = os.environ.get("PAGES", "").split()
    for page in PAGES:
        if page.name == "api.md" or not blocks(page) or (only and page.name not in only):
            continue
        is_fresh = page.name in FRESH
        environ = FRESH.get(page.name, {})
        with reader(tmp_path / page.stem, address, environ) as person:
            if not is_fresh:
                person.port = int(server.url.rpartition(":")[2])
            for name in given(page):
                copy = shutil.copytree if (prepared / name).is_dir() else shutil.copy
                copy(prepared / name, person.folder / name)
            for block in blocks(page):
                num += len(commands(block.code))
                start = time.monotonic()
                code, output = person.run(block.code)
                print(f"{page.name}:{block.line} {time.monotonic() - start:.1f} s", flush=True)
                if code:
                    failed.append(f"{page.name}:{block.line}\n{block.code}\n{output}")
                    print(f"exit code {code}\n{failed[-1]}", flush=True)
            not_run.update(line.split()[0] for line in person.not_run)
    print(f"{num} commands, of which not run: {dict(not_run)}")
    assert not failed, f"{len(failed)} blocks failed"
    assert not_run.keys() <= {"make", *ELSEWHERE}
    assert num > 100 or only
    assert not_run.total() < num / 4
