"""Where processes put their counters for others to read: unix sockets in a directory of the user.

Owns the directory's rules, the listening socket and those who are being answered. Whoever connects
gets the counters and the end of the stream; not a byte of what they send is ever read. Invariants:
only the owner can reach a socket, because its directory is theirs and closed to others (0700);
nothing blocks; at most ``CLIENT_LIMIT`` are being answered; a name appears in the directory only
when its socket already listens, so that a refused connection means that its process is gone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from mcast.errors import TransportError

__all__ = [
    "CLIENT_LIMIT",
    "STATUS_LIMIT_BYTES",
    "StatusListener",
    "ask_all",
    "private_directory",
    "status_directories",
    "status_paths",
]

CLIENT_LIMIT: Final = 8
"""Answered at once; one more ends the one that waits longest. A terminal, a scraper, and a few."""
STATUS_LIMIT_BYTES: Final = 16 << 20
"""Longest answer that is read: 2 KiB for each of 8,000 sockets."""
_BACKLOG: Final = 64
"""Who connects beyond it is told to come again (EAGAIN)."""
_PATH_LIMIT_BYTES: Final = 107
"""sun_path of <linux/un.h>, without its NUL."""
_SUFFIX: Final = ".sock"
_PIECE_BYTES: Final = 1 << 16
_ASKED_LIMIT: Final = 4096
"""Processes asked at once; one descriptor each."""


def status_directories(given: str | None = None) -> list[str]:
    """The directories that may hold this user's sockets, the best first; none need exist.

    ``given`` is the only one, if there is one. Else: ``$XDG_RUNTIME_DIR/mcast`` and
    ``/run/user/UID/mcast``, where these belong to the user, and ``mcast-UID`` in the directory for
    temporary files.
    """
    if given is not None:
        return [given]
    user = os.geteuid()
    found = []
    for parent in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{user}"):
        # Under sudo the variable still names the other user's: leave theirs alone.
        with contextlib.suppress(OSError):
            if os.path.isabs(parent) and os.stat(parent).st_uid == user:
                found.append(os.path.join(parent, "mcast"))
    found.append(os.path.join(tempfile.gettempdir(), f"mcast-{user}"))
    return list(dict.fromkeys(found))


def private_directory(candidates: Iterable[str]) -> str:
    """The first of them that is, or can be made, a directory of this user alone.

    Raises: TransportError with the reason for each if there is none.
    """
    reasons = []
    for path in candidates:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            reason = _why_not_private(path)
        except OSError as error:
            reason = f"{path}: {error.strerror}"
        if reason is None:
            return path
        reasons.append(reason)
    raise TransportError(f"no directory for the status socket: {'; '.join(reasons)}")


def _why_not_private(path: str) -> str | None:
    found = os.lstat(path)  # a link may lead anywhere
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is not a directory"
    if found.st_uid != os.geteuid():
        return f"{path} belongs to user {found.st_uid}"
    if found.st_mode & 0o077:
        return f"{path} is open to other users; close it: chmod 700 {path}"
    return None


def status_paths(directories: Iterable[str]) -> list[str]:
    """The sockets in those directories that are this user's alone, at most 4,096 of them."""
    found: list[str] = []
    for directory in directories:
        try:
            if _why_not_private(directory) is None:
                names = [name for name in os.listdir(directory) if name.endswith(_SUFFIX)]
                found += [os.path.join(directory, name) for name in sorted(names)]
        except OSError:
            continue
    return found[:_ASKED_LIMIT]


class StatusListener:
    """Listens in ``directory`` and answers. For one thread. Use ``fds`` and ``handle_ready``."""

    def __init__(self, directory: str, name: str, answer: Callable[[], bytes]) -> None:
        """``answer`` makes what a client gets. Raises: TransportError; nothing stays open then."""
        self._answer = answer
        self._clients: deque[tuple[socket.socket, memoryview]] = deque()
        self.path = os.path.join(directory, name + _SUFFIX)
        """Where others connect."""
        hidden = os.path.join(directory, f".{name}")
        longest = max(map(len, map(os.fsencode, (self.path, hidden))))
        if longest > _PATH_LIMIT_BYTES:
            raise TransportError(f"the status socket's path is too long: {self.path}")
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_UNIX, kind)
        try:
            self._socket.bind(hidden)
            os.chmod(hidden, 0o600)
            self._socket.listen(_BACKLOG)
            os.rename(hidden, self.path)
        except OSError as error:
            self._socket.close()
            with contextlib.suppress(OSError):
                os.unlink(hidden)
            raise TransportError(error.errno, f"status socket {self.path}: {error}") from None

    @property
    def fd(self) -> int:
        """The descriptor that is readable when somebody connects."""
        return self._socket.fileno()

    @property
    def waiting_fds(self) -> set[int]:
        """Those that are to be written as soon as they can be."""
        return {client.fileno() for client, _ in self._clients}

    def handle_readable(self) -> None:
        """Answer whoever has connected. Never blocks."""
        for _ in range(CLIENT_LIMIT):
            try:
                client, _address = self._socket.accept()
            except OSError:  # nobody is left, or there is no descriptor for them
                return
            client.setblocking(False)
            if len(self._clients) == CLIENT_LIMIT:
                self._clients.popleft()[0].close()
            self._clients.append((client, memoryview(self._answer())))
            self.handle_writable()

    def handle_writable(self) -> None:
        """Go on with the answers, as far as they are taken. Never blocks."""
        for _ in range(len(self._clients)):
            client, rest = self._clients.popleft()
            try:
                rest = rest[client.send(rest) :]
            except BlockingIOError:
                pass
            except OSError:
                rest = rest[:0]
            if rest:
                self._clients.append((client, rest))
            else:
                client.close()

    def close(self) -> None:
        """Give everything back, the name in the directory as well."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self.abandon()

    def abandon(self) -> None:
        """In a forked child: close the descriptors; the name stays the parent's."""
        self._socket.close()
        while self._clients:
            self._clients.pop()[0].close()


def ask_all(paths: Iterable[str], left_s: Callable[[], float]) -> dict[str, bytes | OSError]:
    """What each of the sockets says, asked all at once, or why it said nothing.

    Blocks until ``left_s()`` is 0 at most. A socket whose process is gone is removed, and missing
    in the result. An answer over 16 MiB is an error.
    """
    answers: dict[str, bytes | OSError] = {}
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for path in paths:
            asked = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            asked.setblocking(False)
            try:
                asked.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                with contextlib.suppress(OSError):
                    os.unlink(path)
                continue
            except OSError as error:  # EAGAIN: many are asking it already, and it answers nobody
                answers[path] = error
                continue
            selector.register(asked, selectors.EVENT_READ, (path, bytearray()))
        while selector.get_map() and (timeout_s := left_s()) > 0:
            for key, _ in selector.select(timeout_s):
                path, held = key.data
                answer = _read_on(key.fileobj, held)
                if answer is not None:
                    selector.unregister(key.fileobj)
                    answers[path] = answer
        for key in selector.get_map().values():
            answers[key.data[0]] = TimeoutError("it did not answer in time")
    return answers


def _read_on(asked: object, held: bytearray) -> bytes | OSError | None:
    """Read what is there; the whole answer at its end."""
    assert isinstance(asked, socket.socket)
    try:
        piece = asked.recv(_PIECE_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        return error
    if not piece:
        return bytes(held)
    held += piece
    if len(held) > STATUS_LIMIT_BYTES:
        return OSError(f"its answer is longer than {STATUS_LIMIT_BYTES} bytes")
    return None
