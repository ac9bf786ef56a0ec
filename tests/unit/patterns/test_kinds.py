"""The table of socket types, and what a pattern refuses by it."""

from __future__ import annotations

from random import Random

import pytest

from mcast.errors import OptionError
from mcast.patterns import PeerInfo, Refusal, SocketKind, create, is_compatible
from mcast.patterns.kinds import COMPATIBLE, is_routing_id
from mcast.patterns.options import DealerOptions, QueueOptions, ReqOptions, RouterOptions
from tests.unit.patterns.ends import ANYBODY, refusals

pytestmark = pytest.mark.kernel_independent

LEGAL_PAIRS = {
    "PAIR PAIR",
    *("PUB SUB", "PUB XSUB", "XPUB SUB", "XPUB XSUB"),
    *("REQ REP", "REQ ROUTER", "REP DEALER"),
    *("DEALER DEALER", "DEALER ROUTER", "ROUTER ROUTER"),
    "PUSH PULL",
    "RADIO DISH",
}
every_kind = pytest.mark.parametrize("kind", SocketKind)


@pytest.mark.parametrize("ours", SocketKind)
@pytest.mark.parametrize("theirs", SocketKind)
def test_types_talk_as_the_rfc_says(ours: SocketKind, theirs: SocketKind) -> None:
    wanted = f"{ours} {theirs}" in LEGAL_PAIRS or f"{theirs} {ours}" in LEGAL_PAIRS
    assert is_compatible(ours, theirs) is wanted


@every_kind
def test_a_peer_of_an_illegal_type_is_refused(kind: SocketKind) -> None:
    pattern = create(kind, Random(1))
    for number, theirs in enumerate(["STREAM", "pub", *SocketKind]):
        pattern.attach(number, PeerInfo(theirs))
        wanted = [] if theirs in COMPATIBLE[kind] else [(number, Refusal.INCOMPATIBLE)]
        assert refusals(pattern) == wanted
        assert pattern.can_receive(number) is not bool(wanted)
        pattern.detach(number)


@every_kind
def test_a_peer_that_keeps_its_type_to_itself_is_taken(kind: SocketKind) -> None:
    pattern = create(kind, Random(1))
    pattern.attach(0, ANYBODY)
    assert refusals(pattern) == []
    assert pattern.can_receive(0)


def test_an_illegal_type_found_out_late_ends_the_pipe() -> None:
    push = create(SocketKind.PUSH, Random(1))
    push.attach(0)
    push.send(b"queued")
    push.attach(0, PeerInfo("PUSH"))
    assert refusals(push) == [(0, Refusal.INCOMPATIBLE)]
    assert not push.is_writable
    assert push.counters.dropped_undelivered == 1


@every_kind
def test_each_type_makes_its_pattern_and_tells_it_to_peers(kind: SocketKind) -> None:
    assert create(kind, Random(1)).kind is kind
    assert create(kind, Random(1)).info == PeerInfo(kind.value)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SocketKind.REQ, ReqOptions(routing_id=b"me")),
        (SocketKind.DEALER, DealerOptions(routing_id=b"me")),
        (SocketKind.ROUTER, RouterOptions(routing_id=b"me")),
    ],
)
def test_these_tell_their_routing_id(kind: SocketKind, options: QueueOptions) -> None:
    assert create(kind, Random(1), options).info == PeerInfo(kind.value, b"me")


@every_kind
def test_options_of_another_type_raise(kind: SocketKind) -> None:
    class Others(QueueOptions):
        pass

    with pytest.raises(OptionError, match=f"{kind} takes .*Options, not Others"):
        create(kind, Random(1), Others())


@pytest.mark.parametrize(
    ("routing_id", "valid"),
    [(b"", False), (b"a", True), (b"a" * 255, True), (b"a" * 256, False), (b"\0a", False)],
)
def test_routing_ids_have_1_to_255_bytes_and_no_leading_zero(
    routing_id: bytes, valid: bool
) -> None:
    assert is_routing_id(routing_id) is valid


def test_only_a_duplicate_routing_id_leaves_the_connection_open() -> None:
    assert [r for r in Refusal if not r.closes] == [Refusal.DUPLICATE_ROUTING_ID]
