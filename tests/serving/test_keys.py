"""The key file: made, listed, emptied by its command; refused, with the line, where it is wrong."""

import dataclasses
import errno
import os
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import SettingsError
from serving.keys.__main__ import main
from serving.keys.key import SCOPES, digest_of, make_key, parse_line
from serving.keys.key_file import read_keys


def whole_seconds(time: datetime) -> datetime:
    return time.replace(microsecond=0, tzinfo=UTC)


HASH = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.keys", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_key_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = run("add", path, "alice", "--rows-per-s", "2.5").stdout.strip()
    assert re.fullmatch(r"sp_[A-Za-z0-9_-]{43}", key)
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (kept,) = read_keys(path).values()
    assert (kept.name, kept.digest) == ("alice", digest_of(key.encode()))
    assert (kept.rows_per_s, kept.burst) == (2.5, 3)  # a second's worth, rounded up
    again = run("add", path, "alice")
    assert again.returncode == 2
    assert "has a key of the name 'alice'" in again.stderr
    assert kept.scopes == {"generate"}
    listed = f"alice:{kept.id}\tgenerate\t2.5 images/s, 3 at once\n"
    assert run("list", path).stdout == listed


def test_removing_leaves_the_rest_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# ours\nalice {HASH}\n\nbob {OTHER} rows-per-s=5 burst=9  # a friend")
    path.chmod(0o640)
    assert main(["remove", str(path), "alice"]) == 0
    assert path.read_text() == f"# ours\n\nbob {OTHER} rows-per-s=5 burst=9  # a friend"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # a server of that group reads it
    assert main(["add", str(path), "carol"]) == 0
    assert {key.name for key in read_keys(path).values()} == {"bob", "carol"}
    assert main(["remove", str(path), "alice"]) == 2
    assert re.search(r"there are: bob:cdcdcdcd, carol:[0-9a-f]{8}", capsys.readouterr().err)


def test_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    names = [f"key-{number}" for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(lambda name: main(["add", str(path), name]), names)) == {0}
    assert {key.name for key in read_keys(path).values()} == set(names)
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"alice {HASH}\nbob", "line 2: must be NAME sha256:HEX"),
        ("alice sp_thekeyitself", "line 1: must be NAME sha256:HEX"),
        (f"al/ice {HASH}", "line 1: must be NAME"),
        (f"alice {HASH} rows=5", "line 1: 'rows=5' is not"),
        (f"alice {HASH} rows-per-s=0", "'rows-per-s=0' is not"),
        (f"alice {HASH} rows-per-s=nan", "'rows-per-s=nan' is not"),
        (f"alice {HASH} rows-per-s=1 rows-per-s=2", "'rows-per-s=2' is not"),
        (f"alice {HASH} burst=3", "burst is given without rows-per-s"),
        (f"alice {HASH}\nbob {HASH}", "line 2: the hash of 'bob' is there twice"),
        (f"alice {HASH} scopes=all", "line 1: scopes are 'all', allowed are generate, admin"),
        (f"alice {HASH} scopes=admin scopes=admin", "'scopes=admin' is not"),
        (f"alice {HASH} scopes=", "'scopes=' is not"),
        (f"alice {HASH} expires=soon", "line 1: 'soon' is no time, write it as 2027-01-31"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(words)):
        read_keys(path)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("")
    path.chmod(0o620)
    with pytest.raises(SettingsError, match="chmod go-w"):
        read_keys(path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\xff\x00\xfe")
    with pytest.raises(SettingsError, match=r"serving\.keys add"):
        read_keys(path)


@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    digest=st.binary(min_size=32, max_size=32),
    limits=st.none()
    | st.tuples(st.integers(1, 10**12).map(lambda n: n / 10**4), st.none() | st.integers(1, 10**6)),
    scopes=st.frozensets(st.sampled_from(SCOPES), min_size=1),
    expires=st.none() | st.datetimes(datetime(1000, 1, 2)).map(whole_seconds),
)
def test_a_key_reads_as_it_was_written(
    name: str,
    digest: bytes,
    limits: tuple[float, int] | None,
    scopes: frozenset[str],
    expires: datetime | None,
) -> None:
    key = make_key(name, digest, *(limits or ()))
    key = dataclasses.replace(key, scopes=scopes, expires=expires)
    assert parse_line(key.line()) == key


def test_a_line_of_an_earlier_release_may_do_everything(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"alice {HASH} rows-per-s=5 burst=9\n")
    (key,) = read_keys(path).values()
    assert (key.scopes, key.expires) == (set(SCOPES), None)


