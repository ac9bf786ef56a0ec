"""What the ZMTP targets share: one stream of bytes given to two engines, cut differently.

One engine gets each stretch whole, on the reference kernel; the other gets it byte by byte, on the
compiled one where there is one. Both must say and send the same, and what they say must be in
order: an engine reports its end once and last, and nothing of a peer before it is ready.
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.fuzz.stacks import Stack, both
from tests.fuzz.target import Cut, must

S = 1_000_000_000
T0 = 1_000_000 * S
MESSAGE_BYTES, PART_COUNT, TOPIC_BYTES, TOPIC_COUNT, TOPICS_BYTES = 400, 4, 40, 6, 120
METADATA_BYTES = 300
STRETCH_LIMIT = 24
GREETING = bytes.fromhex("ff00000000000000017f0301")
TYPES = ("PUB", "SUB", "XPUB", "REP", "ROUTER", "DISH", "RADIO", "PULL")
PEERS = ("SUB", "PUB", "XSUB", "REQ", "DEALER", "RADIO", "DISH", "PUSH")
"""A type that goes with each of ``TYPES``."""
_COMPATIBLE = {
    "PUB": {"SUB", "XSUB"},
    "XPUB": {"SUB", "XSUB"},
    "SUB": {"PUB", "XPUB"},
    "REP": {"REQ", "DEALER"},
    "ROUTER": {"REQ", "DEALER", "ROUTER"},
    "RADIO": {"DISH"},
    "DISH": {"RADIO"},
    "PULL": {"PUSH"},
}


def greeting(mechanism: bytes) -> bytes:
    """A peer's greeting, version 3.1."""
    return GREETING + mechanism.ljust(20, b"\0") + bytes(32)


def ready(socket_type: str) -> bytes:
    """A peer's READY for NULL."""
    text = socket_type.encode()
    body = b"\x05READY\x0bSocket-Type" + len(text).to_bytes(4, "big") + text
    return bytes((4, len(body))) + body


