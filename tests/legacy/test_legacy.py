"""Files of an earlier release are read, served and trained on. README.md: how they were made."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.bundle.bundle import GOLDEN_TOLERANCE
from models.bundle.verification import verify
from models.networks import FAMILIES, ImageShape
from models.repository import Repository
from models.repository.__main__ import main as repository_command
from training.cli.command import resumed
from training.cli.paths import with_absolute
from training.config.training import completed, flatten, from_builtins, to_builtins
from training.engine.checkpoint import Checkpoint, check
from training.errors import CheckpointError
from training.run import main as train

HERE = Path(__file__).parent
CONFIGS = sorted((HERE / "configs").glob("*.json"))
BEFORE_NIMG, AFTER_NIMG = 1536, 1600
BATCH_SIZE = 32


def checkpoint(run: Path, cur_nimg: int) -> dict[str, Any]:
    path = run / "checkpoints" / f"checkpoint-{cur_nimg:010d}.pt"
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def steps(content: dict[str, Any], player: str) -> int:
    """Steps that a player's Adam has made."""
    moments = content[f"optim_{player}"]["optimizer"]["state"]
    return int(moments[0]["step"])


def distance(content: dict[str, Any], other: dict[str, Any], network: str) -> float:
    """Between two checkpoints' weights, relative to the weights."""
    pairs = [(content[network][name], other[network][name]) for name in content[network]]
    num = sum(float((a - b).square().sum()) for a, b in pairs)
    return (num / sum(float(a.square().sum()) for a, _ in pairs)) ** 0.5


def test_a_run_is_resumed_and_trains_on(tmp_path: Path) -> None:
    run, repository = tmp_path / "run", tmp_path / "models"
    shutil.copytree(HERE / "run", run)
    words = ["--resume", str(run), "--repository", str(repository), "--device", "cpu"]
    assert train([*words, "--total-kimg", str(AFTER_NIMG / 1000)]) == 0
    before, after = checkpoint(run, BEFORE_NIMG), checkpoint(run, AFTER_NIMG)
    assert before["cur_nimg"] == BEFORE_NIMG
    for player in ("G", "D"):
        more = (AFTER_NIMG - BEFORE_NIMG) // BATCH_SIZE
        assert steps(after, player) == steps(before, player) + more
    for network in ("G", "D", "G_ema"):
        assert before[network].keys() == after[network].keys()
        assert 0 < distance(before, after, network) < 0.3  # new weights would be about 1.4 away
    assert len(after["slow"]) == len(before["slow"]) > 0
    assert 0 < float(before["augment_p"]) != float(after["augment_p"])
    assert after["history"][: len(before["history"])] == before["history"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["cur_nimg"] for line in lines] == [768, BEFORE_NIMG, AFTER_NIMG]
    assert verify(Repository(repository).bundle("legacy")) <= GOLDEN_TOLERANCE


