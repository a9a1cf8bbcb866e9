import os
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.bundle import REQUIRED_FILES, Bundle, write_bundle
from models.errors import BundleError, NotInRepositoryError, RepositoryError
from models.repository import Current, Repository, check_name, locks
from models.repository import store as module
from tests.support import as_nobody


@pytest.fixture(scope="session")
def light(grey, tmp_path_factory):
    """A bundle whose files verify; its model is a few bytes."""
    files = dict.fromkeys(REQUIRED_FILES, b"content")
    return write_bundle(tmp_path_factory.mktemp("light") / "bundle", grey.manifest, files)


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository")


@pytest.fixture
def three(repository, light):
    for _ in range(3):
        repository.publish("model", light)
    return repository


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_an_empty_repository_lists_nothing(repository):
    assert repository.names() == []
    assert not repository.root.exists()
    with pytest.raises(NotInRepositoryError, match=r"model 'x' is not in .*; it holds: none"):
        repository.bundle("x")


def test_publish_numbers_versions_and_moves_current(repository, light):
    for version in (1, 2, 3):
        bundle = repository.publish("model", light)
        bundle.verify_files()
        assert bundle.path == repository.root / "model" / str(version)
        assert (bundle.manifest.name, bundle.manifest.version) == ("model", version)
        assert repository.current("model") == Current(version)
    assert repository.versions("model") == [1, 2, 3]
    assert repository.bundle("model").manifest.version == 3
    assert repository.bundle("model", 2).manifest.version == 2


def test_published_files_are_the_sources(repository, classes):
    bundle = repository.publish("model", classes)
    for name in REQUIRED_FILES:
        assert (bundle.path / name).read_bytes() == (classes.path / name).read_bytes()
    assert sorted(entry.name for entry in bundle.path.iterdir()) == sorted(
        [*REQUIRED_FILES, "manifest.json"]
    )
    assert bundle.digest != classes.digest  # name and version are part of the identity


def test_versions_are_numbers_not_words(three, light):
    for _ in range(8):
        three.publish("model", light)
    assert three.versions("model") == list(range(1, 12))
    assert three.current("model").version == 11


def test_a_gap_is_not_filled(three, light):
    for file in (three.root / "model" / "2").iterdir():
        file.unlink()
    (three.root / "model" / "2").rmdir()
    assert three.versions("model") == [1, 3]
    assert three.publish("model", light).manifest.version == 4


def test_a_file_of_a_versions_name_is_none(three, light):
    (three.root / "model" / "4").write_bytes(b"")
    assert three.versions("model") == [1, 2, 3]
    with pytest.raises(NotInRepositoryError, match="no version 4"):
        three.bundle("model", 4)
    assert three.publish("model", light).manifest.version == 5  # its place is taken
    (three.root / "empty").mkdir()
    (three.root / "empty" / "1").write_bytes(b"")
    assert three.names() == ["model"]


def test_a_versions_folder_may_be_a_link(three, tmp_path):
    folder = three.root / "model" / "3"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert three.versions("model") == [1, 2, 3]
    three.bundle("model", 3).verify_files()


def test_a_copied_version_or_model_is_refused(three):
    shutil.copytree(three.root / "model" / "1", three.root / "model" / "7")
    words = (
        r"7/manifest\.json: is version 1 of 'model', in the folder of version 7 of 'model'; a ver"
    )
    for call in (three.bundle, three.promote):
        with pytest.raises(BundleError, match=words):
            call("model", 7)
    shutil.copytree(three.root / "model", three.root / "other")
    with pytest.raises(BundleError, match="is version 2 of 'model', in the folder of version 2 of"):
        three.bundle("other", 2)


def test_current_of_an_absent_version_says_where_and_what_to_do(three):
    (three.root / "model" / "CURRENT").write_text("9")
    message = r"model/CURRENT: .* no version 9 .*holds: 1, 2, 3; set it with `promote`"
    with pytest.raises(NotInRepositoryError, match=message):
        three.current("model")
    three.promote("model", 3)
    assert three.current("model") == Current(3)


