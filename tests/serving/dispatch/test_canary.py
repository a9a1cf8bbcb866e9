"""A candidate beside CURRENT, on a real server: which seeds it makes, and how a trial ends."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle
from models.repository import Repository
from models.repository.candidate import Candidate
from serving.client import Client
from tests.conftest import ServerProcess, server_process
from tests.support import wait_for

SHARE = 40
SEEDS = list(range(200))


@dataclass
class Trial:
    """A server whose CURRENT is 1, pinned, and whose candidate is 2."""

    server: ServerProcess
    repository: Repository
    digests: dict[int, str]

    def command(self, *words: str) -> str:
        """Runs the repository's command line, as an operator does."""
        command = [sys.executable, "-m", "models.repository"]
        done = subprocess.run(
            [*command, "--repository", str(self.repository.root), *words],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def described(self) -> dict[str, Any]:
        """GET /v1/models/grey."""
        found: dict[str, Any] = self.server.get("/v1/models/grey").json()
        return found

    def version_of(self, *seeds: int, **request: Any) -> int:
        """Which version makes a request's images."""
        response = self.server.generate(model="grey", seeds=list(seeds), **request)
        assert response.status_code == 200, response.text
        version = int(response.headers["x-model-version"])
        assert response.headers["x-model-digest"] == self.digests[version]
        return version

    def split(self) -> list[int]:
        """The version of each of SEEDS, alone."""
        with Client(self.server.url, model="grey") as client:  # it asks again where none is ready
            return [client.answer(seed).version for seed in SEEDS]

    def metric(self, name: str, version: int) -> float:
        """A value of one version."""
        for line in self.server.get("/metrics").text.splitlines():
            if line.startswith(name + "{") and f'version="{version}"' in line:
                return float(line.split()[-1])
        return 0.0


def expected(share: float, current: int = 1, candidate: int = 2) -> list[int]:
    trial = Candidate(candidate, share)
    return [candidate if trial.takes(seed) else current for seed in SEEDS]


TAKEN = next(seed for seed in SEEDS if Candidate(2, SHARE).takes(seed))
LEFT = next(seed for seed in SEEDS if not Candidate(2, SHARE).takes(seed))


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Bundle]
) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("canary")
    repository = Repository(folder / "repository")
    digests = {}
    for version in (1, 2):
        digests[version] = repository.publish("grey", make_bundle(weights_seed=version)).digest
    flags = ("--reload-interval-s", "0.05", "--max-seeds", "64", "--model-control", "clients")
    with server_process(repository.root, folder, *flags) as server:
        yield Trial(server, repository, digests)


@pytest.fixture
def trial(running: Trial) -> Trial:
    """No trial yet, and CURRENT is 1."""
    running.repository.end_candidate("grey")
    running.repository.promote("grey", 1, pin=True)
    wait_for(lambda: running.described()["candidate"] is None)
    wait_for(lambda: running.described()["version"] == 1)
    return running


def begin(trial: Trial, share: float = SHARE) -> None:
    trial.command("canary", "grey", "2", "--share", str(share))
    wait_for(lambda: (trial.described()["candidate"] or {}).get("share_percent") == share)


def test_each_seed_has_its_side_on_every_path(trial: Trial) -> None:
    assert trial.described()["candidate"] is None
    assert set(trial.split()) == {1}
    begin(trial)
    assert trial.split() == trial.split() == expected(SHARE)
    assert trial.described()["candidate"] == {
        "version": 2,
        "share_percent": SHARE,
        "digest": trial.digests[2],
        "refused": None,
    }

    # The candidate's bytes, as by its number; CURRENT's where a seed isn't its share.
    for seed, version in ((TAKEN, 2), (LEFT, 1)):
        got = trial.server.generate(model="grey", seeds=[seed])
        assert int(got.headers["x-model-version"]) == version
        named = trial.server.generate(model="grey", version=version, seeds=[seed])
        assert got.content == named.content
        image = f"/v1/models/grey/images/{seed}.png"
        url, pinned = trial.server.get(image), trial.server.get(f"{image}?version={version}")
        assert url.content == pinned.content == got.content
        assert url.headers["etag"] == pinned.headers["etag"]
        held = {"if-none-match": url.headers["etag"]}
        assert trial.server.get(image, headers=held).status_code == 304
        inputs = [{"name": "SEED", "datatype": "UINT64", "shape": [1], "data": [seed]}]
        infer = trial.server.post("/v2/models/grey/infer", json={"inputs": inputs}).json()
        assert infer["model_version"] == str(version)
        walk = {"model": "grey", "seeds": [seed, 3], "frames": 2, "format": "strip"}
        strip = trial.server.post("/v1/interpolate", json=walk)
        assert int(strip.headers["x-model-version"]) == version

    # Several seeds: the first decides; latents are no seeds; a version that is named is meant.
    assert trial.version_of(TAKEN, LEFT) == 2
    assert trial.version_of(LEFT, TAKEN) == 1
    assert trial.version_of(TAKEN, version=1) == 1
    assert trial.version_of(LEFT, version=2) == 2
    named = trial.server.post("/v2/models/grey/versions/1/infer", json={"inputs": inputs})
    assert named.json()["model_version"] == "1"
    latents = trial.server.generate(model="grey", latents=[[0.0] * 6])
    assert latents.headers["x-model-version"] == "1"


