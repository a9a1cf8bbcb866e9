"""The sockets on which a server listens: bound first, so that what can't be is said at once.

One name may stand for several addresses (`localhost` for 127.0.0.1 and ::1). A port of 0 is any
that is free, the same for all of them. A Unix socket that a dead server has left is replaced, one
that answers is another server's.
"""

import contextlib
import dataclasses
import errno
import fcntl
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from serving.errors import SettingsError
from serving.settings import Settings, flag

_MAX_PATH = 107  # of sockaddr_un's 108 bytes the last is a zero
_BACKLOG = 128  # until those who serve it say their own
# What a machine without the one or the other kind of address says.
Address = tuple[socket.AddressFamily, str, tuple[int, ...]]
"""Family, address, and what IPv6 has beyond: flow and scope."""
_NOT_HERE = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))
_TRIES = 10
_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # what listens on all is reached at this


class Listeners:
    """The bound sockets of a server; whoever serves them listens."""

    def __init__(self, settings: Settings) -> None:
        """Binds them.

        Raises:
            SettingsError: an address is not this machine's, a port or path is taken or not allowed.
        """
        self.path = settings.unix_socket
        self.sockets: list[socket.socket] = []
        self._inode: tuple[int, int] | None = None
        if self.path is None:
            self.sockets = bind(settings.host, settings.port, "port")
            port = self.sockets[0].getsockname()[1]
            self.settings = dataclasses.replace(settings, port=port)
            """The server's, with the port that was chosen."""
        else:
            self.sockets = [_bind_path(self.path)]
            status = self.path.stat()
            self._inode = (status.st_dev, status.st_ino)
            self.settings = settings

    def close(self) -> None:
        """Closes this process's copies of the sockets; others go on listening."""
        for listener in self.sockets:
            listener.close()

    def remove(self) -> None:
        """At the end: removes the Unix socket, unless another server has put its own there."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                status = self.path.lstat()
                if (status.st_dev, status.st_ino) == self._inode:
                    self.path.unlink()


def url_of(settings: Settings) -> str:
    """The URL at which this machine reaches a server that listens; for a Unix socket curl's."""
    if settings.unix_socket is not None:
        return "http://localhost"
    host = _ALL.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def check_port(settings: Settings, name: str, port: int) -> None:
    """Raises SettingsError if a port can't be listened on; name: the setting's."""
    for listener in bind(settings.host, port, name):
        listener.close()


def bind(host: str, port: int, name: str, *, is_shared: bool = False) -> list[socket.socket]:
    """Binds a TCP socket for every address that a host stands for.

    Args:
        host: an address, or a name.
        port: 0 for one that is free.
        name: the setting of the port.
        is_shared: every HTTP process binds the port for itself.

    Raises:
        SettingsError: none can be bound, or one is taken.
    """
    addresses = _addresses(host)
    for _ in range(_TRIES):
        try:
            return _bind_all(addresses, port, is_shared=is_shared)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE:
                continue  # free for the first address and not for the second
            raise _refused(host, port, name, error) from error
    raise SettingsError(f"{flag(name)} is 0: no port of {host} is free for all of its addresses")


def _addresses(host: str) -> list[Address]:
    try:
        found = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f"--host is {host!r}: {getattr(error, 'strerror', None) or error}; name an address of "
            "this machine, 0.0.0.0 or :: for all"
        ) from error
    wanted: dict[Address, None] = {}
    for family, _, _, _, address in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            wanted[family, str(address[0]), tuple(map(int, address[2:]))] = None
    return list(wanted)


def _bind_all(addresses: list[Address], port: int, *, is_shared: bool) -> list[socket.socket]:
    bound: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, host, scope in addresses:
            try:
                bound.append(_bind_one(family, (host, port, *scope), is_shared=is_shared))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
            else:
                port = bound[0].getsockname()[1]
    except OSError:
        for listener in bound:
            listener.close()
        raise
    if not bound and missing is not None:
        raise missing
    return bound


def _bind_one(
    family: socket.AddressFamily, address: tuple[str | int, ...], *, is_shared: bool
) -> socket.socket:
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # :: takes IPv4 too, and nothing else does
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _bind_path(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _MAX_PATH:
        raise SettingsError(
            f"--unix-socket is {path}: at most {_MAX_PATH} bytes can be bound; choose a shorter "
            "path"
        )
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _alone_in(path.parent) as folder:
            _check_free(path)
            # Under another name first: who finds the path finds a socket that is listened on. The
            # name is drawn, so that it is nobody's file; the folder's descriptor makes it short.
            drawn = f".{secrets.token_hex(8)}"
            listener.bind(f"/proc/self/fd/{folder}/{drawn}")
            try:
                listener.listen(_BACKLOG)
                os.rename(drawn, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(drawn, dir_fd=folder)
                raise
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"--unix-socket is {path}: {error.strerror}; name a path in a folder that this user "
            "may write to"
        ) from error
    except SettingsError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[int]:
    """A folder's descriptor; others who bind a path in it wait meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _check_free(path: Path) -> None:
    """Raises SettingsError where something is there that no dead server has left."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SettingsError(f"--unix-socket is {path}: that is there, and is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(os.fspath(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return
    except OSError as error:
        raise SettingsError(f"--unix-socket is {path}: {error.strerror or error}") from error
    raise SettingsError(
        f"--unix-socket is {path}: another process listens there; end it, or choose another path"
    )


def _refused(host: str, port: int, name: str, error: OSError) -> SettingsError:
    remedies = {
        errno.EADDRINUSE: "end what listens there, or choose another",
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose another",
        errno.EADDRNOTAVAIL: "--host must be an address of this machine",
    }
    remedy = remedies.get(error.errno or 0, "choose another")
    return SettingsError(f"{flag(name)} is {port}: {error.strerror} on {host}; {remedy}")
