"""Would a set of firewall rules drop a packet? Pure: rules in, verdict out.

Owns a small evaluator of nftables' JSON (``nft -j list ruleset``, libnftables-json(5)), and the
translation of ``iptables -S`` into the same form. It knows only what tells our packets apart;
any other condition is *unknown*, and a verdict behind one is uncertain.

Invariant: it never raises, whatever the rules are: what it does not know counts as unknown.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["Chain", "Drop", "chains_of_iptables", "chains_of_nft", "drops"]

Packet: TypeAlias = Mapping[str, str | int]
"""What is known of a packet: ``meta.iifname``, ``meta.l4proto``, ``ip.daddr``, ``udp.dport`` ..."""

_MOST_DEPTH: Final = 16
"""Jumps followed; nftables itself allows 16."""
_TRANSPORTS: Final = {
    "tcp",
    "udp",
    "udplite",
    "icmp",
    "icmpv6",
    "igmp",
    "sctp",
    "dccp",
    "esp",
    "ah",
}
_ALIASES: Final = {"ipv6-icmp": "icmpv6", 17: "udp", 2: "igmp", 58: "icmpv6", 6: "tcp"}


@dataclass(slots=True)
class Chain:
    """A chain of rules, and where it hooks in."""

    family: str
    """``ip``, ``ip6``, ``inet``, ``netdev`` ... or ``iptables``."""
    table: str
    """The table's name."""
    name: str
    """The chain's name."""
    hook: str
    """``input``, ``output`` ...; "" for one that is only jumped to."""
    policy: str
    """What happens at its end: ``accept`` or ``drop``."""
    rules: list[list[object]]
    """The expressions of each rule, as nftables writes them."""

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class Drop:
    """A place where a packet is, or may be, dropped."""

    chain: Chain
    """Where; the rule that lets it pass goes to its head."""
    by_policy: bool
    """True at the chain's end, False by a rule."""
    is_certain: bool
    """False when it depends on a condition that is not understood."""


def chains_of_nft(ruleset: object) -> list[Chain]:
    """The chains in what ``nft -j list ruleset`` writes, with their rules, in its order."""
    found: dict[tuple[str, str, str], Chain] = {}
    for kind, body in _items(ruleset):
        family, table = str(body.get("family", "")), str(body.get("table", ""))
        if kind == "chain":
            name = str(body.get("name", ""))
            hook, policy = str(body.get("hook", "")), str(body.get("policy", "accept"))
            found[family, table, name] = Chain(family, table, name, hook, policy, [])
        elif kind == "rule":
            chain = found.get((family, table, str(body.get("chain", ""))))
            expressions = body.get("expr")
            if chain is not None and isinstance(expressions, list):
                chain.rules.append(expressions)
    return list(found.values())


def chains_of_iptables(listing: str) -> list[Chain]:
    """The chains in what ``iptables -S`` writes, in nftables' terms."""
    found: dict[str, Chain] = {}
    for line in listing.splitlines():
        try:
            words = shlex.split(line)
        except ValueError:
            continue
        if len(words) < 2:
            continue
        name = words[1]
        if words[0] == "-P" and len(words) > 2:
            hook = name.lower() if name in ("INPUT", "OUTPUT") else ""
            found[name] = Chain("iptables", "filter", name, hook, words[2].lower(), [])
        elif words[0] == "-N":
            found[name] = Chain("iptables", "filter", name, "", "accept", [])
        elif words[0] == "-A" and name in found:
            found[name].rules.append(_iptables_rule(words[2:]))
    return list(found.values())


def drops(chains: list[Chain], hook: str, packet: Packet) -> list[Drop]:
    """Every place at ``hook`` where the packet is dropped or may be; [] when it passes."""
    found = []
    for chain in chains:
        if chain.hook != hook or not _family_matches(chain.family, packet):
            continue
        drop = _walk(chain, chains, packet, certain=True, depth=0)
        if isinstance(drop, Drop):
            found.append(drop)
        elif drop != "accept" and chain.policy == "drop":
            found.append(Drop(chain, by_policy=True, is_certain=drop == "end"))
    return found


