"""NULL and PLAIN, both roles: order of commands, what ends them, and the authenticator."""

from __future__ import annotations

from itertools import product

import pytest

from mcast.zmtp import (
    AuthNeeded,
    AuthStatus,
    Failed,
    FailureReason,
    PlainClient,
    PlainServer,
    Ready,
)
from tests.unit.zmtp.ends import PAIRS, End, S, pair, ready_end, talk
from tests.unit.zmtp.wire import (
    NULL_GREETING,
    PUB_READY,
    SUB_READY,
    command,
    frame,
    greeting,
    message,
    ping,
    properties,
    ready,
)

pytestmark = pytest.mark.kernel_independent

ADMIN_HELLO = command(b"HELLO", b"\x05admin\x06secret")
WELCOME = command(b"WELCOME")
SUB_INITIATE = command(b"INITIATE", properties(Socket_Type=b"SUB"))
PLAIN_GREETING = greeting(b"PLAIN")
REFUSALS = [AuthStatus.TEMPORARY, AuthStatus.DENIED, AuthStatus.FAILED]


def plain_server(answer: AuthStatus | None = AuthStatus.ALLOWED) -> End:
    return End("PUB", PlainServer(), answer=answer)


def plain_client() -> End:
    return End("SUB", PlainClient("admin", "secret"))


@pytest.mark.parametrize("mechanism", PAIRS)
def test_both_roles_find_each_other(mechanism: str) -> None:
    server, client = pair(mechanism)
    assert server.ready.socket_type == "SUB"
    assert client.ready.socket_type == "PUB"
    assert server.ready.mechanism == client.ready.mechanism == mechanism
    assert server.ready.version == client.ready.version == (3, 1)
    assert server.failure is client.failure is None
    assert server.engine.next_timeout_ns == client.engine.next_timeout_ns == 1 << 62


@pytest.mark.parametrize("mechanism", PAIRS)
def test_identity_and_metadata_reach_the_other_side(mechanism: str) -> None:
    server = End("ROUTER", PAIRS[mechanism][0], metadata=(("X-shelf", b"7"),))
    client = End("DEALER", PAIRS[mechanism][1], identity=b"D1")
    talk(server, client)
    assert server.ready.identity == b"D1"
    assert client.ready.identity == b""
    assert client.ready.properties == {
        "Socket-Type": b"ROUTER",
        "Identity": b"",
        "X-shelf": b"7",
    }


def test_greeting_leaves_at_once_and_ready_only_behind_the_peers() -> None:
    end = End("PUB")
    assert end.take_sent() == NULL_GREETING
    assert end.hear(NULL_GREETING[:63]).take_sent() == b""
    assert end.hear(NULL_GREETING[63:]).take_sent() == PUB_READY
    assert not end.engine.is_ready
    assert end.hear(SUB_READY).take_sent() == b""
    assert end.engine.is_ready


def test_traffic_behind_ready_in_the_same_bytes_is_delivered() -> None:
    end = End("SUB").hear(NULL_GREETING + PUB_READY + message(b"early"))
    assert isinstance(end.events[0], Ready)
    assert end.messages == [b"early"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SUB_READY[:-1] + b"X", FailureReason.SOCKET_TYPE),
        (ready(b"PUSH"), FailureReason.SOCKET_TYPE),
        (ready(b"SUB", Identity=b"\0"), FailureReason.METADATA),
        (command(b"READY", b"\x01"), FailureReason.METADATA),
        (command(b"READY", bytes(4097)), FailureReason.TOO_LONG),
        (command(b"READY", bytes(5000)), FailureReason.TOO_LONG),
        (command(b"HELLO"), FailureReason.UNEXPECTED),
        (ping(0), FailureReason.UNEXPECTED),
        (command(b"SUBSCRIBE", b"A"), FailureReason.UNEXPECTED),
        (command(b"ERROR", b"\x03400"), FailureReason.REFUSED_BY_PEER),
        (command(b"ERROR", b""), FailureReason.MALFORMED),
        (frame(4, b""), FailureReason.MALFORMED),
        (message(b"\x01A"), FailureReason.UNEXPECTED),
        (frame(0, SUB_READY[2:]), FailureReason.UNEXPECTED),
        (frame(8, SUB_READY[2:]), FailureReason.MALFORMED),
    ],
)
def test_null_handshake_ends_with_a_reason_and_delivers_nothing(
    data: bytes, reason: FailureReason
) -> None:
    end = End("PUB").hear(NULL_GREETING, data, SUB_READY, message(b"\x01A"))
    assert end.failure is reason
    assert len(end.events) == 1
    assert end.engine.is_over