def test_a_name_has_a_new_key_beside_the_old_until_that_is_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys"
    assert main(["add", str(path), "alice", "--scopes", "generate,admin"]) == 0
    assert main(["add", str(path), "alice", "--another"]) == 0
    assert main(["add", str(path), "bob"]) == 0
    old, new = capsys.readouterr().out.split()[:2]
    (left,) = (key for key in read_keys(path).values() if key.digest == digest_of(new.encode()))
    gone = digest_of(old.encode()).hex()[:8]
    assert main(["revoke", str(path), f"alice:{gone}"]) == 0
    assert {key.name: key.id for key in read_keys(path).values()}["alice"] == left.id
    assert main(["revoke", str(path), f"alice:{gone}"]) == 2
    assert main(["revoke", str(path), "alice"]) == 0
    assert [key.name for key in read_keys(path).values()] == ["bob"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("12h", 12 * 3600), ("30d", 30 * 86400), ("8w", 56 * 86400)]
)
def test_a_key_ends_after_a_while(tmp_path: Path, text: str, seconds: int) -> None:
    path = tmp_path / "keys"
    before = datetime.now(UTC).replace(microsecond=0)
    assert main(["add", str(path), "alice", "--expires", text]) == 0
    (key,) = read_keys(path).values()
    assert key.expires is not None
    assert before <= key.expires - timedelta(seconds=seconds) <= datetime.now(UTC)
    assert not key.has_expired(key.expires - timedelta(seconds=1))
    assert key.has_expired(key.expires)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--expires", "2020-01-01"), "that has gone by"),
        (("--expires", "never"), "--expires: 'never' is no time"),
        (("--expires", "0d"), "--expires is '0d': that has gone by"),
        (("--scopes", "generate,root"), "allowed are generate, admin, metrics"),
    ],
)
def test_what_a_new_key_cannot_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], words: str
) -> None:
    assert main(["add", str(tmp_path / "keys"), "alice", *flags]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *(
            (("alice", "--rows-per-s", rate), f"argument --rows-per-s: '{rate}' is no rate")
            for rate in ("nan", "inf", "-inf", "1e400", "0", "-1", "0.0000001", "9999999999", "x")
        ),
        *(
            (("alice", "--rows-per-s", "2", "--burst", burst), f"argument --burst: '{burst}' is no")
            for burst in ("0", "-3", "1.5", "nan", "9999999999", "x")
        ),
        (("al/ice",), "argument name: 'al/ice' is no name of a key, allowed are up to 64"),
    ],
)
def test_a_number_or_name_that_no_key_has_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    name, *flags = arguments
    joined = [f"{flag}={value}" for flag, value in zip(flags[::2], flags[1::2], strict=True)]
    with pytest.raises(SystemExit) as refused:
        main(["add", str(tmp_path / "keys"), name, *joined])
    assert refused.value.code == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limits", [(float("nan"),), (float("inf"),), (2.0, 0), (2.0, -3), (-1.0,)])
def test_a_limit_is_refused_and_never_made_another(limits: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"(rows-per-s|burst) is .*, must be more than 0"):
        make_key("alice", bytes(32), *limits)


def test_through_links_the_file_itself_is_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Kubernetes mounts a Secret: keys -> ..data/keys, ..data -> a folder."""
    (tmp_path / "real").mkdir()
    (tmp_path / "..data").symlink_to("real")
    link, path = tmp_path / "keys", tmp_path / "real" / "keys"
    link.symlink_to("..data/keys")
    for name in ("alice", "bob"):
        assert main(["add", str(link), name]) == 0
    assert main(["revoke", str(link), "alice"]) == 0
    assert [key.name for key in read_keys(path).values()] == ["bob"]
    assert link.is_symlink()
    assert [entry.name for entry in path.parent.iterdir()] == ["keys"]
    around = tmp_path / "around"
    around.symlink_to("around")
    assert main(["add", str(around), "alice"]) == 2
    assert "--api-keys is" in capsys.readouterr().err


def test_a_file_that_cannot_be_replaced_is_left_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    assert main(["add", str(path), "alice"]) == 0
    before = path.read_bytes()

    def replace(source: str, target: Path) -> None:  # as a mount of one file answers
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", replace)
    for command in ("add", "revoke"):
        assert main([command, str(path), "alice", *(["--another"] * (command == "add"))]) == 2
        told = capsys.readouterr().err
        assert f"--api-keys is {path}: it can't be replaced (Device or resource busy)" in told
        assert "change the file where it is made" in told
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("none", "file"):
        assert main(["add", str(tmp_path / folder / "keys"), "alice"]) == 2
        told = capsys.readouterr().err
        assert f"its folder {tmp_path / folder} can't be opened" in told
        assert "make the folder first" in told


@given(st.text(max_size=200))
def test_any_line_is_a_key_or_nothing_or_refused(line: str) -> None:
    try:
        key = parse_line(line)
    except ValueError:
        return
    assert key is None or parse_line(key.line()) == key
