from pathlib import Path

import numpy as np
import pytest
import torch

from models.networks import ImageShape
from training.checkpoint import Checkpoints
from training.command import parse
from training.config import TrainingConfig
from training.errors import CheckpointError, ConfigError
from training.run import main
from training.state import State
from training.transfer import open_source, pack, start_from

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
CPU = torch.device("cpu")


def tiny(*words: str) -> TrainingConfig:
    return parse(["digits", *TINY, "--total-kimg", "0.032", *words]).config


def fresh(config: TrainingConfig, num_classes: int = 10) -> State:
    return State.fresh(config, ImageShape(resolution=16, channels=1, num_classes=num_classes), CPU)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with its bundle."""
    folder = tmp_path_factory.mktemp("run")
    places = ["--runs", str(folder / "runs"), "--repository", str(folder / "models")]
    code = main(["digits", *TINY, "--total-kimg", "0.032", "--evaluation", "none", *places])
    assert code == 0
    return folder / "runs" / "00000-digits"


def equal(state: State, player: str, weights: dict[str, torch.Tensor]) -> bool:
    networks = {"G": state.G.network, "D": state.D.network, "G_ema": state.G_ema}
    found = networks[player].state_dict()
    return all(torch.equal(found[name], value) for name, value in weights.items())


def test_a_run_gives_both_players(run: Path) -> None:
    state = fresh(tiny("--seed", "5"))
    lines = start_from(open_source(run), state)
    content = Checkpoints(run / "checkpoints").latest().content
    assert all(equal(state, player, content[player]) for player in ("G", "D", "G_ema"))
    assert state.cur_nimg == 0
    assert "G starts from" in lines[0]
    assert "new" not in "".join(lines)


def test_a_bundle_gives_the_averaged_generator(run: Path) -> None:
    state = fresh(tiny("--seed", "5"))
    untouched = {name: value.clone() for name, value in state.D.network.state_dict().items()}
    lines = start_from(open_source(run / "bundle"), state)
    average = Checkpoints(run / "checkpoints").latest().content["G_ema"]
    assert equal(state, "G", average)
    assert equal(state, "G_ema", average)
    assert equal(state, "D", untouched)
    assert "D starts anew" in lines[1]


def test_what_belongs_to_classes_starts_anew_and_is_named(run: Path) -> None:
    state = fresh(tiny(), num_classes=3)
    lines = start_from(open_source(run), state)
    assert "new: embed.weight" in lines[0]
    content = Checkpoints(run / "checkpoints").latest().content
    assert torch.equal(state.G.network.state_dict()["stem.0.weight"], content["G"]["stem.0.weight"])


def test_lookahead_starts_there_too(run: Path) -> None:
    state = fresh(tiny("--lookahead-steps", "5"))
    start_from(open_source(run), state)
    for slow, parameter in zip(state.slow, state.parameters(), strict=True):
        assert torch.equal(slow, parameter)


def test_another_network_is_refused(run: Path) -> None:
    state = fresh(tiny("--network.ngf", "8"))
    with pytest.raises(CheckpointError, match=r"another network: .* weights have the same"):
        start_from(open_source(run), state)


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_is_neither_is_refused(tmp_path: Path, made: bool) -> None:
    path = tmp_path / "x"
    if made:
        path.mkdir()
    with pytest.raises(CheckpointError, match="allowed: a run's folder"):
        open_source(path)


def test_a_bundle_that_was_altered_is_refused(run: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in (run / "bundle").iterdir():
        (bundle / file.name).write_bytes(file.read_bytes())
    (bundle / "weights.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"weights\.npz"):
        open_source(bundle)


def test_packed_weights_need_no_pickle(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes(pack(torch.nn.BatchNorm2d(3)))
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == {
            "weight",
            "bias",
            "running_mean",
            "running_var",
            "num_batches_tracked",
        }


def test_fine_tuning_by_the_command_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--runs", str(tmp_path / "runs"), "--repository", str(tmp_path / "models")]
    words = ["digits", *TINY, "--total-kimg", "0.016", "--evaluation", "none", *places]
    assert main([*words, "--init-from", str(run), "--frozen-D", "2"]) == 0
    assert "G starts from" in capsys.readouterr().out
    before = Checkpoints(run / "checkpoints").latest().content["D"]
    after = Checkpoints(tmp_path / "runs/00000-digits/checkpoints").latest().content["D"]
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert frozen == {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}
    assert main([*words, "--init-from", str(run), "--resume", str(run)]) == ConfigError.exit_code


def test_as_many_layers_as_there_are_cannot_be_frozen() -> None:
    with pytest.raises(ConfigError, match=r"frozen_D is 4, allowed: 0 \.\. 3"):
        fresh(tiny("--frozen-D", "4"))
