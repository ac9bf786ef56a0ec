"""Stream sockets, TCP and Unix: listening, connecting, accepting, with every option set.

Owns how an endpoint becomes sockets. Invariants: every socket is non-blocking and closed on exec;
when something fails none stays open and the error is a ``TransportError`` or ``EndpointError``
with a cure; what a peer or the network may cause at any time comes as ``OSError`` and is for the
caller to count.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from typing import Final

from mcast.endpoint import Endpoint
from mcast.errors import EndpointError, InterfaceError, TransportError
from mcast.net.interfaces import resolve_interface
from mcast.options import SocketOptions
from mcast.unicast import ANY, IpcEndpoint, TcpEndpoint

__all__ = [
    "Address",
    "StreamListener",
    "StreamSocket",
    "finish_connect",
    "has_unread",
    "open_stream",
    "peer_name",
    "resolve",
    "say_goodbye",
    "tune",
    "unsent_bytes",
]

StreamSocket = socket.socket
"""A connection, or an attempt at one."""

Address = tuple[socket.AddressFamily, object]
"""Where to connect to: the family, and what ``socket.connect`` takes."""

_SIOCOUTQ: Final = 0x5411  # <linux/sockios.h>
_CURES: Final = {
    errno.EADDRINUSE: "another socket is bound there; choose another port or path",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address; `ip addr` lists them",
    errno.EACCES: "ports below 1024 and some paths need a privilege; choose another",
    errno.ENOENT: "the directory does not exist",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n`",
}


class StreamListener:
    """A bound, listening socket. Whoever opens it closes it."""

    def __init__(self, endpoint: TcpEndpoint | IpcEndpoint, options: SocketOptions) -> None:
        """Raises TransportError or EndpointError; nothing stays open then."""
        self._directory = ""
        self._owned: tuple[int, int] | None = None
        if isinstance(endpoint, IpcEndpoint):
            if endpoint.path == ANY:
                self._directory = tempfile.mkdtemp(prefix="mcast-")
                endpoint = IpcEndpoint(path=os.path.join(self._directory, "socket"))
            addresses: list[Address] = [(socket.AF_UNIX, endpoint.address)]
        else:
            addresses = _bind_addresses(endpoint, options)
        try:
            self.socket = _listen(endpoint, addresses, options)
        except BaseException:
            self._remove_directory()
            raise
        if isinstance(endpoint, TcpEndpoint):
            host, port = self.socket.getsockname()[:2]
            endpoint = TcpEndpoint(host=host, port=port)
        elif not endpoint.is_abstract:
            found = os.stat(endpoint.path)
            self._owned = (found.st_dev, found.st_ino)
        self.endpoint: TcpEndpoint | IpcEndpoint = endpoint
        """Where it listens: an address and a port, or a path."""

    def fileno(self) -> int:
        """The descriptor, readable when somebody connects."""
        return self.socket.fileno()

    def accept(self) -> socket.socket | None:
        """The next connection, None if there is none. Raises OSError, such as EMFILE."""
        try:
            accepted, _ = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        accepted.setblocking(False)
        return accepted

    def close(self) -> None:
        """Stop listening, and remove the file if it is still ours; a second call does nothing."""
        self.socket.close()
        owned, self._owned = self._owned, None
        if owned is not None and isinstance(self.endpoint, IpcEndpoint):
            with suppress(OSError):
                found = os.stat(self.endpoint.path)
                if (found.st_dev, found.st_ino) == owned:
                    os.unlink(self.endpoint.path)
        self._remove_directory()

    def forget(self) -> None:
        """In a forked child: close the descriptor; the file is the parent's."""
        self.socket.close()

    def _remove_directory(self) -> None:
        if self._directory:
            with suppress(OSError):
                os.rmdir(self._directory)


def resolve(endpoint: TcpEndpoint | IpcEndpoint, options: SocketOptions) -> list[Address]:
    """Where ``endpoint`` may be reached, in the order to try. May ask a name server, and block.

    Raises: EndpointError if there is no port or the name is unknown.
    """
    if isinstance(endpoint, IpcEndpoint):
        if endpoint.path == ANY:
            raise EndpointError("ipc://* is only to bind; connect to its last_endpoint")
        return [(socket.AF_UNIX, endpoint.address)]
    if not endpoint.port or endpoint.host == ANY:
        raise EndpointError(f"{endpoint} is only to bind; connect needs a host and a port")
    return _look_up(endpoint.host, endpoint.port, options, 0)