def test_bad_seeds_are_refused_as_without_a_candidate(trial: Trial) -> None:
    begin(trial, 100)
    for seeds in ([], [-1], [2**64], [2**70]):
        assert trial.server.generate(model="grey", seeds=seeds).status_code == 400
    for tensor in (
        {"name": "SEED", "datatype": "FP32", "shape": [1], "data": [1.5]},
        {"name": "SEED", "datatype": "UINT64", "shape": [0], "data": []},
        {"name": "SEED", "datatype": "INT64", "shape": [1], "data": [-1]},
    ):
        response = trial.server.post("/v2/models/grey/infer", json={"inputs": [tensor]})
        assert response.status_code == 400, response.text
        assert response.json().keys() == {"error"}


def test_a_request_in_parts_has_one_version(trial: Trial) -> None:
    begin(trial, 50)
    first = next(seed for seed in SEEDS if Candidate(2, 50).takes(seed))
    other = next(seed for seed in SEEDS if not Candidate(2, 50).takes(seed))
    with Client(trial.server.url, model="grey") as client:
        seeds = [first] + [other] * 150  # parts of 64
        answer = client.answer(seeds)
        assert (answer.version, answer.digest) == (2, trial.digests[2])
        assert np.array_equal(answer.images[-1], client.answer(other, version=2).images[0])


def test_both_sides_are_counted_by_version(trial: Trial) -> None:
    begin(trial)
    rows = {v: trial.metric("saddlepoint_rows_generated_total", v) for v in (1, 2)}
    sides = trial.split()
    for version in (1, 2):
        made = trial.metric("saddlepoint_rows_generated_total", version) - rows[version]
        assert made == sides.count(version)
        answered = trial.metric("saddlepoint_queue_wait_seconds_count", version)
        assert answered >= sides.count(version)
        assert trial.metric("saddlepoint_compute_seconds_count", version) > 0
    assert trial.metric("saddlepoint_model_share_ratio", 2) == pytest.approx(0.4)
    assert trial.metric("saddlepoint_model_share_ratio", 1) == pytest.approx(0.6)
    assert trial.metric("saddlepoint_model_info", 1) == 1
    assert trial.metric("saddlepoint_model_info", 2) == 0
    stats = trial.server.get("/v2/models/grey/stats").json()["model_stats"]
    assert {entry["version"] for entry in stats} >= {"1", "2"}


def test_a_share_changes_and_a_promotion_ends_the_trial(trial: Trial) -> None:
    begin(trial, 10)
    few = trial.split()
    begin(trial, 90)
    many = trial.split()
    assert (few, many) == (expected(10), expected(90))
    assert all(after >= before for before, after in zip(few, many, strict=True))
    trial.command("promote", "grey", "2")
    wait_for(lambda: trial.described()["version"] == 2)
    assert trial.described()["candidate"] is None
    assert set(trial.split()) == {2}
    assert trial.metric("saddlepoint_model_share_ratio", 2) == 1
    assert trial.metric("saddlepoint_model_share_ratio", 1) == 0
    trial.command("rollback", "grey")
    wait_for(lambda: trial.described()["version"] == 1)
    begin(trial, 100)
    assert set(trial.split()) == {2}
    trial.command("canary", "grey", "--off")
    wait_for(lambda: trial.described()["candidate"] is None)
    assert set(trial.split()) == {1}


