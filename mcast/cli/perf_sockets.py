"""The sockets that ``mcast perf`` measures: which types over which transports, and where.

Owns the URLs of the two directions and who binds. Invariant: a load that passed ``check`` can be
opened, as far as the text of its URL tells.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import mcast
from mcast.cli.perf_load import Load
from mcast.endpoint import Endpoint, MulticastEndpoint, parse_endpoint
from mcast.errors import EndpointError, OptionError
from mcast.unicast import IpcEndpoint, TcpEndpoint
from mcast.unicast_options import KINDS

__all__ = ["RECEIVER_TYPES", "TYPES", "check", "is_group", "open_both", "open_end", "reply_url"]

TYPES: Final = {
    "pub": (mcast.PUB, mcast.SUB),
    "push": (mcast.PUSH, mcast.PULL),
    "pair": (mcast.PAIR, mcast.PAIR),
}
"""Sender and receiver, by the sender's name."""

RECEIVER_TYPES: Final = {"sub": "pub", "pull": "push", "pair": "pair"}
"""The same pairs by the receiver's name."""

Measured = MulticastEndpoint | TcpEndpoint | IpcEndpoint


def check(load: Load) -> None:
    """Raise EndpointError or OptionError for what cannot be measured."""
    endpoint = _measured(load.url)
    if isinstance(endpoint, MulticastEndpoint):
        if load.type != "pub":
            raise OptionError(f"epgm:// carries pub and sub only; --type {load.type} needs tcp://")
        if load.binds:
            raise OptionError("--bind is for tcp:// and ipc://; a group is joined")
        return
    if isinstance(endpoint, TcpEndpoint) and endpoint.host == "*" and not load.binds:
        raise EndpointError(f"{load.url} is only to bind; name the host, such as 127.0.0.1")
    if load.sockets > 1 and load.type != "pub":
        raise OptionError(f"--sockets is for sub; a {load.type} reaches one socket")
    if load.sockets > 1 and load.binds:
        raise OptionError("several --sockets cannot bind one URL: give --bind to the other end")


def is_group(url: str) -> bool:
    """True if the URL names a multicast group."""
    return isinstance(parse_endpoint(url), MulticastEndpoint)


def reply_url(url: str) -> str:
    """Where answers go: the next port, or the one before the last; for ipc:// another path.

    Raises: EndpointError.
    """
    endpoint = _measured(url)
    if isinstance(endpoint, IpcEndpoint):
        return str(replace(endpoint, path=f"{endpoint.path}.reply"))
    port = endpoint.port + 1 if endpoint.port < 65535 else endpoint.port - 1
    return str(replace(endpoint, port=port))


def open_end(load: Load, context: mcast.Context, url: str, *, sends: bool) -> mcast.Socket:
    """One end at the URL, a receiver with everything subscribed to.

    Options that only the other end's type has are left out.

    Raises: OptionError, EndpointError, TransportError.
    """
    kind, other = TYPES[load.type][not sends], TYPES[load.type][sends]
    options = {
        name: value
        for name, value in load.options.items()
        if kind.name in (having := KINDS.get(name, {kind.name})) or other.name not in having
    }
    made: mcast.Socket = context.socket(kind, **options)
    if isinstance(made, mcast.Sub):
        made.subscribe(b"")
    if load.judge is not None:
        made.authenticate(load.judge)
    if load.binds:
        made.bind(url)
    else:
        made.connect(url)
    return made


def open_both(load: Load, context: mcast.Context, *, asks: bool) -> tuple[mcast.Socket, ...]:
    """The sender and the receiver of ping (``asks``) or pong; of a pair both are one socket.

    Raises: as ``open_end``.
    """
    if load.type == "pair":
        lone = open_end(load, context, load.url, sends=True)
        return lone, lone
    there, back = (load.url, load.reply) if asks else (load.reply, load.url)
    receiver = open_end(load, context, back, sends=False)
    return open_end(load, context, there, sends=True), receiver


def _measured(url: str) -> Measured:
    endpoint: Endpoint = parse_endpoint(url)
    if not isinstance(endpoint, Measured):
        raise EndpointError(f"mcast perf measures epgm://, tcp:// and ipc:// endpoints, not {url}")
    is_open = endpoint.path == "*" if isinstance(endpoint, IpcEndpoint) else endpoint.port == 0
    if is_open:
        raise EndpointError(f"{url}: the other end has to know the address; leave no * in it")
    return endpoint
