"""The engines of a worker: no half-state is announced, and no failure ends a refresh."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.bundle import Bundle
from models.errors import BundleError, NotInRepositoryError
from models.repository import Repository
from models.repository.candidate import Candidate
from serving.errors import DeviceMemoryError
from serving.inference import loading, refusals
from serving.inference.engines import EngineManager
from serving.inference.faults import words_for_clients
from serving.inference.frames import Announce
from serving.inference.refusals import Journal, RefusedError
from serving.inference.snapshot import StorageAwayError
from serving.inference.withdrawn import Withdrawn
from serving.shared_file import SharedFile
from tests.serving.exceptions import KINDS


class Setup:
    """A repository with one model in two versions, the second one on trial."""

    def __init__(self, make_bundle: Callable[..., Bundle], folder: Path) -> None:
        self.repository = Repository(folder / "models")
        for weights_seed in range(3):
            self.repository.publish("tiny", make_bundle(weights_seed=weights_seed))
        self.repository.promote("tiny", 1)
        self.loaded: list[tuple[str, int]] = []
        self.seen: list[Announce] = []
        self.on_load: Callable[[Bundle], object] = lambda bundle: None
        self.errors: dict[tuple[str, int], BaseException] = {}
        self.shrunk: list[tuple[str, int]] = []
        self.withdrawn = Withdrawn(SharedFile("withdrawn"))
        self.manage(Journal(folder / "loading.json"))

    @classmethod
    def over(cls, other: "Setup", *, journal: Journal) -> "Setup":
        """A worker that takes the place of another."""
        made = cls.__new__(cls)
        made.__dict__ |= other.__dict__
        made.manage(journal)
        return made

    def manage(self, journal: Journal) -> None:
        self.engines = EngineManager(
            self.repository,
            allowed=(),
            load=self.load,
            device="cpu",
            lanes=1,
            max_loaded=8,
            withdrawn=self.withdrawn,
            journal=journal,
        )
        self.loads_ended = threading.Event()
        self.engines.on_load_end = self.loads_ended.set

    def refresh(self, *, again: bool = False) -> bool:
        """Looks, and again when a load has ended, as a worker does; true where that mattered."""
        changed = False
        while True:
            self.loads_ended.clear()
            changed |= self.engines.refresh(again=again)
            again = False
            if not self.engines.loading:
                return changed
            assert self.loads_ended.wait(10)

    def load(self, bundle: Bundle) -> Any:
        """Looks at what is announced meanwhile, as another thread may at any time."""
        self.seen.append(self.engines.announce())
        self.on_load(bundle)
        key = bundle.manifest.name, bundle.manifest.version
        if key in self.errors:
            raise self.errors[key]
        self.loaded.append(key)
        return SimpleNamespace(bundle=bundle, shrink=lambda: self.shrink(key))

    def shrink(self, key: tuple[str, int]) -> bool:
        """Makes room: what did not fit before does from now on."""
        self.shrunk.append(key)
        return self.shrunk.count(key) == 1

    def announced(self) -> tuple[dict[str, int], dict[str, int | None], dict[str, str]]:
        said = self.engines.announce()
        return (
            {entry.name: entry.version for entry in said.current},
            {entry.name: entry.version for entry in said.candidates if not entry.refused},
            said.faults,
        )


@pytest.fixture
def setup(make_bundle: Callable[..., Bundle], tmp_path: Path) -> Iterator[Setup]:
    made = Setup(make_bundle, tmp_path)
    yield made
    for name in ("tiny", "aaa", "zzz"):  # ends the leases
        made.withdrawn.add(name)
    made.refresh()


def test_a_refresh_is_announced_whole_or_not_at_all(setup: Setup) -> None:
    setup.repository.set_candidate("tiny", Candidate(2, 10))
    assert setup.refresh()
    assert setup.announced() == ({"tiny": 1}, {"tiny": 2}, {})
    assert not setup.refresh()
    setup.seen.clear()
    setup.repository.set_candidate("tiny", Candidate(3, 10))
    assert setup.refresh()
    assert setup.announced() == ({"tiny": 1}, {"tiny": 3}, {})
    during = setup.seen[-1]  # the trial of before, which was neither lost nor half replaced
    assert [entry.version for entry in during.candidates] == [2]


@pytest.mark.parametrize("kind", KINDS)
def test_one_models_failure_of_any_kind_keeps_none_from_being_refreshed(
    setup: Setup, make_bundle: Callable[..., Bundle], kind: str
) -> None:
    for name in ("aaa", "zzz"):
        setup.repository.publish(name, make_bundle())
    setup.errors["aaa", 1] = KINDS[kind]()
    assert setup.refresh()
    current, _, faults = setup.announced()
    assert current == {"tiny": 1, "zzz": 1}
    assert faults == {"aaa": "it can't be loaded; the server's log says more"}
    del setup.errors["aaa", 1]
    assert setup.refresh(again=True)
    assert setup.announced() == ({"aaa": 1, "tiny": 1, "zzz": 1}, {}, {})


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_that_fails_leaves_the_one_before_in_service(setup: Setup, kind: str) -> None:
    setup.refresh()
    setup.errors["tiny", 2] = KINDS[kind]()
    setup.repository.promote("tiny", 2)
    assert setup.refresh()
    current, candidates, faults = setup.announced()
    assert (current, candidates, [*faults]) == ({"tiny": 1}, {}, ["tiny"])


def test_a_fault_is_told_to_clients_without_paths_and_foreign_words(setup: Setup) -> None:
    root = setup.repository.root
    told = {
        BundleError(f"{root}/tiny/1/model.onnx: holds 3 bytes; publish the model again"): (
            "tiny/1/model.onnx: holds 3 bytes; publish the model again"
        ),
        NotInRepositoryError(f"model 'x' is not in {root}; it holds: tiny"): (
            "model 'x' is not in the repository; it holds: tiny"
        ),
        OSError(5, "Input/output error", f"{root}/tiny/1/model.onnx"): (
            "it can't be loaded; the server's log says more"
        ),
    }
    try:
        try:
            raise RuntimeError("[ONNXRuntimeError] at /onnxruntime_src/core.cc:12")
        except RuntimeError as error:
            raise BundleError(f"{root}/tiny/1/model.onnx: {error}") from error
    except BundleError as error:
        told[error] = "tiny/1/model.onnx: it can't be used; the server's log says more"
    for error, words in told.items():
        assert words_for_clients(error, root) == words
        setup.errors["tiny", 1] = error
        setup.refresh(again=True)
        assert setup.announced()[2] == {"tiny": words}


def test_another_digest_of_the_same_number_is_another_version(
    setup: Setup, make_bundle: Callable[..., Bundle]
) -> None:
    setup.refresh()
    (before,) = setup.engines.announce().current
    shutil.rmtree(setup.repository.root)
    assert not setup.engines.get("other")
    other = setup.repository.publish("tiny", make_bundle(weights_seed=7, z_dim=9))
    assert setup.refresh()
    (after,) = setup.engines.announce().current
    assert (before.version, after.version) == (1, 1)
    assert before.digest != after.digest == other.digest
    assert after.bundle(setup.repository.root).manifest.z_dim == 9
    for digest in (before.digest, after.digest):
        engine = setup.engines.get(digest)
        assert engine is not None
        assert engine.bundle.digest == digest
    with pytest.raises(RefusedError, match="replaced by another"):
        setup.engines.load("tiny", 1, before.digest)


def test_a_version_that_is_replaced_while_it_is_loaded_is_not_taken_for_what_it_was(
    setup: Setup, make_bundle: Callable[..., Bundle]
) -> None:
    first = setup.repository.bundle("tiny", 1).digest

    def replace(bundle: Bundle) -> None:
        setup.on_load = lambda bundle: None
        shutil.rmtree(setup.repository.root)
        setup.repository.publish("tiny", make_bundle(weights_seed=7))

    setup.on_load = replace
    setup.refresh()
    assert setup.engines.get(first) is None
    setup.refresh()
    (current,) = setup.engines.announce().current
    assert current.digest == setup.repository.bundle("tiny", 1).digest != first


AWAY: dict[str, Callable[[Path], None]] = {
    "gone": lambda root: None,
    "another folder": lambda root: root.mkdir(),
    "a file": lambda root: root.write_bytes(b""),
}


@pytest.mark.parametrize("kind", AWAY)
def test_storage_that_is_away_costs_nothing_that_is_loaded(setup: Setup, kind: str) -> None:
    setup.repository.set_candidate("tiny", Candidate(2, 10))
    setup.refresh()
    before = setup.engines.announce()
    root = setup.repository.root
    away = root.with_name("away")
    root.rename(away)
    AWAY[kind](root)
    for _ in range(2):
        with pytest.raises(StorageAwayError, match="what is loaded is kept"):
            setup.refresh()
    assert setup.engines.announce() == before
    assert setup.engines.get(before.current[0].digest) is not None
    if root.exists():
        root.rmdir() if root.is_dir() else root.unlink()
    away.rename(root)
    assert not setup.refresh()
    assert len(setup.loaded) == 2  # and nothing was loaded again


def test_a_look_that_was_left_behind_changes_nothing(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, looking, go_on = setup.repository.names, threading.Event(), threading.Event()

    def held_up() -> list[str]:
        found = names()
        looking.set()
        assert go_on.wait(30)
        return found

    monkeypatch.setattr(setup.repository, "names", held_up)
    thread = threading.Thread(target=setup.engines.refresh)
    thread.start()
    assert looking.wait(10)
    monkeypatch.setattr(setup.repository, "names", names)
    setup.refresh()
    setup.withdrawn.add("tiny")
    setup.refresh()
    assert setup.announced() == ({}, {}, {})
    setup.withdrawn.remove("tiny")
    go_on.set()
    thread.join()
    assert setup.announced() == ({}, {}, {})
    assert setup.refresh()  # what it may have loaded is taken up, and ends with the test


def test_the_last_model_may_be_removed(setup: Setup) -> None:
    """The repository is there, and is the same folder."""
    setup.refresh()
    shutil.rmtree(setup.repository.root / "tiny")
    assert setup.refresh()
    assert setup.announced() == ({}, {}, {})


def test_what_is_withdrawn_or_gone_is_announced_no_longer(setup: Setup) -> None:
    setup.refresh()
    (current,) = setup.engines.announce().current
    digest = current.digest
    setup.withdrawn.add("tiny")
    assert setup.refresh()
    assert setup.announced() == ({}, {}, {})
    assert setup.engines.get(digest) is None
    setup.withdrawn.remove("tiny")
    assert setup.refresh()
    assert setup.announced() == ({"tiny": 1}, {}, {})
    (setup.repository.root / "tiny").rename(setup.repository.root.parent / "elsewhere")
    assert setup.refresh()
    assert setup.announced() == ({}, {}, {})


def test_a_refused_version_is_tried_again_when_it_changes_and_costs_nothing_before(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "FIRST_PAUSE_S", 3600.0)
    setup.errors["tiny", 1] = BundleError("corrupt")
    for _ in range(20):
        setup.refresh()
    assert len(setup.seen) == 1
    (setup.repository.root / "tiny" / "1" / "note").touch()
    setup.refresh()
    assert len(setup.seen) == 2
    setup.errors.clear()
    assert setup.refresh(again=True)
    assert setup.announced() == ({"tiny": 1}, {}, {})


def test_a_refused_version_is_tried_again_after_a_while(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(refusals.time, "monotonic", lambda: clock[0])

    def tries_in(error: BaseException, hours: float) -> int:
        setup.seen.clear()
        setup.errors["tiny", 1] = error
        setup.refresh(again=True)
        until = clock[0] + hours * 3600
        while clock[0] < until:
            clock[0] += 0.5
            setup.refresh()
        return len(setup.seen)

    # 1, 2, 4 ... seconds, then every five minutes; or every 15 s where the system is at fault.
    assert tries_in(BundleError("corrupt"), 1) in range(16, 24)
    assert tries_in(OSError(24, "Too many open files"), 0.1) in range(24, 32)


def test_a_worker_that_died_while_loading_has_the_others_served_first(
    setup: Setup, make_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    setup.repository.publish("zzz", make_bundle())
    digest, folder = setup.repository.bundle("tiny", 1).digest, setup.repository.root / "tiny" / "1"
    file = tmp_path / "loading.json"
    for num_deaths in (1, 2, 3):
        Journal(file).begin(digest, folder)  # and never ends
        (suspect,) = Journal(file).suspects()
        assert suspect.num_deaths == num_deaths
    again = Setup.over(setup, journal=Journal(file))
    again.refresh()
    assert again.announced()[0] == {"zzz": 1}
    assert "the worker died 3 times" in again.announced()[2]["tiny"]
    again.refresh(again=True)
    assert again.announced() == ({"tiny": 1, "zzz": 1}, {}, {})
    assert not Journal(file).suspects()
    for name in ("tiny", "zzz"):
        again.withdrawn.add(name)
    again.refresh()


def test_a_load_that_never_ends_keeps_no_other_from_being_loaded(
    setup: Setup, make_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PATIENCE_S", 0.2)
    setup.engines._loads._turns = loading.Turns(0.2)
    setup.repository.publish("zzz", make_bundle())
    let_go = threading.Event()
    setup.on_load = lambda bundle: let_go.wait(30) if bundle.manifest.name == "tiny" else None
    try:
        while setup.announced()[0] != {"zzz": 1} or not setup.announced()[2]:
            setup.engines.refresh()
            time.sleep(0.01)
        assert setup.announced()[2] == {"tiny": "it is still being loaded"}
        assert not setup.engines.announce().starting
    finally:
        let_go.set()
    while setup.announced()[0] != {"tiny": 1, "zzz": 1}:
        setup.engines.refresh()
        time.sleep(0.01)


def test_where_memory_is_short_what_can_be_spared_goes_and_the_load_is_tried_once_more(
    setup: Setup,
) -> None:
    full = DeviceMemoryError("needs 7 MB more")
    setup.refresh()
    for version in (1, 2):  # 2 is in memory for a request, and nobody is served by it
        digest = setup.repository.bundle("tiny", version).digest
        setup.engines.load("tiny", version, digest).engine.result(10)
    spare = digest
    attempts: list[int] = []

    def on_load(bundle: Bundle) -> None:
        attempts.append(bundle.manifest.version)
        if len(attempts) == 1:
            raise full

    setup.on_load = on_load
    setup.repository.promote("tiny", 3)
    assert setup.refresh()
    assert attempts == [3, 3]
    assert setup.announced()[0] == {"tiny": 3}
    assert setup.shrunk == [("tiny", 1)]
    assert setup.engines.get(spare) is None


def test_what_does_not_fit_at_all_is_refused_and_tried_again_soon(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "FIRST_PAUSE_S", 0.05)
    setup.refresh()
    setup.errors["tiny", 2] = DeviceMemoryError("needs 7 MB more on cuda:0")
    setup.repository.promote("tiny", 2)
    assert setup.refresh()
    current, _, faults = setup.announced()
    assert current == {"tiny": 1}
    assert faults == {"tiny": DeviceMemoryError.public}
    del setup.errors["tiny", 2]
    deadline = time.monotonic() + 10
    while setup.announced()[0] != {"tiny": 2} and time.monotonic() < deadline:
        setup.refresh()
        time.sleep(0.05)
    assert setup.announced()[0] == {"tiny": 2}