def test_the_protocol_shows_it(trial: Trial) -> None:
    begin(trial)
    index = trial.server.post("/v2/repository/index").json()
    assert [(entry["version"], entry["state"]) for entry in index] == [
        ("1", "READY"),
        ("2", "READY"),
    ]
    assert index[1]["reason"] == f"candidate: {SHARE}%"
    config = trial.server.get("/v2/models/grey/config").json()
    assert config["version_policy"] == {"specific": {"versions": [1, 2]}}
    config = trial.server.get("/v2/models/grey/versions/2/config").json()
    assert config["version_policy"] == {"specific": {"versions": [2]}}


def test_a_broken_candidate_takes_no_part_and_the_reason_is_shown(
    trial: Trial, make_bundle: Callable[..., Bundle]
) -> None:
    file = trial.repository.root / "grey" / "2" / "model.onnx"
    whole = file.read_bytes()
    trial.repository.set_candidate("grey", Candidate(2, 100))  # it was whole then
    file.write_bytes(whole[:-1])
    current = trial.repository.root / "grey" / "CANDIDATE"
    # Whichever of the two the server found first, from here on it must not have it.
    server = trial.server
    server.post("/v2/repository/models/grey/unload")
    assert server.post("/v2/repository/models/grey/load").status_code == 200
    wait_for(lambda: (trial.described()["candidate"] or {}).get("refused") is not None)
    found = trial.described()["candidate"]
    assert (found["version"], found["digest"]) == (2, None)
    assert "model.onnx: holds" in found["refused"]
    assert set(trial.split()) == {1}
    index = server.post("/v2/repository/index").json()
    assert (index[1]["version"], index[1]["state"]) == ("2", "UNAVAILABLE")
    assert "model.onnx: holds" in index[1]["reason"]
    assert len(server.post("/v2/repository/index", json={"ready": True}).json()) == 1
    log = server.log.read_text()
    assert log.count("the candidate of grey gets no seeds: ") == 1

    current.write_text("nonsense\n")
    wait_for(lambda: "'nonsense'" in (trial.described()["candidate"]["refused"] or ""))
    assert trial.described()["candidate"]["version"] is None
    assert set(trial.split()) == {1}
    current.write_text("9 50%\n")
    wait_for(lambda: "no version 9" in (trial.described()["candidate"]["refused"] or ""))
    assert set(trial.split()) == {1}

    file.write_bytes(whole)
    current.write_text("2 100%\n")
    server.post("/v2/repository/models/grey/load")  # tries again what was refused
    wait_for(lambda: trial.described()["candidate"]["refused"] is None)
    assert set(trial.split()) == {2}


def test_what_the_server_runs_is_not_pruned(
    trial: Trial, make_bundle: Callable[..., Bundle]
) -> None:
    for _ in range(3):
        trial.repository.publish("grey", make_bundle(weights_seed=5))
    begin(trial)
    response = trial.server.generate(model="grey", version=3, seeds=[1])
    assert response.headers["x-model-version"] == "3"
    text = trial.command("prune", "grey", "--keep", "1", "--json")
    (pruned,) = json.loads(text)["models"]
    assert pruned == {"model": "grey", "removed": [4], "in_use": [3], "kept": [1, 2, 5]}
    assert trial.split() == expected(SHARE)
    again = trial.server.generate(model="grey", version=3, seeds=[1])
    assert again.content == response.content
    gone = trial.server.generate(model="grey", version=4, seeds=[1])
    assert gone.status_code == 404
    assert "has: 1, 2, 3, 5" in gone.json()["detail"]


def test_the_first_answer_of_a_fresh_server_knows_the_candidate(
    trial: Trial, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trial.repository.set_candidate("grey", Candidate(2, SHARE))
    flags = ("--reload-interval-s", "0", "--api-processes", "2", "--workers-per-device", "2")
    folder = tmp_path_factory.mktemp("fresh")
    with server_process(trial.repository.root, folder, *flags) as server:
        fresh = Trial(server, trial.repository, trial.digests)
        assert fresh.split() == expected(SHARE)
        array = server.generate(model="grey", seeds=[TAKEN], format="npy").content
        named = server.generate(model="grey", version=2, seeds=[TAKEN], format="npy").content
        assert np.array_equal(np.load(io.BytesIO(array)), np.load(io.BytesIO(named)))
