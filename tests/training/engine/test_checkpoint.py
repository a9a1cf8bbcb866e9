import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import training.engine.checkpoint
from training.cli.command import parse
from training.config.training import TrainingConfig
from training.data import Batches, ImageSet, load
from training.engine.checkpoint import Checkpoints, cur_nimg_of, read, restore
from training.engine.loop import Hooks, fit
from training.engine.state import State
from training.engine.stepper import Stepper
from training.errors import CheckpointError, ExportError
from training.run import main

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
CPU = torch.device("cpu")
WAIT_S = 120


def tiny(*words: str) -> TrainingConfig:
    return parse(["digits", *TINY, "--total-kimg", "0.064", *words]).config


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load(tiny().data)


def batches_of(config: TrainingConfig, images: ImageSet) -> Batches:
    return Batches(images, batch_size=config.batch_size, seed=config.seed)


def trained(config: TrainingConfig, digits: ImageSet, num_steps: int) -> State:
    state = State.fresh(config, digits.shape, CPU)
    stepper = Stepper(config, state, batches_of(config, digits))
    for _ in range(num_steps):
        stepper.step()
    return state


def flat(content: Any) -> list[Any]:
    if isinstance(content, dict):
        return [item for key, value in content.items() for item in [key, *flat(value)]]
    if isinstance(content, (list, tuple)):
        return [item for value in content for item in flat(value)]
    return [content.numpy().tobytes() if isinstance(content, torch.Tensor) else content]


def start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    command = [sys.executable, "-m", "training.run", "digits", *TINY, *places, *words]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as conftest.py has it for this process
    )


