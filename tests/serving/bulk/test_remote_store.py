"""A bucket behind the real S3 protocol: the same files as in a folder, and its loss in words."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import fsspec
import pytest

from models.bundle import Bundle
from serving.bulk.errors import PlanError, TargetError
from serving.bulk.storage.addresses import open_store
from serving.bulk.storage.store import write_file
from tests.conftest import free_port
from tests.serving.bulk.conftest import contents, make, run
from tests.support import wait_for

OPTIONS = ("--count", "400", "--shard-images", "100")
BUCKET = "s3://bucket/faces/v1"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server of this machine."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"MOTO_ALLOW_NONEXISTENT_REGION": "true"},
    )
    try:
        wait_for(lambda: answers(url), timeout_s=60)
        yield url
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        return urlopen(url + "/moto-api/data.json", timeout=5).status == 200
    return False


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """An empty bucket; credentials and address are where every S3 client looks for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    urlopen(Request(endpoint + "/moto-api/reset", method="POST"), timeout=10).close()
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    fs.mkdir("bucket")
    fsspec.filesystem("s3").invalidate_cache()
    yield fs
    fsspec.filesystem("s3").clear_instance_cache()


def remote_contents(fs: fsspec.AbstractFileSystem) -> dict[str, bytes]:
    fs.invalidate_cache()
    root = BUCKET.removeprefix("s3://")
    return {path.removeprefix(root + "/"): fs.cat_file(path) for path in fs.find(root)}


def test_processes_fill_a_bucket_like_a_folder(
    bucket: fsspec.AbstractFileSystem, grey: Bundle, tmp_path: Path
) -> None:
    done = run(grey, BUCKET, *OPTIONS, "--format", "tar", "--workers", "2")
    assert done.returncode == 0, done.stderr
    make(grey, str(tmp_path), *OPTIONS, "--format", "tar")
    assert remote_contents(bucket) == contents(tmp_path)
    assert make(grey, BUCKET, *OPTIONS, "--format", "tar") == []
    (path,) = bucket.glob("bucket/faces/v1/data/*2.tar")
    bucket.pipe_file(path, b"x" * bucket.size(path))
    assert make(grey, BUCKET, *OPTIONS, "--format", "tar") == [2]
    assert remote_contents(bucket) == contents(tmp_path)
    with pytest.raises(PlanError, match="another plan"):
        make(grey, BUCKET, *OPTIONS, "--format", "npy")


def test_a_folder_of_images_fits_a_bucket(
    bucket: fsspec.AbstractFileSystem, grey: Bundle, tmp_path: Path
) -> None:
    options = ("--count", "12", "--shard-images", "6")
    make(grey, BUCKET, *options)
    make(grey, str(tmp_path), *options)
    assert remote_contents(bucket) == contents(tmp_path)


def test_a_lost_bucket_ends_in_words_and_goes_on(
    bucket: fsspec.AbstractFileSystem,
    grey: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from serving.bulk import maker

    write_receipt = maker.write_receipt

    def lose(plan, receipt, store):
        write_receipt(plan, receipt, store)
        if receipt.index == 1:
            bucket.invalidate_cache()
            for path in bucket.find("bucket"):
                saved[path] = bucket.cat_file(path)
                bucket.rm_file(path)
            bucket.rmdir("bucket")

    saved: dict[str, bytes] = {}
    with monkeypatch.context() as losing:
        losing.setattr(maker, "write_receipt", lose)
        with pytest.raises(TargetError, match=r"s3://bucket/faces/v1: .*finished shards stay"):
            make(grey, BUCKET, *OPTIONS, "--format", "tar")
    bucket.mkdir("bucket")
    for path, data in saved.items():
        bucket.pipe_file(path, data)
    assert make(grey, BUCKET, *OPTIONS, "--format", "tar") == [2, 3]
    make(grey, str(tmp_path), *OPTIONS, "--format", "tar")
    assert remote_contents(bucket) == contents(tmp_path)


def test_a_bucket_that_isn_t_there_is_refused(
    bucket: fsspec.AbstractFileSystem, grey: Bundle
) -> None:
    with pytest.raises(TargetError, match=r"s3://nowhere/x: .*look at the address"):
        make(grey, "s3://nowhere/x", *OPTIONS)


def test_a_file_that_fails_half_way_is_not_there(
    bucket: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    for address in (BUCKET, str(tmp_path)):
        store = open_store(address)
        with contextlib.suppress(ZeroDivisionError), store.create("a/b") as file:
            file.write(b"half")
            raise ZeroDivisionError
        assert store.read("a/b") is None
        write_file(store, "a/b", b"whole")
        assert store.read("a/b") == b"whole"
        store.remove("a")
        assert store.entry("a/b", digest=True) is None
