"""The key file: made, listed, emptied by its command; refused, with the line, where it is wrong."""

import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import SettingsError
from serving.keys import _key, digest_of, main, make_key, read_keys

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
    assert run("list", path).stdout == "alice\t2.5 images/s, 3 at once\n"


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
    assert "there are: bob, carol" in capsys.readouterr().err


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
        (f"alice {HASH}\nalice {OTHER}", "line 2: the name 'alice'"),
        (f"alice {HASH}\nbob {HASH}", "line 2: the name 'bob' or its hash is there twice"),
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
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"serving\.keys add"):
        read_keys(path)


@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    digest=st.binary(min_size=32, max_size=32),
    limits=st.none()
    | st.tuples(st.integers(1, 10**12).map(lambda n: n / 10**4), st.none() | st.integers(1, 10**6)),
)
def test_a_key_reads_as_it_was_written(
    name: str, digest: bytes, limits: tuple[float, int] | None
) -> None:
    key = make_key(name, digest, *(limits or ()))
    assert _key(key.line()) == key


@given(st.text(max_size=200))
def test_any_line_is_a_key_or_nothing_or_refused(line: str) -> None:
    try:
        key = _key(line)
    except ValueError:
        return
    assert key is None or _key(key.line()) == key