def test_a_bundle_is_verified_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(Repository(HERE / "repository").bundle("legacy")) <= GOLDEN_TOLERANCE
    assert repository_command(["--repository", str(HERE / "repository"), "list", "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["model"], model["current"]) == ("legacy", 1)
    assert [version["version"] for version in model["versions"]] == [1]
    assert "faults" not in model


def test_a_bundle_is_served_with_the_images_of_then(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    root = shutil.copytree(HERE / "repository", tmp_path / "models")
    golden = Repository(root).bundle("legacy").golden
    assert golden.labels is not None
    assert golden.images.std() > 20  # not all grey: other latents or labels would show
    server = start_server(root)
    reply = server.generate(
        seeds=golden.seeds.tolist(), labels=golden.labels.tolist(), format="npy"
    )
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-model-version"] == "1"
    images = np.load(io.BytesIO(reply.content))
    # The very bytes on the kind of processor that made them; others round other sums.
    assert np.abs(images.astype(int) - golden.images).max() <= GOLDEN_TOLERANCE


def contained(old: Any, new: Any) -> bool:
    """True where new has everything that old has; options that came later are allowed."""
    if isinstance(old, dict):
        return old.keys() <= new.keys() and all(contained(old[k], new[k]) for k in old)
    if isinstance(old, list):
        pairs = zip(old, new, strict=False)
        return len(old) == len(new) and all(contained(a, b) for a, b in pairs)
    return bool(old == new)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_has_the_same_values(path: Path) -> None:
    record = json.loads(path.read_text())
    config = from_builtins(record["training"], str(path))
    assert contained(record["training"], json.loads(json.dumps(to_builtins(config))))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_run_of_such_a_configuration_can_be_named(path: Path, tmp_path: Path) -> None:
    shutil.copyfile(path, tmp_path / "config.json")
    record = json.loads(path.read_text())
    command = resumed(tmp_path, None)
    written = json.loads(command.to_json())
    assert contained(with_absolute(record), written)


def test_the_configurations_are_of_every_family_and_one_was_rescued() -> None:
    records = {path.stem: json.loads(path.read_text()) for path in CONFIGS}
    families = {record["training"]["network"]["family"] for record in records.values()}
    assert families == {"mlp", "dcgan", "resnet", "progressive", "r3gan", "style", "vaegan"}
    assert len(records["rescued"]["rescues"]) == 3


@pytest.mark.parametrize("family", [name for name, cls in FAMILIES.items() if cls.before])
def test_an_older_files_network_is_the_network_of_then(family: str) -> None:
    """Options that came with a change of the network are missing there: `Family.before` says."""
    record = json.loads((HERE / "configs" / f"{family}.json").read_text())["training"]
    before = FAMILIES[family].before
    assert not before.keys() & record["network"].keys()
    network = from_builtins(record, family).network
    assert {name: getattr(network, name) for name in before} == before
    assert {name: getattr(FAMILIES[family](), name) for name in before} != before


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_option_has_the_value_of_then(path: Path) -> None:
    """Else a run that goes on as it was would say that it had changed those that came later."""
    record = json.loads(path.read_text())["training"]
    now = flatten(to_builtins(from_builtins(record, path.stem)))
    assert not now.keys() - flatten(completed(record)).keys()


# Recorded from the release before: one pixel of G and the logit of D, of two rows each.
OF_THEN = {
    ("r3gan", 0): ([-7.46029, -10.089577], [0.9629, 0.4588]),
    ("r3gan", 3): ([-4.365889, -2.156134], [0.75692, 0.08853]),
    ("style", 0): ([-2.589764, 0.765407], [-0.33055, -0.24971]),
    ("style", 3): ([0.534402, 0.75624], [2.27817, 1.49215]),
    ("resnet", 0): ([-0.99994, -0.999962], [132.29214, 132.72926]),
    ("resnet", 3): ([-0.999721, -0.390816], [40.43118, 19.59124]),
}
SMALL: dict[str, tuple[dict[str, int], int]] = {
    "r3gan": (
        {"z_dim": 5, "channel_base": 256, "channel_max": 8, "group_width": 4, "embed_dim": 3},
        16,
    ),
    "style": (
        {"z_dim": 5, "w_dim": 6, "mapping_layers": 2, "channel_base": 64, "channel_max": 6},
        16,
    ),
    "resnet": ({"z_dim": 5, "ngf": 2, "ndf": 2}, 64),
}


@pytest.mark.parametrize(("family", "num_classes"), OF_THEN)
def test_weights_of_then_give_the_images_and_logits_of_then(family: str, num_classes: int) -> None:
    options, resolution = SMALL[family]
    pair = FAMILIES[family](**options, **FAMILIES[family].before)
    shape = ImageShape(resolution=resolution, channels=3, num_classes=num_classes)
    torch.manual_seed(0)
    G, D = pair.generator(shape), pair.discriminator(shape)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for network in (G, D):
            for parameter in network.parameters():
                parameter += 0.2 * torch.randn(parameter.shape, generator=draws)
        z = torch.randn(2, 5, generator=draws)
        img = torch.randn(2, 3, resolution, resolution, generator=draws)
        label = torch.tensor([0, 2]) if num_classes else None
        pixel, logit = G.eval()(z, label)[:, 0, 3, 5], D(img, label)
    assert pixel.tolist() == pytest.approx(OF_THEN[family, num_classes][0], rel=1e-3)
    assert logit.tolist() == pytest.approx(OF_THEN[family, num_classes][1], rel=1e-3)


@pytest.mark.parametrize("family", [name for name, cls in FAMILIES.items() if cls.before])
def test_a_checkpoint_of_then_is_of_the_network_that_its_run_still_has(family: str) -> None:
    record = json.loads((HERE / "configs" / f"{family}.json").read_text())["training"]
    old = Checkpoint(Path("checkpoint-0000000000.pt"), {"cur_nimg": 0, "config": record})
    config = from_builtins(record, family)
    check(old, config, None)
    option = next(iter(FAMILIES[family].before))
    now = replace(
        config, network=replace(config.network, **{option: getattr(FAMILIES[family](), option)})
    )
    with pytest.raises(CheckpointError, match=rf"network\.{option} is .*was trained with"):
        check(old, now, None)
