"""Many publishers and subscribers on one host, group and port; sources, scopes, endpoints."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

import mcast

LIMIT_S = 15.0
ROOT = Path(__file__).parents[2]


def collect(sub: mcast.Sub, count: int) -> dict[bytes, list[int]]:
    """``count`` messages of the form b"WHO NUMBER", the numbers by who."""
    numbers: dict[bytes, list[int]] = defaultdict(list)
    received = 0
    while received < count:
        for message in sub.recv_many(10_000, timeout=LIMIT_S):
            who, number = message.split()
            numbers[who].append(int(number))
            received += 1
    return numbers


@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_everybody_hears_every_publisher_of_the_process(
    ctx: mcast.Context, url: str, drop_rate: float
) -> None:
    """With loss the repairs tell that NAKs reach the right one of several publishers."""
    count, publishers = 2000, 4
    subs = [
        ctx.socket(mcast.SUB, drop_rate=drop_rate, drop_seed=seed, rcvhwm=10**6)
        for seed in range(3)
    ]
    for sub in subs:
        sub.connect(url)
        sub.subscribe()
    pubs = [ctx.socket(mcast.PUB, rate=100e6) for _ in range(publishers)]
    for pub in pubs:
        pub.connect(url)
    for number in range(count):
        for index, pub in enumerate(pubs):
            pub.send(b"%d %d" % (index, number))
    for sub in subs:
        numbers = collect(sub, count * publishers)
        assert numbers == {b"%d" % index: list(range(count)) for index in range(publishers)}
        assert sub.stats()["lost"] == 0
        assert sub.stats()["peers"] == publishers
        if drop_rate:
            assert sub.stats()["repaired"] > 0
    if drop_rate:
        assert all(pub.stats()["rdata_sent"] for pub in pubs)


PUBLISHER = """
import sys, mcast
name, url, count, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
with mcast.Context(linger=10.0) as ctx:
    pub = ctx.socket(mcast.PUB, rate=rate)
    pub.connect(url)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        pub.send(b"%s %d" % (name.encode(), number))
    print("sent", flush=True)
    sys.stdin.readline()
