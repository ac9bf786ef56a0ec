"""Does reverse-path filtering throw multicast away because its source is routed elsewhere?"""

from __future__ import annotations

from collections.abc import Iterator

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject
from mcast.errors import TransportError
from mcast.net.survey import routed_address

__all__ = ["check"]

_NAME = "rp_filter"
_CONF = "/proc/sys/net/ipv4/conf"


def check(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Findings about ``net.ipv4.conf.*.rp_filter``; IPv6 has none."""
    name = subject.link.name
    if subject.version == 6 or subject.link.is_loopback:
        return
    values = [
        value
        for part in ("all", name)
        if (value := machine.number(f"{_CONF}/{part}/rp_filter")) is not None
    ]
    if not values:
        return
    if max(values) != 1:  # the kernel takes the larger of the two; 2 is the loose form
        yield Finding(_NAME, Severity.OK, f"rp_filter of {name} is not strict ({max(values)})")
        return
    fix = (f"sysctl -w net.ipv4.conf.{name}.rp_filter=2",)
    source = None if subject.endpoint is None else subject.endpoint.source
    if source is not None and (way := _way_back(machine, source)) not in (None, name):
        yield Finding(
            _NAME,
            Severity.BROKEN,
            f"rp_filter of {name} is strict (1) and the way back to {source} is {way}: everything"
            " that it sends is dropped here without a word",
            fix,
        )
        return
    dropped = machine.counter("/proc/net/netstat", "TcpExt", "IPReversePathFilter")
    seen = f"; it has dropped {dropped:,} packets on this host so far" if dropped else ""
    yield Finding(
        _NAME,
        Severity.WARNING,
        f"rp_filter of {name} is strict (1): multicast whose source is not routed back by {name} is"
        f" dropped without a word{seen}",
        fix,
    )


def _way_back(machine: Machine, source: str) -> str | None:
    """The interface that unicast to ``source`` leaves by; "nowhere" when it has no route."""
    try:
        address = routed_address(source)
    except TransportError:
        return "nowhere"
    names = [entry.name for entry in machine.interfaces() if entry.address == address]
    return names[0] if names else None
