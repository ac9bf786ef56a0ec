"""Endpoints that are not multicast: ``tcp://``, ``ipc://``, ``inproc://`` and ``udp://``.

Owns the grammar behind the scheme and every check that needs nothing but the text; no name is
looked up. Invariant: as in ``mcast.endpoint``, what exists is valid, and equal endpoints have
equal text.

    tcp://HOST:PORT             tcp://10.0.0.5:5555, tcp://[fd00::5]:5555, tcp://broker.lan:5555
    tcp://LOCAL[:PORT];HOST:PORT    connect from this address
    tcp://*:PORT, tcp://eth0:*  bind to every address, or an interface's, at any free port
    ipc://PATH, ipc://@NAME     a file, or Linux's abstract name; ipc://* makes a file of its own
    inproc://NAME               within one context
    udp://[INTERFACE;]HOST:PORT datagrams of RADIO and DISH
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import ClassVar, Final

from mcast.errors import EndpointError

__all__ = [
    "IPC_PATH_BYTES",
    "InprocEndpoint",
    "IpcEndpoint",
    "TcpEndpoint",
    "UdpEndpoint",
    "UnicastEndpoint",
    "parse_unicast",
]

IPC_PATH_BYTES: Final = 107
"""Longest path of a Unix socket (sockaddr_un has 108 with the final zero)."""

ANY: Final = "*"
"""Every address, or any free port."""

_NAME = re.compile(r"[A-Za-z0-9_*]([A-Za-z0-9_.@-]{0,252}[A-Za-z0-9_.])?")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpEndpoint:
    """A TCP address. Raises EndpointError when a field is wrong."""

    scheme: ClassVar[str] = "tcp"

    host: str
    """An address, a host name, to bind also an interface's name or ``*``; no brackets."""
    port: int
    """0..65535; 0 is any free one, only to bind."""
    local: str = ""
    """Address to connect from; empty leaves the choice to the system."""
    local_port: int = 0
    """Port to connect from; 0 leaves the choice to the system."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", _host(self.host, "host"))
        if self.local:
            object.__setattr__(self, "local", _host(self.local, "local address"))

    def __str__(self) -> str:
        local = ""
        if self.local:
            local = f"{_bracket(self.local)}:{self.local_port};"
        return f"tcp://{local}{_bracket(self.host)}:{self.port or ANY}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcEndpoint:
    """A Unix stream socket. Raises EndpointError when the path is empty or too long."""

    scheme: ClassVar[str] = "ipc"

    path: str
    """A file's path; ``@name`` is abstract; ``*``, only to bind, a new file of its own."""

    def __post_init__(self) -> None:
        try:
            size = len(self.path.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            raise EndpointError(f"{self.path!r} is no path: it cannot be encoded") from None
        if not self.path or self.path == "@" or "\0" in self.path:
            raise EndpointError("an ipc:// URL names a file, as in ipc:///tmp/feed, or @name")
        if size > IPC_PATH_BYTES:
            raise EndpointError(
                f"the path has {size} bytes, of which the system takes {IPC_PATH_BYTES};"
                " choose a shorter one"
            )

    @property
    def is_abstract(self) -> bool:
        """True if no file stands for it."""
        return self.path.startswith("@")

    @property
    def address(self) -> str:
        """What the system calls it."""
        return "\0" + self.path[1:] if self.is_abstract else self.path

    def __str__(self) -> str:
        return f"ipc://{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InprocEndpoint:
    """A name within one context. Raises EndpointError when it is empty."""

    scheme: ClassVar[str] = "inproc"

    name: str
    """Any text."""

    def __post_init__(self) -> None:
        if not self.name:
            raise EndpointError("an inproc:// URL has a name, as in inproc://workers")

    def __str__(self) -> str:
        return f"inproc://{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpEndpoint:
    """Where RADIO sends to, or DISH listens. Raises EndpointError when a field is wrong."""

    scheme: ClassVar[str] = "udp"

    address: str
    """IPv4 or IPv6, of a host or a multicast group, or ``*`` to listen everywhere; no brackets."""
    port: int
    """1..65535."""
    interface: str = ""
    """Name or address of the interface for a group."""

    def __post_init__(self) -> None:
        if self.address != ANY:
            try:
                address = ipaddress.ip_address(self.address)
            except ValueError:
                raise EndpointError(
                    f"{self.address!r} is not an IPv4 or IPv6 address;"
                    " an example: udp://lo;239.192.1.1:5555"
                ) from None
            object.__setattr__(self, "address", str(address))
        if self.interface and not self.is_multicast:
            raise EndpointError(f"{self.address} is no group: leave the interface out")
        if not 1 <= self.port <= 65535:
            raise EndpointError(f"port {self.port} is not in 1..65535")

    @property
    def is_multicast(self) -> bool:
        """True if the address is a group."""
        return self.address != ANY and ipaddress.ip_address(self.address).is_multicast

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4

    def __str__(self) -> str:
        interface = f"{_bracket(self.interface)};" if self.interface else ""
        return f"udp://{interface}{_bracket(self.address)}:{self.port}"


UnicastEndpoint = TcpEndpoint | IpcEndpoint | InprocEndpoint | UdpEndpoint
"""Whatever ``parse_unicast`` may return."""


def parse_unicast(scheme: str, rest: str) -> UnicastEndpoint:
    """The endpoint that ``scheme://rest`` names. Raises EndpointError."""
    if scheme == "tcp":
        return _parse_tcp(rest)
    if scheme == "ipc":
        return IpcEndpoint(path=rest)
    if scheme == "inproc":
        return InprocEndpoint(name=rest)
    interface, separator, target = rest.rpartition(";")
    host, port = _host_and_port(target, "udp://lo;239.192.1.1:5555")
    if separator and not interface:
        raise EndpointError("the interface in front of ';' is empty")
    return UdpEndpoint(address=host, port=port, interface=interface.strip("[]"))


def _parse_tcp(rest: str) -> TcpEndpoint:
    source, separator, target = rest.rpartition(";")
    host, port = _host_and_port(target, "tcp://127.0.0.1:5555")
    if not separator:
        return TcpEndpoint(host=host, port=port)
    if re.search(r":[0-9]+$", source) and (source.startswith("[") or source.count(":") == 1):
        local, local_port = _host_and_port(source, "tcp://10.0.0.1:0;10.0.0.5:5555")
    else:
        local, local_port = source.strip("[]"), 0
    if not local or local == ANY:
        raise EndpointError("the local address in front of ';' is one of this machine")
    return TcpEndpoint(host=host, port=port, local=local, local_port=local_port)


def _host_and_port(text: str, example: str) -> tuple[str, int]:
    """As libzmq: the port is what follows the last colon, ``*`` being 0."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port == ANY or (_PORT.fullmatch(port) and int(port) <= 65535)):
        raise EndpointError(
            f"port {port!r} is not a number in 0..65535 or *; an example: {example}"
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise EndpointError(f"{host!r}: an IPv6 address goes into brackets, [{host}]")
    return host, 0 if port == ANY else int(port)


def _host(text: str, what: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not _NAME.fullmatch(text) or (ANY in text and text != ANY):
        raise EndpointError(
            f"{what} {text!r} is no address and no name; an example: tcp://127.0.0.1:5555"
        )
    return text


def _bracket(text: str) -> str:
    return f"[{text}]" if ":" in text else text
