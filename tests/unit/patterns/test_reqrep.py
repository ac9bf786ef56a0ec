"""REQ and REP: alternation, envelopes, who is believed, and peers that leave at any moment."""

from __future__ import annotations

from collections.abc import Iterator
from sys import byteorder

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcast.errors import PatternError
from mcast.kernel import Message
from mcast.patterns import Refusal, Rep, Req, SendResult
from mcast.patterns.direct import exchange, join
from mcast.patterns.options import ReqOptions
from tests.unit.patterns.ends import ANYBODY, dropped, made, out, refusals

pytestmark = pytest.mark.kernel_independent


# REQ.


def test_a_request_has_an_empty_part_in_front() -> None:
    req = made(Req, 1)
    req.send(b"hello")
    assert out(req) == [(b"", b"hello")]
    req.handle_messages(0, [(b"", b"reply")])
    assert req.recv() == b"reply"
    req.send((b"a", b"b"))
    assert out(req) == [(b"", b"a", b"b")]
    req.handle_messages(0, [(b"", b"c", b"d")])
    assert req.recv() == (b"c", b"d")


def test_requests_go_to_each_peer_in_turn() -> None:
    req = made(Req, 2)
    for number in (0, 1, 0):
        req.send(b"x")
        assert out(req, number) == [(b"", b"x")]
        req.handle_messages(number, [(b"", b"y")])
        req.recv()


def test_a_req_sends_and_receives_in_turn() -> None:
    req = made(Req, 1)
    with pytest.raises(PatternError, match="sends a request before it receives"):
        req.recv()
    assert req.is_writable
    req.send(b"1")
    assert not req.is_writable
    with pytest.raises(PatternError, match="receives the reply before it sends another"):
        req.send(b"2")
    assert req.recv() is None
    req.handle_messages(0, [(b"", b"reply")])
    assert req.is_readable
    assert req.recv_many(5) == [b"reply"]
    assert not req.is_readable
    assert req.is_writable


def test_a_req_sends_one_request_of_a_batch() -> None:
    req = made(Req, 1)
    assert req.send_many([b"1", b"2"]) == 1
    with pytest.raises(PatternError):
        req.send_many([b"2"])
    assert made(Req).send_many([b"1"]) == 0


def test_without_a_peer_a_request_would_block_and_no_reply_is_awaited() -> None:
    req = made(Req)
    assert req.send(b"x") is SendResult.WOULD_BLOCK
    req.attach(0, ANYBODY)
    assert req.send(b"x") is SendResult.SENT


def test_replies_of_others_and_replies_nobody_awaits_are_dropped() -> None:
    req = made(Req, 2)
    req.handle_messages(0, [(b"", b"unasked")])
    req.send(b"x")
    req.handle_messages(1, [(b"", b"stranger")])
    assert req.recv() is None
    req.handle_messages(0, [(b"", b"reply"), (b"", b"second")])
    assert req.recv() == b"reply"
    req.handle_messages(0, [(b"", b"third")])
    req.send(b"y")
    assert req.recv() is None
    assert dropped(req) == {"dropped_unexpected": 4}


@pytest.mark.parametrize(
    "reply",
    [
        b"no delimiter",
        b"",
        (b"no", b"delimiter"),
        (b"1234", b"no delimiter"),
        (b"1234", b""),
        (b"12345", b"", b"id too long"),
    ],
)
def test_a_reply_without_an_envelope_ends_the_connection(reply: Message) -> None:
    req = made(Req, 1)
    req.send(b"x")
    req.handle_messages(0, [reply, (b"", b"never looked at")])
    assert refusals(req) == [(0, Refusal.MALFORMED)]
    assert req.recv() is None
    assert not req.can_receive(0)
    # The request itself is still in the queue, and lost with the connection.
    counts = {"dropped_malformed": 1, "dropped_unexpected": 1, "dropped_undelivered": 1}
    assert dropped(req) == counts