def test_wrong_socket_type_is_told_by_error_once_the_peer_has_spoken() -> None:
    end = End("PUB").hear(NULL_GREETING)
    end.take_sent()
    assert end.hear(ready(b"PUSH")).take_sent() == command(b"ERROR", b"\x0bsocket_type")


def test_error_of_the_peer_carries_its_status() -> None:
    end = End("PUB").hear(NULL_GREETING, command(b"ERROR", b"\x03400"))
    assert end.events == [Failed(FailureReason.REFUSED_BY_PEER, "the peer refused: '400'", 400)]


def test_older_peer_and_other_mechanism_get_no_error() -> None:
    for hello in (greeting(version=b"\x01\x00"), greeting(b"CURVE"), b"GET / HTTP/1.1\r\n"):
        end = End("PUB").hear(hello)
        assert end.failure is not None
        assert end.take_sent() == NULL_GREETING


def test_peer_without_socket_type_is_welcome() -> None:
    end = End("PUB").hear(NULL_GREETING, command(b"READY"))
    assert end.ready.socket_type == ""


# NULL with an authenticator.


def asked(answer: AuthStatus | None = None) -> End:
    return End("PUB", zap_domain="global", answer=answer)


def test_null_asks_only_with_a_domain_and_before_its_ready() -> None:
    assert not End("PUB").hear(NULL_GREETING, SUB_READY).all(AuthNeeded)
    end = asked().hear(NULL_GREETING)
    (question,) = end.all(AuthNeeded)
    assert question == AuthNeeded("NULL", "127.0.0.1", "global", b"", ())
    assert end.take_sent() == NULL_GREETING


@pytest.mark.parametrize("ready_first", [False, True])
def test_null_goes_on_when_allowed(ready_first: bool) -> None:
    end = asked().hear(NULL_GREETING)
    if ready_first:
        end.hear(SUB_READY)
    assert not end.all(Ready)
    end.reply(AuthStatus.ALLOWED, user_id="joe", metadata={"role": b"x"})
    assert end.sent.endswith(PUB_READY)
    if not ready_first:
        end.hear(SUB_READY)
    assert end.ready.user_id == "joe"
    assert end.ready.auth_metadata == {"role": b"x"}


@pytest.mark.parametrize("late", [message(b"\x01A"), SUB_READY, ping(0)])
def test_nothing_may_follow_ready_before_ours(late: bytes) -> None:
    end = asked().hear(NULL_GREETING, SUB_READY, late)
    assert end.failure is FailureReason.UNEXPECTED


@pytest.mark.parametrize("status", [AuthStatus.DENIED, AuthStatus.FAILED])
@pytest.mark.parametrize("ready_first", [False, True])
def test_null_refusal_waits_for_the_peers_first_command(
    status: AuthStatus, ready_first: bool
) -> None:
    end = asked().hear(NULL_GREETING)
    end.take_sent()
    first, second = (SUB_READY, b"") if ready_first else (b"", SUB_READY)
    end.hear(first)
    end.reply(status)
    assert end.engine.is_over is ready_first
    assert (end.sent != b"") is ready_first
    end.hear(second)
    assert end.take_sent() == command(b"ERROR", b"\x03%d" % status)
    assert end.all(Failed) == [
        Failed(FailureReason.REFUSED, f"the authenticator said {status:d}", status)
    ]


def test_temporary_refusal_is_a_close_without_a_word() -> None:
    end = asked().hear(NULL_GREETING)
    end.take_sent()
    end.reply(AuthStatus.TEMPORARY)
    assert end.failure is FailureReason.REFUSED
    assert end.take_sent() == b""


def test_answer_without_a_question_is_a_mistake() -> None:
    for end in (End("PUB"), ready_end()):
        with pytest.raises(RuntimeError, match="without an AuthNeeded"):
            end.reply(AuthStatus.ALLOWED)
    end = asked(AuthStatus.ALLOWED).hear(NULL_GREETING)
    with pytest.raises(RuntimeError, match="without an AuthNeeded"):
        end.reply(AuthStatus.DENIED)