"""

SUBSCRIBER = """
import json, sys, mcast
url, count, drop_rate, seed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
with mcast.Context() as ctx:
    sub = ctx.socket(mcast.SUB, drop_rate=drop_rate, drop_seed=seed, rcvhwm=10**6)
    sub.connect(url)
    sub.subscribe()
    print("ready", flush=True)
    expected, received = {}, 0
    try:
        while received < count:
            for message in sub.recv_many(10_000, timeout=15.0):
                who, number = message.split()
                assert int(number) == expected.get(who, 0), (message, expected)
                expected[who] = int(number) + 1
                received += 1
    except mcast.Again:
        pass
    stats = sub.stats()
    print(json.dumps({"received": received, "lost": stats["lost"], "repaired": stats["repaired"],
                      "peers": stats["peers"]}), flush=True)
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("drop_rate", [0.0, 0.1])
def test_everybody_hears_every_publisher_of_other_processes(url: str, drop_rate: float) -> None:
    """The unicast NAKs of one host all go to one port; each must reach the publisher it names."""
    count, publishers, subscribers = 2000, 3, 2
    processes: list[subprocess.Popen[str]] = []
    try:
        subs = [
            start(SUBSCRIBER, url, count * publishers, drop_rate, seed)
            for seed in range(subscribers)
        ]
        processes = subs
        # Who joins late, and loses the first packet, would begin with the second.
        assert [line_of(sub) for sub in subs] == ["ready"] * subscribers
        pubs = [start(PUBLISHER, name, url, count, 50e6) for name in "abc"[:publishers]]
        processes = [*subs, *pubs]
        assert [line_of(pub) for pub in pubs] == ["ready"] * publishers
        for pub in pubs:
            tell(pub)
        assert [line_of(pub) for pub in pubs] == ["sent"] * publishers
        for sub in subs:
            result = json.loads(line_of(sub))
            assert result["received"] == count * publishers
            assert result["lost"] == 0
            assert result["peers"] == publishers
            assert (result["repaired"] > 0) is bool(drop_rate)
        for pub in pubs:
            tell(pub)
        assert [process.wait(LIMIT_S) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


# Sources and scopes.


def test_a_source_specific_subscriber_hears_its_source_and_nobody_else(
    ctx: mcast.Context, make_url: Callable[..., str]
) -> None:
    url = make_url()
    plain = url.partition(";")[2]
    pub = ctx.socket(mcast.PUB)
    pub.connect(url)
    right, wrong = ctx.socket(mcast.SUB), ctx.socket(mcast.SUB)
    right.connect(f"epgm://lo;127.0.0.1@{plain}")
    wrong.connect(f"epgm://lo;127.0.0.2@{plain}")
    for sub in (right, wrong):
        sub.subscribe()
    pub.send(b"x")
    assert right.recv(timeout=LIMIT_S) == b"x"
    with pytest.raises(mcast.Again):
        wrong.recv(timeout=0.2)


def test_a_publisher_that_is_not_the_source_of_its_url_is_refused(
    ctx: mcast.Context, make_url: Callable[..., str]
) -> None:
    with pytest.raises(mcast.EndpointError, match=r"127\.0\.0\.1"):
        ctx.socket(mcast.PUB).connect(make_url("127.0.0.2@"))
    ctx.socket(mcast.PUB).connect(make_url("127.0.0.1@"))


@pytest.mark.parametrize("hops", [0, 1, 255])
def test_any_number_of_hops_reaches_this_host_with_repairs(
    ctx: mcast.Context, url: str, hops: int
) -> None:
    sub = ctx.socket(mcast.SUB, drop_rate=0.1, drop_seed=3)
    sub.connect(url)
    sub.subscribe()
    pub = ctx.socket(mcast.PUB, multicast_hops=hops)
    pub.connect(url)
    for number in range(2000):
        pub.send(b"a %d" % number)
    assert collect(sub, 2000) == {b"a": list(range(2000))}


IPV6_PROGRAM = """
import mcast
with mcast.Context(linger=0) as ctx:
    sub = ctx.socket(mcast.SUB, drop_rate=0.1, drop_seed=3)
    sub.connect("epgm://lo;[ff01::7777]:5580")
    sub.subscribe()
    pub = ctx.socket(mcast.PUB)
    pub.connect("epgm://lo;[ff01::7777]:5580")
    for number in range(2000):
        pub.send(b"%d" % number)
    numbers = [int(sub.recv(timeout=15.0)) for _ in range(2000)]
    assert numbers == list(range(2000))
    assert sub.stats()["repaired"] > 0
"""


@pytest.mark.namespace
def test_ipv6_works_with_repairs() -> None:
    route = "ip link set lo up && ip -6 route add local ff00::/8 dev lo table local"
    inside = ["unshare", "--net", "sh", "-c", f'{route} && exec "$@"', "sh"]
    ended = subprocess.run(
        [*inside, sys.executable, "-W", "error", "-c", IPV6_PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    if "not permitted" in ended.stderr or "disabled" in ended.stderr:
        pytest.skip(f"no IPv6 here: {ended.stderr.strip()}")
    assert ended.stderr == ""
    assert ended.returncode == 0


# Several endpoints of one socket.


def test_a_publisher_to_two_endpoints_reaches_both(
    ctx: mcast.Context, make_url: Callable[..., str]
) -> None:
    urls = [make_url(), make_url()]
    subs = []
    pub = ctx.socket(mcast.PUB, rate=50e6, sndhwm=100)
    for url in urls:
        sub = ctx.socket(mcast.SUB)
        sub.connect(url)
        sub.subscribe()
        subs.append(sub)
        pub.connect(url)
    for number in range(1000):
        pub.send(b"a %d" % number)
    pub.send_many([b"a %d" % number for number in range(1000, 2000)])
    for number in range(2000, 2010):
        pub.send_multipart([b"a %d" % number])
    for sub in subs:
        assert collect(sub, 2010) == {b"a": list(range(2010))}
    pub.disconnect(urls[0])
    pub.send(b"a 2010")
    assert subs[1].recv(timeout=LIMIT_S) == b"a 2010"
    with pytest.raises(mcast.Again):
        subs[0].recv(timeout=0.2)


def test_a_full_endpoint_holds_up_all_and_nothing_is_sent_to_some_only(
    ctx: mcast.Context, make_url: Callable[..., str]
) -> None:
    pub = ctx.socket(mcast.PUB, rate=2e5, sndhwm=10)
    for _ in range(2):
        pub.connect(make_url())
    with pytest.raises(mcast.Again):  # noqa: PT012
        while True:
            pub.send(bytes(1000), mcast.DONTWAIT)
    sent = [link.stats()["messages_sent"] for link in pub.links]
    assert sent[0] == sent[1]
    pub.send(bytes(1000), timeout=LIMIT_S)
    assert pub.send_many([bytes(100)] * 1000, timeout=0.01) < 1000


def test_a_subscriber_to_two_endpoints_hears_both(
    ctx: mcast.Context, make_url: Callable[..., str]
) -> None:
    sub = ctx.socket(mcast.SUB)
    sub.subscribe()
    pubs = []  # one that is collected is closed, and its context lingers for no time here
    for name in (b"a", b"b"):
        url = make_url()
        sub.connect(url)
        pub = ctx.socket(mcast.PUB)
        pub.connect(url)
        pub.send_many([b"%s %d" % (name, number) for number in range(1000)])
        pubs.append(pub)
    numbers = collect(sub, 2000)
    assert numbers == {b"a": list(range(1000)), b"b": list(range(1000))}
    assert len(sub.endpoints) == 2


def test_a_timeout_holds_when_an_endpoint_has_room_but_not_for_this_message(
    ctx: mcast.Context, make_url: Callable[..., str]
) -> None:
    pub = ctx.socket(mcast.PUB, rate=1e5, txw_bytes=1 << 17)
    for _ in range(2):
        pub.connect(make_url())
    pub.send(bytes(40_000))
    for options in ({"timeout": 0.0}, {"timeout": 0.05}):
        started = time.monotonic()
        with pytest.raises(mcast.Again):
            pub.send(bytes(40_000), **options)
        assert time.monotonic() - started < 1.0
    with pytest.raises(mcast.Again):
        pub.send(bytes(40_000), mcast.DONTWAIT)
    pub.send(b"small", mcast.DONTWAIT)
    assert [link.stats()["messages_sent"] for link in pub.links] == [2, 2]


def test_a_large_message_waits_for_room_at_every_endpoint(
    ctx: mcast.Context, make_url: Callable[..., str]
) -> None:
    pub = ctx.socket(mcast.PUB, rate=10e6, txw_bytes=1 << 17)
    subs = []
    for url in (make_url(), make_url()):
        sub = ctx.socket(mcast.SUB)
        sub.connect(url)
        sub.subscribe()
        subs.append(sub)
        pub.connect(url)
    sent = [b"%d" % number + bytes(40_000) for number in range(5)]
    threads = [threading.Thread(target=pub.send, args=(message,)) for message in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    for sub in subs:
        assert sorted(sub.recv(timeout=LIMIT_S) for _ in sent) == sent


def test_an_endpoint_left_in_the_middle_of_a_send_is_passed_over(
    ctx: mcast.Context, make_url: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pub, sub = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)
    urls = [make_url(), make_url()]
    sub.connect(urls[1])
    sub.subscribe()
    for url in urls:
        pub.connect(url)
    links = pub._open_links()
    pub.disconnect(urls[0])
    monkeypatch.setattr(pub, "_open_links", lambda: links)
    pub.send_multipart([b"still"])
    assert sub.recv(timeout=LIMIT_S) == b"still"
    pub.close()
    with pytest.raises(mcast.ClosedError):
        pub.send_multipart([b"too late"])


def test_thousands_of_subscriptions_are_quick_and_hold_at_once(
    ctx: mcast.Context, make_url: Callable[..., str]
) -> None:
    pub, sub = ctx.socket(mcast.PUB), ctx.socket(mcast.SUB)
    url = make_url()
    pub.connect(url)
    sub.connect(url)
    started = time.monotonic()
    for number in range(8_000):
        sub.subscribe(b"%05d" % number)
    assert time.monotonic() - started < 1.0
    sent = [b"%05d" % number for number in range(0, 16_000, 1_000)]
    pub.send_many(sent)
    assert [sub.recv(timeout=LIMIT_S) for _ in range(8)] == sent[:8]
    sub.unsubscribe(b"07000")
    sub.subscribe(b"15")
    pub.send_many(sent)
    assert [sub.recv(timeout=LIMIT_S) for _ in range(8)] == [*sent[:7], b"15000"]
    with pytest.raises(mcast.Again):
        sub.recv(mcast.DONTWAIT)


def test_a_new_endpoint_gets_the_subscriptions_made_before(
    ctx: mcast.Context, make_url: Callable[..., str]
) -> None:
    sub = ctx.socket(mcast.SUB)
    sub.connect(make_url())
    for topic in (b"a", b"b"):
        sub.subscribe(topic)
    sub.unsubscribe(b"b")
    url = make_url()
    sub.connect(url)
    pub = ctx.socket(mcast.PUB)
    pub.connect(url)
    pub.send_many([b"a1", b"b1", b"a2"])
    assert [sub.recv(timeout=LIMIT_S) for _ in range(2)] == [b"a1", b"a2"]
