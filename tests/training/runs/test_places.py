"""A run finds its data again and knows them by content; a name belongs to one dataset."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.repository import Repository
from training.cli.command import parse, resumed
from training.cli.paths import name_of
from training.errors import CheckpointError, ConfigError
from training.run import main

TINY = ["--data.resolution", "16", "--network.ngf", "4", "--network.ndf", "4", "--batch-size", "16"]
SHORT = ["--total-kimg", "0.032", "--tick-kimg", "0.032", "--evaluation", "none"]
LONGER = ["--total-kimg", "0.064"]


def photos(folder: Path, numbers: Iterable[int] = range(20)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def train(*words: str) -> int:
    return main(["folder", "--data.path", "photos", *TINY, *SHORT, *words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a training by relative paths has ended."""
    folder = tmp_path_factory.mktemp("trained")
    photos(folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train() == 0
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All of it copied to another place, where we are; what it was copied from is out of reach."""
    folder = shutil.copytree(trained, tmp_path / "moved")
    config = folder / "runs/00000-folder/config.json"
    config.write_text(config.read_text().replace(f"{trained}/", "/gone/"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_run_is_resumed_from_elsewhere_after_it_was_moved(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--resume", str(place / "runs/00000-folder"), *LONGER]) == 0
    assert not (Path.cwd() / "model-repository").exists()
    assert Repository(place / "model-repository").versions("photos") == [1, 2]
    assert "resumed at 0.032 kimg" in capsys.readouterr().out
    record = json.loads((place / "runs/00000-folder/config.json").read_text())
    assert record["repository"] == str(place / "model-repository")
    assert record["training"]["data"]["path"] == str(place / "photos")


def test_a_run_that_did_not_move_keeps_its_places_wherever_it_is_resumed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", range(20, 40))  # others, under the same relative path
    command = resumed(trained / "runs/00000-folder", None)
    assert command.config.data.path == trained / "photos"
    assert command.options.repository == trained / "model-repository"


def test_a_run_of_a_release_with_relative_paths_is_found_beside_its_folder_of_runs(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(trained, tmp_path / "old")
    config = folder / "runs/00000-folder/config.json"
    record = json.loads(config.read_text())
    del record["places"]
    record["repository"] = "model-repository"
    record["training"]["data"]["path"] = "photos"
    config.write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    command = resumed(folder / "runs/00000-folder", None)
    assert command.config.data.path == folder / "photos"
    assert command.options.repository == folder / "model-repository"


def test_renamed_files_are_the_same_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in list((place / "photos").iterdir()):
        path.rename(path.with_name(f"{hash(path.name) % 97:02}-{path.name}"))
    run = place / "runs/00000-folder"
    assert main(["--resume", str(run), *LONGER]) == 0
    assert "resumed at 0.032 kimg" in capsys.readouterr().out
    whole = Repository(place / "model-repository").bundle("photos").manifest.dataset
    first = Repository(place / "model-repository").bundle("photos", 1).manifest.dataset
    assert whole.fingerprint == first.fingerprint


def test_other_images_are_counted_and_named(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "photos/003.png").unlink()
    photos(place / "photos", [77, 78])
    run = place / "runs/00000-folder"
    for words in (["--dry-run"], []):
        assert main(["--resume", str(run), *LONGER, *words]) == CheckpointError.exit_code
        error = capsys.readouterr().err
        assert "1 (003.png) of its 20 are gone, 2 (077.png, 078.png) of these 21 are new" in error


def test_another_dataset_does_not_become_a_version_of_a_model(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert train() == 0  # the same images again are its next version
    shutil.rmtree(place / "photos")
    photos(place / "photos", range(50, 80))
    assert train() == ConfigError.exit_code == train("--dry-run")
    error = capsys.readouterr().err
    assert "name is 'photos', allowed: a name of its own" in error
    assert "20 of folder; these are 30 of folder" in error
    assert "--name photos" in error
    assert sorted(path.name for path in (place / "runs").iterdir()) == [
        "00000-folder",
        "00001-folder",
    ]
    assert train("--name", "photos", "--dry-run") == 0
    assert train("--name", "others", "--dry-run") == 0


def test_another_name_on_resuming_is_said_with_the_way_back(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(place / "runs/00000-folder")
    assert main(["--resume", run, *LONGER, "--name", "other"]) == 0
    said = capsys.readouterr().out
    assert "name photos -> other, from now on; --name photos undoes it" in said
    assert "Published other version 1" in said
    assert main(["--resume", run, "--name", "photos"]) == 0
    said = capsys.readouterr().out
    assert "name other -> photos, from now on" in said
    assert "Published photos version 2" in said


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("photos", "photos"),
        ("a/b/My Photos (2024)/", "My-Photos-2024"),
        ("Bäume", "Baume"),
        ("фото", None),
        ("-._", None),
        ("x" * 100, "x" * 63),
        ("faces.zip", "faces"),
        ("v1.5", "v1.5"),
    ],
)
def test_a_folders_name_becomes_a_models(folder: str, name: str | None) -> None:
    assert name_of(Path(folder)) == name


def test_the_name_is_the_folders_unless_one_is_given() -> None:
    words = ["folder", "--data.path", "my photos"]
    assert parse(words).name == "my-photos"
    assert parse([*words, "--name", "mine"]).name == "mine"
    assert parse(["folder", "--data.path", "фото"]).name == "folder"
    assert parse(["mnist", "--data.path", "photos"]).name == "mnist"
