"""scapy layers for ZMTP 3 over TCP, and for the datagrams of RADIO and DISH over UDP (RFC 37, 48).

Owns the layout of greeting, frames and commands as scapy sees them; ``scapy_layers`` is the door.
Needs scapy. Invariant: a dissected packet builds the very bytes it came from, whatever they were.
"""

from __future__ import annotations

from typing import Final

from scapy.base_classes import BasePacket
from scapy.fields import (
    BitField,
    ByteField,
    FieldLenField,
    LongField,
    MultipleTypeField,
    PacketListField,
    ShortField,
    StrField,
    StrFixedLenField,
    StrLenField,
    XLongField,
)
from scapy.packet import Packet, Padding, Raw, bind_layers

__all__ = [
    "RadioDatagram",
    "ZMTPCancel",
    "ZMTPCommand",
    "ZMTPError",
    "ZMTPFrame",
    "ZMTPGreeting",
    "ZMTPJoin",
    "ZMTPLeave",
    "ZMTPPing",
    "ZMTPPong",
    "ZMTPProperty",
    "ZMTPReady",
    "ZMTPStream",
    "ZMTPSubscribe",
    "whole_items_bytes",
]

_GREETING_BYTES: Final = 64
_LONG: Final = 0x02
_SHORT_BYTES: Final = 255  # the most that a one-octet size can say


class ZMTPGreeting(Packet):
    """The 64 bytes with which both ends of a connection begin."""

    name = "ZMTP greeting"
    fields_desc = [
        ByteField("first", 0xFF),
        XLongField("padding", 1),
        ByteField("last", 0x7F),
        ByteField("major", 3),
        ByteField("minor", 1),
        StrFixedLenField("mechanism", b"NULL", 20),
        ByteField("as_server", 0),
        StrFixedLenField("filler", b"", 31),
    ]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Nothing inside: what follows is the peer's first frame."""
        return b"", s


