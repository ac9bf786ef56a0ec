"""One nftables rule that does harm at a host until it is healed, and the words to write it.

Owns the rule's text, its handle and its counter. Invariant: what a fault struck is counted by the
kernel, and stays known after healing.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

from tests.support.process import LabError

if TYPE_CHECKING:
    from tests.netlab.host import Host

__all__ = ["CHAINS", "NAK", "NCF", "ODATA", "PGM_TYPES", "RDATA", "SPM", "SPMR", "Fault", "udp"]

SPM, ODATA, RDATA, NAK, NCF, SPMR = 0x00, 0x04, 0x05, 0x08, 0x0A, 0x0C
"""PGM packet types (RFC 3208 s8), for faults that strike one type only."""

PGM_TYPES = {"SPM": SPM, "ODATA": ODATA, "RDATA": RDATA, "NAK": NAK, "NCF": NCF, "SPMR": SPMR}

CHAINS = {
    "input": ("inet", "type filter hook input priority -10"),
    "ingress": ("netdev", "type filter hook ingress device eth0 priority 0"),
    "egress": ("netdev", "type filter hook egress device eth0 priority 0"),
}
"""Where a fault may strike. ``input`` is behind captures, ``ingress`` before the IP layer (a packet
may be changed there), ``egress`` on the way out (a copy may be made there)."""


def udp(
    *,
    percent: float = 100.0,
    pgm_type: int | None = None,
    source: str = "",
    match: str = "",
) -> str:
    """The condition for that share of the UDP packets, at random.

    ``pgm_type`` restricts it to one PGM type, ``source`` to one sender's address, ``match`` is any
    further nftables condition, such as ``numgen inc mod 100 < 5`` for bursts.
    """
    permille = round(percent * 10)
    if not 0 < permille <= 1000:
        raise ValueError(f"percent is {percent}: 0.1 to 100 are possible")
    words = ["meta l4proto udp"]
    if source:
        words.append(f"ip saddr {source}")
    if pgm_type is not None:
        # Byte 4 of the UDP payload, low nibble (RFC 3208 s8); UDP's own header is not "inner".
        words.append(f"@ih,36,4 {pgm_type:#x}")
    if match:
        words.append(match)
    if permille < 1000:
        words.append(f"numgen random mod 1000 < {permille}")
    return " ".join(words)


class Fault:
    """One nftables rule at a host, in force until ``heal()``."""

    def __init__(
        self, host: Host, condition: str, *, action: str = "drop", chain: str = "input"
    ) -> None:
        self.host = host
        self.condition = condition
        self._chain = f"{CHAINS[chain][0]} lab {chain}"
        answer = host.nft(f"add rule {self._chain} {condition} counter {action}\n")
        found = re.search(r"# handle (\d+)", answer)
        if found is None:
            raise LabError(f"nft named no handle for {condition!r}: {answer!r}")
        self._handle: int | None = int(found[1])
        self._struck = 0
        self.healed_at = 0.0
        """``time.monotonic()`` just before the rule was removed; 0 while it is in force."""

    @property
    def dropped(self) -> int:
        """How many packets the rule has struck so far (kept after healing)."""
        if self._handle is not None:
            command = ["nft", "-j", "list", "chain", *self._chain.split()]
            for item in json.loads(self.host.run(command).stdout)["nftables"]:
                rule = item.get("rule", {})
                if rule.get("handle") == self._handle:
                    self._struck = next(
                        part["counter"]["packets"] for part in rule["expr"] if "counter" in part
                    )
        return self._struck

    def heal(self) -> None:
        """Remove the rule; safe to call twice."""
        if self._handle is not None:
            _ = self.dropped
            self.healed_at = time.monotonic()
            self.host.nft(f"delete rule {self._chain} handle {self._handle}\n")
            self._handle = None