def test_answer_may_be_a_number_but_only_of_rfc_27() -> None:
    end = asked().hear(NULL_GREETING, SUB_READY)
    for wrong in (100, True):
        with pytest.raises(ValueError, match="not a valid AuthStatus"):
            end.reply(wrong)  # type: ignore[arg-type]
    end.reply(200)  # type: ignore[arg-type]
    assert end.engine.is_ready


def test_answer_after_the_end_is_ignored() -> None:
    end = asked().hear(NULL_GREETING)
    end.engine.handle_eof()
    end.take_sent()
    end.reply(AuthStatus.ALLOWED)
    assert end.failure is FailureReason.PEER_CLOSED
    assert end.take_sent() == b""


# PLAIN.


def test_plain_is_byte_for_byte_rfc_24() -> None:
    server, client = plain_server(), plain_client()
    client.take_sent()
    server.take_sent()
    assert client.hear(PLAIN_GREETING).take_sent() == ADMIN_HELLO
    assert server.hear(PLAIN_GREETING).take_sent() == b""
    assert server.hear(ADMIN_HELLO).take_sent() == WELCOME
    assert client.hear(WELCOME).take_sent() == SUB_INITIATE
    assert not server.all(Ready)
    assert server.hear(SUB_INITIATE).take_sent() == PUB_READY
    assert server.all(Ready)
    assert client.hear(PUB_READY).take_sent() == b""
    assert client.engine.is_ready


def test_plain_server_asks_about_name_and_password_and_shows_neither() -> None:
    server = plain_server(None).hear(PLAIN_GREETING, ADMIN_HELLO)
    (question,) = server.all(AuthNeeded)
    assert question.credentials == (b"admin", b"secret")
    assert "secret" not in repr(question)
    assert server.hear(SUB_INITIATE).failure is FailureReason.UNEXPECTED


@pytest.mark.parametrize("status", REFUSALS)
def test_plain_client_learns_that_it_was_refused(status: AuthStatus) -> None:
    server, client = plain_server(status), plain_client()
    talk(server, client)
    assert server.failure is FailureReason.REFUSED
    assert not server.all(Ready)
    if status is AuthStatus.TEMPORARY:
        assert client.failure is None
        client.engine.handle_eof()
        client.drain()
        assert client.failure is FailureReason.PEER_CLOSED
    else:
        assert client.failure is FailureReason.REFUSED_BY_PEER
        assert client.all(Failed)[0].status == status


@pytest.mark.parametrize("before", [b"", WELCOME])
def test_libzmqs_misspelt_error_is_understood(before: bytes) -> None:
    client = plain_client().hear(PLAIN_GREETING, before, bytes.fromhex("04095e52524f5203343030"))
    assert client.all(Failed)[0] == Failed(
        FailureReason.REFUSED_BY_PEER, "the peer refused: '400'", 400
    )


def test_longest_credentials_fit_into_a_hello() -> None:
    server = End("PUB", PlainServer(), max_metadata_bytes=64)
    client = End("SUB", PlainClient("u" * 255, "p" * 255))
    talk(server, client)
    assert server.all(AuthNeeded)[0].credentials == (b"u" * 255, b"p" * 255)
    assert server.engine.is_ready


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x05admi", b"\x01a\x02b", b"\x01a\x00b"])
def test_hello_ends_with_the_password(data: bytes) -> None:
    server = plain_server().hear(PLAIN_GREETING, command(b"HELLO", data))
    assert server.failure is FailureReason.MALFORMED
    assert not server.all(AuthNeeded)


def test_empty_name_and_password_are_asked_about() -> None:
    server = plain_server(None).hear(PLAIN_GREETING, command(b"HELLO", b"\0\0"))
    assert server.all(AuthNeeded)[0].credentials == (b"", b"")


def test_welcome_has_no_data() -> None:
    client = plain_client().hear(PLAIN_GREETING, command(b"WELCOME", b"x"))
    assert client.failure is FailureReason.MALFORMED


@pytest.mark.parametrize("heard", list(product([WELCOME, PUB_READY, ADMIN_HELLO], repeat=2)))
def test_plain_client_takes_its_commands_in_one_order_only(heard: tuple[bytes, ...]) -> None:
    client = plain_client().hear(PLAIN_GREETING, *heard)
    if heard == (WELCOME, PUB_READY):
        assert client.engine.is_ready
    else:
        assert client.failure is FailureReason.UNEXPECTED
        assert not client.all(Ready)


