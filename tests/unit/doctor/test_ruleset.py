"""What a firewall does with a packet, read from the rules' text."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcast.doctor.ruleset import Chain, chains_of_iptables, chains_of_nft, drops

pytestmark = pytest.mark.kernel_independent

PACKET: dict[str, str | int] = {
    "meta.iifname": "eth0",
    "meta.l4proto": "udp",
    "meta.nfproto": "ipv4",
    "meta.pkttype": "multicast",
    "ct.state": "new",
    "ip.daddr": "239.192.1.1",
    "udp.dport": 5555,
}


def match(protocol: str, field: str, right: object, operator: str = "==") -> dict[str, object]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": operator, "left": left, "right": right}}


def meta(key: str, right: object, operator: str = "==") -> dict[str, object]:
    return {"match": {"op": operator, "left": {"meta": {"key": key}}, "right": right}}


UNKNOWN = match("ip", "saddr", "10.0.0.5")
DROP: dict[str, object] = {"drop": None}
ACCEPT: dict[str, object] = {"accept": None}


def outcome(*rules: list[object], policy: str = "accept", inner: list[object] | None = None) -> str:
    chains = [Chain("inet", "filter", "input", "input", policy, list(rules))]
    if inner is not None:
        chains.append(Chain("inet", "filter", "inner", "", "accept", [inner]))
    found = drops(chains, "input", PACKET)
    if not found:
        return "passes"
    by = "policy" if found[0].by_policy else "rule"
    return f"{by} {'drops' if found[0].is_certain else 'may drop'}"


def test_no_rule_lets_it_pass_and_a_policy_drops_it() -> None:
    assert outcome() == "passes"
    assert outcome(policy="drop") == "policy drops"


@pytest.mark.parametrize(
    "condition",
    [
        meta("l4proto", "udp"),
        meta("l4proto", 17),
        meta("iifname", "eth*"),
        meta("iifname", "lo", "!="),
        match("udp", "dport", 5555),
        match("th", "dport", {"set": [22, {"range": [5000, 6000]}]}),
        match("ip", "daddr", {"prefix": {"addr": "239.192.0.0", "len": 14}}),
        match("ip", "daddr", {"range": ["239.192.1.0", "239.192.1.9"]}),
        {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["new", "untracked"]}},
    ],
)
def test_rule_that_matches_drops(condition: dict[str, object]) -> None:
    assert outcome([condition, {"counter": {"packets": 0}}, DROP]) == "rule drops"


@pytest.mark.parametrize(
    "condition",
    [
        meta("l4proto", "tcp"),
        meta("iifname", "lo"),
        match("udp", "dport", 5556),
        match("udp", "dport", {"range": [1, 1023]}),
        match("tcp", "dport", 5555),
        match("ip6", "daddr", "ff08::1"),
        match("ip", "daddr", {"prefix": {"addr": "10.0.0.0", "len": 8}}),
        {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}},
    ],
)
def test_rule_that_does_not_match_is_passed_by(condition: dict[str, object]) -> None:
    assert outcome([condition, DROP]) == "passes"
    assert outcome([condition, ACCEPT], policy="drop") == "policy drops"


def test_what_is_not_understood_makes_the_verdict_uncertain() -> None:
    assert outcome([UNKNOWN, DROP]) == "rule may drop"
    assert outcome([match("udp", "dport", "@ports"), DROP]) == "rule may drop"
    assert outcome([UNKNOWN, ACCEPT], policy="drop") == "policy may drop"
    assert outcome([UNKNOWN, ACCEPT], [DROP]) == "rule may drop"
    assert outcome([{"xt": None}, ACCEPT], policy="drop") == "policy may drop"
    assert outcome([{"vmap": {}}], [DROP]) == "rule may drop"


def test_an_accept_before_the_drop_saves_it() -> None:
    assert outcome([match("udp", "dport", 5555), ACCEPT], [DROP], policy="drop") == "passes"


def test_jumps_are_followed() -> None:
    jump: list[object] = [meta("l4proto", "udp"), {"jump": {"target": "inner"}}]
    assert outcome(jump, inner=[DROP]) == "rule drops"
    assert outcome(jump, [DROP], inner=[ACCEPT]) == "passes"
    assert outcome(jump, [DROP], inner=[{"return": None}]) == "rule drops"
    assert outcome([{"jump": {"target": "gone"}}], policy="drop") == "policy may drop"


def test_a_chain_that_jumps_to_itself_ends() -> None:
    loop = Chain("inet", "filter", "input", "input", "accept", [[{"jump": {"target": "input"}}]])
    assert drops([loop], "input", PACKET) == []


def test_a_chain_of_the_other_ip_version_is_not_asked() -> None:
    chain = Chain("ip6", "filter", "input", "input", "drop", [])
    assert drops([chain], "input", PACKET) == []
    assert drops([chain], "input", {**PACKET, "meta.nfproto": "ipv6"})


IPTABLES = """\
-P INPUT DROP
-P OUTPUT ACCEPT
-N LOGDROP
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
"""


def test_iptables_rules_are_read() -> None:
    def verdict(extra: str) -> list[bool]:
        found = drops(chains_of_iptables(IPTABLES + extra), "input", PACKET)
        return [drop.is_certain for drop in found]

    assert verdict("") == [True]
    assert verdict("-A INPUT -p udp -m udp --dport 5000:6000 -j ACCEPT\n") == []
    assert verdict("-A INPUT -d 239.0.0.0/8 -p udp -j ACCEPT\n") == []
    assert verdict("-A INPUT ! -i lo -j LOGDROP\n-A LOGDROP -j DROP\n") == [True]
    assert verdict("-A INPUT -m set --match-set mine src -j ACCEPT\n") == [False]


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
def test_what_nft_itself_writes_is_read() -> None:
    script = (
        "table inet t { chain c { type filter hook input priority 0; policy drop;\n"
        " ct state established accept\n tcp dport 22 accept\n udp dport 5000-6000 accept\n}\n}\n"
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", "nft -f - && nft -j list ruleset"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no namespace: {done.stderr}")
    chains = chains_of_nft(json.loads(done.stdout))
    assert drops(chains, "input", PACKET) == []
    assert [d.is_certain for d in drops(chains, "input", {**PACKET, "udp.dport": 22})] == [True]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["match", "left", "right", "payload", "meta", "jump", "set", "prefix"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.lists(st.lists(_JSON, max_size=3), max_size=4))
def test_no_ruleset_makes_it_raise(rules: list[list[object]]) -> None:
    drops([Chain("inet", "t", "c", "input", "drop", rules)], "input", PACKET)
    chains_of_nft({"nftables": [*rules, {"rule": {"expr": rules}}]})


@given(st.text(max_size=80))
def test_no_iptables_listing_makes_it_raise(text: str) -> None:
    chains_of_iptables(f"-P INPUT DROP\n-A INPUT {text}")