class End:
    """One engine, what it said and what it sent."""

    def __init__(self, stack: Stack, socket_type: str, mechanism: str, choice: int) -> None:
        security = {
            "NULL": stack.Null,
            "PLAIN-SERVER": stack.PlainServer,
            "PLAIN-CLIENT": lambda: stack.PlainClient("name", "password"),
        }[mechanism]()
        self.socket_type = socket_type
        self.stack = stack
        self.engine = stack.ZmtpEngine(
            stack.ZmtpOptions(
                socket_type=socket_type,
                security=security,
                zap_domain="domain" if choice & 1 else "",
                max_message_bytes=MESSAGE_BYTES,
                max_part_count=PART_COUNT,
                max_metadata_bytes=METADATA_BYTES,
                max_topic_bytes=TOPIC_BYTES,
                max_subscription_count=TOPIC_COUNT,
                max_subscription_bytes=TOPICS_BYTES,
                heartbeat_ivl_ns=S if choice & 2 else 0,
            ),
            dice=Random(1).randbytes,
            now_ns=T0,
        )
        self.now_ns = T0
        self.said: list[tuple[object, ...]] = []
        self.sent: list[bytes] = []
        self.is_asked = self.is_allowed = False
        self.must_ask = mechanism == "PLAIN-SERVER" or (mechanism == "NULL" and bool(choice & 1))
        self.topics: set[bytes] = set()

    def hear(self, data: bytes, step: int) -> None:
        for start in range(0, len(data), step):
            self.engine.handle_bytes(data[start : start + step], self.now_ns)

    def drain(self) -> None:
        for event in self.engine.take_events():
            self.note(event)
        self.sent.append(b"".join(self.engine.take_transmits()))
        must(len(self.sent[-1]) < 1 << 16, "much was sent for little", len(self.sent[-1]))
        over = bool(self.said) and self.said[-1][0] == "Failed"
        must(over == self.engine.is_over, "over, and no word of it", self.said[-1:])

    def note(self, event: Any) -> None:
        kind = type(event).__name__
        kinds = [said[0] for said in self.said]
        must("Failed" not in kinds, "something after the end", event)
        must(kind in ("Failed", "Ready", "AuthNeeded") or "Ready" in kinds, "too early", event)
        if kind == "Messages":
            for message in event.messages:
                parts = message if isinstance(message, tuple) else (message,)
                must(sum(map(len, parts)) <= MESSAGE_BYTES, "a message over the limit", message)
                must(len(parts) <= PART_COUNT, "a message of too many parts", message)
            self.said += [("message", message) for message in event.messages]
        elif kind in ("Subscribed", "Cancelled"):
            for topic in event.topics:
                if kind == "Subscribed":
                    self.topics.add(topic)
                else:
                    must(topic in self.topics, "cancelled what was not there", topic)
                    self.topics.remove(topic)
                must(len(topic) <= TOPIC_BYTES and len(self.topics) <= TOPIC_COUNT, "topics", topic)
                must(sum(map(len, self.topics)) <= TOPICS_BYTES, "topics too long", topic)
            self.said += [(kind, topic) for topic in event.topics]
        elif kind == "AuthNeeded":
            must(not self.is_asked and "Ready" not in kinds, "asked twice, or late", event)
            self.is_asked = True
            self.said.append((kind, event.mechanism, event.identity, event.credentials))
        elif kind == "Ready":
            must("Ready" not in kinds, "ready twice", event)
            must(self.is_allowed or not self.must_ask, "ready, and nobody was asked", event)
            must(event.version in ((3, 0), (3, 1)), "a version", event.version)
            must(len(event.identity) < 256 and event.identity[:1] != b"\0", "identity", event)
            allowed = _COMPATIBLE[self.socket_type] | {""}
            must(event.socket_type in allowed, "types that do not go together", event)
            size = sum(len(name) + len(value) for name, value in event.properties.items())
            must(size <= METADATA_BYTES, "properties over the limit", size)
            self.said.append((kind, event.version, event.socket_type, dict(event.properties)))
        else:
            must(kind == "Failed" and event.text.isprintable(), "a text for logs", event)
            self.said.append((kind, str(event.reason), event.status))

    def answer(self, status: int) -> None:
        if self.is_asked:
            self.is_asked, self.is_allowed = False, status == 200
            self.engine.answer_auth(self.stack.AuthStatus(status), self.now_ns, user_id="user")

    def wait(self, duration_ns: int) -> None:
        end_ns = self.now_ns + duration_ns
        for _ in range(64):
            due_ns = self.engine.next_timeout_ns
            if due_ns > end_ns:
                break
            self.now_ns = max(self.now_ns, due_ns)
            self.engine.handle_timeout(self.now_ns)
        else:
            must(False, "what is due is not done", self.engine.next_timeout_ns)
        self.now_ns = end_ns


def play(data: bytes, socket_type: str, mechanism: str, choice: int, before: bytes = b"") -> None:
    """``before``, then stretches of ``data``, each with something done behind it, to both engines.

    ``choice`` sets options. A stretch is an octet of what to do, one of length, and the bytes.
    """
    ends = [End(stack, socket_type, mechanism, choice) for stack in both()]
    for end, step in zip(ends, (1 << 20, 1), strict=True):
        cut = Cut(data)
        if before:
            end.hear(before, 1 << 20)
            end.drain()
        for _ in range(STRETCH_LIMIT):
            if not cut:
                break
            verb = cut.octet()
            # The stretch in front of what is done: long ones for what has a size of two octets.
            end.hear(cut.take(cut.octet() + (256 if verb & 0x80 else 0)), step)
            end.drain()
            match verb & 7:
                case 0 | 1 | 2:
                    end.answer(200)
                case 3 if verb & 0x40:
                    end.answer((300, 400, 500)[verb >> 4 & 1])
                case 4:
                    end.wait(((verb >> 3 & 15) + 1) * S // 2)
                case 5 if end.engine.is_ready:
                    end.engine.send([b"message", (b"part", b"x" * 300)])
                case 6 if end.engine.is_ready and end.socket_type in ("SUB", "DISH"):
                    end.engine.subscribe(b"topic", b"other")
                    end.engine.cancel(b"topic")
                case 7 if verb & 0x78 == 0x78:
                    end.engine.handle_eof()
            end.drain()
    left, right = ends
    must(left.said == right.said, "cut differently, it says something else", left.said, right.said)
    same = b"".join(left.sent) == b"".join(right.sent)
    must(same, "cut differently, it sends something else", left.sent, right.sent)
    counts = [repr(end.engine.counters) for end in ends if not end.engine.is_over]
    must(len(set(counts)) < 2, "cut differently, it counts differently", counts)