def test_a_peer_that_leaves_takes_its_reply_with_it() -> None:
    req = made(Req, 2)
    req.send(b"x")
    out(req, 0)
    req.detach(0)
    req.attach(0, ANYBODY)
    req.handle_messages(0, [(b"", b"from a newcomer")])
    req.handle_messages(1, [(b"", b"from a stranger")])
    assert req.recv() is None
    with pytest.raises(PatternError):
        req.send(b"y")


def test_a_reply_that_came_is_received_though_its_peer_has_left() -> None:
    req = made(Req, 1)
    req.send(b"x")
    req.handle_messages(0, [(b"", b"reply")])
    req.detach(0)
    assert req.recv() == b"reply"


def test_a_connection_that_comes_back_may_still_bring_the_reply() -> None:
    req = made(Req, 1)
    req.send(b"x")
    req.suspend(0)
    req.attach(0, ANYBODY)
    assert out(req) == [(b"", b"x")]
    req.handle_messages(0, [(b"", b"reply")])
    assert req.recv() == b"reply"


def test_a_relaxed_req_replaces_a_request_and_drops_its_reply() -> None:
    req = made(Req, 2, req_relaxed=True)
    req.send(b"1")
    assert req.is_writable
    req.handle_messages(0, [(b"", b"reply to 1")])
    req.send(b"2")
    assert not req.is_readable
    req.handle_messages(0, [(b"", b"another to 1")])
    assert req.recv() is None
    req.handle_messages(1, [(b"", b"reply to 2")])
    assert req.recv() == b"reply to 2"
    assert dropped(req) == {"dropped_unexpected": 2}


def test_a_relaxed_req_keeps_its_request_if_the_next_would_block() -> None:
    req = made(Req, 1, req_relaxed=True, sndhwm=1)
    req.send(b"1")
    assert not req.is_writable
    assert req.send(b"2") is SendResult.WOULD_BLOCK
    req.handle_messages(0, [(b"", b"reply to 1")])
    assert req.recv() == b"reply to 1"


def test_a_relaxed_req_lets_go_of_a_peer_that_left() -> None:
    req = made(Req, 2, req_relaxed=True)
    req.send(b"1")
    req.detach(0)
    req.send(b"2")
    assert out(req, 1) == [(b"", b"2")]


def request_ids(req: Req) -> Iterator[bytes]:
    while True:
        req.send(b"x")
        ((request_id, delimiter, body),) = out(req)
        assert (delimiter, body) == (b"", b"x")
        assert isinstance(request_id, bytes)
        yield request_id


def test_correlated_requests_are_numbered_in_host_order() -> None:
    ids = request_ids(made(Req, 1, req_correlate=True, req_relaxed=True))
    first, second = (int.from_bytes(next(ids), byteorder) for _ in range(2))
    assert second == (first + 1) % (1 << 32)


def test_request_numbers_wrap() -> None:
    req = made(Req, 1, req_correlate=True, req_relaxed=True)
    req._last_id = (1 << 32) - 2
    ids = request_ids(req)
    assert [next(ids), next(ids)] == [b"\xff" * 4, b"\0" * 4]


def test_a_correlated_req_takes_only_the_reply_with_its_number() -> None:
    req = made(Req, 1, req_correlate=True, req_relaxed=True)
    ids = request_ids(req)
    first, second = next(ids), next(ids)
    req.handle_messages(0, [(first, b"", b"late"), (b"", b"without")])
    assert req.recv() is None
    req.handle_messages(0, [(second, b"", b"a", b"b")])
    assert req.recv() == (b"a", b"b")
    next(ids)
    req.handle_messages(0, [(second, b"", b"again")])
    assert req.recv() is None


def test_a_req_that_does_not_correlate_takes_no_reply_with_a_number() -> None:
    req = made(Req, 1)
    req.send(b"x")
    req.handle_messages(0, [(b"1234", b"", b"reply")])
    assert req.recv() is None
    assert dropped(req) == {"dropped_unexpected": 1}


