"""Long jobs on real servers: made, watched, cancelled, kept over a kill, bounded, told of."""

import contextlib
import io
import json
import os
import signal
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.image_metadata import read_metadata
from serving.client import Client, Job
from serving.client.__main__ import main as client_main
from serving.client.errors import InvalidRequestError, UnknownJobError, UnreachableError
from tests.conftest import ServerProcess, server_process
from tests.faults.small_disk import small_disk
from tests.serving.client.peers import peer
from tests.serving.conftest import make_key
from tests.support import HTTP, metric, wait_for

MAX_JOBS = 3


class Hook:
    """A webhook: what it was told, and what it answers."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        """0 for something that is no answer, -1 for one that never ends."""
        self.left = threading.Event()
        """Whoever got an answer without an end has gone."""
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.told.append({"path": self.path, **json.loads(body)})
                status = hook.statuses.pop(0) if hook.statuses else 200
                if status == -1:
                    self._drip()
                    return
                if status == 0:
                    self.wfile.write(b"this is no HTTP\r\n\r\n")
                    return
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def _drip(self) -> None:
                try:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                    while True:
                        self.wfile.write(b"a")
                        self.connection.settimeout(0.1)
                        with contextlib.suppress(TimeoutError):
                            if not self.connection.recv(1):
                                break
                except OSError:
                    pass
                hook.left.set()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.listener.server_address[1]}"


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    found = Hook()
    thread = threading.Thread(target=found.listener.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        found.listener.shutdown()
        thread.join()
        found.listener.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def taking(
    tiny_repository: Path, folder: Path, hook: Hook, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server of two HTTP processes that takes jobs."""
    flags = ("--jobs-folder", str(folder), "--max-jobs", str(MAX_JOBS), "--api-processes", "2")
    flags += ("--max-job-images", "60000", "--max-jobs-bytes", "40000000", "--max-seeds", "100")
    flags += ("--webhook-hosts", hook.host)
    with server_process(tiny_repository, tmp_path_factory.mktemp("log"), *flags) as running:
        yield running


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leaves no job to the next test."""
    yield
    if "taking" in request.fixturenames:
        server = request.getfixturevalue("taking")
        for job in server.get("/v1/jobs").json()["jobs"]:
            delete(server, job["id"])


def post(server: ServerProcess, **job: Any) -> httpx.Response:
    return server.post("/v1/jobs", json=job)


def delete(server: ServerProcess, id: str) -> httpx.Response:
    return HTTP.delete(f"{server.url}/v1/jobs/{id}", timeout=30)


def ended(server: ServerProcess, id: str, **headers: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def has_ended() -> bool:
        found.update(server.get(f"/v1/jobs/{id}", headers=headers).json())
        return found["ended"] is not None

    wait_for(has_ended, 240)
    return found


def unpacked(kind: str, data: bytes) -> list[tuple[str, bytes]]:
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            return [(name, opened.read(name)) for name in opened.namelist()]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_job_is_accepted_made_and_fetched(taking: ServerProcess, kind: str) -> None:
    labels = [seed % 3 for seed in range(1, 301)]
    job = {"model": "colour", "seeds": "1-300", "labels": labels, "truncation": 0.5}
    accepted = post(taking, **job, archive=kind)
    assert accepted.status_code == 202, accepted.text
    told = accepted.json()
    assert accepted.headers["location"] == f"jobs/{told['id']}"
    assert (told["status"], told["num_images"], told["num_done"]) == ("waiting", 300, 0)
    done = ended(taking, told["id"])
    assert (done["status"], done["num_done"], done["problem"]) == ("done", 300, None)
    assert done["expires"] > done["ended"]
    result = taking.get(f"/v1/jobs/{told['id']}/result")
    assert result.headers["content-type"] == f"application/{'x-tar' if kind == 'tar' else kind}"
    assert len(result.content) == done["num_bytes"]
    files = unpacked(kind, result.content)
    names = [f"{i:08d}-{i + 1}-label{(i + 1) % 3}.png" for i in range(300)]
    assert [name for name, _ in files] == names
    alone = taking.generate(model="colour", seeds=[200], labels=2, truncation=0.5).content
    assert files[199][1] == alone
    assert read_metadata(files[0][1])["seed"] == "1"
    head = HTTP.head(f"{taking.url}/v1/jobs/{told['id']}/result")
    assert int(head.headers["content-length"]) == done["num_bytes"]
    assert [entry["id"] for entry in taking.get("/v1/jobs").json()["jobs"]] == [told["id"]]
    wait_for(lambda: metric(taking, "saddlepoint_jobs_ended_total") >= 1)


def test_the_python_client_asks_watches_fetches_and_removes(
    taking: ServerProcess, tmp_path: Path
) -> None:
    seen: list[Job] = []
    with Client(taking.url, model="colour") as client:
        job = client.jobs.submit(range(5), labels=1, archive="zip")
        assert (job.model, job.num_images, job.ended) == ("colour", 5, None)
        done = client.jobs.wait(job.id, timeout_s=60, on_progress=seen.append)
        assert (done.status, done.num_done, seen[-1]) == ("done", 5, done)
        path = tmp_path / "new" / "images.zip"
        client.jobs.save(job.id, path)
        assert [name for name, _ in unpacked("zip", path.read_bytes())][
            4
        ] == "00000004-4-label1.png"
        assert path.stat().st_size == done.num_bytes
        with pytest.raises(FileExistsError):
            client.jobs.save(job.id, path)
        assert client.jobs.all() == [done]
        assert client.jobs.cancel(job.id) == done
        with pytest.raises(UnknownJobError):
            client.jobs.status(job.id)
        with pytest.raises(UnknownJobError):
            client.jobs.save(job.id, tmp_path / "none")
        assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["images.zip", "new"]
        with pytest.raises(InvalidRequestError, match="both of seeds and count"):
            client.jobs.submit("1-5", count=5)
        long = client.jobs.submit(count=60_000, labels=0)
        with pytest.raises(UnreachableError, match="of 60000 images are made; wait longer"):
            client.jobs.wait(long.id, timeout_s=0)
        assert client.jobs.cancel(long.id).num_images == 60_000


def test_the_command_line_does_too(
    taking: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> str:
        assert client_main(["--url", taking.url, *map(str, arguments)]) == 0
        return capsys.readouterr().out

    out = tmp_path / "a.tar"
    wanted = ("--seeds", "1-4,9", "--labels", "2", "--model", "colour")
    id, told = run("submit", *wanted, "--out", out).splitlines()
    assert told == f"5 images in {out}"
    assert len(unpacked("tar", out.read_bytes())) == 5
    assert f"{id}  done    5/5     colour/1" in run("jobs")
    (shown,) = json.loads(run("jobs", id, "--json"))
    assert (shown["id"], shown["status"]) == (id, "done")
    again = tmp_path / "b.tar"
    run("fetch", id, "--out", again)
    assert again.read_bytes() == out.read_bytes()
    assert run("cancel", id) == f"{id} was done, 5 of 5 images were made\n"
    assert client_main(["--url", taking.url, "fetch", id, "--out", str(out)]) == 1  # it is there
    assert client_main(["--url", taking.url, "fetch", id, "--out", str(out), "--force"]) == 3
    with pytest.raises(SystemExit):
        client_main(["submit", "--seeds", "9-1"])


def test_a_job_is_asked_for_once_where_no_answer_comes() -> None:
    with peer() as silent, Client(silent.url, timeout_s=10) as client:
        with pytest.raises(UnreachableError):
            client.jobs.submit(count=1)
        assert len(silent.heads) == 1
        with pytest.raises(UnreachableError, match="after 5 attempts"):
            client.jobs.all()


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"model": "grey"}, "neither of seeds and count is given"),
        ({"model": "grey", "count": 5, "seeds": [1]}, "both of seeds and count is given"),
        (
            {"model": "grey", "count": 60001},
            "60001 images are asked for, a job may have 1 .. 60000",
        ),
        ({"model": "grey", "seeds": []}, "0 images are asked for"),
        ({"model": "grey", "seeds": "9-1"}, "a range whose end comes before its start"),
        ({"model": "grey", "seeds": [2**64]}, "allowed are 0 .. 18446744073709551615"),
        ({"model": "colour", "count": 5}, "labels is missing"),
        ({"model": "grey", "count": 5, "format": "npy"}, "format"),
        ({"model": "grey", "count": 1, "webhook": "http://127.0.0.1:1/x"}, "of one of these hosts"),
        ({"model": "grey", "count": 1, "webhook": "file:///etc/passwd"}, "http or https URL"),
        ({"model": "grey", "count": 1, "webhook": "http://[::1"}, "http or https URL"),
    ],
)
def test_a_wrong_job_is_refused_at_once(
    taking: ServerProcess, job: dict[str, Any], words: str
) -> None:
    refused = post(taking, **job)
    assert refused.status_code == 400
    assert (
        words.replace("both of seeds and count are", "both of seeds and count is") in refused.text
    )
    assert taking.get("/v1/jobs").json() == {"jobs": []}


def test_a_job_that_is_deleted_is_cancelled_and_its_place_is_free(
    taking: ServerProcess, folder: Path
) -> None:
    ids = [post(taking, model="grey", count=60000).json()["id"] for _ in range(MAX_JOBS)]
    full = post(taking, model="grey", count=1)
    assert full.status_code == 429
    assert f"there are {MAX_JOBS} jobs, {MAX_JOBS} may be" in full.json()["detail"]
    assert full.headers["retry-after"] == "60"
    early = taking.get(f"/v1/jobs/{ids[0]}/result")
    assert early.status_code == 409
    assert "of 60000 images are made" in early.json()["detail"]
    wait_for(lambda: taking.get(f"/v1/jobs/{ids[0]}").json()["status"] == "running")
    for id in ids:
        assert delete(taking, id).status_code == 200
        assert taking.get(f"/v1/jobs/{id}").status_code == 404
        assert delete(taking, id).json()["type"].endswith(":unknown-job")
    quick = post(taking, model="grey", seeds=[1]).json()["id"]
    assert ended(taking, quick)["status"] == "done"  # nobody works on the others any more
    wait_for(lambda: {path.name for path in folder.iterdir()} == {"lock", quick})


def test_results_that_fill_the_disk_that_they_may_have_end_the_job(taking: ServerProcess) -> None:
    """40 MB: 60,000 images of a kilobyte each, in a tar file, are more."""
    id = post(taking, model="grey", count=60000).json()["id"]
    failed = ended(taking, id)
    assert failed["status"] == "failed"
    assert "40000000 may be of one job: ask for fewer images" in failed["problem"]
    assert failed["num_bytes"] == 0
    assert taking.get(f"/v1/jobs/{id}/result").status_code == 409


def test_a_webhook_is_told_until_it_listens_and_sends_nobody_elsewhere(
    taking: ServerProcess, hook: Hook
) -> None:
    hook.told.clear()
    hook.statuses[:] = [302, 0]
    url = f"http://{hook.host}/ended?job=1"
    id = post(taking, model="grey", seeds=[5], webhook=url).json()["id"]
    wait_for(lambda: len(hook.told) == 3, 60)
    assert {entry["path"] for entry in hook.told} == {"/ended?job=1"}
    assert hook.told[-1]["id"] == id
    assert hook.told[-1]["status"] == "done"
    assert (hook.told[-1]["problem"], hook.told[-1]["num_done"]) == (None, 1)


def test_a_webhook_that_answers_without_end_holds_no_job_up(
    taking: ServerProcess, hook: Hook
) -> None:
    """There are two processes, and two such webhooks."""
    hook.told.clear()
    hook.left.clear()
    hook.statuses[:] = [-1, -1]
    job = {"model": "grey", "seeds": [5]}
    slow = [post(taking, **job, webhook=f"http://{hook.host}/slow").json()["id"] for _ in range(2)]
    wait_for(lambda: len(hook.told) >= 2)
    other = post(taking, **job, webhook=f"http://{hook.host}/other").json()["id"]
    assert ended(taking, other)["status"] == "done"
    wait_for(lambda: other in [told["id"] for told in hook.told])
    for id in slow:
        assert delete(taking, id).status_code == 200
    assert hook.left.wait(20)


def test_a_result_is_sent_as_slowly_as_it_is_taken(taking: ServerProcess) -> None:
    id = post(taking, model="grey", count=5000).json()["id"]
    num_bytes = ended(taking, id)["num_bytes"]
    assert num_bytes > 4_000_000
    whole = taking.get(f"/v1/jobs/{id}/result").content
    port = int(taking.url.rpartition(":")[2])
    ask = f"GET /v1/jobs/{id}/result HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    with socket.socket() as slow, socket.socket() as leaving:
        for client in (slow, leaving):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            client.connect(("127.0.0.1", port))
            client.sendall(ask)
            assert client.recv(100)
        wait_for(lambda: 0 < metric(taking, "saddlepoint_held_bytes") < 2_000_000)
        leaving.close()
        # A second request on the same connection is answered after the result.
        slow.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        slow.settimeout(30)
        rest = b"".join(iter(lambda: slow.recv(1 << 16), b""))
    assert whole[-5000:] in rest
    assert len(rest) > num_bytes
    assert rest.endswith(b"ok\n")
    wait_for(lambda: metric(taking, "saddlepoint_held_bytes") == 0)


@pytest.fixture
def keyed(
    tiny_repository: Path, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> tuple[ServerProcess, dict[str, dict[str, str]]]:
    """A server of one process with little room, and what alice, who is slow, and bob send."""
    path = tmp_path / "keys"
    keys = {"alice": make_key(path, "alice", "--rows-per-s", "2", "--burst", "1")}
    keys |= {name: make_key(path, name) for name in ("bob", "carol", "dave")}
    flags = ("--api-keys", str(path), "--jobs-folder", str(tmp_path / "jobs"), "--max-seeds", "50")
    server = start_server(tiny_repository, *flags, "--max-jobs-bytes", "1000000")
    return server, {name: {"authorization": f"Bearer {key}"} for name, key in keys.items()}


def test_one_keys_jobs_neither_stop_nor_ruin_those_of_others(
    keyed: tuple[ServerProcess, dict[str, dict[str, str]]],
) -> None:
    server, auth = keyed

    def submit(name: str, count: int) -> str:
        job = {"model": "grey", "count": count}
        answer = server.post("/v1/jobs", json=job, headers=auth[name])
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def shown(name: str, id: str) -> dict[str, Any]:
        return dict(server.get(f"/v1/jobs/{id}", headers=auth[name]).json())

    slow = submit("alice", 500)
    wait_for(lambda: shown("alice", slow)["problem"] is not None)
    assert "key 'alice' may ask for 2 a second" in shown("alice", slow)["problem"]
    assert shown("alice", slow)["num_done"] >= 1  # kept, when it stood aside
    kept = [(name, submit(name, 420)) for name in ("bob", "carol")]  # 430 kB each, of 500 kB
    for name, id in kept:
        assert ended(server, id, **auth[name])["status"] == "done"
    waiting = submit("dave", 250)
    wait_for(lambda: "waits for room" in (shown("dave", waiting)["problem"] or ""))
    assert "of all jobs would have" in shown("dave", waiting)["problem"]
    alone = submit("bob", 420)
    progress = shown("alice", slow)["num_done"]
    wait_for(lambda: shown("alice", slow)["num_done"] > progress)
    assert HTTP.delete(f"{server.url}/v1/jobs/{kept[1][1]}", headers=auth["carol"]).is_success
    done = ended(server, waiting, **auth["dave"])
    assert (done["status"], done["problem"]) == ("done", None)
    wait_for(lambda: "of your jobs would have" in (shown("bob", alone)["problem"] or ""))


def test_jobs_belong_to_keys(
    tiny_repository: Path, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """And end after a while, and stop where the key is revoked."""
    path = tmp_path / "keys"
    keys = {name: make_key(path, name) for name in ("alice", "bob")}
    keys["admin"] = make_key(path, "admin", "--scopes", "admin")
    flags = ("--api-keys", str(path), "--jobs-folder", str(tmp_path / "jobs"))
    server = start_server(tiny_repository, *flags, "--jobs-keep-s", "2")
    auth = {name: {"authorization": f"Bearer {key}"} for name, key in keys.items()}
    posted = server.post("/v1/jobs", json={"model": "grey", "seeds": [1]}, headers=auth["alice"])
    job = f"/v1/jobs/{posted.json()['id']}"
    seen = {name: server.get(job, headers=header).status_code for name, header in auth.items()}
    assert seen == {"alice": 200, "bob": 404, "admin": 200}
    assert HTTP.delete(server.url + job, headers=auth["bob"]).status_code == 404
    assert server.post("/v1/jobs", json={}, headers=auth["admin"]).status_code == 403
    assert server.get("/v1/jobs", headers=auth["bob"]).json() == {"jobs": []}
    wait_for(lambda: server.get(job, headers=auth["alice"]).status_code == 404)  # it has expired
    long = server.post("/v1/jobs", json={"model": "grey", "count": 90000}, headers=auth["bob"])
    path.write_text("\n".join(li for li in path.read_text().splitlines() if "bob" not in li))
    found: dict[str, Any] = {}

    def failed() -> bool:
        found.update(server.get(f"/v1/jobs/{long.json()['id']}", headers=auth["admin"]).json())
        return bool(found.get("problem"))

    wait_for(failed, 60)
    assert "the key 'bob' was revoked or has expired" in found["problem"]


@pytest.mark.chaos
@pytest.mark.parametrize("loses", ["nothing", "a part", "a part when done", "all when done"])
def test_a_job_outlives_the_server(
    tiny_repository: Path,
    start_server: Callable[..., ServerProcess],
    tmp_path: Path,
    loses: str,
) -> None:
    """Also where storage has lost a part of the archive that it had: a power cut can do that."""
    flags = ("--jobs-folder", str(tmp_path / "jobs"))
    first = start_server(tiny_repository, *flags)
    job = {"model": "grey", "seeds": "1-20000", "archive": "zip"}
    id = post(first, **job).json()["id"]
    wait_for(lambda: first.get(f"/v1/jobs/{id}").json()["num_done"] > 0)
    if "done" in loses:
        ended(first, id)
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()
    if "part" in loses:
        os.truncate(tmp_path / "jobs" / id / "images", 100)
    elif "all" in loses:
        (tmp_path / "jobs" / id / "images").unlink()
    half_made, foreign = tmp_path / "jobs" / f".{'0' * 32}", tmp_path / "jobs" / ".config"
    half_made.mkdir()
    foreign.mkdir()
    second = start_server(tiny_repository, *flags)
    wait_for(lambda: second.get(f"/v1/jobs/{id}/result").status_code == 200, 240)
    assert ended(second, id)["status"] == "done"
    result = second.get(f"/v1/jobs/{id}/result").content
    assert not half_made.exists()
    assert foreign.exists()
    files = unpacked("zip", result)
    assert [name for name, _ in files] == [f"{i:08d}-{i + 1}.png" for i in range(20000)]
    again = post(second, **job).json()["id"]
    assert ended(second, again)["status"] == "done"
    assert second.get(f"/v1/jobs/{again}/result").content == result


def test_a_server_without_a_folder_takes_none(server: ServerProcess) -> None:
    for response in (post(server, model="grey", seeds=[1]), server.get("/v1/jobs")):
        assert response.status_code == 403
        assert response.json()["type"].endswith(":jobs-off")


def test_a_folder_that_cannot_be_used_is_refused_at_the_start(
    tiny_repository: Path, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    flags = ("--jobs-folder", str(tmp_path / "file" / "jobs"))
    server = start_server(tiny_repository, *flags, ready=False)
    assert server.process.wait(60) == 2
    wait_for(lambda: "--jobs-folder is" in server.log.read_text())


def test_a_job_waits_for_a_model_that_is_away_for_a_moment(
    tiny_repository: Path, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    flags = ("--jobs-folder", str(tmp_path / "jobs"), "--model-control", "clients")
    server = start_server(tiny_repository, *flags)
    id = post(server, model="grey", seeds="1-60000").json()["id"]
    server.post("/v2/repository/models/grey/unload").raise_for_status()
    found: dict[str, Any] = {}

    def is_held_up() -> bool:
        found.update(server.get(f"/v1/jobs/{id}").json())
        return found["problem"] is not None

    wait_for(is_held_up)
    assert found["status"] == "running"
    assert "grey" in found["problem"]
    server.post("/v2/repository/models/grey/load").raise_for_status()
    wait_for(lambda: server.get(f"/v1/jobs/{id}").json()["problem"] is None)
    assert delete(server, id).status_code == 200


@pytest.mark.chaos
def test_a_full_disk_holds_a_job_up_and_loses_nothing(
    tiny_repository: Path, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """A real one, of 2 MB; a job of 4 MB goes on where it was as soon as there is room."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    with small_disk(folder, size_kb=6000):
        filler = folder / "filler"
        filler.write_bytes(bytes(4_000_000))
        server = start_server(tiny_repository, "--jobs-folder", str(folder))
        id = post(server, model="grey", seeds="1-4000").json()["id"]
        found: dict[str, Any] = {}

        def is_held_up() -> bool:
            found.update(server.get(f"/v1/jobs/{id}").json())
            return "No space left" in (found["problem"] or "")

        wait_for(is_held_up, 60)
        assert found["ended"] is None
        assert server.generate(model="grey", seeds=[1]).status_code == 200  # others don't notice
        assert post(server, model="grey", seeds=[1]).status_code in (202, 503)
        filler.unlink()
        assert ended(server, id)["status"] == "done"
        files = unpacked("tar", server.get(f"/v1/jobs/{id}/result").content)
        assert [name for name, _ in files] == [f"{i:08d}-{i + 1}.png" for i in range(4000)]
        assert len({data for _, data in files}) == 4000
        server.stop()
