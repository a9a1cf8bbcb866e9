"""`python -m training.interpretation directions`, and the part that an export writes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import Bundle
from models.bundle.directions import DIRECTIONS, read_directions
from models.bundle.generator import CpuGenerator
from models.bundle.verification import verify
from models.latents import latents
from models.networks import DCGAN
from models.repository import Repository
from training.cli.command import parse
from training.data import ImageSet
from training.errors import ConfigError
from training.export.exporter import export
from training.interpretation.__main__ import main
from training.interpretation.part import DirectionsPart, num_directions
from training.interpretation.trained import trained_generator

NETWORK = {"family": "dcgan", "z_dim": 5, "ngf": 4, "ndf": 4, "embed_dim": 2}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> Bundle:
    """The export of an untrained network with loud weights, with directions."""
    torch.manual_seed(0)
    images = torch.randint(0, 255, (9, 1, 16, 16), dtype=torch.uint8)
    data = ImageSet("tiny", images, torch.arange(9) % 3, ("a", "b", "c"), "0" * 64, ())
    G = DCGAN(z_dim=5, ngf=4, ndf=4, embed_dim=2).generator(data.shape)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.mul_(3)
    return export(
        G_ema=G,
        z_dim=5,
        image_set=data,
        recipe="test",
        options={"network": NETWORK},
        metrics=None,
        name="tiny",
        destination=tmp_path_factory.mktemp("export") / "bundle",
        parts=[
            DirectionsPart(num=0, image_set=data, say=lines.append),
            DirectionsPart(num=2, image_set=data, say=lines.append),
        ],
    )


def test_an_export_has_directions_a_picture_and_a_section(bundle: Bundle, lines: list[str]) -> None:
    found = read_directions(bundle)
    assert found is not None
    assert set(found.sets) == {"z", "class"}
    assert found.sets["z"].steps.shape[1] == 5
    assert found.sets["class"].steps.shape[0] == 3
    assert verify(bundle) <= 2
    card = (bundle.path / "card.md").read_text()
    assert "## What its latents do" in card
    assert (bundle.path / "directions.png").read_bytes()[:4] == b"\x89PNG"
    assert len(lines) == 1
    assert lines[0].startswith("Looked inside: ")


def test_a_search_that_fails_costs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr("training.interpretation.part.find_directions", exhausted)
    said: list[str] = []
    images = torch.zeros(9, 1, 16, 16, dtype=torch.uint8)
    data = ImageSet("tiny", images, None, None, "0" * 64, ())
    G = DCGAN(z_dim=5, ngf=4, ndf=4, embed_dim=2).generator(data.shape)
    made = DirectionsPart(num=2, image_set=data, say=said.append)(G, lambda *given: images, 5)  # type: ignore[arg-type]
    assert made is None
    assert said == [
        "warning: no directions: CUDA out of memory.; fewer of them (--directions 4) need less, "
        "--directions 0 looks for none"
    ]


def test_the_weights_of_a_bundle_are_its_generator(bundle: Bundle) -> None:
    G = trained_generator(bundle)
    z, label = latents([3, 4], 5), np.array([2, 0])
    with torch.no_grad():
        img = G(torch.from_numpy(z), torch.from_numpy(label))
    expected = ((img + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    found = CpuGenerator(bundle.model_path)(z, label)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_command_writes_and_publishes(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path / "models")
    repository.publish("mine", bundle)
    words = ["directions", "mine", "--repository", str(repository.root), "--num", "1"]
    assert main([*words, "--latents", "6", "--out", str(tmp_path / "out"), "--publish"]) == 0
    out, err = capsys.readouterr()
    assert "| 0 |" in out
    assert "name the run for its data's classes" in err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {DIRECTIONS, "directions.png", "class.png"}
    published = repository.bundle("mine")
    assert published.manifest.version == 2
    found = read_directions(published)
    assert found is not None
    assert found.sets["z"].num == 1
    assert found.to_bytes() == (tmp_path / "out" / DIRECTIONS).read_bytes()
    assert verify(published) <= 2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, ""),
        (["direction", "x"], 2, "COMMAND is 'direction'"),
        (["directions"], 2, "MODEL is not given"),
        (["directions", "nothing"], 4, "MODEL is 'nothing'"),
        (["directions", "{bundle}", "--num", "0"], 2, "num is 0"),
        (["directions", "{bundle}", "--latents", "0"], 2, "latents is 0"),
    ],
)
def test_refusals(
    bundle: Bundle, words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(bundle=bundle.path) for word in words]) == code
    assert text in capsys.readouterr().err


def test_a_run_that_was_not_exported_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main(["directions", str(tmp_path)]) == 4
    assert "export it: python -m training.runs export" in capsys.readouterr().err


def test_a_trial_has_none_unless_they_are_asked_for() -> None:
    assert num_directions(None, 2.9, 1024) == 0
    assert num_directions(None, 3, 64 * 64 * 512) == 16
    assert num_directions(None, 3, 256 * 256 * 128) == 0
    assert num_directions(4, 0.1, 256 * 256 * 512) == 4
    assert num_directions(0, 70, 1024) == 0
    assert parse(["digits", "--directions", "3"]).options.directions == 3
    with pytest.raises(ConfigError, match=r"directions is -1, allowed: 0 \.\. 256"):
        parse(["digits", "--directions", "-1"])
