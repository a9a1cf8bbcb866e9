"""The command: what it makes, goes on with and refuses, and that a refusal writes nothing."""

import json
import os
import re
from pathlib import Path

import pytest

from models.bundle import Bundle
from models.repository import Repository
from serving.bulk.__main__ import main
from serving.bulk.errors import PlanError, TargetError
from serving.bulk.storage.addresses import open_store
from tests.faults.small_disk import fill, small_disk
from tests.serving.bulk.conftest import contents, make, run

SIX = ("--count", "600", "--shard-images", "100", "--format", "tar")


@pytest.fixture
def undisturbed(grey: Bundle, tmp_path: Path) -> Path:
    out = tmp_path / "undisturbed"
    assert make(grey, str(out), *SIX) == [0, 1, 2, 3, 4, 5]
    return out


def test_a_model_of_the_repository_with_two_processes(
    tiny_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its name; the manifest tells all, and the same command finds all there."""
    out = tmp_path / "out"
    command = ["colour", "--repository", str(tiny_repository), "--out", str(out), *SIX]
    assert main([*command, "--workers", "2"]) == 0
    printed = capsys.readouterr().out
    assert "600 images 16x16x3 of colour, version 1" in printed
    assert re.search(r"about [\d.]+ [MK]B, and .* with 2 workers", printed)
    manifest = json.loads((out / "manifest.json").read_text())
    bundle = Repository(tiny_repository).bundle("colour")
    assert manifest["plan"]["bundle_digest"] == bundle.digest
    assert [shard["index"] for shard in manifest["shards"]] == list(range(6))
    assert manifest["num_bytes"] == sum(path.stat().st_size for path in out.glob("data/*"))
    assert "synthetic" in (out / "README.md").read_text()
    before = contents(out)
    assert set(before) == {"README.md", "manifest.json", "plan.json"} | {
        file["name"] for shard in manifest["shards"] for file in shard["files"]
    }
    make(bundle, str(tmp_path / "inline"), *SIX)
    assert contents(tmp_path / "inline") == before
    assert make(bundle, str(out), *SIX) == []
    assert contents(out) == before


@pytest.mark.parametrize("kind", ["tar", "folder"])
@pytest.mark.parametrize("finished", [False, True], ids=["receipts", "manifest"])
def test_a_wrong_shard_is_made_again(
    kind: str, finished: bool, grey: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = (*SIX[:-1], kind)
    make(grey, str(out), *options)
    before = contents(out)
    if not finished:
        unfinish(out)
    pattern = "data/*3.tar" if kind == "tar" else "images/all/00003/350.png"
    (path,) = out.glob(pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert make(grey, str(out), *options, check_digests=False) == []
    if not finished:
        unfinish(out)
    assert make(grey, str(out), *options) == [3]
    assert contents(out) == before
    path.write_bytes(data[:-1])
    assert make(grey, str(out), *options, check_digests=False) == [3]
    path.unlink()
    assert make(grey, str(out), *options) == [3]
    assert contents(out) == before


def unfinish(out: Path) -> None:
    """Puts a folder into the state of a run that was killed before the manifest."""
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "receipts").mkdir()
    for shard in manifest["shards"]:
        name = f"tiny-{manifest['plan_digest'][:12]}-{shard['index']:05d}.json"
        signed = {"plan_digest": manifest["plan_digest"], "receipt": shard}
        (out / "receipts" / name).write_text(json.dumps(signed))
    (out / "manifest.json").unlink()


def test_damaged_receipts_and_manifests_are_none(grey: Bundle, undisturbed: Path) -> None:
    before = contents(undisturbed)
    unfinish(undisturbed)
    receipts = sorted(undisturbed.glob("receipts/*"))
    receipts[0].write_bytes(b"\xff{")
    receipts[1].write_text(receipts[2].read_text())
    (undisturbed / "manifest.json").write_text("{}")
    assert make(grey, str(undisturbed), *SIX) == [0, 1]
    assert contents(undisturbed) == before


def test_another_plan_or_bundle_or_foreign_files_are_refused(
    grey: Bundle, colour: Bundle, undisturbed: Path, tmp_path: Path
) -> None:
    before = contents(undisturbed)
    for bundle, options, words in (
        (grey, (*SIX, "--truncation", "0.5"), "truncation 1.0, not 0.5"),
        (grey, ("--count", "700", *SIX[2:]), "num_images 600, not 700"),
        (colour, SIX, "bundle_digest"),
    ):
        with pytest.raises(PlanError, match=f"images of another plan.*{words}"):
            make(bundle, str(undisturbed), *options)
    assert contents(undisturbed) == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    with pytest.raises(PlanError, match="holds files that are of no plan"):
        make(grey, str(tmp_path / "photos"), *SIX)
    fresh = tmp_path / "volume"
    (fresh / "lost+found").mkdir(parents=True)
    make(grey, str(fresh), *SIX)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--seeds", "0-9,5"], 2, "names seed 5 twice"),
        (["--seeds", "0-18446744073709551616"], 2, "a seed lies in"),
        (["--count", "9", "--labels", "1"], 2, "takes no labels"),
        (["--count", "9", "--image", "jpeg", "--format", "npy"], 2, "holds no image files"),
        (["--count", "9", "--out", "gopher://x/y"], 2, "gopher"),
        (["--count", "9", "--out", "memory://x"], 2, "memory ends with the process"),
        (["--count", "9", "--version", "3"], 2, "is a bundle, which is one version"),
        (["--count", "9", "--out", __file__], 2, "that is no folder"),
        (["--count", "9", "--out", f"{__file__}/x"], 5, "name a folder that can be written"),
        (["--count", "999999999999", "--shard-images", "10000000"], 2, "images take about"),
        (["--count", "9", "--device", "cuda"], 3, "--device is cuda"),
    ],
)
def test_is_refused_in_words_before_anything_is_written(
    options: list[str],
    code: int,
    words: str,
    grey: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert main([str(grey.path), "--out", str(out), *options]) == code
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert not out.exists()


def test_a_missing_model_and_an_altered_bundle_are_refused(
    tiny_repository: Path, grey: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = ["--repository", str(tiny_repository), "--out", str(out), "--count", "3"]
    assert main(["absent", *given]) == 3
    altered = tmp_path / "bundle"
    altered.mkdir()
    for path in grey.path.iterdir():
        (altered / path.name).write_bytes(path.read_bytes())
    (altered / "model.onnx").write_bytes(b"another")
    assert main([str(altered), *given]) == 4
    assert "the file was altered after export" in capsys.readouterr().err
    assert not out.exists()


def test_a_dry_run_tells_and_writes_nothing(
    grey: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main([str(grey.path), "--out", str(out), *SIX, "--dry-run"]) == 0
    assert "6 shards of up to 100 images" in capsys.readouterr().out
    assert not out.exists()


def test_the_estimate_is_near(grey: Bundle, tmp_path: Path) -> None:
    """Of the size: how long it takes is the machine's business."""
    from serving.bulk.planning import try_out
    from tests.serving.bulk.conftest import prepared

    for kind in ("tar", "npy", "parquet"):
        options = (*SIX[:-1], kind)
        out = tmp_path / kind
        make(grey, str(out), *options)
        size = sum(path.stat().st_size for path in out.glob("data/*"))
        cost = try_out(prepared(grey, *options), "cpu")
        assert 0.6 < cost.image_bytes * 600 / size < 1.6, kind


def test_a_full_disk_ends_in_words_and_goes_on(
    grey: Bundle, undisturbed: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", size_kb=2048) as disk:
        out = disk / "out"
        make_some(grey, out)
        filler = fill(disk)
        done = run(grey, out, *SIX, "--workers", "2")
        assert done.returncode == 2
        assert "free some space" in done.stderr  # seen before it starts
        with pytest.raises(TargetError, match="No space left on device; finished shards stay"):
            make(grey, str(out), *SIX)
        assert [path for path in out.rglob(".*") if path.is_file()] == []
        filler.unlink()
        assert make(grey, str(out), *SIX) == [2, 3, 4, 5]
        assert contents(out) == contents(undisturbed)


def make_some(bundle: Bundle, out: Path) -> None:
    """Shards 0 and 1, then an end without a word."""
    from serving.bulk.__main__ import carry_out
    from serving.bulk.maker import Job
    from tests.serving.bulk.conftest import InlineExecutor, prepared

    ready = prepared(bundle, *SIX, out=str(out))
    job = Job(ready.plan, open_store(str(out)))
    inline = InlineExecutor(job, bundle)

    def two(works):
        for done in inline(works):
            yield done
            if len(inline.made) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(ready, job, two)


def test_what_a_killed_run_left_half_written_is_removed(grey: Bundle, tmp_path: Path) -> None:
    make_some(grey, tmp_path)
    part = tmp_path / "data" / f".saddlepoint-x.tar-{os.getpid()}.part"
    part.write_bytes(b"half")
    assert make(grey, str(tmp_path), *SIX) == [2, 3, 4, 5]
    assert not part.exists()


def test_two_runs_don_t_write_into_one_place(grey: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_some(grey, out)
    store = open_store(str(out))
    store.lock()
    with pytest.raises(PlanError, match="another run is writing there"):
        make(grey, str(out), *SIX)
    store.unlock()
    assert make(grey, str(out), *SIX) == [2, 3, 4, 5]


def test_a_place_that_can_t_be_a_folder_any_more_ends_in_words(
    grey: Bundle, tmp_path: Path
) -> None:
    make_some(grey, tmp_path)
    for path in (tmp_path / "data").iterdir():
        path.unlink()
    (tmp_path / "data").rmdir()
    (tmp_path / "data").touch()
    with pytest.raises(TargetError, match="finished shards stay"):
        make(grey, str(tmp_path), *SIX)