def open_stream(
    endpoint: TcpEndpoint | IpcEndpoint, address: Address, options: SocketOptions
) -> socket.socket:
    """A socket that begins to connect; writable when it has or could not. Raises OSError."""
    family, where = address
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        tune(made, options)
        if isinstance(endpoint, TcpEndpoint) and endpoint.local:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((endpoint.local, endpoint.local_port))
        code = made.connect_ex(where)  # type: ignore[arg-type]  # of this family, by resolve
        # EAGAIN: a Unix listener whose backlog is full; it is tried again later.
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
    except BaseException:
        made.close()
        raise
    return made


def finish_connect(made: socket.socket) -> None:
    """Raises OSError if the connection did not come about."""
    code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def say_goodbye(made: socket.socket) -> bool:
    """Tell the peer that nothing more comes; False if the connection is gone."""
    try:
        made.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


def has_unread(made: socket.socket) -> bool:
    """True if bytes of the peer wait to be read."""
    try:
        return bool(made.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


def unsent_bytes(made: socket.socket) -> int:
    """Bytes that the peer's system has not acknowledged; 0 where that cannot be told."""
    count = bytearray(4)
    try:
        fcntl.ioctl(made, _SIOCOUTQ, count)
    except OSError:
        return 0
    return int.from_bytes(count, sys.byteorder)


def tune(made: socket.socket, options: SocketOptions) -> None:
    """Set the options of a connection. Raises OSError."""
    if options.sndbuf:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.sndbuf)
    if options.tcp_rcvbuf:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.tcp_rcvbuf)
    if made.family == socket.AF_UNIX:
        return
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.tcp_keepalive >= 0:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, options.tcp_keepalive)
    for name, value in (
        (socket.TCP_KEEPIDLE, options.tcp_keepalive_idle),
        (socket.TCP_KEEPCNT, options.tcp_keepalive_cnt),
        (socket.TCP_KEEPINTVL, options.tcp_keepalive_intvl),
    ):
        if value > 0:
            made.setsockopt(socket.IPPROTO_TCP, name, value)
    if options.tcp_maxrt:
        milliseconds = round(options.tcp_maxrt * 1000)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def peer_name(made: socket.socket) -> str:
    """Who is at the other end: an address without its port, or ``uid:gid:pid`` of a process."""
    try:
        if made.family == socket.AF_UNIX:
            raw = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            pid, uid, gid = struct.unpack("3i", raw)
            return f"localhost:{uid}:{gid}:{pid}"
        return str(made.getpeername()[0])
    except OSError:  # it has gone again
        return ""


def _bind_addresses(endpoint: TcpEndpoint, options: SocketOptions) -> list[Address]:
    if endpoint.local:
        raise EndpointError(f"{endpoint}: an address in front of ';' is only to connect")
    if endpoint.host == ANY:
        if options.ipv6:
            return [(socket.AF_INET6, ("::", endpoint.port))]
        return [(socket.AF_INET, ("0.0.0.0", endpoint.port))]
    for version in (4, 6) if not options.ipv6 else (6, 4):
        try:
            interface = resolve_interface(endpoint.host, version)
        except InterfaceError:
            continue
        if interface.name == endpoint.host:
            endpoint = replace(endpoint, host=interface.address)
            break
    return _look_up(endpoint.host, endpoint.port, options, socket.AI_PASSIVE)


def _look_up(host: str, port: int, options: SocketOptions, flags: int) -> list[Address]:
    family = socket.AF_UNSPEC if options.ipv6 or ":" in host else socket.AF_INET
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)
    except (OSError, UnicodeError) as error:
        hint = "" if options.ipv6 else "; names are looked up for IPv4 only unless ipv6=True"
        raise EndpointError(f"the host {host!r} is unknown: {error}{hint}") from None
    return [(family, where) for family, _, _, _, where in found]


def _listen(endpoint: Endpoint, addresses: list[Address], options: SocketOptions) -> socket.socket:
    family, where = addresses[0]
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_UNIX:
            _remove_stale(str(where))
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            only = where[0] != "::"  # type: ignore[index]  # a tuple, of this family
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        made.bind(where)  # type: ignore[arg-type]  # of this family
        made.listen(options.backlog)
    except BaseException as error:
        made.close()
        if not isinstance(error, OSError):
            raise
        cure = _CURES.get(error.errno or 0, "")
        text = f"cannot bind {endpoint}: {error.strerror}" + (f"; {cure}" if cure else "")
        raise TransportError(error.errno, text) from None
    return made


def _remove_stale(path: str) -> None:
    """Remove the file of a listener that has died; unlike libzmq, not that of one alive."""
    try:
        if path.startswith("\0") or not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            with suppress(OSError):
                os.unlink(path)
