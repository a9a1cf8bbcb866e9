"""Two real processes with gloo play the game of one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from models.networks import ImageShape
from training.checkpoint import Checkpoints
from training.command import parse
from training.distributed import CrossRankBatchNorm, World, span
from training.errors import ConfigError
from training.play import rows_are_independent

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
LONG = ["--total-kimg", "0.32", "--tick-kimg", "0.16"]
WAIT_S = 240


def command(folder: Path, num: int, *words: str) -> list[str]:
    python = [sys.executable, "-m"]
    if num > 1:
        python += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(num), "-m"]
    places = ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    places += ["--evaluation", "none"]
    return [*python, "training.run", *words, *places]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def train(folder: Path, num: int, *words: str) -> str:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        command(folder, num, *words),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
            assert shared[name] == pytest.approx(alone[name], rel=2e-3, abs=2e-5), name
    for alone, shared in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(shared, alone, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
def test_two_processes_play_the_game_of_one_and_one_resumes_it(tmp_path: Path) -> None:
    """Batch norm included: its statistics are those of the whole batch."""
    one, two, both = tmp_path / "one", tmp_path / "two", tmp_path / "both"
    train(one, 1, "digits", *TINY, *LONG)
    output = train(two, 2, "digits", *TINY, *LONG)
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
        *("instance-noise=0.1", "prior=0.01", "reconstruction=1", "dragan=1"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("game", GAMES)
def test_what_mixes_or_draws_rows_is_the_same_game_in_two_processes(
    tmp_path: Path, game: str
) -> None:
    length = ["--total-kimg", "0.16", "--tick-kimg", "0.08"]
    for num in (1, 2):
        train(tmp_path / str(num), num, *GAMES[game], *length)
    assert_same_game(tmp_path / "1", tmp_path / "2")


@pytest.mark.slow
def test_sigterm_to_one_process_saves_and_ends_all(tmp_path: Path) -> None:
    words = ["digits", *TINY, "--total-kimg", "100000", "--tick-kimg", "0.16"]
    process = subprocess.Popen(
        command(tmp_path, 2, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
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


@pytest.mark.parametrize("penalty", ["consensus", "feature-matching"])
def test_what_is_no_mean_over_images_is_refused(penalty: str) -> None:
    config = parse(["--regularizers", f"{penalty}=1"]).config
    with pytest.raises(ConfigError, match=rf"{penalty}.*processes=2"):
        World(size=2).check(config)


def test_parts_of_all_processes_make_up_the_batch() -> None:
    parts = [World(rank=rank, size=4).parts(accumulate=3) for rank in range(4)]
    assert sorted(part for own in parts for part in own) == list(range(12))
    assert all(len(own) == 3 for own in parts)


def test_batch_norm_over_all_processes_mixes_rows_too() -> None:
    D = parse(["dcgan", *TINY]).config.network.discriminator(ImageShape(resolution=16, channels=1))
    span(D, World(size=2))
    assert any(isinstance(module, CrossRankBatchNorm) for module in D.modules())
    assert not rows_are_independent(D)
