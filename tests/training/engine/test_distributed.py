"""Two real processes with gloo play the game of one.

torchrun starts those of the first test and of the last; the others are forked from this process,
which has imported torch already.
"""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from models.networks import ImageShape
from tests.conftest import free_port
from tests.models.networks.tiny import players
from tests.training.runs.test_survival import code_of, start
from training.cli.command import parse
from training.engine import distributed
from training.engine.checkpoint import Checkpoints
from training.engine.distributed import CrossRankBatchNorm, World, joined, span
from training.errors import ConfigError, ExportError
from training.export.onnx_graphs import byte_generator, to_onnx
from training.game.forward import rows_are_independent
from training.runs.ending import model

# fork() warns of threads from Python 3.12 on; torch has one here, and the child starts its own.
pytestmark = pytest.mark.filterwarnings("ignore:This process")
TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
LONG = ["--total-kimg", "0.32", "--tick-kimg", "0.16"]
WAIT_S = 240


@pytest.fixture(scope="module")
def exporter_loaded() -> None:
    """What the exporter imports at its first use, for seconds, is there to be forked."""
    G, _ = players("mlp")
    to_onnx(byte_generator(G, z_dim=5, num_classes=0), 5, conditional=False)


def places(folder: Path) -> list[str]:
    places = ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    return [*places, "--evaluation", "none"]


def torchrun(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Two processes, as a user starts them."""
    python = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    return subprocess.Popen(
        [*python, "-m", "training.run", *words, *places(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def no_export(**given: object) -> None:
    raise ExportError("not wanted here")


def train(folder: Path, num: int, *words: str, publishes: bool = True) -> None:
    """So many processes, with the variables that torchrun gives to each.

    publishes: False spares the export, most of the time of a short training.
    """
    folder.mkdir(exist_ok=True)
    port = str(free_port())

    def begin(rank: int) -> int:
        def join() -> None:
            warnings.simplefilter("default")  # as in a process of its own
            if not publishes:
                model.export = no_export
            if num > 1:
                variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num}
                os.environ.update({name: str(value) for name, value in variables.items()})
                os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})

        return start(folder / "log", [*words, *places(folder)], join)

    pids = [begin(rank) for rank in range(num)]
    wanted = [0 if publishes else ExportError.exit_code] + [0] * (num - 1)
    assert [code_of(pid) for pid in pids] == wanted, (folder / "log").read_text()


def curve(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("runs/00000-*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(folder: Path) -> list[torch.Tensor]:
    (checkpoints,) = folder.glob("runs/00000-*/checkpoints")
    content = Checkpoints(checkpoints).latest().content
    return [value for player in ("G", "D", "G_ema") for value in content[player].values()]


def assert_same_game(one: Path, other: Path) -> None:
    for alone, shared in zip(curve(one), curve(other), strict=True):
        for name in alone.keys() - {"nimg_per_s"}:
            size = 2e-3 if name.startswith("scores.") else 2e-5  # they are differences about 0
            assert shared[name] == pytest.approx(alone[name], rel=2e-3, abs=size), name
    for alone, shared in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(shared, alone, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("exporter_loaded")
def test_two_processes_play_the_game_of_one_and_one_resumes_it(tmp_path: Path) -> None:
    """Batch norm included: its statistics are those of the whole batch."""
    one, two, both = tmp_path / "one", tmp_path / "two", tmp_path / "both"
    train(one, 1, "digits", *TINY, *LONG)
    two.mkdir()
    started = torchrun(two, "digits", *TINY, *LONG)
    output, _ = started.communicate(timeout=WAIT_S)
    assert started.returncode == 0, output
    assert output.count("Published digits version 1") == 1
    assert_same_game(one, two)
    train(both, 2, "digits", *TINY, *LONG, "--total-kimg", "0.16")
    train(both, 1, "--resume", str(both / "runs" / "00000-digits"), "--total-kimg", "0.32")
    for alone, resumed in zip(weights(one), weights(both), strict=True):
        torch.testing.assert_close(resumed, alone, rtol=2e-3, atol=2e-4)


GAMES = {
    "batch norm in D": ["dcgan", *TINY],
    "batch norm in D, five steps of it": ["wgan", *TINY],
    "dropout": ["article", "--data.dataset", "digits", *TINY[:2], *TINY[6:]],
    "noise and mixing in G, groups of images in D": [
        *("style", *TINY[:2], *TINY[6:], "--network.channel-base", "64"),
    ],
    "an encoder's latents, augmented and noisy images": [
        *("vaegan", *TINY, "--augment.policy", "ada", "--regularizers"),
        *("instance-noise=0.1", "prior=0.01", "reconstruction=1", "dragan=1", "r1=1", "r2=1"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_what_mixes_or_draws_rows_is_the_same_game_in_two_processes(
    tmp_path: Path, game: str
) -> None:
    length = ["--total-kimg", "0.16", "--tick-kimg", "0.08"]
    for num in (1, 2):
        train(tmp_path / str(num), num, *GAMES[game], *length, publishes=False)
    assert_same_game(tmp_path / "1", tmp_path / "2")


@pytest.mark.slow
def test_sigterm_to_one_process_saves_and_ends_all(tmp_path: Path) -> None:
    words = ["digits", *TINY, "--total-kimg", "100000", "--tick-kimg", "0.16"]
    process = torchrun(tmp_path, *words)
    folder = tmp_path / "runs" / "00000-digits" / "checkpoints"
    deadline = time.monotonic() + WAIT_S
    while not Checkpoints(folder).paths():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=WAIT_S)
    assert "continue with --resume" in output
    assert Checkpoints(folder).latest().cur_nimg > 0


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    config = parse(["--batch-size", "10", "--accumulate", "5"]).config
    with pytest.raises(ConfigError, match=r"batch_size is 10, allowed: multiples of 15"):
        World(size=3).check(config)
    World(size=1).check(config)


@pytest.mark.parametrize(
    "words",
    [
        ["--regularizers", "consensus=1"],
        ["--regularizers", "feature-matching=1"],
        ["--objective", "relativistic-average"],
        ["--objective", "relativistic-average-hinge"],
    ],
)
def test_what_is_no_mean_over_images_is_refused(words: list[str]) -> None:
    config = parse(words).config
    name = words[1].removesuffix("=1")
    with pytest.raises(ConfigError, match=rf"{name}.*processes=2.*no mean over images"):
        World(size=2).check(config)
    World(size=1).check(config)


def test_parts_of_all_processes_make_up_the_batch() -> None:
    parts = [World(rank=rank, size=4).parts(accumulate=3) for rank in range(4)]
    assert sorted(part for own in parts for part in own) == list(range(12))
    assert all(len(own) == 3 for own in parts)


def test_batch_norm_over_all_processes_mixes_rows_too() -> None:
    D = parse(["dcgan", *TINY]).config.network.discriminator(ImageShape(resolution=16, channels=1))
    span(D, World(size=2))
    assert any(isinstance(module, CrossRankBatchNorm) for module in D.modules())
    assert not rows_are_independent(D)


@pytest.mark.parametrize(
    ("device", "backend", "taken"),
    [("cpu", "gloo", []), ("cuda", "nccl", [1]), ("auto", "nccl", [1])],
)
def test_gpus_that_a_training_does_not_use_are_let_be(
    device: str, backend: str, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun on a machine with GPUs, which are pretended."""
    seen: list[Any] = []
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(distributed.dist, "init_process_group", seen.append)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    with joined(device) as world:
        assert world == World(rank=1, size=2, local_rank=1)
    assert seen == [*taken, backend]
