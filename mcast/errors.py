"""Every exception that mcast raises on purpose; anything else that escapes is a bug.

    Error
    ├── Again (TimeoutError)             nothing happened in the time allowed
    ├── ClosedError                      the socket or context was closed
    │   └── ForkedError                  it belongs to the parent of this process
    ├── LossError                        a gap in the stream, with on_loss="raise"
    ├── MessageTooLongError (ValueError) the message exceeds a configured limit
    ├── OptionError (ValueError)         an option's name, type or range is wrong
    ├── EndpointError (ValueError)       a URL is malformed or its scheme unsupported
    │   └── InterfaceError               no such interface, or more than one would do
    ├── PatternError                     this socket type cannot do that
    │   └── UnroutableError              a ROUTER knows no such peer
    └── TransportError (OSError)         the operating system refused

Malformed bytes from the network raise nothing: they are dropped and counted.
"""

from __future__ import annotations

__all__ = [
    "Again",
    "ClosedError",
    "EndpointError",
    "Error",
    "ForkedError",
    "InterfaceError",
    "LossError",
    "MessageTooLongError",
    "OptionError",
    "PatternError",
    "TransportError",
    "UnroutableError",
]


class Error(Exception):
    """The base of every error that mcast raises on purpose."""


class Again(Error, TimeoutError):
    """Nothing happened within the timeout; the same call may succeed later (libzmq: EAGAIN)."""


class ClosedError(Error):
    """The socket or its context is closed, for good; make a new one."""


class ForkedError(ClosedError):
    """The object belongs to the parent of this forked process; make a new Context in the child."""


class LossError(Error):
    """Packets were lost for good at this point of the stream (only with ``on_loss="raise"``).

    The fields are those of :class:`mcast.Lost`. The socket stays usable: the next ``recv`` goes on
    with the first message behind the gap.
    """

    def __init__(self, tsi: str, first: int, last: int, count: int, reason: str) -> None:
        super().__init__(tsi, first, last, count, reason)  # so that it can be copied and pickled
        self.tsi = tsi
        self.first = first
        self.last = last
        self.count = count
        self.reason = reason

    def __str__(self) -> str:
        where = f"packets {self.first} to {self.last} of {self.tsi}"
        if self.reason in ("app_hwm", "too_long", "malformed"):
            return f"lost {self.count} messages in {where}: {self.reason}"
        return f"lost {self.count} packets, {where}: {self.reason}"


class MessageTooLongError(Error, ValueError):
    """A message exceeds ``max_msg_size``, or what one message may take of the transmit window."""


class OptionError(Error, ValueError):
    """An option has an unknown name, a wrong type, or a value outside its range."""


class EndpointError(Error, ValueError):
    """A URL is malformed, or names a transport that this socket type cannot use."""


class InterfaceError(EndpointError):
    """No interface matches the URL, or several do; the message lists the choices."""


class PatternError(Error):
    """The socket type does not allow this call, such as ``recv`` on a PUB."""


class UnroutableError(PatternError):
    """A ROUTER with ``router_mandatory`` has no peer of that routing id (libzmq: EHOSTUNREACH)."""


class TransportError(Error, OSError):
    """The operating system refused a network operation; ``errno`` says why."""
