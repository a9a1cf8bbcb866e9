"""Projection, editing, filling and enlarging, by their commands and their functions."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from models.bundle import Bundle
from models.bundle.inversion import Encoded
from models.image_metadata import read_metadata
from models.networks import ImageShape, Style
from models.repository import Repository
from training.inversion.__main__ import main
from training.inversion.fit import Subject
from training.inversion.opened import Opened
from training.inversion.projection import ProjectionConfig, Wanted, project
from training.inversion.restore import restore


@pytest.fixture(scope="module")
def style() -> Subject:
    torch.manual_seed(0)
    shape = ImageShape(resolution=8, channels=1)
    network = Style(z_dim=4, w_dim=4, mapping_layers=2, channel_base=32, channel_max=8)
    G = network.generator(shape).eval().requires_grad_(False)
    return Subject(G, 4, shape)


@pytest.mark.parametrize("space", ["z", "w"])
def test_projection_finds_what_the_generator_made(style: Subject, space: str) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        img = style.G(torch.randn(2, 4), None)
    wanted = Wanted(img, torch.ones(2, 1, 8, 8))
    starts = torch.randn(2, 3, 4)
    config = ProjectionConfig(steps=120, space=space)  # type: ignore[arg-type]
    before = project(style, wanted, starts, ProjectionConfig(steps=0))
    found = project(style, wanted, starts, config)
    assert found.latent.shape == (2, 3, 4)
    best = found.best()
    assert (best.error[:, 0] == found.error.amin(1)).all()
    assert float(best.error.max()) < 0.1 * float(before.error.amin(1).min())
    # A row's answer doesn't depend on those beside it.
    alone = Wanted(img[:1], torch.ones(1, 1, 8, 8))
    single = project(style, alone, starts[:1, 1:2], config)
    assert torch.allclose(single.latent[0, 0], found.latent[0, 1], atol=1e-2)


def test_only_known_pixels_count_and_the_sphere_is_kept(style: Subject) -> None:
    with torch.no_grad():
        img = style.G(torch.ones(1, 4), None)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    spoilt = torch.where(mask > 0, img, torch.tensor(9.0))
    starts, config = torch.zeros(1, 1, 4) + 0.5, ProjectionConfig(steps=5, on_sphere=True)
    found = project(style, Wanted(spoilt, mask), starts, config)
    assert torch.equal(found.latent, project(style, Wanted(img, mask), starts, config).latent)
    assert float(found.latent.norm()) == pytest.approx(2, abs=1e-4)


def save(path: Path, image: np.ndarray) -> str:
    Image.fromarray(image).save(path)
    return str(path)


def table(text: str) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return rows[1:]


def test_project_prints_a_table_and_writes_latents(
    model: Bundle, at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [save(tmp_path / f"{i}.png", model.golden.images[i, ..., 0]) for i in (0, 1)]
    assert main(["project", "tiny", *files, *at, "--steps", "40", "--restarts", "2"]) == 0
    rows = table(capsys.readouterr().out)
    assert [row[0] for row in rows] == ["0.png", "1.png"]
    assert all(float(row[2]) >= float(row[1]) for row in rows)  # refined, never worse
    arrays = np.load(tmp_path / "out" / "latents.npz")
    assert arrays["z"].shape == (2, 4)
    assert arrays["label"].shape == (2,)
    with Image.open(tmp_path / "out" / "projected.png") as picture:
        assert picture.size == (2 * 64, 3 * 64)


def test_fill_keeps_every_known_byte(
    model: Bundle, at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = model.golden.images[0, ..., 0]
    alpha = np.full((16, 16), 255, np.uint8)
    alpha[4:12, 4:12] = 0
    file = save(tmp_path / "x.png", np.stack([grey, grey, grey, alpha], 2))
    assert main(["fill", "tiny", file, *at, "--steps", "5", "--answers", "2"]) == 0
    assert "plausible, not true" in capsys.readouterr().out
    for name in ("x-0.png", "x-1.png"):
        data = (tmp_path / "out" / name).read_bytes()
        with Image.open(tmp_path / "out" / name) as image:
            assert (np.asarray(image)[alpha > 0] == grey[alpha > 0]).all()
        words = read_metadata(data)
        assert words["note"].startswith("plausible, not true")
        assert float(words["spread"]) >= 0
    mask = save(tmp_path / "mask.png", alpha)
    plain = save(tmp_path / "y.png", grey)
    once = ["fill", "tiny", plain, *at, "--force", "--mask", mask, "--steps", "0", "--answers", "1"]
    assert main(once) == 0
    assert (tmp_path / "out" / "y.png").is_file()


def test_answers_may_be_of_a_class_each(model: Bundle, at: list[str], tmp_path: Path) -> None:
    grey = model.golden.images[0, ..., 0]
    half = np.full((16, 16), 255, np.uint8)
    half[8:] = 0
    file, mask = save(tmp_path / "x.png", grey), save(tmp_path / "m.png", half)
    words = ["fill", "tiny", file, *at, "--mask", mask, "--steps", "0", "--answers", "3"]

    def labels() -> list[str]:
        files = [tmp_path / "out" / f"x-{number}.png" for number in range(3)]
        return [read_metadata(each.read_bytes())["label"] for each in files]

    assert main(words) == 0
    assert len(set(labels())) == 1
    assert main([*words, "--label", "c,a,c", "--force"]) == 0
    assert labels() == ["2", "0", "2"]


class Striped(torch.nn.Module):
    """The upper half is z, the lower half bright in class 1."""

    def forward(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        upper = torch.tanh(z).repeat(1, 8)
        lower = (label[:, None] * 1.0).expand(-1, 32)
        return torch.cat([upper, lower], 1).reshape(-1, 1, 8, 8)


@pytest.mark.parametrize(
    ("scores", "found"), [([0.1, 0.0], [1, 1]), ([9.0, 0.0], [0, 0]), (None, [1, 1])]
)
def test_the_class_is_the_one_that_all_answers_fit_best(
    scores: list[float] | None, found: list[int]
) -> None:
    """An encoder's second guess may fit better; where it is sure, or there is none, not asked."""
    shape = ImageShape(resolution=8, channels=1, num_classes=2)
    images = np.full((1, 8, 8, 1), 255, np.uint8)
    told: list[int] = []

    def encode(images: np.ndarray, label: np.ndarray | None, *given: object) -> Encoded:
        assert scores is not None
        told.extend([] if label is None else label.tolist())
        return Encoded(np.zeros((len(images), 4), np.float32), np.array([scores], np.float32))

    stub = SimpleNamespace(
        bundle=SimpleNamespace(manifest=SimpleNamespace(conditional=True, z_dim=4)),
        has_encoder=scores is not None,
        traits=SimpleNamespace(infers_label=True, takes_label=True, varies=True),
        encode=encode,
        shape=shape,
        subject=Subject(Striped(), 4, shape),
    )
    model = cast(Opened, stub)
    answers = restore(model, images, answers=2, config=ProjectionConfig(steps=0))
    assert answers.label is not None
    assert answers.label.tolist() == [found]
    # The encoder searches under the class that is tried, and then under the one that was chosen.
    searched = {None: [], 0.1: [0, 0, 1, 1, 1, 1], 9.0: [0, 0]}
    assert told == searched[scores and scores[0]]