def test_the_number_that_was_sent_counts_though_the_option_changed() -> None:
    req = made(Req, 1, req_correlate=True)
    request_id = next(request_ids(req))
    req.configure(ReqOptions())
    req.handle_messages(0, [(request_id, b"", b"reply")])
    assert req.recv() == b"reply"


def test_a_req_probes_each_new_connection() -> None:
    req = made(Req, 1, probe_router=True)
    req.send(b"x")
    assert out(req) == [b"", (b"", b"x")]
    assert out(made(Req, 1)) == []


# REP.


def test_a_rep_keeps_the_envelope_and_puts_it_before_the_reply() -> None:
    rep = made(Rep, 1)
    rep.handle_messages(0, [(b"id", b"address", b"", b"a", b"", b"b"), (b"", b"c")])
    assert rep.recv() == (b"a", b"", b"b")
    assert rep.send(b"reply") is SendResult.SENT
    assert rep.recv() == b"c"
    rep.send((b"d", b"e"))
    assert out(rep) == [(b"id", b"address", b"", b"reply"), (b"", b"d", b"e")]


def test_a_rep_receives_and_sends_in_turn() -> None:
    rep = made(Rep, 1)
    with pytest.raises(PatternError, match="receives a request before it sends"):
        rep.send(b"x")
    assert rep.recv() is None
    rep.handle_messages(0, [(b"", b"1"), (b"", b"2")])
    assert rep.is_readable
    assert not rep.is_writable
    assert rep.recv_many(0) == []
    assert rep.recv_many(5) == [b"1"]
    assert not rep.is_readable
    assert rep.is_writable
    with pytest.raises(PatternError, match="sends the reply before it receives"):
        rep.recv()
    with pytest.raises(PatternError):
        rep.recv_many(1)
    rep.send(b"x")
    assert rep.recv_many(5) == [b"2"]


def test_requests_are_received_from_each_peer_in_turn() -> None:
    rep = made(Rep, 2)
    rep.handle_messages(0, [(b"", b"a1"), (b"", b"a2")])
    rep.handle_messages(1, [(b"", b"b1")])
    for body, peer in ((b"a1", 0), (b"b1", 1), (b"a2", 0)):
        assert rep.recv() == body
        rep.send(b"to " + body)
        assert out(rep, peer) == [(b"", b"to " + body)]


@pytest.mark.parametrize(
    "request_",
    [b"", b"x", (b"x", b"y"), (b"x", b"")],
)
def test_a_request_without_a_delimiter_before_its_body_is_dropped(request_: Message) -> None:
    rep = made(Rep, 1)
    rep.handle_messages(0, [request_])
    assert rep.recv() is None
    assert dropped(rep) == {"dropped_malformed": 1}
    assert refusals(rep) == []
    rep.handle_messages(0, [request_, (b"", b"good")])
    assert rep.recv() == b"good"


def test_the_reply_to_a_peer_that_left_is_dropped() -> None:
    rep = made(Rep, 1)
    rep.handle_messages(0, [(b"", b"1"), (b"", b"2")])
    rep.recv()
    rep.detach(0)
    rep.attach(0, ANYBODY)
    assert rep.send(b"x") is SendResult.SENT
    assert rep.recv() == b"2"
    assert rep.send(b"y") is SendResult.SENT
    assert out(rep) == []
    assert dropped(rep) == {"dropped_unroutable": 2}


def test_the_reply_to_a_peer_whose_queue_is_full_is_dropped() -> None:
    rep = made(Rep, 1, sndhwm=1)
    for _ in range(2):
        rep.handle_messages(0, [(b"", b"x")])
        rep.recv()
        rep.send(b"reply")
    assert out(rep) == [(b"", b"reply")]
    assert dropped(rep) == {"dropped_at_hwm": 1}


# Both, whatever happens to their connections.


