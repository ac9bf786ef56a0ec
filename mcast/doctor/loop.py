"""Does a datagram that is sent to the group come back to this host? Only when asked (``--probe``).

The test packets have a time to live of 0, so they stay on this host; joining the group makes the
kernel send its membership report, which is why this is only done when asked.
"""

from __future__ import annotations

import select
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from mcast.doctor import firewall
from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject
from mcast.endpoint import MulticastEndpoint
from mcast.errors import TransportError
from mcast.net.interfaces import Interface
from mcast.net.multicast import MulticastSockets
from mcast.runtime.deadline import Deadline

__all__ = ["check"]

_NAME = "loop"
_WAIT_S: Final = 0.5
_TRIES: Final = 3
_TEXT: Final = b"mcast doctor"
"""Too short for a PGM packet: every PGM receiver drops it and counts it."""
_PORT: Final = 45_399
"""For hosts that are examined without a URL; of no meaning, in no registry."""
_MOST_READ: Final = 65_535


def check(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Findings of the loop test, first on ``lo``, then on the interface."""
    if not subject.probe or subject.interface is None or not subject.link.is_up:
        return
    endpoint = subject.endpoint or MulticastEndpoint(
        interface=subject.link.name, group=subject.group, port=_PORT
    )
    if not subject.link.is_loopback:
        loopback = [
            entry
            for entry in machine.interfaces()
            if entry.is_loopback and entry.is_up and entry.version == subject.version
        ]
        for entry in loopback[:1]:
            yield _finding(machine, subject, replace(endpoint, interface="lo", source=None), entry)
    source = endpoint.source
    if source not in (None, subject.interface.address):
        endpoint = replace(endpoint, source=subject.interface.address)
    yield _finding(machine, subject, endpoint, subject.interface)


def _finding(
    machine: Machine, subject: Subject, endpoint: MulticastEndpoint, interface: Interface
) -> Finding:
    where = f"{endpoint.group} port {endpoint.port} on {interface.name}"
    try:
        came = _comes_back(endpoint, interface)
    except TransportError as error:
        return Finding(_NAME, Severity.BROKEN, f"{error.strerror}", _fix(machine, subject))
    except OSError as error:  # sending: EPERM is what an output rule of a firewall answers
        text = f"{where}: cannot send: {error.strerror}"
        return Finding(_NAME, Severity.BROKEN, text, _fix(machine, subject))
    if came:
        return Finding(_NAME, Severity.OK, f"{where}: what is sent comes back")
    return Finding(
        _NAME,
        Severity.BROKEN,
        f"{where}: {_TRIES} datagrams were sent and none came back: a firewall drops them, or"
        " something between does",
        _fix(machine, subject),
    )


def _fix(machine: Machine, subject: Subject) -> tuple[str, ...]:
    """What the firewall's check advises, or else a look at the rules, which it may not have had."""
    advised = [line for found in firewall.check(machine, subject) for line in found.fix]
    return tuple(dict.fromkeys(advised)) or ("nft list ruleset",)


def _comes_back(endpoint: MulticastEndpoint, interface: Interface) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sockets = MulticastSockets.open(endpoint, interface, publisher=False, ttl=0, loop=True)
    try:
        name = (endpoint.group, endpoint.port)
        if endpoint.version == 6:
            sockets.sender.connect((*name, 0, interface.index))
        else:
            sockets.sender.connect(name)
        for _ in range(_TRIES):
            sockets.sender.send(_TEXT)
            deadline = Deadline(_WAIT_S / _TRIES)
            while not deadline.has_passed:
                heard = select.select((sockets.group,), (), (), deadline.left)[0]
                if heard and sockets.group.recv(_MOST_READ) == _TEXT:
                    return True
    finally:
        sockets.close()
    return False
