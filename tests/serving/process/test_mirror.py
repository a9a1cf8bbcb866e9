"""A repository elsewhere is copied whole and verified, and outlives the other side's absence."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from models.bundle import Bundle
from models.repository import Repository
from models.repository.candidate import Candidate
from serving.command_line import parse
from serving.errors import SettingsError
from serving.process.mirror import CURRENT, Mirror, MirrorError
from tests.conftest import ServerProcess, free_port
from tests.serving.bulk.test_remote_store import answers
from tests.support import wait_for


@pytest.fixture
def elsewhere(tmp_path: Path, make_bundle: Callable[..., Bundle]) -> Repository:
    repository = Repository(tmp_path / "elsewhere")
    for weights_seed in (1, 2, 3):
        repository.publish("grey", make_bundle(weights_seed=weights_seed))
    repository.publish("colour", make_bundle(channels=3))
    return repository


@pytest.fixture
def mirror(elsewhere: Repository, tmp_path: Path) -> Mirror:
    return Mirror(f"file://{elsewhere.root}", tmp_path / "here")


def here(tmp_path: Path) -> dict[str, list[int]]:
    repository = Repository(tmp_path / "here")
    return {name: repository.versions(name) for name in repository.names()}


def left_over(tmp_path: Path) -> list[str]:
    return [p.name for p in (tmp_path / "here").rglob(".*") if p.name != ".lock"]


def test_what_is_current_or_on_trial_is_copied(
    elsewhere: Repository, mirror: Mirror, tmp_path: Path
) -> None:
    elsewhere.pin("grey", 1)
    elsewhere.set_candidate("grey", Candidate(2, 10.0))
    mirror.turn()
    assert here(tmp_path) == {"colour": [1], "grey": [1, 2]}
    copy = Repository(tmp_path / "here")
    assert copy.current("grey") == elsewhere.current("grey")
    assert copy.candidate("grey") == elsewhere.candidate("grey")
    assert copy.bundle("grey").digest == elsewhere.bundle("grey", 1).digest
    copy.bundle("grey").verify_files()
    elsewhere.end_candidate("grey")
    elsewhere.promote("grey", 3)
    mirror.turn()
    assert here(tmp_path)["grey"] == [1, 2, 3]  # those before stay, for a quick way back
    assert copy.current("grey").version == 3
    assert copy.candidate("grey") is None
    assert left_over(tmp_path) == []


def test_what_is_damaged_is_refused_and_the_rest_is_copied(
    elsewhere: Repository, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.turn()
    model = elsewhere.root / "grey" / "2" / "model.onnx"
    data = model.read_bytes()
    elsewhere.promote("grey", 2)
    model.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elsewhere.publish("colour", elsewhere.bundle("colour"))
    with pytest.raises(MirrorError, match=r"grey: .*model.onnx: sha256 is"):
        mirror.turn()
    assert here(tmp_path) == {"colour": [1, 2], "grey": [3]}
    assert Repository(tmp_path / "here").current("grey").version == 3
    model.write_bytes(data + b"more")
    with pytest.raises(MirrorError, match="is longer than its manifest says"):
        mirror.turn()
    model.write_bytes(data)
    mirror.turn()
    assert Repository(tmp_path / "here").current("grey").version == 2
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_candidate_that_cannot_be_used_holds_nothing_else_up(
    elsewhere: Repository, mirror: Mirror, tmp_path: Path, fault: str
) -> None:
    elsewhere.pin("grey", 1)
    mirror.turn()
    elsewhere.set_candidate("grey", Candidate(3, 10.0))
    if fault == "missing":
        shutil.rmtree(elsewhere.root / "grey" / "3")
    else:
        (elsewhere.root / "grey" / "3" / "model.onnx").write_bytes(b"x")
    (elsewhere.root / "grey" / CURRENT).write_text("2\n")
    with pytest.raises(MirrorError, match="grey"):
        mirror.turn()
    copy = Repository(tmp_path / "here")
    assert copy.current("grey").version == 2
    assert copy.candidate("grey") is None
    fresh = Mirror(f"file://{elsewhere.root}", tmp_path / "fresh")
    with pytest.raises(MirrorError, match="grey"):
        fresh.turn()
    assert Repository(tmp_path / "fresh").current("grey").version == 2


def test_without_a_pin_the_newest_whole_version_is_taken(
    elsewhere: Repository, mirror: Mirror, tmp_path: Path
) -> None:
    (elsewhere.root / "grey" / CURRENT).unlink(missing_ok=True)
    manifest = elsewhere.root / "grey" / "3" / "manifest.json"  # the last file of an upload
    late = manifest.read_bytes()
    manifest.unlink()
    with pytest.raises(MirrorError, match=r"grey/3 has no manifest.json"):
        mirror.turn()
    assert Repository(tmp_path / "here").current("grey").version == 2
    manifest.write_bytes(late)
    mirror.turn()
    assert Repository(tmp_path / "here").current("grey").version == 3


def test_a_number_that_means_another_model_is_copied_again(
    elsewhere: Repository, mirror: Mirror, tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    mirror.turn()
    before = Repository(tmp_path / "here").bundle("colour").digest
    shutil.rmtree(elsewhere.root / "colour")
    elsewhere.publish("colour", make_bundle(channels=3, weights_seed=9))
    mirror.turn()
    assert Repository(tmp_path / "here").bundle("colour").digest != before
    shutil.rmtree(elsewhere.root / "colour")
    mirror.turn()
    assert here(tmp_path) == {"grey": [3]}


def test_while_nothing_is_there_everything_stays(
    elsewhere: Repository, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.turn()
    away = elsewhere.root.rename(tmp_path / "away")
    with pytest.raises(MirrorError, match="what was copied before is served"):
        mirror.turn()
    elsewhere.root.mkdir()
    with pytest.raises(MirrorError, match="holds no models"):
        mirror.turn()
    assert here(tmp_path) == {"colour": [1], "grey": [3]}
    elsewhere.root.rmdir()
    away.rename(elsewhere.root)
    mirror.turn()


def test_names_that_lead_elsewhere_are_refused(
    elsewhere: Repository, mirror: Mirror, tmp_path: Path
) -> None:
    manifest = elsewhere.root / "colour" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"card.md"', '"../card.md"'))
    with pytest.raises(MirrorError, match="colour"):
        mirror.turn()
    assert here(tmp_path) == {"grey": [3]}
    assert not (tmp_path / "here" / "colour" / "card.md").exists()


def test_a_folder_of_other_models_is_left_alone(
    elsewhere: Repository, tmp_path: Path, make_bundle: Callable[..., Bundle]
) -> None:
    Repository(tmp_path / "here").publish("mine", make_bundle())
    (tmp_path / "empty" / "lost+found").mkdir(parents=True)
    with pytest.raises(SettingsError, match="which holds mine and is no copy of"):
        Mirror(f"file://{elsewhere.root}", tmp_path / "here")
    for _ in range(2):  # a copy is taken over by the next server
        Mirror(f"file://{elsewhere.root}", tmp_path / "empty").turn()
    assert (tmp_path / "empty" / "lost+found").exists()


def test_an_address_is_a_repository_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = parse(["--repository", "s3://bucket/models"], {})
    assert settings.mirror == "s3://bucket/models"
    assert settings.repository.parent == tmp_path / "saddlepoint"
    own = parse(["--repository", "x", "--mirror", "s3://bucket/models"], {})
    assert (own.repository, own.mirror) == (Path("x"), "s3://bucket/models")
    with pytest.raises(SettingsError, match="name a folder and an address"):
        parse(["--repository", "s3://a/b", "--mirror", "s3://c/d"], {})
    with pytest.raises(SettingsError, match="an address that fsspec knows"):
        Mirror("nosuch://bucket", tmp_path / "here")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Starts an S3 server, always at the same address, which forgets everything at its end."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    started: list[subprocess.Popen[bytes]] = []

    def start() -> Any:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"MOTO_ALLOW_NONEXISTENT_REGION": "true"},
        )
        started.append(process)
        wait_for(lambda: answers(url), timeout_s=60)
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.mkdir("bucket")
        return process, fs

    yield start
    for process in started:
        process.kill()
        process.wait()
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.chaos
def test_a_server_follows_a_bucket_that_comes_and_goes(
    elsewhere: Repository,
    s3: Callable[[], Any],
    start_server: Callable[..., ServerProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    process, fs = s3()
    elsewhere.promote("grey", 1)
    fs.put(str(elsewhere.root), "bucket/prod", recursive=True)
    flags = ("--repository", "s3://bucket/prod", "--mirror-interval-s", "0.2")
    server = start_server(tmp_path / "unused", *flags, "--reload-interval-s", "0.2")

    def version() -> str:
        answer = server.generate(model="grey", seeds=[1])
        assert answer.status_code == 200, answer.text
        return answer.headers["x-model-version"]

    def failing() -> bool:
        name = 'saddlepoint_loop_failing_since_timestamp_seconds{loop="mirror"}'
        return name in server.get("/metrics").text

    assert version() == "1"
    elsewhere.promote("grey", 2)
    fs.put_file(str(elsewhere.root / "grey" / "CURRENT"), "bucket/prod/grey/CURRENT")
    wait_for(lambda: version() == "2")
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(failing, 60)
    assert version() == "2"
    wait_for(lambda: "what was copied before is served" in server.log.read_text())
    _, fs = s3()
    elsewhere.promote("grey", 3)
    fs.put(str(elsewhere.root), "bucket/prod", recursive=True)
    wait_for(lambda: version() == "3", 90)
    wait_for(lambda: not failing())
