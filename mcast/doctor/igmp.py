"""Which IGMP version is spoken, is there a querier, and does a switch or bridge snoop without one?

A switch that snoops forwards a group only to ports that asked for it, and forgets them after 260 s
(RFC 3376 s8.4) unless a querier makes the hosts ask again. The symptom: everything works for some
minutes, then all subscribers fall silent at once.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Final

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject
from mcast.errors import TransportError
from mcast.net.survey import open_querier_listener
from mcast.runtime.deadline import Deadline

__all__ = ["check", "querier_of"]

_NAME = "igmp"
_QUERY: Final = 0x11
"""RFC 3376 s4: the type of a membership query."""
_QUERY_INTERVAL_S: Final = 125.0
"""RFC 3376 s8.2: what a querier leaves between two general queries."""
_MOST_PACKET_BYTES: Final = 65_535


def check(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Findings about membership: version, querier, snooping."""
    link = subject.link
    if link.is_loopback or not link.is_up:
        return
    if subject.version == 4:
        yield from _version(machine, subject)
    yield from _bridge(machine, link.name)
    if subject.version == 6:
        yield from _mld_queries(machine, link.name)
    elif subject.listen_s and subject.interface is not None:
        yield _listen(subject)


def _version(machine: Machine, subject: Subject) -> Iterator[Finding]:
    name = subject.link.name
    forced = machine.number(f"/proc/sys/net/ipv4/conf/{name}/force_igmp_version") or 0
    forced = forced or machine.number("/proc/sys/net/ipv4/conf/all/force_igmp_version") or 0
    version = f"V{forced}" if forced else _spoken_version(machine.text("/proc/net/igmp"), name)
    if version is None:
        return
    if version == "V3":
        yield Finding(_NAME, Severity.OK, f"{name} speaks IGMPv3")
        return
    source = None if subject.endpoint is None else subject.endpoint.source
    fix: tuple[str, ...] = ()
    why = "a querier of that version was heard: raise it in the switch or router"
    if forced:
        why = "force_igmp_version says so"
        fix = (
            f"sysctl -w net.ipv4.conf.{name}.force_igmp_version=0",
            "sysctl -w net.ipv4.conf.all.force_igmp_version=0",
        )
    lacking = "a switch or router cannot tell which source is wanted"
    if source is None:
        text = f"{name} speaks IGMP{version.lower()}, since {why}"
        yield Finding(_NAME, Severity.NOTE, f"{text}; to mend it: {fix[0]}" if fix else text)
    else:
        text = f"{name} speaks IGMP{version.lower()}, since {why}: {lacking} ({source})"
        yield Finding(_NAME, Severity.WARNING, text, fix)


def _spoken_version(igmp: str | None, name: str) -> str | None:
    """The version in /proc/net/igmp's line ``2 eth0 : 3 V3``; None when there is no such line."""
    for line in (igmp or "").splitlines():
        words = line.replace(":", " ").split()
        if len(words) == 4 and words[1] == name and words[3] in ("V1", "V2", "V3"):
            return words[3]
    return None


def _bridge(machine: Machine, name: str) -> Iterator[Finding]:
    """Findings about the Linux bridge that the device is, or is a port of."""
    bridge = _bridge_of(machine, name)
    if bridge is None:
        return
    title, data = bridge
    if not data.get("mcast_snooping"):
        yield Finding(_NAME, Severity.OK, f"the bridge {title} does not snoop")
    elif data.get("mcast_querier"):
        yield Finding(_NAME, Severity.OK, f"the bridge {title} snoops and is a querier")
    else:
        yield Finding(
            _NAME,
            Severity.WARNING,
            f"the bridge {title} snoops and is no querier: unless something else on the network"
            " asks, groups fall silent some 260 s after they were joined",
            (f"ip link set dev {title} type bridge mcast_querier 1",),
        )


def _bridge_of(machine: Machine, name: str) -> tuple[str, dict[str, object]] | None:
    for _ in range(2):  # the device itself, then what it is a port of
        found = machine.json("ip", "-d", "-j", "link", "show", "dev", name)
        if not isinstance(found, list) or not found or not isinstance(found[0], dict):
            return None
        info = found[0].get("linkinfo", {})
        if info.get("info_kind") == "bridge" and isinstance(info.get("info_data"), dict):
            return name, info["info_data"]
        name = found[0].get("master", "")
        if not name or info.get("info_slave_kind", "bridge") != "bridge":
            return None
    return None


def _mld_queries(machine: Machine, name: str) -> Iterator[Finding]:
    """IPv6 counts the queries of each device, so nobody has to listen."""
    for line in (machine.text(f"/proc/net/dev_snmp6/{name}") or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "Icmp6InGroupMembQueries":
            if int(words[1]):
                yield Finding(_NAME, Severity.OK, f"{name} has heard {words[1]} MLD queries")
            else:
                yield Finding(
                    _NAME,
                    Severity.NOTE,
                    f"{name} has heard no MLD query since it came up: a switch that snoops would"
                    " forget its groups. Turn on the querier of one switch or router",
                )


def _listen(subject: Subject) -> Finding:
    """Listen for a query, as long as was asked."""
    interface = subject.interface
    assert interface is not None
    name = interface.name
    try:
        heard = open_querier_listener(interface)
    except TransportError as error:
        return Finding(
            _NAME, Severity.WARNING, f"{error.strerror}", ("sudo mcast doctor --listen",)
        )
    with heard:
        deadline = Deadline(subject.listen_s)
        while not deadline.has_passed:
            if not select.select((heard,), (), (), min(0.1, deadline.left or 0.0))[0]:
                continue
            packet = heard.recv(_MOST_PACKET_BYTES)
            source = querier_of(packet)
            if source is not None:
                return Finding(_NAME, Severity.OK, f"the querier of {name} is {source}")
    short = subject.listen_s < _QUERY_INTERVAL_S
    return Finding(
        _NAME,
        Severity.NOTE if short else Severity.WARNING,
        f"no IGMP query on {name} in {subject.listen_s:g} s: "
        + (
            f"queriers ask every {_QUERY_INTERVAL_S:g} s, so listen longer"
            if short
            else "a switch that snoops forgets the groups. Turn on the querier of one switch or"
            " router, or make this host's bridge one"
        ),
    )


def querier_of(packet: bytes) -> str | None:
    """The sender of an IPv4 packet that is an IGMP query; None for anything else."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    head_bytes = (packet[0] & 0x0F) * 4
    if head_bytes < 20 or len(packet) < head_bytes + 8 or packet[head_bytes] != _QUERY:
        return None
    return ".".join(map(str, packet[12:16]))
