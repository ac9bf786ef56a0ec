"""What each ZeroMQ socket type does with its peers and messages, without I/O, clock or threads.

``create`` makes the ``Pattern`` of a socket; the order of calls is told once, in the docstring of
that class. Between two of them goes a ZMTP connection, or ``direct.exchange`` for inproc, or, for
RADIO and DISH, datagrams as in ``datagram``.

Where libzmq's rule is a trap the rule here is another, and it says so where it stands: a REQ takes
no stranger's message for its reply, an XPUB hands out no cancellation of what was not subscribed
to, a DISH or SUB never loses a change of its subscriptions in silence, a ROUTER's id is free as
soon as its peer is detached, and a message is conflated whole.
"""

from __future__ import annotations

from random import Random
from typing import Final

from mcast.patterns.base import Change, Pattern
from mcast.patterns.events import PatternCounters, Refusal, Refused, SendResult
from mcast.patterns.kinds import PeerInfo, SocketKind, is_compatible
from mcast.patterns.options import QueueOptions
from mcast.patterns.pipeline import Dealer, Pair, Pull, Push
from mcast.patterns.publishers import Pub, Xpub
from mcast.patterns.radiodish import Dish, Radio
from mcast.patterns.reqrep import Rep, Req
from mcast.patterns.router import Router
from mcast.patterns.subscribers import Sub, Xsub

__all__ = [
    "Change",
    "Dealer",
    "Dish",
    "Pair",
    "Pattern",
    "PatternCounters",
    "PeerInfo",
    "Pub",
    "Pull",
    "Push",
    "Radio",
    "Refusal",
    "Refused",
    "Rep",
    "Req",
    "Router",
    "SendResult",
    "SocketKind",
    "Sub",
    "Xpub",
    "Xsub",
    "create",
    "is_compatible",
    "options_type",
]

_PATTERNS: Final[dict[SocketKind, type[Pattern]]] = {
    pattern.kind: pattern
    for pattern in (
        Pair,
        Pub,
        Sub,
        Req,
        Rep,
        Dealer,
        Router,
        Pull,
        Push,
        Xpub,
        Xsub,
        Radio,
        Dish,
    )
}


def create(kind: SocketKind, dice: Random, options: QueueOptions | None = None) -> Pattern:
    """The pattern of a new socket of this type; None: its options at their defaults.

    Raises: OptionError for options of another socket type.
    """
    pattern = _PATTERNS[kind]
    return pattern(pattern.options_type() if options is None else options, dice)


def options_type(kind: SocketKind) -> type[QueueOptions]:
    """The class of this socket type's options."""
    return _PATTERNS[kind].options_type
