"""Would this host's firewall drop the group's data, the requests for repair, or the memberships?

A hint, not a proof: rules are read as far as they are understood (``mcast.doctor.ruleset``), and
what another host or a switch drops cannot be seen from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mcast.doctor.finding import Finding, Severity
from mcast.doctor.machine import Machine, Subject
from mcast.doctor.ruleset import (
    Chain,
    Drop,
    Packet,
    chains_of_iptables,
    chains_of_nft,
    drops,
)

__all__ = ["check"]

_NAME = "firewall"
_HOOKS: Final = {"in": ("ingress", "prerouting", "input"), "out": ("output", "postrouting")}


def check(machine: Machine, subject: Subject) -> Iterator[Finding]:
    """Findings about nftables' and iptables' rules of this network namespace."""
    if not machine.is_root:
        text = "looking at the firewall needs root: sudo mcast doctor ..."
        yield Finding(_NAME, Severity.NOTE, text)
        return
    chains = chains_of_nft(machine.json("nft", "-j", "list", "ruleset"))
    program = "iptables" if subject.version == 4 else "ip6tables"
    chains += chains_of_iptables(machine.run(program, "-S") or "")
    seen = False
    for what, direction, packet, words in _packets(subject):
        for hook in _HOOKS[direction]:
            for drop in drops(chains, hook, packet):
                # Without a URL only what drops everything is worth a word.
                if drop.is_certain or subject.endpoint is not None:
                    seen = True
                    yield _finding(what, drop, words, program)
    if not seen:
        count = sum(len(chain.rules) for chain in chains)
        yield Finding(_NAME, Severity.OK, f"no rule of {count} is seen to drop it")


def _finding(what: str, drop: Drop, words: str, program: str) -> Finding:
    chain = drop.chain
    where = f"the policy of chain {chain}" if drop.by_policy else f"a rule in chain {chain}"
    text = f"{where} drops {what}" if drop.is_certain else f"{where} may drop {what}"
    severity = Severity.BROKEN if drop.is_certain else Severity.WARNING
    return Finding(_NAME, severity, text, (_fix(chain, words, program),))


def _fix(chain: Chain, words: str, program: str) -> str:
    """The command that lets the packets described by nftables' ``words`` pass."""
    if chain.family != "iptables":
        return f"nft insert rule {chain} {words} accept"
    flags = (
        words.replace("meta l4proto", "-p")
        .replace("udp dport", "-p udp --dport")
        .replace("ip6 daddr", "-d")
        .replace("ip daddr", "-d")
        .replace("icmpv6 type { mld-listener-query, mld2-listener-report }", "-p icmpv6")
    )
    return f"{program} -I {chain.name} {flags} -j ACCEPT"


def _packets(subject: Subject) -> Iterator[tuple[str, str, Packet, str]]:
    """What has to pass: its name, its direction, its fields, and nftables' words for it."""
    name, version = subject.link.name, subject.version
    family = "ip" if version == 4 else "ip6"
    base: dict[str, str | int] = {"meta.nfproto": f"ipv{version}", "ct.state": "new"}
    base["meta.protocol"] = family
    udp = base | {"meta.l4proto": "udp", f"{family}.protocol": "udp", f"{family}.nexthdr": "udp"}
    coming = {"meta.iifname": name, "meta.iif": name}
    leaving = {"meta.oifname": name, "meta.oif": name}
    to_group: dict[str, str | int] = {"meta.pkttype": "multicast", "fib.type": "multicast"}
    port = "" if subject.endpoint is None else f" udp dport {subject.endpoint.port}"
    if subject.endpoint is not None:
        udp["udp.dport"] = subject.endpoint.port
        to_group[f"{family}.daddr"] = subject.group
        if subject.endpoint.source is not None:
            coming[f"{family}.saddr"] = subject.endpoint.source
    group_words = f"{family} daddr {subject.group}{port}" if port else "meta l4proto udp"
    data = f"the group's data ({subject.group}{port})" if port else "multicast UDP"
    yield f"{data} coming in", "in", udp | to_group | coming, group_words
    if subject.interface is not None:
        own = subject.interface.address
        yield (
            f"{data} going out",
            "out",
            udp | to_group | leaving | {f"{family}.saddr": own},
            (group_words),
        )
        if port:
            unicast = {f"{family}.daddr": own, "meta.pkttype": "host", "fib.type": "local"}
            requests = coming.copy()
            requests.pop(f"{family}.saddr", None)
            yield (
                f"requests for repair to {own}{port}, which a publisher here needs, coming in",
                "in",
                udp | unicast | requests,
                f"{family} daddr {own}{port}",
            )
    if version == 4:
        igmp = base | {"meta.l4proto": "igmp", "ip.protocol": "igmp"}
        query = igmp | to_group | coming | {"ip.daddr": "224.0.0.1"}
        query.pop("ip.saddr", None)
        yield "IGMP queries coming in", "in", query, "meta l4proto igmp"
        report = igmp | to_group | leaving | {"ip.daddr": "224.0.0.22"}
        yield "IGMP reports going out", "out", report, "meta l4proto igmp"
