"""The contexts that run now, and what each of them tells of itself.

Owns reading the status sockets and checking what comes: another version's answer, or one that is
none, is a named problem and never an exception. Every text is free of control characters.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from mcast.net.status import ask_all, status_directories, status_paths
from mcast.runtime.deadline import Deadline
from mcast.runtime.status import FORMAT, status_setting
from mcast.stats import Snapshot

__all__ = ["ContextStatus", "SocketStatus", "Survey", "parse_status_untrusted", "survey"]

_SOCKET_LIMIT: Final = 10_000
_COUNTER_LIMIT: Final = 1_000
_ENDPOINT_LIMIT: Final = 1_000
_TEXT_LIMIT: Final = 256
_NAME: Final = re.compile(r"[a-z][A-Za-z0-9_]{0,63}")
_LARGEST: Final = 1 << 80
"""Counters are 64-bit in every kernel; a number beyond it is none of ours."""


@dataclass(frozen=True, slots=True)
class SocketStatus:
    """One socket of a context."""

    number: int
    """Its own within the context: the first made has 1."""
    kind: str
    """``PUB``, ``SUB`` or another type."""
    endpoints: tuple[str, ...]
    """What it is connected to."""
    counters: Snapshot
    """As ``stats()`` of the socket."""


@dataclass(frozen=True, slots=True)
class ContextStatus:
    """One context of a process at a moment."""

    path: str
    """The socket that told; the same for as long as the context lives."""
    pid: int
    """The process, as it sees itself: in a container that is another number than outside."""
    command: str
    """Its command line, at most 256 characters."""
    kernel: str
    """``native`` or ``reference``."""
    loop: str
    """``thread`` or ``caller``."""
    loop_turns: int
    """Turns of its event loop so far."""
    monotonic_ns: int
    """When it told, by the clock that all processes of a machine share."""
    uptime_s: float
    """Seconds since its first socket was made."""
    sockets: tuple[SocketStatus, ...]
    """Those that are open, the oldest first."""


@dataclass(frozen=True, slots=True)
class Survey:
    """All contexts of this user that answered, and those that did not."""

    contexts: list[ContextStatus]
    """By process id, then in the order of their sockets' names."""
    problems: dict[str, str]
    """By path: why a context is missing above."""


def survey(pids: Collection[int] = (), *, timeout: float = 1.0) -> Survey:
    """Ask every context of this user, or of these processes, for its counters.

    Blocks until all have answered, ``timeout`` seconds at most: a process that computes without
    letting its threads run, or has ``loop="caller"`` and is in no call of mcast, answers late or
    not at all. ``MCAST_STATUS=/a/directory`` says where to look.

    Raises: OptionError for a wrong ``MCAST_STATUS``.
    """
    _, _, directory = status_setting(None)
    paths = status_paths(status_directories(directory))
    if pids:
        wanted = {f"{pid}-" for pid in pids}
        names = {path: os.path.basename(path) for path in paths}
        paths = [path for path in paths if names[path].partition("-")[0] + "-" in wanted]
    deadline = Deadline(timeout)
    contexts, problems = [], {}
    for path, answer in ask_all(paths, lambda: deadline.left or 0.0).items():
        try:
            if isinstance(answer, OSError):
                raise ValueError(str(answer))
            contexts.append(parse_status_untrusted(path, answer))
        except ValueError as error:
            problems[path] = str(error)
    contexts.sort(key=lambda context: (context.pid, context.path))
    return Survey(contexts, problems)


def parse_status_untrusted(path: str, answer: bytes) -> ContextStatus:
    """The status in ``answer``, of at most 10,000 sockets.

    Raises: ValueError, which says what is wrong.
    """
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        raise ValueError("its answer is no status") from None
    if not isinstance(told, dict):
        raise ValueError("its answer is no status")
    if told.get("format") != FORMAT:
        raise ValueError(f"its status has format {told.get('format')!r:.20}, not {FORMAT}")
    return ContextStatus(
        path=path,
        pid=_whole(told, "pid"),
        command=_text(told.get("command")),
        kernel=_text(told.get("kernel")),
        loop=_text(told.get("loop")),
        loop_turns=_whole(told, "loop_turns"),
        monotonic_ns=_whole(told, "monotonic_ns"),
        uptime_s=float(_number(told.get("uptime_s"))),
        sockets=tuple(_socket(socket) for socket in _listed(told, "sockets", _SOCKET_LIMIT)),
    )


def _socket(told: object) -> SocketStatus:
    if not isinstance(told, dict) or not isinstance(told.get("counters"), dict):
        raise ValueError("a socket of its status is none")
    counters = told["counters"]
    if len(counters) > _COUNTER_LIMIT or not all(map(_NAME.fullmatch, counters)):
        raise ValueError("the counters of its status are none")
    return SocketStatus(
        number=_whole(told, "number"),
        kind=_text(told.get("type")),
        endpoints=tuple(_text(url) for url in _listed(told, "endpoints", _ENDPOINT_LIMIT)),
        counters={name: _number(value) for name, value in counters.items()},
    )


def _listed(told: dict[str, object], name: str, limit: int) -> list[object]:
    found = told.get(name)
    if not isinstance(found, list) or len(found) > limit:
        raise ValueError(f"the {name} of its status are no list of up to {limit}")
    return found


def _text(value: object) -> str:
    """At most 256 characters that a terminal shows and does not obey."""
    if not isinstance(value, str):
        raise ValueError("a text of its status is none")
    return "".join(char if char.isprintable() else "?" for char in value[:_TEXT_LIMIT])


def _whole(told: dict[str, object], name: str) -> int:
    number = _number(told.get(name))
    if not isinstance(number, int):
        raise ValueError(f"the {name} of its status is no whole number")
    return number


def _number(value: object) -> int | float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise ValueError("a number of its status is none")
    return value