def _walk(
    chain: Chain, chains: list[Chain], packet: Packet, *, certain: bool, depth: int
) -> Drop | str:
    """The drop, or ``accept``, or ``end`` for certain, or ``perhaps`` its end."""
    perhaps: Drop | None = None
    for rule in chain.rules:
        applies, verdict, target = _judge(rule, packet)
        if applies is False or verdict == "":
            continue
        sure = certain and applies is True
        if verdict in ("jump", "goto"):
            inner = next(
                (c for c in chains if (c.family, c.table, c.name) == (*_home(chain), target)), None
            )
            if inner is None or depth >= _MOST_DEPTH:
                certain = False
                continue
            result = _walk(inner, chains, packet, certain=sure, depth=depth + 1)
            if isinstance(result, Drop):
                if result.is_certain:
                    return result
                perhaps = perhaps or result
            if result != "end":
                if result == "accept" and sure:
                    return perhaps or "accept"
                certain = False
        elif verdict == "drop":
            drop = Drop(chain, by_policy=False, is_certain=sure)
            if sure:
                return drop
            perhaps = perhaps or drop
        elif sure:
            return perhaps or ("accept" if verdict == "accept" else "end")
        else:
            certain = False  # it may have been accepted before what follows
    return perhaps or ("end" if certain else "perhaps")


def _judge(rule: list[object], packet: Packet) -> tuple[bool | None, str, str]:
    """Whether the rule applies (None: unknown), its verdict, and the chain it jumps to."""
    applies: bool | None = True
    for expression in rule:
        if not isinstance(expression, dict) or not expression:
            applies = None if applies else applies
            continue
        kind, body = next(iter(expression.items()))
        if kind == "match":
            matched = _matches(body, packet)
            if matched is False:
                return False, "", ""
            applies = applies if matched else None
        elif kind in ("drop", "reject"):
            return applies, "drop", ""
        elif kind in ("accept", "return"):
            return applies, kind, ""
        elif kind in ("jump", "goto") and isinstance(body, dict):
            return applies, kind, str(body.get("target", ""))
        elif kind in ("limit", "vmap", "xt", "quota", "ct count"):
            applies = None
            if kind == "vmap":
                return None, "accept", ""  # may be any verdict: what follows is uncertain
    return applies, "", ""


def _matches(body: object, packet: Packet) -> bool | None:
    if not isinstance(body, dict):
        return None
    left = body.get("left")
    if _is_of_another_protocol(left, packet):
        return False
    field = _field(left)
    value = packet.get(field) if field else None
    if value is None:
        return None
    matched = _equals(value, body.get("right"))
    operator = body.get("op", "==")
    if matched is None or operator in ("==", "in"):
        return matched
    return not matched if operator == "!=" else None


def _is_of_another_protocol(left: object, packet: Packet) -> bool:
    """True for a look into a header that the packet does not have, such as TCP's."""
    payload = left.get("payload") if isinstance(left, dict) else None
    protocol = payload.get("protocol") if isinstance(payload, dict) else None
    if protocol in ("ip", "ip6"):
        return bool((protocol == "ip6") != (packet.get("meta.nfproto") == "ipv6"))
    return protocol in _TRANSPORTS and protocol != packet.get("meta.l4proto")


def _field(left: object) -> str:
    if not isinstance(left, dict) or not left:
        return ""
    kind, body = next(iter(left.items()))
    if not isinstance(body, dict):
        return ""
    if kind == "payload":
        protocol, name = body.get("protocol"), body.get("field")
        return f"{'udp' if protocol == 'th' else protocol}.{name}"
    return f"{kind}.{body.get('key', body.get('result'))}"