def wait_for_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not Checkpoints(folder).paths():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_2n_steps_are_n_steps_and_kill_and_resume_and_n_bit_for_bit(
    tmp_path: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The killed process is a real one; dropout and latents go on as if nothing had happened."""
    length = ["--total-kimg", "1.6", "--tick-kimg", "0.16"]
    run = tmp_path / "runs" / "00000-digits"
    process = start(tmp_path, *length)
    wait_for_checkpoint(process, run / "checkpoints")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed_at = Checkpoints(run / "checkpoints").latest().cur_nimg
    assert 0 < killed_at < 1600

    def no_export(**given: object) -> None:
        raise ExportError("not wanted here")

    monkeypatch.setattr("training.runs.ending.model.export", no_export)
    assert main(["--resume", str(run)]) == ExportError.exit_code
    resumed = Checkpoints(run / "checkpoints").latest()
    assert resumed.cur_nimg == 1600

    config = tiny(*length)
    state = trained(config, digits, 100)
    Checkpoints(tmp_path / "whole").save(state, config, digits.fingerprint)
    whole = Checkpoints(tmp_path / "whole").latest()
    # Steps alone have no ticks to be watched at, and the same weights.
    history = resumed.content.pop("history")
    assert [diagnostics["cur_nimg"] for diagnostics in history] == [
        160.0 * tick for tick in range(1, 11)
    ]
    assert whole.content.pop("history") == []
    assert resumed.content.pop("untrained").keys() == {"weights_G", "weights_D"}
    assert whole.content.pop("untrained") == {}
    assert flat(resumed.content) == flat(whole.content)
    ticks = [line.split(",")[0] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert ticks == [f'{{"tick": {tick}' for tick in range(1, 11)]


def test_sigterm_saves_a_checkpoint_and_exits_0(tmp_path: Path) -> None:
    process = start(tmp_path, "--total-kimg", "100000", "--tick-kimg", "0.16")
    folder = tmp_path / "runs" / "00000-digits" / "checkpoints"
    wait_for_checkpoint(process, folder)
    before = Checkpoints(folder).latest().cur_nimg
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, output
    assert Checkpoints(folder).latest().cur_nimg >= before
    assert "continue with --resume" in output
    assert not (tmp_path / "models").exists()


def test_dropout_resumes_bit_for_bit(tmp_path: Path) -> None:
    words = ["article", "--data.dataset", "digits", "--data.resolution", "8", "--batch-size", "16"]
    config = parse(words).config
    images = load(config.data)
    whole = trained(config, images, 6)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(config, images, 3), config, images.fingerprint)
    torch.rand(17)
    state = State.fresh(config, images.shape, CPU)
    restore(checkpoints.latest(), state, config, images.fingerprint)
    stepper = Stepper(config, state, batches_of(config, images))
    for _ in range(3):
        stepper.step()
    for a, b in zip(whole.D.parameters, state.D.parameters, strict=True):
        assert torch.equal(a, b)


_NARROW = ["--network.channel-base", "64"]
GAMES = {
    "spectral": ["--regularizers", "spectral=1", "--init-D", "family"],
    "noise": ["--regularizers", "instance-noise=0.2", "wgan-gp=1", "--objective", "wasserstein"],
    "optimistic": ["--optim-G.method", "optimistic-adam", "--optim-D.method", "optimistic-adam"],
    "ada": ["--augment.policy", "ada", "--augment.target", "0.1", "--augment.speed-kimg", "0.1"],
    "rmsprop": ["--optim-D.method", "rmsprop", "--regularizers", "clip=0.1"],
    "extragradient": ["--update", "extragradient", "--lookahead-steps", "2"],
    "alex": ["--update", "alternating-extrapolation", "--extrapolation", "1.5"],
    "negative": ["--optim-G.betas", "-0.5", "0.9", "--optim-D.betas", "-0.3", "0.9"],
    "normalized": [
        *("--optim-G.method", "normalized-sgd", "--optim-G.betas", "-0.5", "0"),
        *("--optim-D.method", "normalized-sgd-by-layer", "--optim-D.betas", "0.5", "0"),
    ],
    "packing": ["--packing", "2", "--data.no-conditional", "--init-D", "kaiming"],
    "rounds": ["--steps-D", "2", "--steps-G", "2", "--unrolled-steps", "2", "--regularizers"],
    "schedules": ["--schedules", "r1=0@0.1:cosine", "optim_G.lr=0@0.1", "ema_kimg=1@0.1"],
    "uniform": ["--average", "uniform", "--accumulate", "2", "--compute.precision", "bf16"],
    "frozen": ["--frozen-D", "1", "--compute.channels-last", "--unrolled-steps", "1"],
    "progressive": [
        "--network",
        "progressive",
        "--network.channel-base",
        "64",
        "--init-D",
        "family",
    ],
    "style": ["--network", "style", "--network.w-dim", "8", *_NARROW],
}


@pytest.mark.parametrize("game", sorted(GAMES))
def test_every_game_resumes_bit_for_bit(tmp_path: Path, digits: ImageSet, game: str) -> None:
    """Whatever a remedy remembers is in the checkpoint or follows from cur_nimg."""
    words = TINY[:2] + TINY[6:] if "--network" in GAMES[game] else TINY
    config = parse(["digits", *words, "--total-kimg", "0.192", *GAMES[game]]).config
    if not config.data.conditional:
        digits = load(config.data)
    whole = trained(config, digits, 5)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(config, digits, 3), config, digits.fingerprint)
    torch.rand(17)
    state = State.fresh(config, digits.shape, CPU)
    restore(checkpoints.latest(), state, config, digits.fingerprint)
    stepper = Stepper(config, state, batches_of(config, digits))
    for _ in range(2):
        stepper.step()
    Checkpoints(tmp_path / "whole").save(whole, config, digits.fingerprint)
    Checkpoints(tmp_path / "parts").save(state, config, digits.fingerprint)
    ends = [Checkpoints(tmp_path / name).latest().content for name in ("whole", "parts")]
    assert flat(ends[0]) == flat(ends[1])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--regularizers", "spectral=1", "--init-D", "family"], "part of D's weights"),
        (["--optim-D.method", "rmsprop"], r"optim_D\.method is 'rmsprop'.*'adam'"),
        (["--frozen-D", "1"], r"frozen_D is 1.*was trained with 0"),
    ],
)
def test_what_changes_the_weights_is_refused_naming_both(
    tmp_path: Path, digits: ImageSet, words: list[str], says: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(tiny(), digits, 0), tiny(), digits.fingerprint)
    with pytest.raises(CheckpointError, match=says):
        restore(checkpoints.latest(), trained(tiny(), digits, 0), tiny(*words), digits.fingerprint)


def test_the_newest_two_are_kept(tmp_path: Path, digits: ImageSet) -> None:
    checkpoints = Checkpoints(tmp_path)
    state = trained(tiny(), digits, 0)
    for cur_nimg in (16, 32, 48):
        state.cur_nimg = cur_nimg
        checkpoints.save(state, tiny(), digits.fingerprint)
    assert [read(path).cur_nimg for path in checkpoints.paths()] == [32, 48]
    assert len(list(tmp_path.iterdir())) == 2


def test_before_means_before(tmp_path: Path, digits: ImageSet) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.before(16) is None
    state = trained(tiny(), digits, 0)
    for cur_nimg in (16, 32):
        state.cur_nimg = cur_nimg
        checkpoints.save(state, tiny(), digits.fingerprint)
    assert checkpoints.before(16) is None  # the oldest is no better than none: it has the failure
    assert checkpoints.before(17) == checkpoints.paths()[0]


def test_a_full_disk_leaves_the_old_one(
    tmp_path: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    state = trained(tiny(), digits, 0)
    old = checkpoints.save(state, tiny(), digits.fingerprint)

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training.engine.checkpoint, "write_synced", full)
    state.cur_nimg = 16
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(state, tiny(), digits.fingerprint)
    assert list(tmp_path.iterdir()) == [old]
    assert read(old).cur_nimg == 0


def test_room_on_a_full_disk_is_made_by_what_nobody_holds(
    tmp_path: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, state = Checkpoints(tmp_path), trained(tiny(), digits, 0)

    def save(cur_nimg: int, *held: int) -> list[int]:
        state.cur_nimg = cur_nimg
        checkpoints.save(state, tiny(), digits.fingerprint, keep=lambda _: held)
        return [cur_nimg_of(path) for path in checkpoints.paths()]

    for cur_nimg in (16, 32, 48):
        save(cur_nimg, 16, 32)
    write, num_full = training.engine.checkpoint.write_synced, 0

    def full_once(path: Path, data: bytes) -> None:
        nonlocal num_full
        num_full += 1
        if num_full % 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(training.engine.checkpoint, "write_synced", full_once)
    assert save(64, 32) == [32, 48, 64]  # 16 went
    with pytest.raises(OSError, match="No space left"):
        save(80, 32, 48)
    assert [cur_nimg_of(path) for path in checkpoints.paths()] == [32, 48, 64]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--network.ngf", "8"], r"network\.ngf is 8.*was trained with 4"),
        (["--data.no-conditional"], r"data\.conditional is False.*was trained with True"),
        (["--network", "mlp"], r"network\.family is 'mlp'.*with 'dcgan'; leave --network out"),
    ],
)
def test_another_architecture_is_refused_naming_both(
    tmp_path: Path, digits: ImageSet, words: list[str], says: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(tiny(), digits, 0), tiny(), digits.fingerprint)
    command = ["digits", *words] if "mlp" in words else ["digits", *TINY, *words]
    with pytest.raises(CheckpointError, match=says):
        restore(
            checkpoints.latest(),
            trained(tiny(), digits, 0),
            parse(command).config,
            digits.fingerprint,
        )


def test_other_images_are_refused(tmp_path: Path, digits: ImageSet) -> None:
    checkpoints = Checkpoints(tmp_path)
    state = trained(tiny(), digits, 0)
    checkpoints.save(state, tiny(), "0123" * 16)
    with pytest.raises(CheckpointError, match="the images or their weights are not those"):
        restore(checkpoints.latest(), state, tiny(), digits.fingerprint)


def test_a_resumed_run_takes_new_rates(tmp_path: Path, digits: ImageSet) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(tiny(), digits, 1), tiny(), digits.fingerprint)
    config = tiny("--optim-D.lr", "0.5")
    state = trained(config, digits, 0)
    restore(checkpoints.latest(), state, config, digits.fingerprint)
    assert state.D.optimizer.param_groups[0]["lr"] == 0.5
    assert state.G.optimizer.param_groups[0]["lr"] == config.optim_G.lr


def test_lookahead_that_is_switched_on_begins_where_the_training_stands(
    tmp_path: Path, digits: ImageSet
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(tiny(), digits, 2), tiny(), digits.fingerprint)
    config = tiny("--lookahead-steps", "2")
    state = trained(config, digits, 0)
    restore(checkpoints.latest(), state, config, digits.fingerprint)
    assert all(map(torch.equal, state.slow, state.parameters()))
    Stepper(config, state, batches_of(config, digits)).step()
    assert not any(map(torch.equal, state.slow, state.parameters()))


GROWING = [*TINY[:2], *TINY[6:], "--network", "progressive", "--network.channel-base", "64"]


def growing(*words: str) -> TrainingConfig:
    return parse(["digits", *GROWING, "--init-D", "family", *words]).config


@pytest.mark.parametrize(
    ("num_steps", "total_kimg", "says"),
    [
        (2, "0.32", r"0\.32, .* with 0\.16, of which progressive grows for 0\.08 kimg"),
        (7, "0.32", r"set --total-kimg to 0\.224 at most"),
        (2, "0.08", r"0\.08, .* with 0\.16, .*once the pair has grown"),
    ],
)
def test_a_pair_that_grows_keeps_the_length_that_it_grows_in(
    tmp_path: Path, digits: ImageSet, num_steps: int, total_kimg: str, says: str
) -> None:
    config = growing("--total-kimg", "0.16")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(config, digits, num_steps), config, digits.fingerprint)
    longer = growing("--total-kimg", total_kimg)
    with pytest.raises(CheckpointError, match=rf"total_kimg is .*{says}"):
        restore(checkpoints.latest(), trained(longer, digits, 0), longer, digits.fingerprint)


def test_a_grown_pair_may_be_trained_for_longer(tmp_path: Path, digits: ImageSet) -> None:
    config, longer = growing("--total-kimg", "0.16"), growing("--total-kimg", "0.224")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(config, digits, 7), config, digits.fingerprint)
    state = trained(longer, digits, 0)
    restore(checkpoints.latest(), state, longer, digits.fingerprint)
    Stepper(longer, state, batches_of(longer, digits)).step()
    assert state.G.network.growth.stage == 2  # type: ignore[union-attr]
    assert not state.G.network.growth.fading  # type: ignore[union-attr]


def test_what_changed_on_the_way_is_remembered(tmp_path: Path, digits: ImageSet) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(trained(tiny(), digits, 2), tiny(), digits.fingerprint)
    config = tiny("--objective", "hinge", "--regularizers", "r1=1/2")
    state = trained(config, digits, 0)
    told = [
        "from 0.032 kimg: objective non-saturating -> hinge",
        "from 0.032 kimg: regularizers r1=0.3 r2=0.3 -> r1=1/2",
    ]
    for _ in range(2):  # nothing more is said of what was told already
        restore(checkpoints.latest(), state, config, digits.fingerprint)
        assert state.changes == told
        checkpoints.save(state, config, digits.fingerprint)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_file_is_named(tmp_path: Path, digits: ImageSet, damage: bytes | None) -> None:
    checkpoints = Checkpoints(tmp_path)
    path = checkpoints.save(trained(tiny(), digits, 0), tiny(), digits.fingerprint)
    path.write_bytes(path.read_bytes()[:2000] if damage is None else damage)
    with pytest.raises(CheckpointError, match=path.name):
        checkpoints.latest()


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-0000000000.pt"
    torch.save({"format": 1, "evil": Path("x")}, path)
    with pytest.raises(CheckpointError, match=path.name):
        read(path)


def test_nothing_to_resume_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Checkpoints(tmp_path / "none").latest()


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-0000000000.pt"
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="format 99"):
        read(path)


def test_ticks_do_not_depend_on_where_it_was_resumed(digits: ImageSet) -> None:
    config = tiny("--tick-kimg", "0.032")
    ticks: list[tuple[int, int]] = []
    state = trained(config, digits, 1)
    hooks = Hooks(
        should_stop=lambda: False,
        should_report=lambda: False,
        report=lambda cur_nimg, means: None,
        tick=lambda tick, state, means: ticks.append((tick, state.cur_nimg)),
        last_good=lambda: "",
    )
    fit(Stepper(config, state, batches_of(config, digits)), hooks)
    assert ticks == [(1, 32), (2, 64)]
