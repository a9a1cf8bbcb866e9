"""The file of API keys: one a line, under a name, hashed; read, checked, changed in one step.

    # name   hash of the key       what it may, until when, most images a second, and at once
    alice    sha256:2bd8...c41a    scopes=generate rows-per-s=100 burst=500
    scraper  sha256:90c1...77e2    scopes=metrics expires=2027-01-31T00:00:00Z

Reading the file reveals no key. Lines without `scopes` are those of earlier releases, whose keys
may do everything. A name may have several keys: a new one beside the old, until all have it.
"""

import codecs
import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

from serving.errors import SettingsError
from serving.keys.key import Key, parse_line

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
MAX_FILE_BYTES = 16 << 20
"""A file that is larger is none of keys."""
NO_KEYS = "# no keys\n"
"""What is left of a file when its last key was removed: a file without a word could be damaged."""


Keys = dict[bytes, Key]
"""Keys by digest."""


def read_keys(path: Path) -> Keys:
    """Reads the keys of a file.

    Raises:
        SettingsError: it can't be read, others may write to it, or a line is wrong.
    """
    return parse_keys(path, read_key_file(path))


def read_key_file(path: Path) -> bytes:
    """What a key file holds.

    Raises:
        SettingsError: it can't be read, it is no file, or others may write to it.
    """
    try:
        # A pipe that nobody writes to would be waited for without end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SettingsError(
                    f"--api-keys is {path}: that is no file; name one that holds keys"
                )
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"--api-keys is {path}: {error}; make one: python -m serving.keys add {path} NAME"
        ) from error
    if status.st_mode & _OTHERS_WRITE:
        raise SettingsError(
            f"--api-keys is {path}: others may write to it, and so make keys; chmod go-w {path}"
        )
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(
            f"--api-keys is {path}: it has over {MAX_FILE_BYTES >> 20} MiB; is it another file?"
        )
    return data


def parse_keys(path: Path, data: bytes) -> Keys:
    """The keys that are written in a file.

    Args:
        path: the file, for what is said about it.
        data: what it holds.

    Raises:
        SettingsError: it is no text, or a line is wrong.
    """
    keys: Keys = {}
    for number, line in enumerate(text_of(path, data).splitlines(), 1):
        try:
            key = parse_line(line)
        except ValueError as error:
            raise SettingsError(f"--api-keys is {path}: line {number}: {error}") from None
        if key is None:
            continue
        if key.digest in keys:
            raise SettingsError(
                f"--api-keys is {path}: line {number}: the hash of {key.name!r} is there twice; "
                "remove one"
            )
        keys[key.digest] = key
    return keys


def text_of(path: Path, data: bytes) -> str:
    """A file's text, as editors of any system write it: with a byte order mark, or in UTF-16.

    Args:
        path: the file, for what is said about it.
        data: what it holds.

    Raises:
        SettingsError: it is no text.
    """
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        # Files that were joined have marks in the middle.
        return data.decode(encoding).replace("\ufeff", "")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"--api-keys is {path}: it is no text in UTF-8 ({error}); write it anew, or make one: "
            f"python -m serving.keys add {path} NAME"
        ) from error


def remove_keys(path: Path, digests: Container[bytes]) -> None:
    """Takes keys out of a file; everything else stays as it is.

    Raises:
        SettingsError: it can't be read.
    """
    lines = text_of(path, path.read_bytes()).splitlines(keepends=True)
    left = "".join(
        line for line in lines if (key := parse_line(line)) is None or key.digest not in digests
    )
    write(path, left if left.strip() else NO_KEYS)


def real_path(path: Path) -> Path:
    """The file itself where a path is a link: what replaces a link would leave the file as it is.

    Raises:
        SettingsError: the links lead nowhere.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise SettingsError(f"--api-keys is {path}: {error}; name the file itself") from error


def write(path: Path, text: str) -> None:
    """Replaces the file in one step; only the owner may read a new one.

    Raises:
        SettingsError: it can't be replaced.
    """
    try:
        _replace(path, text)
    except OSError as error:
        raise SettingsError(
            f"--api-keys is {path}: it can't be replaced ({error.strerror or error}), and is as it "
            "was; change the file where it is made (of a Secret or another mount, what it is a "
            "copy of), or let this user write to its folder"
        ) from error


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if path.exists():  # a server of another user or group may still read it
                before = path.stat()
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Holds a lock: two commands at once would lose what one of them wrote.

    Raises:
        SettingsError: the file's folder can't be opened.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SettingsError(
            f"--api-keys is {path}: its folder {path.parent} can't be opened "
            f"({error.strerror or error}); make the folder first, or name another file"
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