@pytest.mark.parametrize(
    "heard", list(product([ADMIN_HELLO, SUB_INITIATE, SUB_READY, WELCOME], repeat=2))
)
def test_plain_server_takes_its_commands_in_one_order_only(heard: tuple[bytes, ...]) -> None:
    server = plain_server().hear(PLAIN_GREETING, *heard)
    if heard == (ADMIN_HELLO, SUB_INITIATE):
        assert server.engine.is_ready
    else:
        assert server.failure is FailureReason.UNEXPECTED
        assert not server.all(Ready)


def test_server_takes_no_error_from_a_client() -> None:
    server = plain_server().hear(PLAIN_GREETING, command(b"ERROR", b"\x03400"))
    assert server.failure is FailureReason.UNEXPECTED


def test_client_never_sends_error() -> None:
    client = plain_client().hear(PLAIN_GREETING, WELCOME)
    client.take_sent()
    assert client.hear(ready(b"PULL")).failure is FailureReason.SOCKET_TYPE
    assert client.take_sent() == b""


@pytest.mark.parametrize("mechanism", ["PLAIN", "CURVE"])
@pytest.mark.parametrize("role", [0, 1])
def test_two_of_one_role_do_not_find_each_other(mechanism: str, role: int) -> None:
    one, other = (End("PAIR", PAIRS[mechanism][role], seed=seed) for seed in (5, 6))
    talk(one, other)
    for end in (one, other):
        end.run(6 * S)
        assert end.failure in (FailureReason.UNEXPECTED, FailureReason.HANDSHAKE_TIMEOUT)


@pytest.mark.parametrize("ours", PAIRS)
@pytest.mark.parametrize("theirs", PAIRS)
def test_mechanism_cannot_be_talked_down(ours: str, theirs: str) -> None:
    if ours == theirs:
        return
    for role in (0, 1):
        end = End("PUB", PAIRS[ours][role]).hear(
            greeting(theirs.encode()), SUB_READY, message(b"\x01A")
        )
        assert end.failure is FailureReason.MECHANISM
        assert len(end.events) == 1


# Time, and the end.


@pytest.mark.parametrize("heard", [b"", NULL_GREETING[:10], NULL_GREETING, NULL_GREETING + b"\x04"])
def test_handshake_has_its_time(heard: bytes) -> None:
    end = End("PUB").hear(heard)
    end.run(5 * S - 1)
    assert not end.engine.is_over
    end.run(1)
    assert end.failure is FailureReason.HANDSHAKE_TIMEOUT


def test_one_byte_a_second_does_not_stretch_the_handshake() -> None:
    end = End("PUB")
    for octet in NULL_GREETING:
        end.hear(bytes((octet,)))
        end.run(S)
    assert end.failure is FailureReason.HANDSHAKE_TIMEOUT


def test_wait_for_the_authenticator_is_part_of_the_handshake() -> None:
    end = asked().hear(NULL_GREETING, SUB_READY)
    end.run(5 * S)
    assert end.failure is FailureReason.HANDSHAKE_TIMEOUT


@pytest.mark.parametrize("security", [PAIRS["PLAIN"][0], PAIRS["CURVE"][0]])
def test_server_closed_with_a_reason_tells_a_client_that_has_spoken(security: PlainServer) -> None:
    silent = End("PUB", security).hear(greeting(security.mechanism))
    silent.take_sent()
    silent.engine.close("full")
    silent.drain()
    assert silent.take_sent() == b""

    client = End("SUB", {PlainServer: PAIRS["PLAIN"][1]}.get(type(security), PAIRS["CURVE"][1]))
    server = End("PUB", security, answer=None)
    client.hear(server.take_sent())
    server.hear(client.take_sent())
    server.take_sent()
    server.engine.close("full")
    server.drain()
    assert server.take_sent() == command(b"ERROR", b"\x04full")
    assert not server.all(Failed)


@pytest.mark.parametrize("reason", ["two words", "line\nbreak", "é", "x" * 256])
def test_reason_of_close_is_one_word_of_ascii(reason: str) -> None:
    with pytest.raises(ValueError, match="reason is up to 255 visible"):
        End("PUB").engine.close(reason)