class ZMTPFrame(Packet):
    """One frame: a command when ``is_command`` is set, else a part of a message.

    ``size`` and ``long`` are computed when they are left alone.
    """

    name = "ZMTP frame"
    fields_desc = [
        BitField("reserved", 0, 5),
        BitField("is_command", 0, 1),
        BitField("long", None, 1),
        BitField("more", 0, 1),
        MultipleTypeField(
            [(LongField("size", 0), lambda frame: frame.long == 1)], ByteField("size", None)
        ),
    ]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """The body, and what follows the frame."""
        return s[: self.size], s[self.size :]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """A command's body is dissected, a message's is plain bytes."""
        return ZMTPCommand if self.is_command else Raw

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill in the size, and the flag that says how it is written."""
        is_long = self.long if self.long is not None else len(pay) > _SHORT_BYTES
        flags = (pkt[0] & ~_LONG) | (_LONG if is_long else 0)
        size = len(pay) if self.size is None else self.size
        return bytes((flags,)) + int(size).to_bytes(8 if is_long else 1, "big") + pay


class ZMTPCommand(Packet):
    """The body of a command frame: a name, and data that depends on it."""

    name = "ZMTP command"
    fields_desc = [
        FieldLenField("name_length", None, length_of="verb", fmt="B"),
        StrLenField("verb", b"", length_from=lambda body: body.name_length),
    ]


class _Inside(Packet):
    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


class ZMTPProperty(_Inside):
    """One property of a READY or INITIATE, such as Socket-Type."""

    name = "ZMTP property"
    fields_desc = [
        FieldLenField("key_length", None, length_of="key", fmt="B"),
        StrLenField("key", b"", length_from=lambda item: item.key_length),
        FieldLenField("value_length", None, length_of="value", fmt="I"),
        StrLenField("value", b"", length_from=lambda item: item.value_length),
    ]


class ZMTPReady(Packet):
    """The data of READY in a NULL or PLAIN connection: the metadata."""

    name = "ZMTP READY"
    fields_desc = [PacketListField("metadata", [], ZMTPProperty)]


class ZMTPError(Packet):
    """The data of ERROR: why the peer ends the connection."""

    name = "ZMTP ERROR"
    fields_desc = [
        FieldLenField("reason_length", None, length_of="reason", fmt="B"),
        StrLenField("reason", b"", length_from=lambda data: data.reason_length),
    ]


class ZMTPSubscribe(Packet):
    """The data of SUBSCRIBE: a prefix of topics."""

    name = "ZMTP SUBSCRIBE"
    fields_desc = [StrField("topic", b"")]


class ZMTPCancel(Packet):
    """The data of CANCEL: a prefix no longer wanted."""

    name = "ZMTP CANCEL"
    fields_desc = [StrField("topic", b"")]


class ZMTPPing(Packet):
    """The data of PING; ``ttl`` is in tenths of a second."""

    name = "ZMTP PING"
    fields_desc = [ShortField("ttl", 0), StrField("context", b"")]


class ZMTPPong(Packet):
    """The data of PONG: the context of the PING."""

    name = "ZMTP PONG"
    fields_desc = [StrField("context", b"")]


class ZMTPJoin(Packet):
    """The data of JOIN: a group that a DISH wants."""

    name = "ZMTP JOIN"
    fields_desc = [StrField("group", b"")]


class ZMTPLeave(Packet):
    """The data of LEAVE: a group that a DISH no longer wants."""

    name = "ZMTP LEAVE"
    fields_desc = [StrField("group", b"")]


for _command, _layer in (
    (b"READY", ZMTPReady),
    (b"ERROR", ZMTPError),
    (b"SUBSCRIBE", ZMTPSubscribe),
    (b"CANCEL", ZMTPCancel),
    (b"PING", ZMTPPing),
    (b"PONG", ZMTPPong),
    (b"JOIN", ZMTPJoin),
    (b"LEAVE", ZMTPLeave),
):
    bind_layers(ZMTPCommand, _layer, verb=_command)


def _item_class(
    _stream: Packet, before: list[BasePacket], _last: Packet | None, rest: bytes
) -> type[Packet] | None:
    """What comes next in a stream; None: nothing that is whole."""
    if not whole_items_bytes(rest, first=not before, one=True):
        return None
    return ZMTPGreeting if rest[:1] == b"\xff" and not before else ZMTPFrame


class ZMTPStream(Packet):
    """One direction of a connection, or a piece of it that begins with a greeting or a frame.

    ``items`` holds what is whole; the rest is ``Raw``, or ``Padding`` when scapy's ``TCPSession``
    puts segments together, which then hands it in again in front of the next segment.
    """

    name = "ZMTP stream"
    fields_desc = [PacketListField("items", [], next_cls_cb=_item_class)]

    @classmethod
    def tcp_reassemble(
        cls, data: bytes, _metadata: dict[str, object], _session: dict[str, object]
    ) -> Packet | None:
        """The whole items in front of ``data``, or None; called by scapy's ``TCPSession``."""
        end = whole_items_bytes(data, first=True)
        if not end:
            return None
        stream = cls(data[:end])
        return stream / Padding(data[end:]) if data[end:] else stream


def whole_items_bytes(data: bytes, *, first: bool, one: bool = False) -> int:
    """How many bytes of ``data`` are whole frames, a greeting in front of them if ``first``.

    ``one``: of the first only. Reads sizes, keeps nothing.
    """
    end = 0
    if first and data[:1] == b"\xff":
        if len(data) < _GREETING_BYTES:
            return 0
        end = _GREETING_BYTES
    while end < len(data) and not (one and end):
        head = 9 if data[end] & _LONG else 2
        if end + head > len(data):
            break
        body = int.from_bytes(data[end + 1 : end + head], "big")
        if end + head + body > len(data):
            break
        end += head + body
    return end


class RadioDatagram(Packet):
    """A RADIO's message over UDP: the group, then the body as payload (RFC 48)."""

    name = "RADIO datagram"
    fields_desc = [
        FieldLenField("group_length", None, length_of="group", fmt="B"),
        StrLenField("group", b"", length_from=lambda datagram: datagram.group_length),
    ]
