from pathlib import Path

import numpy as np
import pytest
import torch

from models.networks import R3GAN, ImageShape, Style
from training.cli.command import parse
from training.config.training import TrainingConfig
from training.engine.checkpoint import Checkpoints
from training.engine.resolutions import renamed
from training.engine.state import State
from training.engine.transfer import Source, check_network, open_source, pack, start_from
from training.errors import CheckpointError, ConfigError
from training.run import main

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
CPU = torch.device("cpu")


def tiny(*words: str) -> TrainingConfig:
    return parse(["digits", *TINY, "--total-kimg", "0.032", *words]).config


def fresh(config: TrainingConfig, num_classes: int = 10) -> State:
    return State.fresh(config, ImageShape(resolution=16, channels=1, num_classes=num_classes), CPU)


def started(path: Path, state: State, config: TrainingConfig | None = None) -> list[str]:
    shape = ImageShape(resolution=16, channels=1, num_classes=10)
    return start_from(open_source(path), state, (config or tiny()).network, shape)


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
    lines = started(run, state)
    content = Checkpoints(run / "checkpoints").latest().content
    assert all(equal(state, player, content[player]) for player in ("G", "D", "G_ema"))
    assert state.cur_nimg == 0
    assert "G starts from" in lines[0]
    assert "new" not in "".join(lines)


@pytest.mark.parametrize("recorded", [{}, {"revision": 1}])
def test_weights_of_another_form_of_the_network_are_refused(recorded: dict[str, int]) -> None:
    """Their tensors have the same names and shapes, and would make other images."""
    names = {"family": "style", **recorded}
    source = Source(path=Path("old"), G={}, G_ema={}, D=None, network=names)
    with pytest.raises(CheckpointError, match=r"'old', whose network has revision 1, .*revision 1"):
        check_network(source, Style())
    check_network(source, Style(revision=1))
    check_network(source, R3GAN())  # another family: start_from compares the tensors


def test_a_source_knows_its_network(run: Path) -> None:
    for path in (run, run / "bundle"):
        network = open_source(path).network
        assert (network["family"], network["ngf"]) == ("dcgan", 4)


def test_a_bundle_gives_the_averaged_generator(run: Path) -> None:
    state = fresh(tiny("--seed", "5"))
    untouched = {name: value.clone() for name, value in state.D.network.state_dict().items()}
    lines = started(run / "bundle", state)
    average = Checkpoints(run / "checkpoints").latest().content["G_ema"]
    assert equal(state, "G", average)
    assert equal(state, "G_ema", average)
    assert equal(state, "D", untouched)
    assert "D starts anew" in lines[1]


def test_what_belongs_to_classes_starts_anew_and_is_named(run: Path) -> None:
    state = fresh(tiny(), num_classes=3)
    lines = started(run, state)
    assert "new: embed.weight" in lines[0]
    content = Checkpoints(run / "checkpoints").latest().content
    assert torch.equal(state.G.network.state_dict()["stem.0.weight"], content["G"]["stem.0.weight"])


def test_lookahead_starts_there_too(run: Path) -> None:
    state = fresh(tiny("--lookahead-steps", "5"))
    started(run, state)
    for slow, parameter in zip(state.slow, state.parameters(), strict=True):
        assert torch.equal(slow, parameter)


def test_another_network_is_refused(run: Path) -> None:
    state = fresh(tiny("--network.ngf", "8"))
    with pytest.raises(CheckpointError, match=r"another network: .* weights have the same"):
        started(run, state)


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


PAIRS = {
    "style": "--network.z-dim 8 --network.w-dim 8 --network.channel-base 64",
    "progressive": "--network.z-dim 8 --network.channel-base 64 --network.channel-max 8",
    "resnet": "--network.ngf 4 --network.ndf 4",
    "r3gan": "--network.channel-base 512 --network.channel-max 32 --network.group-width 8",
}


def sides(module: torch.nn.Module, img: torch.Tensor) -> dict[str, int]:
    """Height of the map that each module of a D takes."""
    found: dict[str, int] = {}
    for path, part in module.named_modules():

        def hook(_: object, given: tuple[torch.Tensor, ...], path: str = path) -> None:
            if given and given[0].ndim == 4:
                found.setdefault(path, given[0].shape[2])

        part.register_forward_pre_hook(hook)
    module(img, None)
    return found


@pytest.mark.parametrize(("low", "high"), [(16, 32), (32, 16)])
@pytest.mark.parametrize("family", ["style", "progressive"])
def test_from_another_resolution_weights_go_where_they_were(
    family: str, low: int, high: int, tmp_path: Path
) -> None:
    words = ["digits", "--network", family, *PAIRS[family].split(), "--data.no-conditional"]
    configs = {side: parse([*words, "--data.resolution", str(side)]).config for side in (low, high)}
    shapes = {side: ImageShape(resolution=side, channels=1) for side in configs}
    states = {side: State.fresh(configs[side], shapes[side], CPU) for side in configs}
    source = states[low]
    for network in (source.G.network, source.D.network, source.G_ema):
        for index, parameter in enumerate(network.parameters()):
            torch.nn.init.constant_(parameter, 1.0 + index)
    Checkpoints(tmp_path / "checkpoints").save(source, configs[low], "")
    target = states[high]
    lines = start_from(open_source(tmp_path), target, configs[high].network, shapes[high])
    assert f"from {low} to {high} pixels, by resolution" in lines[0]
    # Each block of D that has weights of the source is at the source's place.
    places = {
        side: sides(states[side].D.network, torch.zeros(4, 1, side, side)) for side in configs
    }
    was = {
        float(parameter.detach().flatten()[0]): name
        for name, parameter in source.D.network.named_parameters()
    }
    num = 0
    for name, parameter in target.D.network.named_parameters():
        origin = was.get(float(parameter.detach().flatten()[0]))
        if origin is None or parameter.detach().unique().numel() > 1:
            continue
        num += 1
        here, there = name.rpartition(".")[0], origin.rpartition(".")[0]
        assert places[high].get(here) == places[low].get(there), (name, origin)
        assert name.rpartition(".")[2] == origin.rpartition(".")[2]
    assert num > 5


def test_a_network_whose_widths_follow_the_image_is_refused_at_another_resolution(
    run: Path,
) -> None:
    config = parse(["digits", *TINY, "--data.resolution", "32"]).config
    shape = ImageShape(resolution=32, channels=1, num_classes=10)
    state = State.fresh(config, shape, CPU)
    with pytest.raises(CheckpointError, match=r"same place at the same resolution, from 16"):
        start_from(open_source(run), state, config.network, shape)


@pytest.mark.parametrize("family", [*PAIRS, "dcgan", "vaegan"])
@pytest.mark.parametrize("player", ["G", "D"])
def test_the_places_of_every_family_are_told_apart(family: str, player: str) -> None:
    """No weight is left without a place, and no two have the same one."""
    words = ["digits", "--network", family, *PAIRS.get(family, "").split()]
    config = parse([*words, "--data.resolution", "32"]).config
    shape = ImageShape(resolution=32, channels=1, num_classes=10)
    same = renamed(config.network, player, shape, 32)
    assert len(set(same.own.values())) == len(same.own)
    state = State.fresh(config, shape, CPU)
    for name in state.player(player).network.state_dict():
        assert same.source_of(name) == name
