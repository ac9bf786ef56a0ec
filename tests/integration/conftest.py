"""Real sockets on loopback: a context, and URLs that no other test hears."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator

import pytest

import mcast

_serial = itertools.count(os.getpid())


def fresh_url(source: str = "") -> str:
    """A group and port on ``lo`` that nobody uses; ``source`` makes it source-specific."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind(("127.0.0.1", 0))
        port = asked.getsockname()[1]
    number = next(_serial)
    return f"epgm://lo;{source}239.192.{number // 254 % 254 + 1}.{number % 254 + 1}:{port}"


@pytest.fixture
def url() -> str:
    return fresh_url()


@pytest.fixture
def make_url() -> Callable[..., str]:
    return fresh_url


@pytest.fixture
def ctx() -> Iterator[mcast.Context]:
    """A context whose sockets do not linger, so that a test ends when it is done."""
    with mcast.Context(linger=0.0) as made:
        yield made


Pair = tuple[mcast.Pub, mcast.Sub]


@pytest.fixture
def pair(ctx: mcast.Context, url: str) -> Pair:
    """A publisher and a subscriber to everything, at the same endpoint."""
    sub = ctx.socket(mcast.SUB)
    sub.connect(url)
    sub.subscribe()
    pub = ctx.socket(mcast.PUB)
    pub.connect(url)
    return pub, sub