def _equals(value: str | int, right: object) -> bool | None:
    if isinstance(right, list):
        return _any(_equals(value, each) for each in right)
    if isinstance(right, dict) and right:
        kind, body = next(iter(right.items()))
        if kind == "set" and isinstance(body, list):
            return _any(_equals(value, each) for each in body)
        if kind == "range" and isinstance(body, list) and len(body) == 2:
            return _in_range(value, body[0], body[1])
        if kind == "prefix" and isinstance(body, dict):
            return _in_network(value, f"{body.get('addr')}/{body.get('len')}")
        return None
    if isinstance(right, str | int):
        if isinstance(right, str) and right.startswith("@"):
            return None  # a named set, whose elements are elsewhere
        if isinstance(right, str) and right.endswith("*"):
            return str(value).startswith(right[:-1])
        return bool(_ALIASES.get(value, value) == _ALIASES.get(right, right))
    return None


def _any(results: Iterator[bool | None]) -> bool | None:
    known = list(results)
    return True if True in known else None if None in known else False


def _in_range(value: str | int, low: object, high: object) -> bool | None:
    try:
        if isinstance(value, int):
            return int(str(low)) <= value <= int(str(high))
        return (
            int(ipaddress.ip_address(str(low)))
            <= int(ipaddress.ip_address(value))
            <= int(ipaddress.ip_address(str(high)))
        )
    except ValueError:
        return None


def _in_network(value: str | int, network: str) -> bool | None:
    try:
        return ipaddress.ip_address(value) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return None


def _family_matches(family: str, packet: Packet) -> bool:
    version = packet.get("meta.nfproto")
    return family in ("inet", "netdev", "iptables") or (family == "ip6") == (version == "ipv6")


def _home(chain: Chain) -> tuple[str, str]:
    return chain.family, chain.table


def _items(ruleset: object) -> Iterator[tuple[str, dict[str, object]]]:
    listed = ruleset.get("nftables") if isinstance(ruleset, dict) else None
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, dict):
            for kind, body in item.items():
                if isinstance(body, dict):
                    yield kind, body


_IPTABLES_FIELDS: Final = {
    "-i": "meta.iifname",
    "-o": "meta.oifname",
    "-p": "meta.l4proto",
    "-d": "ip.daddr",
    "-s": "ip.saddr",
    "--dport": "udp.dport",
    "--ctstate": "ct.state",
    "--state": "ct.state",
    "--pkt-type": "meta.pkttype",
}
_IPTABLES_VERDICTS: Final = {
    "DROP": "drop",
    "REJECT": "reject",
    "ACCEPT": "accept",
    "RETURN": "return",
}


def _iptables_rule(words: list[str]) -> list[object]:
    """A rule of ``iptables -S`` in nftables' terms."""
    rule: list[object] = []
    operator = "=="
    rest = iter(words)
    for word in rest:
        if word == "!":
            operator = "!="
            continue
        if not word.startswith("-"):
            continue  # an argument of something that is not understood
        if word in ("-j", "-g"):
            target = next(rest, "")
            verdict = _IPTABLES_VERDICTS.get(target)
            rule.append({verdict: None} if verdict else {"jump": {"target": target}})
        elif word in _IPTABLES_FIELDS:
            key, _, name = _IPTABLES_FIELDS[word].partition(".")
            left = (
                {key: {"key": name}}
                if key in ("meta", "ct")
                else {"payload": {"protocol": key, "field": name}}
            )
            value = _iptables_value(word, next(rest, ""))
            rule.append({"match": {"op": operator, "left": left, "right": value}})
        elif word not in ("-m", "--comment", "--reject-with"):
            rule.append({"xt": None})
        operator = "=="
    return rule


def _iptables_value(word: str, argument: str) -> object:
    if word == "--dport":
        low, colon, high = argument.partition(":")
        if low.isdecimal() and (high.isdecimal() or not colon):
            return {"range": [int(low), int(high)]} if colon else int(low)
        return "@unknown"
    if word in ("-d", "-s"):
        address, _, length = argument.partition("/")
        return {"prefix": {"addr": address, "len": length}} if length else address
    if word in ("--ctstate", "--state"):
        return {"set": argument.lower().split(",")}
    if word in ("-i", "-o") and argument.endswith("+"):
        return f"{argument[:-1]}*"
    return argument.lower() if word == "--pkt-type" else argument