def test_enlarge_averages_to_what_was_given(
    model: Bundle, at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = model.golden.images[0, ..., 0].astype(float)
    small = image.reshape(8, 2, 8, 2).mean((1, 3)).round().astype(np.uint8)
    file = save(tmp_path / "s.png", small)
    words = ["enlarge", "tiny", file, *at, "--factor", "2", "--answers", "2"]
    label = (model.manifest.labels or ())[int(model.golden.labels[0])]  # type: ignore[index]
    assert main([*words, "--steps", "150", "--label", label]) == 0
    (row,) = table(capsys.readouterr().out)
    with Image.open(tmp_path / "out" / "s-0.png") as made:
        down = np.asarray(made).astype(float).reshape(8, 2, 8, 2).mean((1, 3))
    error = float(np.square((down - small) / 255).mean())
    assert error <= float(row[3]) * 1.01
    assert error < 5e-3


def test_an_edit_moves_along_a_direction(
    model: Bundle, at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "e.png", model.golden.images[2, ..., 0])
    words = ["edit", "tiny", file, *at, "--force", "--steps", "0", "--directions"]
    assert main([*words, "0:0"]) == 0
    assert float(table(capsys.readouterr().out)[0][2]) == 0  # nothing moved: the very bytes
    assert main([*words, "0:2"]) == 0
    assert float(table(capsys.readouterr().out)[0][2]) > 0
    assert read_metadata((tmp_path / "out" / "e.png").read_bytes())["directions"] == "0:2"


WRITTEN = {
    "project": ("projected.png", []),
    "edit": ("p.png", ["--directions", "0:1"]),
    "fill": ("p-0.png", ["--answers", "1", "--mask", "{mask}"]),
    "enlarge": ("s-0.png", ["--answers", "1", "--factor", "2"]),
    "score": ("residuals.npz", []),
}


@pytest.mark.parametrize("command", WRITTEN)
def test_nothing_is_overwritten(
    command: str,
    repository: Repository,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the image that is read, at all, nor what is there, unless that is asked for."""
    name, more = WRITTEN[command]
    if "--answers" in more:
        name = name.replace("-0", "")
    half = np.full((16, 16), 255, np.uint8)
    half[:8] = 0
    mine, mask = tmp_path / "mine", save(tmp_path / "m.png", half)
    mine.mkdir()
    side = 8 if command == "enlarge" else 16
    source = mine / (name if name.endswith("p.png") or name.startswith("s.") else "p.png")
    save(source, np.full((side, side), 9, np.uint8))
    before = source.read_bytes()
    other = tmp_path / "out"
    other.mkdir()
    (other / name).write_bytes(b"mine")
    words = [command, "tiny", str(source), "--repository", str(repository.root)]
    words += [word.format(mask=mask) for word in more]
    steps = [] if command == "score" else ["--steps", "0"]
    assert main([*words, *steps, "--out", str(other)]) == 2
    assert f"without {other / name}; choose another with --out, or overwrite with --force" in (
        capsys.readouterr().err
    )
    assert [path.name for path in other.iterdir()] == [name]  # before the work
    assert (other / name).read_bytes() == b"mine"
    if source.name != name:  # commands that name their own files: they may be what is read
        source = source.rename(source.with_name("projected.png"))
        if command == "score":
            source = source.rename(source.with_name("sheet.png"))
        words[2] = str(source)
    monkeypatch.chdir(mine)
    assert main([*words, *steps, "--force", "--out", "."]) == 2
    assert "is a file that is read, and would be overwritten" in capsys.readouterr().err
    assert source.read_bytes() == before
    assert main([*words, *steps, "--force", "--out", str(other)]) == 0
    assert (other / name).read_bytes() != b"mine"


REFUSED = {
    "no file": (["fill", "tiny"], "FILES is 'none'"),
    "no such file": (["project", "tiny", "{folder}/nothing.png"], "nothing.png"),
    "another size": (["fill", "tiny", "{large}", "--mask", "{large}"], "is 20x20, allowed: 16x16"),
    "nothing hidden": (["fill", "tiny", "{plain}"], "hides nothing"),
    "all hidden": (["fill", "tiny", "{plain}", "--mask", "{black}"], "hides the whole image"),
    "a factor": (["enlarge", "tiny", "{plain}", "--factor", "3"], "factor is 3"),
    "a size for a factor": (
        ["enlarge", "tiny", "{plain}", "--factor", "2"],
        "allowed: 8x8, the model's 16x16 divided by --factor 2",
    ),
    "a class": (["project", "tiny", "{plain}", "--label", "z"], "label is 'z', allowed: a, b, c"),
    "classes": (
        ["fill", "tiny", "{plain}", "--mask", "{half}", "--label", "a,b"],
        "label is 'a,b', 2 classes, allowed: one, or 4, one for each answer",
    ),
    "a direction": (["edit", "tiny", "{plain}", "--directions", "99:1"], "names '99'"),
    "answers": (["fill", "tiny", "{plain}", "--answers", "0"], "answers is 0"),
    "steps": (["project", "tiny", "{plain}", "--steps", "-1"], "steps is -1"),
    "sheet": (
        ["fill", "tiny", "{sheet}", "--mask", "{half}", "--answers", "1"],
        "FILES is 'sheet.png', allowed: other names",
    ),
    "twice": (["fill", "tiny", "{plain}", "{plain}", "--mask", "{half}"], "p twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(
    case: str, at: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = REFUSED[case]
    half = np.full((16, 16), 255, np.uint8)
    half[:8] = 0
    names = {
        "folder": str(tmp_path),
        "plain": save(tmp_path / "p.png", np.full((16, 16), 9, np.uint8)),
        "black": save(tmp_path / "b.png", np.zeros((16, 16), np.uint8)),
        "half": save(tmp_path / "h.png", half),
        "sheet": save(tmp_path / "sheet.png", half),
        "large": save(tmp_path / "l.png", np.zeros((20, 20), np.uint8)),
    }
    extra = [] if "--steps" in words else ["--steps", "0"]
    assert main([word.format(**names) for word in words] + at + extra) in (2, 3)
    assert message in capsys.readouterr().err