class Conversation(RuleBasedStateMachine):
    """Requesters and repliers whose connections break and come back at any moment.

    Each request names its requester and has a number, and the reply repeats both: what a requester
    receives has to be the reply to its last request.
    """

    relaxed = False

    @initialize(reqs=st.integers(1, 3), reps=st.integers(1, 3))
    def start(self, reqs: int, reps: int) -> None:
        self.reqs = [
            made(Req, req_relaxed=self.relaxed, req_correlate=self.relaxed, sndhwm=2)
            for _ in range(reqs)
        ]
        self.reps = [made(Rep, sndhwm=2) for _ in range(reps)]
        self.numbers = [0] * reqs
        self.asking = [False] * reqs
        self.serving: list[Message | None] = [None] * reps
        self.joined: set[tuple[int, int]] = set()
        for req in range(reqs):
            for rep in range(reps):
                self.joint(req, rep)

    def joint(self, req: int, rep: int) -> None:
        if (req, rep) in self.joined:
            self.joined.remove((req, rep))
            self.reqs[req].detach(rep)
            self.reps[rep].detach(req)
        else:
            self.joined.add((req, rep))
            join(self.reqs[req], rep, self.reps[rep], req)

    @rule(req=st.integers(0, 2), rep=st.integers(0, 2))
    def break_or_mend(self, req: int, rep: int) -> None:
        self.joint(req % len(self.reqs), rep % len(self.reps))

    @rule(data=st.data())
    @precondition(lambda self: self.joined)
    def move(self, data: st.DataObject) -> None:
        req, rep = data.draw(st.sampled_from(sorted(self.joined)))
        exchange(self.reqs[req], rep, self.reps[rep], req)

    @rule(req=st.integers(0, 2))
    def ask(self, req: int) -> None:
        req %= len(self.reqs)
        body = (b"%d" % req, b"%d" % (self.numbers[req] + 1))
        if self.asking[req] and not self.relaxed:
            with pytest.raises(PatternError):
                self.reqs[req].send(body)
        elif self.reqs[req].send(body) is SendResult.SENT:
            self.asking[req] = True
            self.numbers[req] += 1

    @rule(req=st.integers(0, 2))
    def hear(self, req: int) -> None:
        req %= len(self.reqs)
        if not self.asking[req]:
            with pytest.raises(PatternError):
                self.reqs[req].recv()
            return
        reply = self.reqs[req].recv()
        if reply is not None:
            assert reply == (b"%d" % req, b"%d" % self.numbers[req])
            self.asking[req] = False

    @rule(rep=st.integers(0, 2))
    def serve(self, rep: int) -> None:
        rep %= len(self.reps)
        due = self.serving[rep]
        if due is None:
            with pytest.raises(PatternError):
                self.reps[rep].send(b"x")
            self.serving[rep] = self.reps[rep].recv()
        else:
            with pytest.raises(PatternError):
                self.reps[rep].recv()
            assert self.reps[rep].send(due) is SendResult.SENT
            self.serving[rep] = None

    @invariant()
    def nobody_is_refused(self) -> None:
        for pattern in (*getattr(self, "reqs", []), *getattr(self, "reps", [])):
            assert refusals(pattern) == []


class RelaxedConversation(Conversation):
    relaxed = True


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=100, stateful_step_count=40)
TestRelaxedConversation = RelaxedConversation.TestCase
TestRelaxedConversation.settings = settings(max_examples=100, stateful_step_count=40)


def test_every_request_is_replied_to_while_connections_hold() -> None:
    req, rep = made(Req), made(Rep)
    join(req, 0, rep, 0)
    for number in range(10):
        req.send(b"%d" % number)
        exchange(req, 0, rep, 0)
        request = rep.recv()
        assert request is not None
        rep.send(request)
        exchange(req, 0, rep, 0)
        assert received_once(req) == b"%d" % number


def received_once(req: Req) -> Message | None:
    (message,) = req.recv_many(10)
    return message