@pytest.mark.parametrize("name", ["card.md", "model.onnx"])
def test_a_link_is_not_published(three, light, tmp_path, name):
    source = tmp_path / "source"
    shutil.copytree(light.path, source)
    (source / name).unlink()
    (source / name).symlink_to(light.path / name)
    with pytest.raises(BundleError, match=f"{name}: Is a symbolic link"):
        three.publish("model", Bundle.open(source))
    assert three.versions("model") == [1, 2, 3]


def test_publish_without_making_it_current(three, light):
    three.publish("model", light, make_current=False)
    assert three.current("model").version == 3
    three.publish("first", light, make_current=False)
    assert three.current("first").version == 1  # something must be


def test_a_pinned_version_stays(three, light):
    assert three.pin("model", 2) == Current(2, pinned=True)
    three.publish("model", light)
    assert three.current("model") == Current(2, pinned=True)
    assert three.promote("model", 4) == Current(4)
    three.publish("model", light)
    assert three.current("model") == Current(5)


def test_pin_without_a_version_keeps_the_current_one(three):
    three.promote("model", 1)
    assert three.pin("model") == Current(1, pinned=True)
    assert three.current("model") == Current(1, pinned=True)


def test_rollback(three):
    assert three.rollback("model") == Current(2)
    assert three.rollback("model") == Current(1)
    with pytest.raises(NotInRepositoryError, match="model 'model' has no version before 1"):
        three.rollback("model")
    assert three.current("model") == Current(1)


def test_unknown_models_and_versions_are_named(three):
    for call in (three.current, three.versions, three.bundle, three.rollback, three.pin):
        with pytest.raises(NotInRepositoryError, match=r"'other' is not in .* it holds: model"):
            call("other")
    for call in (three.bundle, three.promote, three.pin):
        with pytest.raises(NotInRepositoryError, match=r"no version 9 in .* it holds: 1, 2, 3"):
            call("model", 9)


def test_a_damaged_version_is_not_promoted(three):
    (three.root / "model" / "1" / "model.onnx").write_bytes(b"altered")
    with pytest.raises(BundleError, match="was altered after export"):
        three.promote("model", 1)
    with pytest.raises(BundleError, match="was altered after export"):
        three.pin("model", 1)
    assert three.current("model") == Current(3)


def test_a_damaged_source_is_not_published(three, spoil):
    copy = spoil()
    (copy.path / "card.md").write_bytes(b"altered")
    before = snapshot(three.root)
    with pytest.raises(BundleError, match=r"card\.md"):
        three.publish("model", copy.open())
    assert snapshot(three.root) == before


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/b", "/root", ".hidden", "-flag", "a b", "é", "a" * 64, "a\n"],
)
def test_names_that_are_no_folder_are_refused(repository, light, name):
    with pytest.raises(RepositoryError, match="is not allowed: letters, digits"):
        repository.publish(name, light)
    for call in (repository.current, repository.versions, repository.bundle):
        with pytest.raises(RepositoryError, match="is not allowed"):
            call(name)
    assert not repository.root.exists()


@pytest.mark.parametrize("name", ["a", "A1", "digits-32", "my_model.v2", "a" * 63, "0"])
def test_names_that_are_allowed(name):
    assert check_name(name) == name


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1 2", "3 pinned now", "²", "1" * 12])
def test_a_spoiled_current_is_named_and_can_be_set_again(three, light, text):
    (three.root / "model" / "CURRENT").write_text(text, encoding="utf-8")
    with pytest.raises(RepositoryError, match=r"CURRENT: .*; set it with `promote`"):
        three.current("model")
    with pytest.raises(RepositoryError):
        three.publish("model", light)
    assert three.versions("model") == [1, 2, 3]  # refused before anything was written
    three.promote("model", 2)
    assert three.current("model") == Current(2)


def test_current_may_name_a_version_that_is_gone(three):
    (three.root / "model" / "CURRENT").write_text("7\n")
    with pytest.raises(NotInRepositoryError, match="no version 7"):
        three.bundle("model")
    assert three.bundle("model", 3).manifest.version == 3


def test_killed_between_the_first_version_and_current(three, light):
    (three.root / "model" / "CURRENT").unlink()
    assert three.current("model") == Current(3)
    three.publish("model", light, make_current=False)
    assert three.current("model") == Current(3)


def test_other_entries_are_not_models_and_not_versions(three):
    (three.root / "README.md").touch()
    (three.root / "empty").mkdir()
    (three.root / ".git").mkdir()
    (three.root / "model" / "03").mkdir()
    (three.root / "model" / "4.bak").mkdir()
    (three.root / "model" / "notes").mkdir()
    assert three.names() == ["model"]
    assert three.versions("model") == [1, 2, 3]


def test_what_a_killed_writer_left_is_cleared(three, light):
    folder = three.root / "model"
    (folder / ".staging-4").mkdir()
    (folder / ".staging-4" / "model.onnx").write_bytes(b"half")
    (folder / ".staging-CURRENT").write_bytes(b"")
    assert three.versions("model") == [1, 2, 3]
    assert three.publish("model", light).manifest.version == 4
    assert not list(folder.glob(".staging*"))


@pytest.mark.parametrize("call", range(1, 13))
def test_a_write_that_fails_changes_nothing(three, light, monkeypatch, call):
    """The disk is full at the n-th step of a publish; the next one finds all in order."""
    before = snapshot(three.root)
    calls = 0

    def failing(function):
        def wrapped(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == call:
                raise OSError(28, "No space left on device")
            return function(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_synced", failing(module.write_synced))
        patch.setattr(module, "sync_folder", failing(module.sync_folder))
        patch.setattr(Path, "rename", failing(Path.rename))
        patch.setattr(Path, "replace", failing(Path.replace))
        try:
            three.publish("model", light)
        except RepositoryError as error:
            assert "No space left on device" in str(error)  # noqa: PT017
        else:
            assert calls < call
    for version in three.versions("model"):
        three.bundle("model", version).verify_files()
    assert three.current("model").version in (3, 4)
    after = snapshot(three.root)
    assert not any("staging" in name for name in after)
    assert {name: after[name] for name in before if "CURRENT" not in name} == {
        name: data for name, data in before.items() if "CURRENT" not in name
    }
    three.publish("model", light)
    assert three.current("model").version == three.versions("model")[-1]


# Every file operation of Python is an audit event, so "before the n-th of them", for every n, is
# every place where a kill can make a difference. One process forks a victim for each n.
VICTIMS = """
import os, signal, sys
from pathlib import Path
from models.bundle import Bundle
from models.repository import Repository

source, folder = Bundle.open(Path(sys.argv[1])), Path(sys.argv[2])
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.scandir", "fcntl.flock"}
die_at = steps = 0
os.fsync = lambda descriptor: None  # it takes time, and outlives a power cut, not a kill

def trace(event, arguments):
    global steps
    if die_at and event in EVENTS:
        steps += 1
        if steps == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(trace)
step = 0
while True:
    step += 1
    repository = Repository(folder / str(step))
    if step % 2:  # every other one dies at the very first publish
        repository.publish("model", source)
    pid = os.fork()
    if pid == 0:
        die_at = step // 2 + 1
        repository.publish("model", source)
        repository.publish("model", source)
        repository.rollback("model")
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
print(step)
"""

PUBLISHER = """
import sys
from pathlib import Path
from models.bundle import Bundle
from models.repository import Repository

source, repository = Bundle.open(Path(sys.argv[1])), Repository(Path(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    print(repository.publish("model", source).manifest.version, flush=True)
"""


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )


def check_intact(repository):
    """Every version listed verifies, and CURRENT names one of them."""
    if not repository.names():
        return
    versions = repository.versions("model")
    assert versions == list(range(1, len(versions) + 1))
    for version in versions:
        bundle = repository.bundle("model", version)
        bundle.verify_files()
        assert bundle.manifest.version == version
    assert repository.current("model").version in versions


def test_killed_before_any_file_operation_it_stays_whole(light, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    with start(VICTIMS, light.path, tmp_path) as process:
        steps = int(process.communicate()[0])
    assert process.returncode == 0
    assert steps > 100
    for step in range(1, steps + 1):
        repository = Repository(tmp_path / str(step))
        check_intact(repository)
        left = repository.root / "model"
        published = repository.publish("model", light)  # the lock died with its holder
        check_intact(repository)
        assert repository.current("model").version == published.manifest.version
        assert not list(left.glob(".staging*"))


@pytest.mark.parametrize("lines", [1, 2, 5])
def test_killed_at_any_moment_it_stays_whole(repository, light, lines):
    with start(PUBLISHER, light.path, repository.root, 10_000) as process:
        for _ in range(lines):
            assert process.stdout.readline()
        process.kill()  # while it writes the next one
    assert process.returncode == -9
    check_intact(repository)
    assert len(repository.versions("model")) >= lines
    repository.publish("model", light)
    check_intact(repository)


def test_two_publishers_and_a_reader(repository, light):
    """Each version is published once, and a reader never sees a state that is no state."""
    repository.publish("model", light)
    with (
        start(PUBLISHER, light.path, repository.root, 12) as one,
        start(PUBLISHER, light.path, repository.root, 12) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        outputs = [pool.submit(process.communicate) for process in (one, other)]
        seen = [repository.current("model").version]
        while not all(output.done() for output in outputs):
            bundle = repository.bundle("model")
            bundle.verify_files()
            seen.append(bundle.manifest.version)
    numbers = [int(line) for output in outputs for line in output.result()[0].split()]
    assert sorted(numbers) == list(range(2, 26))
    assert seen == sorted(seen)
    assert repository.current("model").version == 25
    check_intact(repository)


def test_a_version_published_while_current_is_read(three, light, monkeypatch):
    """CURRENT must be read before the versions are listed, or it names one that is not listed."""
    real = Repository._list
    published = []

    def late(self, name):
        versions = real(self, name)
        if not published:
            published.append(True)
            three.publish("model", light)
        return versions

    monkeypatch.setattr(Repository, "_list", late)
    assert three.current("model").version in (3, 4)


def test_a_lock_is_not_waited_for_for_ever(three, light, monkeypatch):
    monkeypatch.setattr(locks, "_LOCK_TIMEOUT_S", 0.0)
    refused = pytest.raises(RepositoryError, match="another process has been")
    with locks.write_lock(three.root / "model"), refused:
        three.publish("model", light)
    three.publish("model", light)


def test_a_writer_waits_for_the_other(three, light, monkeypatch):
    waiting, done = threading.Event(), threading.Event()
    monkeypatch.setattr(locks.time, "sleep", lambda _: (waiting.set(), done.wait(30)))
    with ThreadPoolExecutor(1) as pool:
        with locks.write_lock(three.root / "model"):
            future = pool.submit(three.publish, "model", light)
            assert waiting.wait(30)
            assert three.versions("model") == [1, 2, 3]
        done.set()
        assert future.result(30).manifest.version == 4


def test_a_read_only_repository_serves_and_refuses_writes(light):
    with tempfile.TemporaryDirectory() as name:
        repository = Repository(Path(name) / "repository")
        for _ in range(2):
            repository.publish("model", light)
        folders = [Path(name), repository.root, *repository.root.rglob("*")]
        for path in folders:
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = snapshot(repository.root)
        try:
            with as_nobody():
                assert repository.names() == ["model"]
                repository.bundle("model").verify_files()
                assert repository.current("model") == Current(2)
                writes = [
                    lambda: repository.publish("model", repository.bundle("model", 1)),
                    lambda: repository.publish("new", repository.bundle("model", 1)),
                    lambda: repository.rollback("model"),
                    lambda: repository.pin("model"),
                ]
                for write in writes:
                    with pytest.raises(RepositoryError, match="Permission denied"):
                        write()
        finally:
            for path in folders:
                path.chmod(0o755 if path.is_dir() else 0o644)
        assert snapshot(repository.root) == before


def test_bundles_can_be_opened_from_any_working_directory(three, tmp_path, monkeypatch):
    monkeypatch.chdir(three.root)
    Bundle.open(Path("model/1")).verify_files()
    assert Repository(Path()).names() == ["model"]
